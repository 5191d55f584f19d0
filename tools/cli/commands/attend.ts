import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { ElementArray } from '../../../client/index.ts';
import { CliError } from '../cli-error.ts';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { printFields, printJson } from '../output.ts';
import { durationText, integerWithin, median, parseSequenceId } from '../quantity.ts';

interface AttendCommandOptions extends DriveOption {
  sequence: bigint;
  layer: number;
  queryHeads?: number;
  queryTokens: number;
  queries?: string;
  seed: number;
  tokenStart: number;
  tokenEnd?: number;
  slidingWindow?: number;
  sinks?: number;
  softCap?: number;
  scale?: number;
  repeat: number;
  json?: boolean;
}

const epilogue = `
Queries are [query token][query head][element], in a file as float32, little-endian. Without a file they are random.

Examples:
  $ attndrive attend --sequence 1 --layer 0 --repeat 100
  $ attndrive attend --sequence 1 --layer 3 --query-heads 32 --queries q.bin --json`;

export function addAttend(program: Command): void {
  const tokens = integerWithin(0, 0x7fff_ffff);
  withDriveOption(
    program
      .command('attend')
      .summary('attend once to a stored layer')
      .description('Attends once to a layer of a stored sequence, to try things out.'),
  )
    .requiredOption('--sequence <ID>', 'sequence', parseSequenceId)
    .option('--layer <N>', 'layer', integerWithin(0, 511), 0)
    .option('--query-heads <N>', 'query heads (default: one per KV head)', integerWithin(1, 65_536))
    .option('--query-tokens <N>', 'query tokens, the last ones of the sequence', integerWithin(1, 4096), 1)
    .option('--queries <FILE>', 'float32 queries')
    .option('--seed <N>', 'of random queries', integerWithin(0, 0xffff_ffff), 1)
    .option('--token-start <N>', 'first token attended to', tokens, 0)
    .option('--token-end <N>', 'one past the last (default: all)', tokens)
    .option('--sliding-window <N>', 'tokens that a query sees behind it', tokens)
    .option('--sinks <N>', 'first tokens that stay visible in spite of the window', tokens)
    .option('--soft-cap <X>', 'logit soft-cap', parseNumber)
    .option('--scale <X>', 'factor of the logits (default: 1/sqrt(head dimension))', parseNumber)
    .option('--repeat <N>', 'times to do it, for the time it takes', integerWithin(1, 1_000_000), 1)
    .option('--json', 'print JSON, with outputs')
    .addHelpText('after', epilogue)
    .action(runAttend);
}

function parseNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new CliError(`"${text}" is not a finite number`, 2);
  return value;
}

async function runAttend(options: AttendCommandOptions): Promise<void> {
  const { layer, queryTokens } = options;
  const { output, statistics, wallMs, deviceMs } = await withDrive(options, async (client) => {
    const sequence = await client.kv.open(options.sequence);
    const { shape, lengths } = await sequence.info();
    const length = lengths[layer];
    if (length === undefined)
      throw new CliError(`layer ${layer}; sequence ${options.sequence} has layers 0 to ${lengths.length - 1}`);
    const queryHeads = options.queryHeads ?? shape.kvHeadCount;
    if (queryHeads % shape.kvHeadCount !== 0) {
      throw new CliError(`--query-heads ${queryHeads}; multiples of ${shape.kvHeadCount}, the KV heads, are allowed`);
    }
    const request = await client.prepareAttend(
      [
        {
          sequence,
          layer,
          queryHeadsPerKvHead: queryHeads / shape.kvHeadCount,
          queryTokenCount: queryTokens,
          queryPosition: Math.max(0, length - queryTokens),
          tokenStart: options.tokenStart,
          tokenEnd: options.tokenEnd,
        },
      ],
      {
        causal: queryTokens > 1,
        statistics: true,
        deviceTime: true,
        slidingWindow: options.slidingWindow,
        sinkCount: options.sinks,
        softCap: options.softCap,
        scale: options.scale,
      },
    );
    const entry = request.entries[0]!;
    entry.queries.set(queriesFor(options, entry.queries.length));
    const wallMs: number[] = [];
    const deviceMs: number[] = [];
    for (let i = 0; i < options.repeat; i++) {
      const startMs = performance.now();
      const { deviceLatencyNs = 0 } = await request.post();
      wallMs.push(performance.now() - startMs);
      deviceMs.push(deviceLatencyNs / 1e6);
    }
    return { output: entry.output.slice(), statistics: entry.statistics.slice(), wallMs, deviceMs };
  });
  // A device takes some time for everything; 0 means that the drive doesn't say how long.
  const isTimed = deviceMs.some((milliseconds) => milliseconds > 0);
  if (options.json) {
    printJson({
      output: [...output],
      statistics: [...statistics],
      milliseconds: spreadOf(wallMs),
      deviceMilliseconds: isTimed ? spreadOf(deviceMs) : null,
      repeat: wallMs.length,
    });
    return;
  }
  printFields([
    ['sequence', `${options.sequence}, layer ${layer}`],
    ...(statistics.every((value) => value === Number.NEGATIVE_INFINITY)
      ? ([['output', 'zeros: no token was attended to']] as const)
      : ([
          ['output', preview(output)],
          ['maximum, log-sum-exp', preview(statistics)],
        ] as const)),
    ['wall time', `${spreadText(wallMs)}, on this machine, round trip included`],
    ['device time', isTimed ? `${spreadText(deviceMs)}, by the drive's profile` : 'not modelled; see start --timing'],
  ]);
}

const spreadOf = (values: readonly number[]): { median: number; smallest: number; largest: number } => ({
  median: median(values),
  smallest: values.reduce((a, b) => Math.min(a, b)),
  largest: values.reduce((a, b) => Math.max(a, b)),
});

function spreadText(values: readonly number[]): string {
  const { median: middle, smallest, largest } = spreadOf(values);
  return `${durationText(middle)} median of ${values.length}, ${durationText(smallest)} to ${durationText(largest)}`;
}

function queriesFor(options: AttendCommandOptions, count: number): Float32Array {
  if (options.queries === undefined) return randomQueries(options.seed, count);
  let bytes: Buffer;
  try {
    bytes = readFileSync(options.queries);
  } catch (error) {
    throw new CliError(`queries ${options.queries}: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (bytes.length !== 4 * count)
    throw new CliError(`queries ${options.queries}: ${bytes.length} bytes, ${4 * count} are needed`);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

function randomQueries(seed: number, count: number): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 0x8000_0000 - 1;
  });
}

const PREVIEW_COUNT = 4;
const preview = (values: ElementArray): string => {
  const shown = [...values.subarray(0, PREVIEW_COUNT)].map((value) => value.toPrecision(5)).join(', ');
  return values.length > PREVIEW_COUNT ? `${shown}, … (${values.length} values)` : shown;
};
