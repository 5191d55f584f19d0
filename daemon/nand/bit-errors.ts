import type { ErrorProfile } from '../profiles/profile.ts';
import { mix } from './chance.ts';

/** What the error correction makes of a page with so many raw bit errors in its worst codeword. */
export interface Correction {
  readonly isCorrectable: boolean;
  /** Reads beyond the first that it takes to find out. */
  readonly retryCount: number;
}

/**
 * Raw bit errors of pages, and the code that corrects them.
 *
 * The raw bit error rate grows in proportion to the program/erase cycles of the page's block, from the fresh rate to the
 * rated one at the rated cycles and on beyond them: in the field it was found to grow far more slowly than exponentially
 * (Schroeder, Lagisetty, Merchant, FAST 2016). Errors in a codeword are binomial. How many the worst codeword of a page
 * has is one draw for each life of the page: a pure function of seed, page and cycle, the same at every read and after
 * every restart. The time since the program and the number of reads make no difference.
 *
 * Up to `correctableBits` are corrected. Beyond that the page is read again, up to `readRetryCount` times, with thresholds
 * shifted a step further each time; each step leaves `retryErrorShare` of the raw errors.
 */
export class BitErrors {
  readonly #profile: ErrorProfile;
  readonly #seed: number;
  readonly #ratedCycles: number;
  readonly #codewordsPerPage: number;
  /** By cycle: probability that a codeword has at most [k] errors. Blocks of a drive are of few cycles at a time. */
  readonly #tables = new Map<number, Float64Array>();

  constructor(
    profile: ErrorProfile,
    chip: { readonly seed: number; readonly ratedCycles: number | undefined; readonly pageSizeBytes: number },
  ) {
    this.#profile = profile;
    this.#seed = mix(chip.seed ^ PURPOSE);
    this.#ratedCycles = chip.ratedCycles ?? Number.POSITIVE_INFINITY;
    this.#codewordsPerPage = Math.ceil(chip.pageSizeBytes / profile.codewordBytes);
  }

  /** Raw bit error rate of a block after so many erases. */
  rate(cycle: number): number {
    const { rawBitErrorRateFresh: fresh, rawBitErrorRateRated: rated } = this.#profile;
    return Math.min(RATE_MAX, fresh + ((rated - fresh) * cycle) / this.#ratedCycles);
  }

  /** Raw bit errors in the worst codeword of a page that was programmed after `cycle` erases of its block. */
  worstBits(ppn: number, cycle: number): number {
    if (this.rate(cycle) === 0) return 0;
    const table = this.#tableOf(cycle);
    // The largest of n draws is at most k if each of them is.
    const uniform = this.#uniform(ppn, cycle) ** (1 / this.#codewordsPerPage);
    return quantile(table, uniform);
  }

  /** False where not even the worst page that can be drawn takes a second read. */
  mayRetry(cycle: number): boolean {
    return this.rate(cycle) > 0 && this.#tableOf(cycle).length - 1 > this.#profile.correctableBits;
  }

  #tableOf(cycle: number): Float64Array {
    let table = this.#tables.get(cycle);
    if (table === undefined) {
      if (this.#tables.size === TABLES_MAX) this.#tables.clear();
      table = cumulativeBinomial(this.#profile.codewordBytes * 8, this.rate(cycle));
      this.#tables.set(cycle, table);
    }
    return table;
  }

  correct(worstBits: number): Correction {
    const { correctableBits, readRetryCount, retryErrorShare } = this.#profile;
    let left = worstBits;
    for (let retryCount = 0; ; retryCount++) {
      if (Math.floor(left) <= correctableBits) return { isCorrectable: true, retryCount };
      if (retryCount === readRetryCount) return { isCorrectable: false, retryCount };
      left *= retryErrorShare;
    }
  }

  get codewordBytes(): number {
    return this.#profile.codewordBytes;
  }

  /** Of a codeword, at the first read. */
  get correctableBits(): number {
    return this.#profile.correctableBits;
  }

  /** From 0 to below 1, in steps of 2^-53. */
  #uniform(ppn: number, cycle: number): number {
    const high = mix(mix(this.#seed ^ ppn) ^ cycle);
    const low = mix(high ^ ppn);
    return (high * 2 ** 21 + (low >>> 11)) / 2 ** 53;
  }
}

const TABLES_MAX = 256;
const PURPOSE = 0x62697473;
/** A block with one bit in ten wrong holds nothing; larger rates would only make the table longer. */
const RATE_MAX = 0.1;
/** What is less likely than this can't be drawn. */
const TAIL = 2 ** -54;

/** [k] -> probability of at most k errors among `bits` bits, each wrong with probability `rate`. */
function cumulativeBinomial(bits: number, rate: number): Float64Array {
  const values: number[] = [];
  let logProbability = bits * Math.log1p(-rate);
  let sum = 0;
  for (let k = 0; k <= bits; k++) {
    const probability = Math.exp(logProbability);
    sum += probability;
    values.push(Math.min(1, sum));
    if (k > bits * rate && probability < TAIL) break;
    logProbability += Math.log((bits - k) / (k + 1)) + Math.log(rate) - Math.log1p(-rate);
  }
  return Float64Array.from(values);
}

/** The smallest k with table[k] > uniform. */
function quantile(table: Float64Array, uniform: number): number {
  let low = 0;
  let high = table.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (table[middle]! > uniform) high = middle;
    else low = middle + 1;
  }
  return low;
}
