/**
 * ATTN through the SDK against the kernels by themselves: how much of what the drive's kernels can do over its pages does a
 * client get, round trip included? Both sides walk the same pages with the same number of threads, in turn.
 *
 * The kernels' rate is that of the `kernel` benchmark: jobs as the drive cuts them, as many as take some milliseconds, so
 * that nothing of how the threads start or end is in it. A plain read of as many bytes is printed beside it.
 */
import { availableParallelism } from 'node:os';
import type { PreparedAttend } from '../../client/index.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { Progress } from '../cli/output.ts';
import { percentText } from '../cli/quantity.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type Contestant, type Round, medianRate, readContestant, sampleRate } from './contest.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, layerBytes, shapeOf } from './shapes.ts';
import { prepareBatch, type Served, serveDrive } from './stored-drive.ts';
import { StoredLayers } from './stored-layers.ts';
import type { TargetName } from './targets.ts';
import { floatSets, type SetName } from './team-work.ts';
import { ThreadTeam } from './thread-team.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
/** Through the layers once, so that nothing comes from a cache. */
const CYCLE_BYTES = 1024 * MIB;
const QUICK_CYCLE_BYTES = 16 * MIB;
/** What the commands of one timed run walk, about: enough that the first, after a pause, doesn't count. */
const SAMPLE_BYTES = 512 * MIB;
const QUICK_SAMPLE_BYTES = 16 * MIB;
/** Of --rounds. */
const SAMPLES_PER_ROUND = 3;
/** Threads of both sides look out for more work so long before they sleep: whoever is measured meanwhile shares the CPUs. */
const SETTLE_MS = 10;
/** Commands that follow one another in a timed run, for each that is under way at a time. */
const POSTS_PER_DEPTH = 4;

const WARM_UP_POSTS = 3000;
const WARM_UP_TOKENS = 512;

/** How a client asks. */
interface Load {
  readonly name: string;
  /** Commands under way at a time. */
  readonly depth: number;
  /** Entries of a command: each is one layer. */
  readonly batch: number;
  readonly target: TargetName | undefined;
}

const load = (depth: number, batch: number, target?: TargetName): Load => {
  return { name: `depth ${depth}, batch ${batch}`, depth, batch, target };
};
const shortLoads = [load(1, 1, 'attendShort'), load(8, 1, 'attendDeep'), load(1, 8), load(1, 64)];
const longLoads = [load(1, 1, 'attendLong'), load(1, 8)];

export const attendBench: Bench = {
  name: 'attend',
  summary: 'ATTN over the Unix socket with memory regions, against the kernels by themselves',
  async run(options, output) {
    const missing = nativeUnavailable();
    if (missing !== undefined) {
      new Progress().done(`attend: skipped, native kernels are not built (${missing})`);
      return;
    }
    const [few, many] = options.quick ? ([512, 1024] as const) : ([4096, 32_768] as const);
    for (const heads of ['32/8', '40/40'] as const) {
      for (const tokenCount of [few, many]) {
        const shape = shapeOf(heads, tokenCount, options.quick ? QUICK_CYCLE_BYTES : CYCLE_BYTES);
        await measureShape(shape, tokenCount === few ? shortLoads : longLoads, options, output);
      }
    }
  },
};

async function measureShape(
  shape: BenchShape,
  loads: readonly Load[],
  options: BenchOptions,
  output: BenchOutput,
): Promise<void> {
  const progress = new Progress();
  progress.update(`${shape.name}: writing …`);
  const layers = await StoredLayers.open(shape, { pageSizeBytes: 16 * KIB, storages: ['prefill'] });
  const sets = floatSets();
  let team: ThreadTeam | undefined;
  try {
    const workers = options.workers === undefined ? [] : ['--workers', String(options.workers)];
    const threadCount = Math.max(1, options.workers ?? availableParallelism());
    // It maps what it reads while the drive's files are open here.
    team = await ThreadTeam.open(layers.resources, { sets, threadCountMax: threadCount, touched: layers.range });
    const ground = { shape, team, layers, threadCount, set: sets[0]! };
    await serveDrive(await layers.handOver(), workers, (served) =>
      compareLoads({ ...ground, ...served }, loads, options, output, progress),
    );
  } finally {
    progress.clear();
    await team?.close();
    await layers.close();
  }
}

interface Ground extends Served {
  readonly shape: BenchShape;
  readonly layers: StoredLayers;
  readonly team: ThreadTeam;
  readonly threadCount: number;
  readonly set: SetName;
}

