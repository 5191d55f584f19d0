import { assert } from '../base/assert.ts';
import { channelOf, type Geometry } from '../nand/geometry.ts';
import type { NandArray } from '../nand/array.ts';

/** Superblocks that a write point may have open: the older one is filled up while the newer one takes full channels. */
export const WINDOW_SUPERBLOCKS = 2;

/** Who writes: hosts, garbage collection, or what moves data for the sake of wear. Each has write points of its own. */
export const writeRoles = ['host', 'gc', 'wear'] as const;
export type WriteRole = (typeof writeRoles)[number];

/** Where one kind of pages is written: up to two open superblocks and the unit that was written last. */
export class WritePoint {
  /** Whose pages its open superblocks count as. */
  readonly role: WriteRole;
  readonly #geometry: Geometry;
  readonly #array: NandArray;
  readonly open: number[] = [];
  #lastUnit: number;

  constructor(role: WriteRole, geometry: Geometry, array: NandArray) {
    this.role = role;
    this.#geometry = geometry;
    this.#array = array;
    this.#lastUnit = geometry.unitCount - 1;
  }

  /** Of the unit after the one that was written last. */
  get nextChannel(): number {
    return channelOf(this.#geometry, (this.#lastUnit + 1) % this.#geometry.unitCount);
  }

  get isWindowFull(): boolean {
    return this.open.length >= WINDOW_SUPERBLOCKS;
  }

  add(superblock: number): void {
    assert(!this.isWindowFull, 'a write point has room for another open superblock');
    this.open.push(superblock);
  }

  remove(superblock: number): void {
    const index = this.open.indexOf(superblock);
    assert(index >= 0, `superblock ${superblock} is open here`);
    this.open.splice(index, 1);
  }

  /** The next page on `channel` (undefined: on any), in the older superblock first; undefined if there is none. */
  next(channel: number | undefined): number | undefined {
    for (const superblock of this.open) {
      const unit = this.#chooseUnit(superblock, channel);
      if (unit === undefined) continue;
      this.#lastUnit = unit;
      return this.#array.nextPpn(superblock, unit);
    }
    return undefined;
  }

  /**
   * The unit after the one written last if it is on the channel and not ahead of its row, so that consecutive groups of a
   * stream lie side by side; else the one that is furthest behind.
   */
  #chooseUnit(superblock: number, channel: number | undefined): number | undefined {
    const { unitCount, channelCount, pagesPerBlock } = this.#geometry;
    const first = (this.#lastUnit + 1) % unitCount;
    const toChannel = channel === undefined ? 0 : (channel + channelCount - (first % channelCount)) % channelCount;
    const stride = channel === undefined ? 1 : channelCount;
    let best: number | undefined;
    let bestPage = pagesPerBlock;
    for (let i = toChannel; i < unitCount; i += stride) {
      const unit = (first + i) % unitCount;
      const page = this.#array.nextPage(superblock, unit);
      if (page < bestPage) {
        best = unit;
        bestPage = page;
      }
    }
    return best;
  }
}
