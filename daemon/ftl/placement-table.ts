/** Of a sequence: the same for all its pages, which die together and so lie together. */
export const placementOf = (sequenceId: bigint): number => Number(BigInt.asUintN(31, sequenceId));

/** Placements remembered for each write point. */
const REMEMBERED = 16;

/**
 * Which write point each placement (each sequence) writes by. It stays with it; a new one takes the write point that has
 * not been used for longest. So as long as fewer sequences grow than there are write points, each has one of its own, and
 * if more do, each shares it with the same few. A placement that is not used for long is forgotten.
 */
export class PlacementTable {
  readonly #countMax: number;
  /** [placement] -> write point, the least recently used first. */
  readonly #placements = new Map<number, number>();
  /** Write points, the least recently used first. */
  readonly #writePoints: Set<number>;
  /** Pages mostly come in rows. */
  #last: { readonly placement: number; readonly writePoint: number } | undefined;

  constructor(writePointCount: number) {
    this.#countMax = REMEMBERED * writePointCount;
    this.#writePoints = new Set(Array.from({ length: writePointCount }, (_, index) => index));
  }

  writePointOf(placement: number): number {
    if (this.#last?.placement === placement) return this.#last.writePoint;
    const writePoint = this.#placements.get(placement) ?? this.#leastUsed();
    this.#placements.delete(placement);
    this.#placements.set(placement, writePoint);
    if (this.#placements.size > this.#countMax) this.#placements.delete(first(this.#placements.keys()));
    this.#writePoints.delete(writePoint);
    this.#writePoints.add(writePoint);
    this.#last = { placement, writePoint };
    return writePoint;
  }

  #leastUsed(): number {
    return first(this.#writePoints);
  }
}

function first(numbers: Iterable<number>): number {
  for (const number of numbers) return number;
  throw new RangeError('nothing to take');
}