async function compareLoads(
  ground: Ground,
  loads: readonly Load[],
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const { shape, layers, team, threadCount, set } = ground;
  const roundCount = options.rounds * SAMPLES_PER_ROUND;
  const read = readContestant(set, threadCount, layers.range);
  const kernel: Contestant = {
    name: 'kernel',
    task: { kind: 'attend', set },
    threadCount,
    items: layers.jobs('prefill'),
    itemBytes: layers.jobBytes('prefill'),
  };
  const sampleBytes = options.quick ? QUICK_SAMPLE_BYTES : SAMPLE_BYTES;
  const clients: LoadedClient[] = [];
  for (const each of loads) clients.push(await LoadedClient.open(ground, shape, each, sampleBytes));
  // Pages are mapped, and the drive checks them, at their first use.
  team.run({ ...kernel.task, items: kernel.items }, threadCount);
  await clients[0]!.walkAll();
  if (!options.quick) await warmUp(ground);
  const rounds: Round[] = [];
  for (let round = 0; round <= roundCount; round++) {
    progress.update(`${shape.name}: ${percentText(round / roundCount)}`);
    await settle();
    const rates = new Map([[read.name, sampleRate(team, read, round)]]);
    for (const [turn, client] of clients.entries()) {
      // Each load has kernel samples of its own, beside its own ones: the machine's state changes within a round.
      await settle();
      rates.set(kernelOf(client.load), sampleRate(team, kernel, round * clients.length + turn));
      await settle();
      rates.set(client.load.name, await client.sampleRate());
    }
    // The first round warms up.
    if (round > 0) rounds.push(rates);
  }
  progress.clear();
  const common = { bench: 'attend', unit: 'GB/s', metric: 'bandwidth', samples: rounds.length } as const;
  const where = `${shape.name}, ${threadCount} threads`;
  const readRate = { name: 'memory read', value: medianRate(rounds, read.name) };
  const [first] = clients;
  const kernelRate = medianRate(rounds, kernelOf(first!.load));
  output.line(compare({ ...common, case: `${where}, kernel`, value: kernelRate }, readRate));
  for (const { load: each, commandBytes, release } of clients) {
    const value = medianRate(rounds, each.name);
    const named = { ...common, case: `${where}, ${each.name}` };
    const beside = { name: 'kernel', value: medianRate(rounds, kernelOf(each)) };
    output.line(compare({ ...named, value }, beside, each.target));
    if (each.depth === 1) {
      const milliseconds = commandBytes / value / 1e6;
      output.line(compare({ ...named, metric: 'time per ATTN', unit: 'ms', value: milliseconds }));
    }
    release();
  }
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, SETTLE_MS));

const kernelOf = ({ name }: Load): string => `kernel beside ${name}`;

/** As many short commands as it takes until the code on both sides is compiled: a decoder sends more within a second. */
async function warmUp({ shape, ...served }: Ground): Promise<void> {
  const request = await prepareBatch(served, perKvHead(shape), 1);
  request.entries[0]!.tokenEnd = WARM_UP_TOKENS;
  for (let i = 0; i < WARM_UP_POSTS; i++) await request.post();
  request.release();
}

const perKvHead = (shape: BenchShape): number => shape.queryHeadCount / shape.kvHeadCount;

/** Requests of one load, posted over and over. */
class LoadedClient {
  readonly load: Load;
  /** K and V bytes that one command walks. */
  readonly commandBytes: number;
  readonly #requests: readonly PreparedAttend[];
  readonly #postCount: number;
  readonly #layerCount: number;
  #nextLayer = 0;

  private constructor(load: Load, shape: BenchShape, requests: readonly PreparedAttend[], sampleBytes: number) {
    this.load = load;
    this.commandBytes = load.batch * layerBytes(shape);
    this.#requests = requests;
    this.#layerCount = shape.layerCount;
    const deep = load.depth === 1 ? 1 : POSTS_PER_DEPTH * load.depth;
    this.#postCount = Math.max(deep, Math.round(sampleBytes / this.commandBytes));
  }

  static async open(served: Served, shape: BenchShape, load: Load, sampleBytes: number): Promise<LoadedClient> {
    const requests: PreparedAttend[] = [];
    for (let i = 0; i < load.depth; i++) requests.push(await prepareBatch(served, perKvHead(shape), load.batch));
    return new LoadedClient(load, shape, requests, sampleBytes);
  }

  /** GB/s of one timed run. */
  async sampleRate(): Promise<number> {
    const startMs = performance.now();
    await this.#post(this.#postCount);
    return (this.#postCount * this.commandBytes) / (performance.now() - startMs) / 1e6;
  }

  /** Every layer once. */
  async walkAll(): Promise<void> {
    await this.#post(Math.ceil(this.#layerCount / this.load.batch));
  }

  /** `depth` commands are under way until all were sent. */
  async #post(count: number): Promise<void> {
    let left = count;
    await Promise.all(
      this.#requests.map(async (request) => {
        while (left-- > 0) {
          for (const entry of request.entries) entry.layer = this.#nextLayer++ % this.#layerCount;
          await request.post();
        }
      }),
    );
  }

  readonly release = (): void => {
    for (const request of this.#requests) request.release();
  };
}
