/**
 * Who shares a drive with a long ATTN: how long do short ATTNs take, and how many blocks can be read, alone and beside it?
 * Every client is a connection and a thread of its own. The drive's event-loop lag and the pauses of its garbage collector
 * come from its metrics.
 */
import { AdminClient, locateDrive, type PreparedAttend } from '../../client/index.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { Progress } from '../cli/output.ts';
import { BackgroundLoad, type LoadKind } from './background-load.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, shapeOf } from './shapes.ts';
import { prepareBatch, type Served, serveDrive, withStoredDrive } from './stored-drive.ts';

const LONG_TOKENS = 1024 * 1024;
const QUICK_LONG_TOKENS = 8192;
const SHORT_TOKENS = 256;
const BLOCK_BYTES = 4096;
const BLOCK_COUNT = 1024;
/** Short ATTNs of a part, for each of --rounds. */
const POSTS_PER_ROUND = 150;
const QUICK_POSTS_PER_ROUND = 20;
/** Parts of the run: each phase comes as often. */
const PART_COUNT = 3;
const QUICK_PART_COUNT = 1;
/** Until the code on both sides is compiled. */
const WARM_UP_POSTS = 2000;
const QUANTILE_TAIL = 0.99;

export const fairnessBench: Bench = {
  name: 'fairness',
  summary: 'short ATTNs and block reads alone and beside a long ATTN; event-loop lag and garbage collection',
  async run(options, output) {
    const progress = new Progress();
    const missing = nativeUnavailable();
    if (missing !== undefined) {
      progress.done(`fairness: skipped, native kernels are not built (${missing})`);
      return;
    }
    const shape = shapeOf('32/8', options.quick ? QUICK_LONG_TOKENS : LONG_TOKENS, 1);
    const start = options.workers === undefined ? [] : ['--workers', String(options.workers)];
    await withStoredDrive(shape, progress, (folder) =>
      serveDrive(folder, start, (served) => new Neighbours(served, shape, options).run(output, progress)),
    );
  },
};

/** What one phase saw, over all parts. */
class Seen {
  readonly latenciesMs: number[] = [];
  blockReadCount = 0;
  blockReadMs = 0;

