/** What `decode` does: runs the text, and tells afterwards what it took. */
import type { DriveClient, DriveCommandError } from '../../client/index.ts';
import type { ElementType } from '../../spec/element-type.ts';
import {
  type Comparison,
  comparisonText,
  compareTokens,
  decodeInMemory as referenceTokens,
} from '../model/comparison.ts';
import { createCpuBackend } from '../model/cpu-backend.ts';
import { type DecodedToken, decodeGreedily, stepCountOf } from '../model/decode.ts';
import { DriveDecoding } from '../model/drive-decoding.ts';
import { createMemoryAttention } from '../model/memory-attention.ts';
import { loadModel, type LoadedModel } from '../model/source.ts';
import { CliError } from './cli-error.ts';
import type { DecodeCommandOptions } from './commands/decode.ts';
import { withDrive } from './connect.ts';
import { type DecodeCounts, readStatistics, statisticsSince } from './drive-statistics.ts';
import { jsonPart } from './output.ts';
import { promptBytes } from './prompt.ts';
import { bytesText, countText, durationText, median, percentText } from './quantity.ts';
import { TextWriter } from './text-writer.ts';

const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** --attention memory. */
export async function decodeInMemory(options: DecodeCommandOptions): Promise<void> {
  const loaded = loadModel(options.model, options.tokenizer);
  const prompt = promptBytes(options.prompt);
  const { model } = loaded;
  const writer = new TextWriter(stepCountOf(model, options.tokens));
  const attention = createMemoryAttention(model.shape, options.kvDtype);
  const modules = { ...loaded, backend: createCpuBackend(model), attention };
  for await (const token of decodeGreedily(prompt, options.tokens, modules)) writer.write(token);
  const elapsedMs = writer.elapsedMs;
  writer.finish();
  const types = options.kvDtype === 'f32' ? [] : (['f32'] as const);
  const comparisons = options.compare ? await compare(loaded, prompt, writer.tokens, options.tokens, types) : [];
  const rate = ratePerSecond(writer.tokens.length, elapsedMs);
  if (options.json) {
    sayJson({
      attention: 'memory',
      kvDtype: options.kvDtype,
      tokens: writer.tokens.length,
      tokensPerSecond: rate,
      comparisons,
    });
    return;
  }
  say(
    `${writer.tokens.length} tokens in ${durationText(elapsedMs)} (${rate.toFixed(0)} tokens/s), ` +
      `attention in ${attention.name}`,
  );
  for (const comparison of comparisons) say(`  compared   ${comparisonText(comparison)}`);
}

/** --attention drive. */
export async function decodeInDrive(options: DecodeCommandOptions): Promise<void> {
  const loaded = loadModel(options.model, options.tokenizer);
  await withDrive(options, (client) => decodeWith(client, loaded, options));
}

async function decodeWith(client: DriveClient, loaded: LoadedModel, options: DecodeCommandOptions): Promise<void> {
  const prompt = promptBytes(options.prompt);
  const decoding = await DriveDecoding.open(
    loaded,
    {
      prompt,
      stepCount: options.tokens,
      elementType: options.kvDtype,
      groupTokens: options.groupTokens ?? 0,
      sequenceId: options.sequence,
    },
    client,
  );
  const { id } = decoding.sequence;
  const before = await readStatistics(client);
  if (decoding.storedTokenCount > 0 && !options.json) {
    const { elementTypeK } = decoding.sequence.shape;
    say(
      `sequence ${id} holds ${decoding.storedTokenCount} tokens as ${elementTypeK}: attending to them, then going on`,
    );
  }
  const writer = new TextWriter(decoding.stepCount);
  const interruption = new AbortController();
  const interrupt = (): void => interruption.abort();
  process.once('SIGINT', interrupt);
  let elapsedMs: number;
  try {
    for await (const token of decoding.tokens()) {
      writer.write(token);
      if (interruption.signal.aborted) break;
    }
    elapsedMs = writer.elapsedMs;
    // What was printed is durable when this command ends.
    await client.kv.flush();
    if (interruption.signal.aborted) throw new CliError('interrupted');
  } catch (error) {
    writer.finish();
    throw stoppedError(error, writer, id, options);
  } finally {
    process.off('SIGINT', interrupt);
  }
  writer.finish();
  const counts = statisticsSince(before, await readStatistics(client), decoding.sequence.shape);
  decoding.attention.release();
  const stored = decoding.sequence.shape.elementTypeK;
  const types: ElementType[] = stored === 'f32' ? ['f32'] : ['f32', stored];
  const comparisons = options.compare ? await compare(loaded, prompt, writer.tokens, options.tokens, types) : [];
  const summary: DriveSummary = {
    attention: 'drive',
    sequence: id,
    kvDtype: stored,
    groupTokens: decoding.sequence.shape.groupTokens,
    tokens: writer.tokens.length,
    storedTokens: decoding.storedTokenCount,
    elapsedMs,
    tokensPerSecond: ratePerSecond(writer.tokens.length, elapsedMs),
    attendMsMedian: median(decoding.attention.attendMs),
    attendCount: decoding.attention.attendMs.length,
    ...counts,
    comparisons,
  };
  if (options.json) sayJson(summary);
  else saySummary(summary, options);
}

