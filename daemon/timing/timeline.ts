/** Idle stretches that a timeline remembers. */
const GAPS_MAX = 32;

/**
 * When something that serves one at a time is busy: a channel, a direction of the link, a compute unit. Whoever comes
 * later may be served earlier, in a gap that is long enough, because requests come in the order of their commands and not
 * in that of the time at which they need it. Of more than `GAPS_MAX` gaps the oldest is given up. Nanoseconds, whole.
 */
export class Timeline {
  readonly #gapStartNs = new Float64Array(GAPS_MAX);
  readonly #gapEndNs = new Float64Array(GAPS_MAX);
  #gapCount = 0;
  #endNs = 0;
  /** Sum of all that was reserved. */
  busyNs = 0;

  /** End of the last reservation: behind it everything is free. */
  get endNs(): number {
    return this.#endNs;
  }

  /** Takes the first free stretch of this length at or after `readyNs`; returns its end. */
  reserve(readyNs: number, durationNs: number): number {
    if (durationNs === 0) return readyNs;
    this.busyNs += durationNs;
    // Most come for the last gaps: the others are passed over from the end.
    let first = this.#gapCount;
    while (first > 0 && this.#gapEndNs[first - 1]! > readyNs) first--;
    for (let gap = first; gap < this.#gapCount; gap++) {
      const startNs = Math.max(readyNs, this.#gapStartNs[gap]!);
      const endNs = startNs + durationNs;
      if (endNs > this.#gapEndNs[gap]!) continue;
      this.#fill(gap, startNs, endNs);
      return endNs;
    }
    if (readyNs > this.#endNs) this.#addGap(this.#gapCount, this.#endNs, readyNs);
    this.#endNs = Math.max(readyNs, this.#endNs) + durationNs;
    return this.#endNs;
  }

  #fill(gap: number, startNs: number, endNs: number): void {
    const gapEndNs = this.#gapEndNs[gap]!;
    const isLeftEmpty = startNs === this.#gapStartNs[gap];
    const isRightEmpty = endNs === gapEndNs;
    if (isLeftEmpty && isRightEmpty) this.#removeGaps(gap, 1);
    else if (isLeftEmpty) this.#gapStartNs[gap] = endNs;
    else {
      this.#gapEndNs[gap] = startNs;
      if (!isRightEmpty) this.#addGap(gap + 1, endNs, gapEndNs);
    }
  }

  #addGap(at: number, startNs: number, endNs: number): void {
    let index = at;
    if (this.#gapCount === GAPS_MAX) {
      this.#removeGaps(0, 1);
      index--;
    }
    this.#gapStartNs.copyWithin(index + 1, index, this.#gapCount);
    this.#gapEndNs.copyWithin(index + 1, index, this.#gapCount);
    this.#gapStartNs[index] = startNs;
    this.#gapEndNs[index] = endNs;
    this.#gapCount++;
  }

  #removeGaps(first: number, count: number): void {
    this.#gapStartNs.copyWithin(first, first + count, this.#gapCount);
    this.#gapEndNs.copyWithin(first, first + count, this.#gapCount);
    this.#gapCount -= count;
  }
}
