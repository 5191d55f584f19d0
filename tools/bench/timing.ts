/**
 * Device time in a running drive: what a command costs more on this machine when its device time is told, and how exactly
 * `--timing enforce` keeps completions to theirs.
 */
import type { DriveClient } from '../../client/index.ts';
import { Progress } from '../cli/output.ts';
import { type Bench, type BenchDrive, type BenchOptions, withBenchDrive } from './bench.ts';
import { prepareQuery, warmUp } from './drive-layers.ts';
import { interleave } from './measure.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, shapeOf } from './shapes.ts';

const BLOCK_BYTES = 4096;
/** Blocks that are written first, and read then. */
const FILLED_BLOCKS = 2048;
const BLOCKS_PER_WRITE = 256;

export const timingBench: Bench = {
  name: 'timing',
  summary: 'device time in a running drive: what it costs, and how exactly enforce keeps to it',
  async run(options, output) {
    const progress = new Progress();
    for (const load of loads) await measureCost(load, options, output, progress);
    for (const profile of options.quick ? ['smartssd'] : ['smartssd', 'instattention', 'micron-9550']) {
      for (const load of loads) await measureHold(profile, load, options, output, progress);
    }
  },
};

/** Sends this many commands. */
type Send = (count: number) => Promise<void>;

interface Load {
  readonly name: string;
  /** Commands of a timed round, and while completions are held. */
  readonly roundCount: number;
  readonly holdCount: number;
  prepare(bench: BenchDrive, shape: BenchShape): Promise<Send>;
}

const loads: readonly Load[] = [
  reads('4 KiB reads, one at a time', { roundCount: 400, holdCount: 3000, blockCount: 1, depth: 1 }),
  reads('4 KiB reads, 32 at a time', { roundCount: 1600, holdCount: 10_000, blockCount: 1, depth: 32 }),
  reads('128 KiB reads, one at a time', { roundCount: 100, holdCount: 2000, blockCount: 32, depth: 1 }),
  {
    name: 'ATTN, 32/8 heads, 4096 tokens, one at a time',
    roundCount: 10,
    holdCount: 1000,
    async prepare({ client, sequence }, shape) {
      const request = await prepareQuery(client, sequence, shape);
      await warmUp(request, shape);
      return async (count) => {
        for (let i = 0; i < count; i++) await request.post();
      };
    },
  },
];

interface ReadLoad extends Pick<Load, 'roundCount' | 'holdCount'> {
  readonly blockCount: number;
  readonly depth: number;
}

function reads(name: string, { blockCount, depth, ...counts }: ReadLoad): Load {
  return { name, ...counts, prepare: ({ client }) => prepareReads(client, blockCount, depth) };
}

async function prepareReads(client: DriveClient, blockCount: number, depth: number): Promise<Send> {
  const bytes = new Uint8Array(BLOCKS_PER_WRITE * BLOCK_BYTES).fill(1);
  for (let lba = 0; lba < FILLED_BLOCKS; lba += BLOCKS_PER_WRITE) await client.block.write(lba, bytes);
  await client.block.flush();
  let next = 0;
  const readSome = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      next = (next + 997 * blockCount) % FILLED_BLOCKS;
      await client.block.read(Math.min(next, FILLED_BLOCKS - blockCount), blockCount);
    }
  };
  return async (count) => {
    await Promise.all(Array.from({ length: depth }, () => readSome(Math.ceil(count / depth))));
  };
}

const shapeFor = (quick: boolean): BenchShape => shapeOf('32/8', quick ? 512 : 4096, 1);

/** Two drives with the same content, one without device time and one with it, take turns. */
async function measureCost(load: Load, options: BenchOptions, output: BenchOutput, progress: Progress): Promise<void> {
  const shape = shapeFor(options.quick);
  const count = options.quick ? Math.ceil(load.roundCount / 10) : load.roundCount;
  const on = (timing: string, work: (bench: BenchDrive) => Promise<void>): Promise<void> =>
    withBenchDrive(shape, { ...options, profile: 'instattention', start: ['--timing', timing] }, progress, work);
  await on('off', (off) =>
    on('report', async (report) => {
      const sendOff = await load.prepare(off, shape);
      const sendReport = await load.prepare(report, shape);
      const contenders = [
        { name: 'off', run: () => sendOff(count) },
        { name: 'report', run: () => sendReport(count) },
      ];
      const measured = await interleave(options.rounds, contenders, (round) =>
        progress.update(`${load.name}: round ${round} of ${options.rounds}`),
      );
      const microseconds = (name: string): number => (1000 * measured.get(name)!.medianMs) / count;
      progress.clear();
      output.line(
        compare(
          {
            bench: 'timing',
            case: load.name,
            metric: 'wall time, report',
            value: microseconds('report'),
            unit: 'us',
            samples: options.rounds,
          },
          { name: 'off', value: microseconds('off') },
        ),
      );
    }),
  );
}

/** What the drive says of itself once it has kept its completions back for a while. */
async function measureHold(
  profile: string,
  load: Load,
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const shape = shapeFor(options.quick);
  const count = options.quick ? Math.ceil(load.holdCount / 50) : load.holdCount;
  const start = ['--timing', 'enforce'];
  await withBenchDrive(shape, { ...options, profile, start }, progress, async (bench) => {
    const send = await load.prepare(bench, shape);
    progress.update(`${profile}: ${load.name}`);
    const before = await bench.client.controller.driveStatistics();
    await send(count);
    const after = await bench.client.controller.driveStatistics();
    progress.clear();
    const grown = (name: 'timedCommands' | 'deviceLatencySumNs' | 'wallLatencySumNs' | 'completionsLate'): number =>
      after[name] - before[name];
    const samples = grown('timedCommands');
    const line = (
      metric: string,
      value: number,
      unit: string,
      baseline?: { readonly name: string; readonly value: number },
    ): void =>
      output.line(
        compare({ bench: 'timing', case: `${profile}: ${load.name}`, metric, value, unit, samples }, baseline),
      );
    line('wall time, enforce', grown('wallLatencySumNs') / samples / 1000, 'us', {
      name: 'device time',
      value: grown('deviceLatencySumNs') / samples / 1000,
    });
    line('late', (100 * grown('completionsLate')) / samples, '%');
    if (after.completionsHeld === 0) return;
    line('error of the hold, p50', after.holdErrorP50Ns / 1000, 'us');
    line('error of the hold, p99', after.holdErrorP99Ns / 1000, 'us');
  });
}
