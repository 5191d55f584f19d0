/**
 * The native kernels by themselves: over pages where the drive put them, in jobs as the drive cuts them, against the plain
 * vector read of as many bytes by as many threads. A case goes through at least 1 GiB, so that nothing comes from a cache.
 * A batch is more jobs of the same kind, and no case of its own here.
 */
import { availableParallelism } from 'node:os';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { Progress } from '../cli/output.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type Contestant, contest, medianRate, readContestant, statesOf } from './contest.ts';
import { measurePeers, peersMissing } from './kernel-peers.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, shapeOf } from './shapes.ts';
import { type PageOrder, StoredLayers } from './stored-layers.ts';
import type { TargetName } from './targets.ts';
import { floatSets, type SetName } from './team-work.ts';
import { ThreadTeam } from './thread-team.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const CYCLE_BYTES = 1024 * MIB;
const QUICK_CYCLE_BYTES = 8 * MIB;
/** Peers have no pages: the drive's usual ones are set against them. */
const PEER_PAGE_BYTES = 16 * KIB;
/** Of --rounds. */
const SAMPLES_PER_ROUND = 5;

export const kernelBench: Bench = {
  name: 'kernel',
  summary: 'native kernels over the pages of a drive, against plain memory reads',
  async run(options, output) {
    const missing = nativeUnavailable();
    if (missing !== undefined) {
      new Progress().done(`kernel: skipped, native kernels are not built (${missing})`);
      return;
    }
    const peers = peersMissing();
    if (peers !== undefined) new Progress().done(`kernel: ${peers}`);
    const cycleBytes = options.quick ? QUICK_CYCLE_BYTES : CYCLE_BYTES;
    const [few, many] = options.quick ? ([512, 1024] as const) : ([4096, 32_768] as const);
    for (const heads of ['32/8', '40/40'] as const) {
      for (const tokenCount of [few, many]) {
        const shape = shapeOf(heads, tokenCount, cycleBytes);
        await measureShape({ shape, pageSizeBytes: 16 * KIB, isScattered: tokenCount === few }, options, output);
      }
    }
    const shape = shapeOf('32/8', few, cycleBytes);
    await measureShape({ shape, pageSizeBytes: 4 * KIB, isScattered: true }, options, output);
  },
};

interface Case {
  readonly shape: BenchShape;
  readonly pageSizeBytes: number;
  /** Pages as decode leaves them too, and in no order at all. */
  readonly isScattered: boolean;
}

async function measureShape(
  { shape, pageSizeBytes, isScattered }: Case,
  options: BenchOptions,
  output: BenchOutput,
): Promise<void> {
  const progress = new Progress();
  const name = `${shape.name}, pages of ${pageSizeBytes / KIB} KiB`;
  const orders: readonly PageOrder[] = isScattered ? ['prefill', 'decode', 'shuffled'] : ['prefill'];
  progress.update(`${name}: writing …`);
  const layers = await StoredLayers.open(shape, { pageSizeBytes, storages: orders });
  const threadCounts = [...new Set([1, options.workers || availableParallelism()])];
  const sets = floatSets();
  const threadCountMax = Math.max(...threadCounts);
  const team = await ThreadTeam.open(layers.resources, { sets, threadCountMax, touched: layers.range });
  try {
    for (const threadCount of threadCounts) {
      progress.update(`${name}: ${threadCount} threads …`);
      const round = new Comparison({ shape, pageSizeBytes, layers, orders, sets, threadCount });
      const rounds = contest(team, round.contestants, options.rounds * SAMPLES_PER_ROUND);
      progress.clear();
      round.report(rounds, name, output);
      if (pageSizeBytes === PEER_PAGE_BYTES) {
        await measurePeers({ shape, layers, team, set: sets[0]!, threadCount }, options, progress, output);
      }
    }
  } finally {
    progress.clear();
    await team.close();
    await layers.close();
  }
}

interface Ground {
  readonly shape: BenchShape;
  readonly pageSizeBytes: number;
  readonly layers: StoredLayers;
  readonly orders: readonly PageOrder[];
  /** Instruction sets, best first. */
  readonly sets: readonly SetName[];
  readonly threadCount: number;
}