  quantileMs(share: number): number {
    const sorted = this.latenciesMs.toSorted((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  }

  get blockReadsPerSecond(): number {
    return (this.blockReadCount / this.blockReadMs) * 1000;
  }
}

class Neighbours {
  readonly #served: Served;
  readonly #shape: BenchShape;
  readonly #options: BenchOptions;
  #nextToken = 0;

  constructor(served: Served, shape: BenchShape, options: BenchOptions) {
    this.#served = served;
    this.#shape = shape;
    this.#options = options;
  }

  async run(output: BenchOutput, progress: Progress): Promise<void> {
    const { client, drive } = this.#served;
    const { quick, rounds } = this.#options;
    const posts = rounds * (quick ? QUICK_POSTS_PER_ROUND : POSTS_PER_ROUND);
    const partCount = quick ? QUICK_PART_COUNT : PART_COUNT;
    await client.block.write(0, new Uint8Array(BLOCK_COUNT * BLOCK_BYTES).fill(1));
    const request = await prepareBatch(this.#served, 4, 1);
    await request.post();
    await this.#post(request, quick ? 1 : WARM_UP_POSTS);
    const admin = new AdminClient(locateDrive(drive.folder).adminAddress!);
    const [alone, besideLong, besideBoth] = [new Seen(), new Seen(), new Seen()];
    const health = new Health(admin);
    for (let part = 0; part < partCount; part++) {
      progress.update(`${this.#shape.name}: part ${part + 1} of ${partCount}`);
      await this.#phase(alone, request, [], posts);
      await this.#blockPhase(alone, request, posts);
      await this.#phase(besideLong, request, ['attend'], posts);
      await health.begin();
      await this.#phase(besideBoth, request, ['attend', 'blockRead'], posts);
      await health.end();
    }
    request.release();
    await admin.close();
    progress.clear();
    this.#report({ alone, besideLong, besideBoth }, health, output);
  }

  /** Short ATTNs beside other clients. */
  async #phase(seen: Seen, request: PreparedAttend, kinds: readonly LoadKind[], posts: number): Promise<void> {
    const loads = new Map<LoadKind, BackgroundLoad>();
    for (const kind of kinds) loads.set(kind, await this.#load(kind));
    seen.latenciesMs.push(...(await this.#post(request, posts)));
    for (const [kind, load] of loads) {
      const { commandCount, elapsedMs } = await load.stop();
      if (kind !== 'blockRead') continue;
      seen.blockReadCount += commandCount;
      seen.blockReadMs += elapsedMs;
    }
  }

  /** Block reads, and nothing else, for as long as short ATTNs take alone. */
  async #blockPhase(seen: Seen, request: PreparedAttend, posts: number): Promise<void> {
    const tookMs = seen.latenciesMs.slice(-posts).reduce((a, b) => a + b, 0);
    const load = await this.#load('blockRead');
    await new Promise((resolve) => setTimeout(resolve, tookMs));
    const { commandCount, elapsedMs } = await load.stop();
    seen.blockReadCount += commandCount;
    seen.blockReadMs += elapsedMs;
    await this.#post(request, 1);
  }

  #load(kind: LoadKind): Promise<BackgroundLoad> {
    const { address } = this.#served.drive;
    return BackgroundLoad.start({ address, kind, queryHeadsPerKvHead: 4, blockCount: BLOCK_COUNT });
  }

  /** Milliseconds of each. They walk the long sequence from end to end, so none finds its tokens in a cache. */
  async #post(request: PreparedAttend, count: number): Promise<number[]> {
    const latenciesMs: number[] = [];
    const entry = request.entries[0]!;
    for (let i = 0; i < count; i++) {
      entry.tokenStart = this.#nextToken;
      entry.tokenEnd = this.#nextToken + SHORT_TOKENS;
      this.#nextToken = (this.#nextToken + SHORT_TOKENS) % this.#shape.tokenCount;
      const startMs = performance.now();
      await request.post();
      latenciesMs.push(performance.now() - startMs);
    }
    return latenciesMs;
  }

  #report(
    { alone, besideLong, besideBoth }: Readonly<Record<'alone' | 'besideLong' | 'besideBoth', Seen>>,
    health: Health,
    output: BenchOutput,
  ): void {
    const long = `ATTN of ${this.#shape.tokenCount} tokens`;
    const common = { bench: 'fairness', samples: alone.latenciesMs.length } as const;
    for (const [beside, seen] of [
      [long, besideLong],
      [`${long} and block reads`, besideBoth],
    ] as const) {
      const named = { ...common, case: `ATTN of ${SHORT_TOKENS} tokens beside ${beside}` };
      for (const [metric, share] of [
        ['latency p50', 0.5],
        ['latency p99', QUANTILE_TAIL],
      ] as const) {
        const line = { ...named, metric, value: seen.quantileMs(share), unit: 'ms' };
        const target = share === QUANTILE_TAIL ? 'fairness' : undefined;
        output.line(compare(line, { name: 'alone', value: alone.quantileMs(share) }, target));
      }
    }
    const named = { ...common, case: `block reads beside short ATTNs and ${long}` };
    const reads = { ...named, metric: '4 KiB reads', value: besideBoth.blockReadsPerSecond, unit: '/s' };
    output.line(compare(reads, { name: 'alone', value: alone.blockReadsPerSecond }));
    const { intervalP99Ms, intervalMaxMs, pauseMeanMs, pauseShare } = health;
    // Lag is what lies above the timer's own 10 ms.
    output.line(compare({ ...named, metric: '10 ms timer, p99', value: intervalP99Ms, unit: 'ms' }));
    output.line(compare({ ...named, metric: '10 ms timer, max', value: intervalMaxMs, unit: 'ms' }));
    output.line(compare({ ...named, metric: 'runtime GC', value: 100 * pauseShare, unit: '%' }));
    if (pauseMeanMs > 0) output.line(compare({ ...named, metric: 'runtime GC pause', value: pauseMeanMs, unit: 'ms' }));
  }
}

/** What the daemon's metrics say of its event loop and its garbage collector, between `begin` and `end`. */
class Health {
  /** Between two turns of a timer in the drive's event loop that is due every 10 ms. */
  intervalP99Ms = 0;
  intervalMaxMs = 0;
  #pauseCount = 0;
  #pauseMs = 0;
  #elapsedMs = 0;
  #begun = { count: 0, milliseconds: 0, atMs: 0 };
  readonly #admin: AdminClient;

  constructor(admin: AdminClient) {
    this.#admin = admin;
  }

  /** Of the time. */
  get pauseShare(): number {
    return this.#pauseMs / this.#elapsedMs;
  }

  get pauseMeanMs(): number {
    return this.#pauseMs / Math.max(1, this.#pauseCount);
  }

  /** A scrape begins a new histogram of lags. */
  async begin(): Promise<void> {
    const text = await this.#admin.metrics();
    this.#begun = { ...pausesIn(text), atMs: performance.now() };
  }

  async end(): Promise<void> {
    const text = await this.#admin.metrics();
    const { count, milliseconds } = pausesIn(text);
    this.#pauseCount += count - this.#begun.count;
    this.#pauseMs += milliseconds - this.#begun.milliseconds;
    this.#elapsedMs += performance.now() - this.#begun.atMs;
    this.intervalP99Ms = Math.max(this.intervalP99Ms, sumOf(text, 'nodejs_eventloop_lag_p99_seconds') * 1000);
    this.intervalMaxMs = Math.max(this.intervalMaxMs, sumOf(text, 'nodejs_eventloop_lag_max_seconds') * 1000);
  }
}

const pausesIn = (text: string): { count: number; milliseconds: number } => ({
  count: sumOf(text, 'nodejs_gc_duration_seconds_count'),
  milliseconds: sumOf(text, 'nodejs_gc_duration_seconds_sum') * 1000,
});

/** Of all samples of a metric in an exposition text. */
function sumOf(text: string, name: string): number {
  const samples = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}
