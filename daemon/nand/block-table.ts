import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
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

/** Erases of the blocks that serve. */
export interface WearSummary {
  readonly eraseCountMin: number;
  readonly eraseCountMax: number;
  readonly eraseCountMean: number;
}

export interface UnusualSuperblock {
  /** Of the most worn of its blocks. */
  readonly eraseCountMax: number;
  /** Blocks that serve instead of its own. */
  readonly replacedBlockCount: number;
  /** Bad blocks, which are replaced at its next erase if there are spares. */
  readonly failedBlockCount: number;
}

/** What the table says beyond how often each superblock was erased. Each list in any order. */
export interface BlockTableState {
  readonly bad: readonly BadBlock[];
  readonly replaced: readonly ReplacedBlock[];
  /** Superblocks. */
  readonly retired: readonly number[];
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
  /** [superblock] -> greatest `eraseCountOffset` of its blocks, 0 for its own; of those with replaced blocks. */
  readonly #offsetMax = new Map<number, number>();
  /** [unit * blocksPerUnit + block]. */
  readonly #bad = new Map<number, BadBlock>();
  /** [unit] -> bad blocks. */
  readonly #badCounts: Uint32Array;
  readonly #retired = new Set<number>();
  /** Superblocks that a block failed in since they were erased. */
  readonly #failing = new Set<number>();
  /** [unit] -> good blocks that serve nowhere, and how often each was erased. */
  readonly #spares: Map<number, number>[];
  /** What `takeChanges` gives next; of the places the last state counts. */
  #changedBad: BadBlock[] = [];
  readonly #changedPlaces = new Set<number>();
  #changedRetired: number[] = [];
  /** Called after every change but those of `restore` and of the erase counts. */
  onChange: () => void = () => undefined;

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
    return this.eraseCounts[superblock]! + this.#offsetAt(superblock, unit);
  }

  /** Erases of the most worn block that serves in the superblock. */
  wearOf(superblock: number): number {
    return this.eraseCounts[superblock]! + (this.#offsetMax.get(superblock) ?? 0);
  }

  isBad(unit: number, block: number): boolean {
    return this.#bad.has(unit * this.blocksPerUnit + block);
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

  get retired(): ReadonlySet<number> {
    return this.#retired;
  }

  /** Over all blocks that serve; zeros if none does. */
  wearSummary(): WearSummary {
    const replacedIn = this.#superblocksWithReplaced();
    let min = Number.POSITIVE_INFINITY;
    let max = 0;
    let sum = 0;
    let count = 0;
    const add = (eraseCount: number, times: number): void => {
      min = Math.min(min, eraseCount);
      max = Math.max(max, eraseCount);
      sum += eraseCount * times;
      count += times;
    };
    for (let superblock = 0; superblock < this.superblockCount; superblock++) {
      if (this.#retired.has(superblock)) continue;
      if (!replacedIn.has(superblock)) add(this.eraseCounts[superblock]!, this.unitCount);
      else for (let unit = 0; unit < this.unitCount; unit++) add(this.eraseCountAt(superblock, unit), 1);
    }
    if (count === 0) return { eraseCountMin: 0, eraseCountMax: 0, eraseCountMean: 0 };
    return { eraseCountMin: min, eraseCountMax: max, eraseCountMean: sum / count };
  }

  #superblocksWithReplaced(): Set<number> {
    return new Set([...this.#replaced.values()].map(({ superblock }) => superblock));
  }

  /** [superblock] -> its blocks, where they are not all its own and good. */
  unusual(): Map<number, UnusualSuperblock> {
    const found = new Map<number, UnusualSuperblock>();
    for (const superblock of [...this.#superblocksWithReplaced(), ...this.#failing]) {
      let eraseCountMax = 0;
      let replacedBlockCount = 0;
      let failedBlockCount = 0;
      for (let unit = 0; unit < this.unitCount; unit++) {
        const block = this.blockAt(superblock, unit);
        eraseCountMax = Math.max(eraseCountMax, this.eraseCountAt(superblock, unit));
        if (block !== superblock) replacedBlockCount++;
        if (this.isBad(unit, block)) failedBlockCount++;
      }
      found.set(superblock, { eraseCountMax, replacedBlockCount, failedBlockCount });
    }
    return found;
  }

  /** A block that serves nowhere; one that serves is failed by `fail`. */
  markBad(bad: BadBlock): void {
    const index = bad.unit * this.blocksPerUnit + bad.block;
    if (this.#bad.has(index)) return;
    this.#bad.set(index, bad);
    this.#badCounts[bad.unit]!++;
    this.#spares[bad.unit]!.delete(bad.block);
    this.#changedBad.push(bad);
    this.onChange();
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
    this.#noteOffset(superblock);
    this.#changedPlaces.add(this.#place(superblock, unit));
    this.onChange();
    return true;
  }

  #noteOffset(superblock: number): void {
    const offsets = Array.from({ length: this.unitCount }, (_, unit) => this.#offsetAt(superblock, unit));
    this.#offsetMax.set(superblock, Math.max(...offsets));
  }

  #offsetAt(superblock: number, unit: number): number {
    return this.#replaced.get(this.#place(superblock, unit))?.eraseCountOffset ?? 0;
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
    this.#changedRetired.push(superblock);
    this.onChange();
    for (let unit = 0; unit < this.unitCount; unit++) {
      const block = this.blockAt(superblock, unit);
      if (!this.isBad(unit, block)) this.#spares[unit]!.set(block, this.eraseCountAt(superblock, unit));
    }
  }

  // --- Keeping it

  /** What has changed since this was last asked. */
  takeChanges(): BlockTableState {
    const replaced = [...this.#changedPlaces].map((place) => this.#replaced.get(place)!);
    const changes = { bad: this.#changedBad, replaced, retired: this.#changedRetired };
    this.#changedBad = [];
    this.#changedPlaces.clear();
    this.#changedRetired = [];
    return changes;
  }

  /**
   * Of a drive that opens, once `eraseCounts` are those of its superblocks. DriveError mediaFormat if the parts don't fit
   * together.
   */
  restore({ bad, replaced, retired }: BlockTableState): void {
    for (const entry of bad) {
      this.#bad.set(entry.unit * this.blocksPerUnit + entry.block, entry);
      this.#badCounts[entry.unit]!++;
    }
    for (const entry of replaced) this.#replaced.set(this.#place(entry.superblock, entry.unit), entry);
    for (const { superblock } of replaced) this.#noteOffset(superblock);
    for (const superblock of retired) this.#retired.add(superblock);
    const replacing = this.#replacing();
    for (let unit = 0; unit < this.unitCount; unit++) this.#spares[unit] = this.#sparesOf(unit, replacing);
    for (const { unit, block, reason } of bad) {
      const superblock = this.#servesItself(block, unit) ? block : replacing.get(unit * this.blocksPerUnit + block);
      if (superblock !== undefined && reason !== 'factory') this.#failing.add(superblock);
    }
  }

  #servesItself(block: number, unit: number): boolean {
    return block < this.superblockCount && !this.#retired.has(block) && !this.#replaced.has(this.#place(block, unit));
  }

  /** [unit * blocksPerUnit + block] -> the superblock in which it serves instead of another. */
  #replacing(): Map<number, number> {
    const replacing = new Map<number, number>();
    for (const { superblock, unit, block } of this.#replaced.values()) {
      if (this.#retired.has(superblock)) continue;
      const index = unit * this.blocksPerUnit + block;
      const other = this.#servesItself(block, unit) ? block : replacing.get(index);
      if (other !== undefined) {
        const detail = `metadata: block ${block} of unit ${unit} serves superblocks ${other} and ${superblock}`;
        throw new DriveError('mediaFormat', detail);
      }
      replacing.set(index, superblock);
    }
    return replacing;
  }

  #sparesOf(unit: number, replacing: ReadonlyMap<number, number>): Map<number, number> {
    const spares = new Map<number, number>();
    for (let block = this.superblockCount; block < this.blocksPerUnit; block++) spares.set(block, 0);
    // A block may have gone from one superblock that was retired to another: its count only grew.
    for (const superblock of this.#retired) {
      const block = this.blockAt(superblock, unit);
      spares.set(block, Math.max(this.eraseCountAt(superblock, unit), spares.get(block) ?? 0));
    }
    for (const block of spares.keys()) {
      if (this.isBad(unit, block) || replacing.has(unit * this.blocksPerUnit + block)) spares.delete(block);
    }
    return spares;
  }
}