/** What takes turns on so many threads, and what of it is set against what. */
class Comparison {
  readonly contestants: readonly Contestant[];
  readonly #shape: BenchShape;
  readonly #pageSizeBytes: number;
  readonly #threadCount: number;
  readonly #reads: readonly Contestant[];
  readonly #readByOne: Contestant | undefined;
  /** Kernels against the reads. */
  readonly #contiguous: Contestant[];
  /** The same kernels over scattered pages, against the first of the contiguous ones. */
  readonly #scattered: Contestant[];

  constructor({ shape, pageSizeBytes, layers, orders, sets, threadCount }: Ground) {
    this.#shape = shape;
    this.#pageSizeBytes = pageSizeBytes;
    this.#threadCount = threadCount;
    // Either vector width may be the one that this machine reads memory fastest with.
    const fast = sets.filter((set) => set !== 'portable' || sets.length === 1);
    const best = fast[0]!;
    this.#reads = fast.map((set) => readContestant(set, threadCount, layers.range));
    this.#readByOne = threadCount > 1 ? readContestant(best, 1, layers.range) : undefined;
    const kernel = (order: PageOrder, set: SetName): Contestant => ({
      name: `${order}, ${set}`,
      task: { kind: 'attend', set },
      threadCount,
      items: layers.jobs(order),
      itemBytes: layers.jobBytes(order),
    });
    this.#contiguous = (threadCount > 1 ? [best] : fast).map((set) => kernel('prefill', set));
    this.#scattered = orders.filter((order) => order !== 'prefill').map((order) => kernel(order, best));
    const one = this.#readByOne === undefined ? [] : [this.#readByOne];
    this.contestants = [...one, ...this.#reads, ...this.#contiguous, ...this.#scattered];
  }

  report(rounds: Parameters<typeof medianRate>[0], name: string, output: BenchOutput): void {
    const threads = `${this.#threadCount} ${this.#threadCount === 1 ? 'thread' : 'threads'}`;
    for (const state of statesOf(rounds, this.#readByOne, this.#reads[0]!)) {
      const rateOf = (contestant: Contestant): number => medianRate(state.rounds, contestant.name);
      const where = state.name === '' ? threads : `${threads} (${state.name})`;
      const lineOf = (
        contestant: Contestant,
        against: { readonly name: string; readonly value: number },
        target: TargetName | undefined,
      ): void =>
        output.line(
          compare(
            {
              bench: 'kernel',
              case: `${name}, ${contestant.name}, ${where}`,
              metric: 'bandwidth',
              value: rateOf(contestant),
              unit: 'GB/s',
              samples: state.rounds.length,
            },
            against,
            target,
          ),
        );
      const read = this.#reads.reduce((a, b) => (rateOf(a) >= rateOf(b) ? a : b));
      for (const [i, contestant] of this.#contiguous.entries()) {
        const target = i === 0 ? this.#bestTarget(state.name) : 'kernelAvx2';
        lineOf(contestant, { name: 'memory read', value: rateOf(read) }, target);
      }
      const contiguous = { name: 'contiguous pages', value: rateOf(this.#contiguous[0]!) };
      for (const contestant of this.#scattered) lineOf(contestant, contiguous, this.#scatteredTarget());
    }
  }

  /** Of the best instruction set. Targets are for pages of 16 KiB. */
  #bestTarget(state: string): TargetName | undefined {
    if (this.#pageSizeBytes !== PEER_PAGE_BYTES) return undefined;
    if (this.#threadCount > 1) return state === 'bus-bound' ? 'kernelBusBound' : 'kernelNotBusBound';
    return this.#shape.queryHeadCount > this.#shape.kvHeadCount ? 'kernelGqaOneThread' : 'kernelMhaOneThread';
  }

  #scatteredTarget(): TargetName {
    return this.#pageSizeBytes === PEER_PAGE_BYTES ? 'kernelScattered16' : 'kernelScattered4';
  }
}
