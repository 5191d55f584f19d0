import { assert } from '../base/assert.ts';
import type { Geometry } from './geometry.ts';

/** How a block became bad: so marked by the maker, or by what failed on it. */
export const badBlockReasons = ['factory', 'program', 'erase'] as const;
export type BadBlockReason = (typeof badBlockReasons)[number];

export interface BadBlock {
  readonly unit: number;
  readonly block: number;
  readonly reason: BadBlockReason;
  /** Erases, that which failed included. */
  readonly eraseCount: number;
}

/** Another block than that of the superblock's own number serves there. */
export interface ReplacedBlock {
  readonly superblock: number;
  readonly unit: number;
  readonly block: number;
  /** Erases of the block less those of the superblock: what the two have in common from here on. */
  readonly eraseCountOffset: number;
}

/**
 * The erase blocks behind the superblocks. A unit has `superblockCount` blocks and its spares; superblock s is served by
 * block s of every unit, until one of them is bad: then a spare of its unit takes its place, at the superblock's next
 * erase, when there is nothing to move. A superblock for which a unit has no block left is retired, and its good blocks
 * are spares of their units.
 *
 * Only wear and failures are of blocks. Cells keep their place in the file: it shows what lies behind the replacing, so a
 * physical page number and all that follows from it stay what they are.
 */
export class BlockTable {
  readonly unitCount: number;
  readonly superblockCount: number;
  readonly blocksPerUnit: number;
  /** [superblock] -> how often it was erased. */
  readonly eraseCounts: Uint32Array;
  /** [place] -> what replaced its own block; of retired superblocks too. */
  readonly #replaced = new Map<number, ReplacedBlock>();
  /** [unit * blocksPerUnit + block]. */
  readonly #bad = new Map<number, BadBlock>();
  /** [unit] -> bad blocks. */
  readonly #badCounts: Uint32Array;
  readonly #retired = new Set<number>();
  /** Superblocks that a block failed in since they were erased. */
  readonly #failing = new Set<number>();
  /** [unit] -> good blocks that serve nowhere, and how often each was erased. */
  readonly #spares: Map<number, number>[];

  constructor({ unitCount, superblockCount }: Geometry, spareBlocksPerUnit: number) {
    this.unitCount = unitCount;
    this.superblockCount = superblockCount;
    this.blocksPerUnit = superblockCount + spareBlocksPerUnit;
    this.eraseCounts = new Uint32Array(superblockCount);
    this.#badCounts = new Uint32Array(unitCount);
    const spares = Array.from({ length: spareBlocksPerUnit }, (_, i) => [superblockCount + i, 0] as const);
    this.#spares = Array.from({ length: unitCount }, () => new Map(spares));
  }

  #place(superblock: number, unit: number): number {
    return superblock * this.unitCount + unit;
  }

  blockAt(superblock: number, unit: number): number {
    return this.#replaced.get(this.#place(superblock, unit))?.block ?? superblock;
  }

  /** Erases of the block that serves there. */
  eraseCountAt(superblock: number, unit: number): number {
    const offset = this.#replaced.get(this.#place(superblock, unit))?.eraseCountOffset ?? 0;
    return this.eraseCounts[superblock]! + offset;
  }

  isBad(unit: number, block: number): boolean {
    return this.#bad.has(unit * this.blocksPerUnit + block);
  }

  isRetired(superblock: number): boolean {
    return this.#retired.has(superblock);
  }

  /** Superblocks with a block that failed since they were erased: what it holds is to be moved soon. */
  get failing(): ReadonlySet<number> {
    return this.#failing;
  }

  /** Good blocks of the unit that serve nowhere. */
  spareCount(unit: number): number {
    return this.#spares[unit]!.size;
  }

  /** Good blocks of the unit. */
  goodCount(unit: number): number {
    return this.blocksPerUnit - this.#badCounts[unit]!;
  }

  *badBlocks(): Iterable<BadBlock> {
    yield* this.#bad.values();
  }

  get retiredCount(): number {
    return this.#retired.size;
  }

  /** A block that serves nowhere; one that serves is failed by `fail`. */
  markBad(bad: BadBlock): void {
    const index = bad.unit * this.blocksPerUnit + bad.block;
    if (this.#bad.has(index)) return;
    this.#bad.set(index, bad);
    this.#badCounts[bad.unit]!++;
    this.#spares[bad.unit]!.delete(bad.block);
  }

  /** The block that serves there is bad from now on; `cycle`: which of its erases failed, or the program came after. */
  fail(superblock: number, unit: number, reason: BadBlockReason, cycle: number): void {
    this.markBad({ unit, block: this.blockAt(superblock, unit), reason, eraseCount: cycle });
    this.#failing.add(superblock);
  }

  /** Puts the least worn spare of the unit there, the lowest of several. False if it has none. */
  replace(superblock: number, unit: number): boolean {
    let block: number | undefined;
    let eraseCount = 0;
    for (const [candidate, count] of this.#spares[unit]!) {
      if (block !== undefined && (count > eraseCount || (count === eraseCount && candidate > block))) continue;
      block = candidate;
      eraseCount = count;
    }
    if (block === undefined) return false;
    this.#spares[unit]!.delete(block);
    const eraseCountOffset = eraseCount - this.eraseCounts[superblock]!;
    this.#replaced.set(this.#place(superblock, unit), { superblock, unit, block, eraseCountOffset });
    return true;
  }

  /** Counts the superblock's erase: all of its blocks are good and hold nothing. */
  erased(superblock: number): void {
    this.eraseCounts[superblock]!++;
    this.#failing.delete(superblock);
  }

  /** The superblock is given up for good. */
  retire(superblock: number): void {
    assert(!this.#retired.has(superblock), `superblock ${superblock} is retired once`);
    this.#retired.add(superblock);
    this.#failing.delete(superblock);
    for (let unit = 0; unit < this.unitCount; unit++) {
      const block = this.blockAt(superblock, unit);
      if (!this.isBad(unit, block)) this.#spares[unit]!.set(block, this.eraseCountAt(superblock, unit));
    }
  }
}
