/** Buckets of each doubling: a quantile is right to 1 part in 32. */
const BUCKETS_PER_DOUBLING = 16;
/** From 1 ns to 2^50 ns, 13 days. */
const DOUBLINGS = 50;

/** Quantiles of nanoseconds without keeping them: counts in buckets that grow with what they count. */
export class Quantiles {
  readonly #counts = new Float64Array(BUCKETS_PER_DOUBLING * DOUBLINGS + 1);
  count = 0;

  add(nanoseconds: number): void {
    const bucket = Math.ceil(Math.log2(Math.max(1, nanoseconds)) * BUCKETS_PER_DOUBLING);
    const index = Math.min(bucket, this.#counts.length - 1);
    this.#counts[index] = this.#counts[index]! + 1;
    this.count++;
  }

  /** The value that this share of what was added does not exceed: the middle of its bucket. 0 if nothing was added. */
  at(share: number): number {
    if (this.count === 0) return 0;
    let left = Math.ceil(share * this.count);
    let bucket = 0;
    while (left > this.#counts[bucket]!) left -= this.#counts[bucket++]!;
    return bucket === 0 ? 1 : 2 ** ((bucket - 0.5) / BUCKETS_PER_DOUBLING);
  }
}
