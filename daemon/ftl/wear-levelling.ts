import type { BlockTable } from '../nand/block-table.ts';
import type { EnduranceProfile } from '../profiles/profile.ts';
import type { Pool, Superblocks } from './superblocks.ts';
import type { WriteRole } from './write-point.ts';

/**
 * Superblocks are moved for the sake of wear at most once in so many openings: it costs at most this share of all
 * programs. What it takes to keep cold data's superblocks within the spread is less: see `spreadMaxOf`.
 */
export const OPENINGS_PER_MOVE = 8;

/** Of rated cycles: superblocks that hardly wear need no levelling by the cycle. */
const SPREAD_SHARE = 1 / 50;
const SPREAD_MIN = 16;
const SPREAD_MAX = 1000;
const SPREAD_UNRATED = 64;

/**
 * Erases by which the most worn superblock may be ahead of the least worn full one before that is moved. With a share c of
 * cold superblocks each is moved once while all others are erased so often: c / spread superblocks an opening, which must
 * be less than 1 / OPENINGS_PER_MOVE.
 */
export function spreadMaxOf({ ratedCycles }: EnduranceProfile): number {
  if (ratedCycles === undefined) return SPREAD_UNRATED;
  return Math.min(SPREAD_MAX, Math.max(SPREAD_MIN, Math.round(ratedCycles * SPREAD_SHARE)));
}

/** Chooses the superblock that is opened, and the one that is moved, so that all wear alike. */
export class WearLeveller {
  readonly #superblocks: Superblocks;
  readonly #blocks: BlockTable;
  readonly #spreadMax: number;
  /** Of either pool: it has been tried, and a page can't be read. */
  isLeftAlone: (superblock: number) => boolean = () => false;
  #lastOpened = -1;
  /** Or since it was seen that nothing is to be moved. */
  #openingsSinceMove = 0;

  /** `spreadMax`: erases; Infinity to move nothing. */
  constructor(modules: { superblocks: Superblocks; blocks: BlockTable }, spreadMax: number) {
    this.#superblocks = modules.superblocks;
    this.#blocks = modules.blocks;
    this.#spreadMax = spreadMax;
  }

  /**
   * The free superblock to open: the least worn, the next of several in a circle. What is moved for the sake of wear has
   * lain where it was for long and is likely to go on: it gets the most worn, which rests then. undefined: none is free.
   */
  chooseFree(role: WriteRole): number | undefined {
    const { superblockCount } = this.#superblocks.geometry;
    const sign = role === 'wear' ? -1 : 1;
    let best: number | undefined;
    let bestWear = 0;
    for (let i = 1; i <= superblockCount; i++) {
      const superblock = (this.#lastOpened + i) % superblockCount;
      if (this.#superblocks.state(superblock) !== 'free') continue;
      const wear = sign * this.#blocks.wearOf(superblock);
      if (best !== undefined && wear >= bestWear) continue;
      best = superblock;
      bestWear = wear;
    }
    return best;
  }

  opened(superblock: number): void {
    this.#lastOpened = superblock;
    this.#openingsSinceMove++;
  }

  /**
   * A full superblock of the pool that is to be moved: one in which a block has failed, at once; or, once in a while, the
   * least worn of all that are full if it lags too far behind. undefined: there is none.
   */
  chooseToMove(pool: Pool): number | undefined {
    const isOf = (superblock: number): boolean => this.#superblocks.pool(superblock) === pool;
    for (const superblock of this.#blocks.failing) {
      if (isOf(superblock) && this.#isMovable(superblock)) return superblock;
    }
    if (this.#openingsSinceMove < OPENINGS_PER_MOVE) return undefined;
    const laggard = this.#laggard();
    if (laggard === undefined) this.#openingsSinceMove = 0;
    return laggard !== undefined && isOf(laggard) ? laggard : undefined;
  }

  /** What it chose is being moved. */
  moved(): void {
    this.#openingsSinceMove = 0;
  }

  /** An empty one is free soon anyway. */
  #isMovable(superblock: number): boolean {
    const isFull = this.#superblocks.state(superblock) === 'full' && this.#superblocks.validSlotCount[superblock]! > 0;
    return isFull && !this.isLeftAlone(superblock);
  }

  #laggard(): number | undefined {
    let least: number | undefined;
    let leastWear = 0;
    let wearMax = 0;
    for (let superblock = 0; superblock < this.#superblocks.geometry.superblockCount; superblock++) {
      if (this.#superblocks.state(superblock) === 'bad') continue;
      const wear = this.#blocks.wearOf(superblock);
      wearMax = Math.max(wearMax, wear);
      if ((least !== undefined && wear >= leastWear) || !this.#isMovable(superblock)) continue;
      least = superblock;
      leastWear = wear;
    }
    return least !== undefined && wearMax - leastWear > this.#spreadMax ? least : undefined;
  }
}