/** The cause, and how to go on: what the sequence held at the last flush is still there. */
function stoppedError(error: unknown, writer: TextWriter, id: bigint, options: DecodeCommandOptions): CliError {
  const cause = describeFailure(error);
  const going = `sequence ${id} keeps what is durable; go on with: ${continueCommand(id, options)}`;
  return new CliError(`stopped after ${writer.tokens.length} tokens: ${cause}; ${going}`);
}

/** A media error's page is the number beside the status. */
function describeFailure(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, dw0, dw1 } = error as Partial<DriveCommandError>;
  if (code !== 'unrecoveredRead') return error.message;
  return `${error.message}: flash page ${(dw1 ?? 0) * 2 ** 32 + (dw0 ?? 0)}`;
}

function continueCommand(id: bigint, options: DecodeCommandOptions): string {
  const files = options.model === undefined ? '' : ` --model ${options.model} --tokenizer ${options.tokenizer}`;
  const drive = options.drive === undefined ? '' : ` --drive ${options.drive}`;
  const prompt = JSON.stringify(options.prompt);
  return `attndrive decode${files} --prompt ${prompt} --tokens ${options.tokens} --sequence ${id}${drive}`;
}

interface DriveSummary extends DecodeCounts {
  readonly attention: 'drive';
  readonly sequence: bigint;
  readonly kvDtype: ElementType;
  readonly groupTokens: number;
  readonly tokens: number;
  readonly storedTokens: number;
  readonly elapsedMs: number;
  readonly tokensPerSecond: number;
  readonly attendMsMedian: number;
  readonly attendCount: number;
  readonly comparisons: readonly Comparison[];
}

function saySummary(summary: DriveSummary, options: DecodeCommandOptions): void {
  const { sequence, tokens, elapsedMs, tokensPerSecond, kvDtype, groupTokens } = summary;
  say(
    `${tokens} tokens in ${durationText(elapsedMs)} (${tokensPerSecond.toFixed(0)} tokens/s), attention in the drive`,
  );
  const line = (name: string, text: string): void => say(`  ${name.padEnd(10)} ${text}`);
  line('sequence', `${sequence} is kept, flushed: keys and values as ${kvDtype}, ${groupTokens} tokens per page`);
  line('', `go on   ${continueCommand(sequence, { ...options, tokens: 2 * options.tokens })}`);
  line('', `free    attndrive kv reclaim ${sequence}${options.drive === undefined ? '' : ` --drive ${options.drive}`}`);
  line('flash', `${countText(summary.pagesProgrammed)} pages programmed, ${countText(summary.pagesRead)} pages read`);
  line('attended', attendedText(summary));
  line('link', linkText(summary));
  line('time', `${durationText(summary.attendMsMedian)} per ATTN (median of ${countText(summary.attendCount)})`);
  for (const comparison of summary.comparisons) line('compared', comparisonText(comparison));
}

function attendedText({ flashTokens, bufferedTokens }: DriveSummary): string {
  const share = flashTokens + bufferedTokens === 0 ? 0 : flashTokens / (flashTokens + bufferedTokens);
  const counts = `${countText(flashTokens)} tokens from flash, ${countText(bufferedTokens)} from the tail buffer`;
  return `${counts} (${percentText(share)} from flash)`;
}

function linkText({ socketBytes, regionBytes, readBackBytes }: DriveSummary): string {
  const linkBytes = socketBytes + regionBytes;
  const ways = `${bytesText(socketBytes)} by socket, ${bytesText(regionBytes)} by shared memory`;
  const readBack = `${bytesText(readBackBytes)}, ${(readBackBytes / linkBytes).toFixed(1)} times as much`;
  return `${bytesText(linkBytes)} (${ways}); reading the cache back would have moved ${readBack}`;
}

async function compare(
  loaded: LoadedModel,
  prompt: Uint8Array,
  tokens: readonly DecodedToken[],
  stepCount: number,
  types: readonly ElementType[],
): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const type of types) {
    const expected = await referenceTokens(loaded, prompt, stepCount, type);
    comparisons.push(compareTokens(`attention in memory, ${type}`, tokens, expected));
  }
  return comparisons;
}

const ratePerSecond = (tokens: number, elapsedMs: number): number => (1000 * tokens) / elapsedMs;

const sayJson = (value: unknown): void => say(JSON.stringify(value, (_key, part: unknown) => jsonPart(part)));
