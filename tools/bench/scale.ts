/**
 * How the time of an ATTN grows with tokens, entries, KV heads and workers, and the daemon's memory with all of them. Time
 * should be linear in the bytes walked: each case is set against the time per byte of the longest walk of the same run.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { PreparedAttend } from '../../client/index.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { Progress } from '../cli/output.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { interleave } from './measure.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, layerBytes, shapeOf } from './shapes.ts';
import { prepareBatch, type Served, serveDrive, withStoredDrive } from './stored-drive.ts';

const TOKENS = 1024 * 1024;
const QUICK_TOKENS = 8192;
const QUERY_HEADS_PER_KV_HEAD = 4;
/** What the daemon may hold beside its cache: the drive's bound. */
const ANONYMOUS_BYTES_MAX = 200 * 2 ** 20;
/** Commands before anything is timed, so that the code on both sides is compiled. */
const WARM_UP_POSTS = 1000;
/** Bytes of a timed run, at least: many short commands, or one long. */
const RUN_BYTES = 64 * 2 ** 20;
const QUICK_RUN_BYTES = 2 ** 20;

export const scaleBench: Bench = {
  name: 'scale',
  summary: 'time of ATTN over tokens, entries, heads and workers: linear in bytes? And the memory of the daemon',
  async run(options, output) {
    const progress = new Progress();
    const missing = nativeUnavailable();
    if (missing !== undefined) {
      progress.done(`scale: skipped, native kernels are not built (${missing})`);
      return;
    }
    const shape = shapeOf('32/8', options.quick ? QUICK_TOKENS : TOKENS, 1);
    const workerCounts = options.workers === undefined ? workerCountsHere() : [options.workers];
    await withStoredDrive(shape, progress, async (folder) => {
      for (const workerCount of workerCounts) {
        await serveDrive(folder, ['--workers', String(workerCount)], (served) =>
          measure({ served, shape, workerCount }, options, output, progress),
        );
      }
    });
  },
};

const workerCountsHere = (): number[] => [...new Set([0, 1, availableParallelism()])];

interface Ground {
  readonly served: Served;
  readonly shape: BenchShape;
  readonly workerCount: number;
}

/** What one command walks. */
interface Walk {
  readonly name: string;
  readonly tokenCount: number;
  readonly entryCount: number;
  readonly kvHeadCount: number;
}

function walksOf(shape: BenchShape, quick: boolean): Walk[] {
  const walk = (tokenCount: number, entryCount: number, kvHeadCount: number): Walk => {
    return {
      name: `${tokenCount} tokens × ${entryCount}, ${kvHeadCount} KV heads`,
      tokenCount,
      entryCount,
      kvHeadCount,
    };
  };
  const all = shape.kvHeadCount;
  const walks: Walk[] = [];
  for (let tokens = 256; tokens <= shape.tokenCount; tokens *= 4) walks.push(walk(tokens, 1, all));
  const some = quick ? 1024 : 4096;
  for (const entries of quick ? [8] : [8, 64]) walks.push(walk(some, entries, all));
  for (const heads of quick ? [1] : [1, 2, 4]) walks.push(walk(4 * some, 1, heads));
  return walks;
}

async function measure(ground: Ground, options: BenchOptions, output: BenchOutput, progress: Progress): Promise<void> {
  const { served, shape, workerCount } = ground;
  const walks = walksOf(shape, options.quick);
  const walkers: Walker[] = [];
  for (const walk of walks)
    walkers.push(await Walker.open(served, shape, walk, options.quick ? QUICK_RUN_BYTES : RUN_BYTES));
  progress.update(`${workerCount} workers: warming up …`);
  const longest = walkers.reduce((a, b) => (a.bytes >= b.bytes ? a : b));
  // Pages are checked, and mapped, at their first use.
  await longest.post();
  await walkers[0]!.post(options.quick ? 1 : WARM_UP_POSTS);
  const measured = await interleave(
    options.rounds,
    walkers.map((walker) => ({ name: walker.walk.name, run: () => walker.post(walker.postCount) })),
    (round) => progress.update(`${workerCount} workers: round ${round} of ${options.rounds}`),
  );
  progress.clear();
  const msPerGigabyte = (walker: Walker): number =>
    (measured.get(walker.walk.name)!.medianMs / (walker.postCount * walker.bytes)) * 1e9;
  const common = { bench: 'scale', samples: options.rounds } as const;
  const baseline = { name: `${longest.walk.tokenCount} tokens`, value: msPerGigabyte(longest) };
  for (const walker of walkers) {
    const line = { ...common, case: `${walker.walk.name}, ${workerCount} workers`, metric: 'time per GB' };
    output.line(compare({ ...line, value: msPerGigabyte(walker), unit: 'ms' }, baseline));
    walker.release();
  }
  const anonymous = { case: `daemon after all, ${workerCount} workers`, metric: 'anonymous memory', unit: 'B' };
  const value = anonymousBytes(served.drive.processId);
  output.line(compare({ ...common, ...anonymous, value }, { name: 'bound', value: ANONYMOUS_BYTES_MAX }));
}

/** Posts one walk over and over, each time over other tokens of the long sequence. */
class Walker {
  readonly walk: Walk;
  /** K and V bytes of one command. */
  readonly bytes: number;
  /** Commands of a timed run. */
  readonly postCount: number;
  readonly #request: PreparedAttend;
  readonly #tokenCount: number;
  #nextToken = 0;

  private constructor(walk: Walk, shape: BenchShape, request: PreparedAttend, runBytes: number) {
    this.walk = walk;
    this.bytes = walk.entryCount * layerBytes({ ...shape, ...walk });
    this.postCount = Math.max(1, Math.round(runBytes / this.bytes));
    this.#request = request;
    this.#tokenCount = shape.tokenCount;
  }

  static async open(served: Served, shape: BenchShape, walk: Walk, runBytes: number): Promise<Walker> {
    const queryHeadCount = walk.kvHeadCount * QUERY_HEADS_PER_KV_HEAD;
    const request = await prepareBatch(served, QUERY_HEADS_PER_KV_HEAD, walk.entryCount, queryHeadCount);
    return new Walker(walk, shape, request, runBytes);
  }

  async post(count = 1): Promise<void> {
    for (let i = 0; i < count; i++) {
      for (const entry of this.#request.entries) {
        if (this.#nextToken + this.walk.tokenCount > this.#tokenCount) this.#nextToken = 0;
        entry.tokenStart = this.#nextToken;
        entry.tokenEnd = this.#nextToken + this.walk.tokenCount;
        this.#nextToken += this.walk.tokenCount;
      }
      await this.#request.post();
    }
  }

  release(): void {
    this.#request.release();
  }
}

/** Memory of a process that is of no file. */
function anonymousBytes(processId: number): number {
  const status = readFileSync(`/proc/${processId}/status`, 'utf8');
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) * 1024;
}
