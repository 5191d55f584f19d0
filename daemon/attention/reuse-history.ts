import { mix } from './line-index.ts';

/** Two intervals that differ by less are taken for the same. */
const SAME_INTERVAL = 1.25;
/** Two ranks, of 32 bits, that differ by less are not worth a load. */
const SAME_RANK = 2 ** 32 / 64;

/**
 * After how long lines are wanted again, resident or not: the time that passed between the last two uses, counted in pages
 * used by anybody.
 *
 * Decoding goes through all layers of a sequence, token after token: a cycle, of which a cache that gives up what was used
 * longest ago keeps nothing if it is smaller. What should stay is what comes round soonest (the criterion of LIRS: reuse
 * distance against the recency of what is kept; Jiang and Zhang, SIGMETRICS 2002), and among lines that come round equally
 * often always the same ones: then every one of them is a hit each time, and no replacement can have more. Which ones those
 * are, a hash says, so that every sequence and layer has the same share of its lines in the cache.
 */
export class ReuseHistory {
  readonly #usedAt: Float64Array;
  readonly #interval: Float64Array;
  readonly #linesPerRank: number;
  readonly #correlatedUses: number;
  #now = 0;

  /**
   * `correlatedUses`: a line used again before so many pages were is still in the same use. `linesPerRank`: neighbours that
   * stay or go together.
   */
  constructor(options: {
    readonly lineCount: number;
    readonly linesPerRank: number;
    readonly correlatedUses: number;
  }) {
    this.#usedAt = new Float64Array(options.lineCount);
    this.#interval = new Float64Array(options.lineCount);
    this.#linesPerRank = options.linesPerRank;
    this.#correlatedUses = options.correlatedUses;
  }

  /** A page of the line is used. */
  use(line: number): void {
    const now = ++this.#now;
    const before = this.#usedAt[line]!;
    if (before > 0 && now - before >= this.#correlatedUses) this.#interval[line] = now - before;
    this.#usedAt[line] = now;
  }

  /** Whether a line that is used now deserves to stay more than a resident one. */
  deservesMore(candidate: number, resident: number): boolean {
    const wanted = this.#interval[candidate]!;
    // Used for the first time: nothing says that it comes again.
    return wanted !== 0 && this.#isBetter(candidate, wanted, resident, SAME_RANK);
  }

  /** Whether, of two residents, the first is the one to give up. */
  deservesLess(one: number, other: number): boolean {
    return this.#isBetter(other, this.#ageOf(other), one, 0);
  }

  #isBetter(one: number, interval: number, other: number, margin: number): boolean {
    const otherInterval = this.#ageOf(other);
    if (interval * SAME_INTERVAL < otherInterval) return true;
    if (otherInterval * SAME_INTERVAL < interval) return false;
    return this.#rank(one) + margin < this.#rank(other);
  }

  /** What is not used any more gets older than its interval. */
  #ageOf(line: number): number {
    return Math.max(this.#interval[line]!, this.#now - this.#usedAt[line]!);
  }

  #rank(line: number): number {
    return mix(Math.floor(line / this.#linesPerRank));
  }
}
