import type { AttendCounts, AttendOptions } from './contract.ts';
import { type Lane, lanes } from './job-queue.ts';
import type { TargetPlan } from './plan.ts';
import { Unit, type UnitModules } from './unit.ts';

/** Commands that walk at most this much go by the express lane: 2048 tokens of 8 KV heads of 128 in f16. */
export const EXPRESS_BYTES_MAX = 8 * 2 ** 20;

/** One attend command in progress: its plans, its place among their units, and what has become of them. */
export class Command {
  readonly plans: readonly TargetPlan[];
  readonly counts: AttendCounts;
  readonly unitCount: number;
  readonly walkBytes: number;
  readonly lane: Lane;
  /** Offset of the command record. */
  record = 0;
  /** The unit whose jobs are being prepared. */
  current: Unit | undefined;
  /** The unit after it, if that one waits for a scratch block. */
  waiting: Unit | undefined;
  /** Units whose jobs are prepared by turns, where pages must be brought: the next one first. */
  readonly batch: Unit[] = [];
  /** Units that hold a scratch block. */
  readonly units = new Set<Unit>();
  jobsOut = 0;
  unitsDone = 0;
  failure: Error | undefined;
  readonly #options: AttendOptions;
  readonly #modules: UnitModules;
  #plan = 0;
  #unit = 0;

  constructor(
    options: AttendOptions,
    plans: readonly TargetPlan[],
    modules: UnitModules,
    expressBytesMax = EXPRESS_BYTES_MAX,
  ) {
    this.#options = options;
    this.#modules = modules;
    this.plans = plans;
    this.unitCount = plans.reduce((sum, plan) => sum + unitsOf(plan), 0);
    this.walkBytes = plans.reduce((sum, plan) => sum + plan.walkBytes, 0);
    this.lane = this.walkBytes <= expressBytesMax ? lanes.express : lanes.bulk;
    this.counts = {
      flashTokenCount: plans.reduce((sum, plan) => sum + plan.counts.flashTokenCount, 0),
      bufferedTokenCount: plans.reduce((sum, plan) => sum + plan.counts.bufferedTokenCount, 0),
      pageCount: plans.reduce((sum, plan) => sum + plan.counts.pageCount, 0),
    };
  }

  /** Whether `nextUnit` has more, or one of its units waits. */
  get hasMoreUnits(): boolean {
    return this.waiting !== undefined || this.#plan < this.plans.length;
  }

  /** The next unit; undefined after the last. It has no scratch block yet. */
  nextUnit(): Unit | undefined {
    const plan = this.plans[this.#plan];
    if (!plan) return undefined;
    const unit = new Unit({ plan, index: this.#unit, lane: this.lane }, this.#options, this.#modules);
    this.#unit++;
    if (this.#unit === unitsOf(plan)) {
      this.#unit = 0;
      this.#plan++;
    }
    return unit;
  }
}

const unitsOf = (plan: TargetPlan): number => plan.kvHeadCount * plan.tiles.length;
