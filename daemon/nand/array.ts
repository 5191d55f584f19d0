import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { BlockTable } from './block-table.ts';
import { CellErrors } from './cell-errors.ts';
import { type Chip, idealChip } from './chip.ts';
import { type NandFailures, noFailures } from './failures.ts';
import { describePage, type Geometry, pageInBlockOf, ppnOf, superblockOf, unitOf } from './geometry.ts';
import type { Media } from './media.ts';

/** Why a page is programmed or read. */
export const nandCauses = ['block', 'kv', 'gc', 'scrub', 'wear'] as const;
export type NandCause = (typeof nandCauses)[number];

export interface NandCounters {
  readonly programs: Record<NandCause, number>;
  readonly reads: Record<NandCause, number>;
  superblocksErased: number;
}

/** What the dies are like. */
export interface Dies {
  readonly chip: Chip;
  readonly failures: NandFailures;
}

/** Dies without a fault. */
const perfectDies: Dies = { chip: idealChip, failures: noFailures };

/**
 * NAND rules over the cells, enforced: pages of a die's block are programmed in order, once, until the block is erased;
 * only programmed pages are read. A broken rule is a bug of the room above and stops the drive. That a block fails is no
 * broken rule: programs and erases say whether they succeeded, as NAND's status register does.
 */
export class NandArray {
  readonly geometry: Geometry;
  readonly media: Media;
  readonly blocks: BlockTable;
  readonly errors: CellErrors;
  readonly counters: NandCounters = {
    programs: { block: 0, kv: 0, gc: 0, scrub: 0, wear: 0 },
    reads: { block: 0, kv: 0, gc: 0, scrub: 0, wear: 0 },
    superblocksErased: 0,
  };
  /** [superblock][unit]: page that may be programmed next; pagesPerBlock: none until it is erased. */
  readonly #nextPage: Uint16Array;
  /** [superblock]: pages that may still be programmed. */
  readonly #freePages: Uint32Array;
  readonly #failures: NandFailures;

  constructor(geometry: Geometry, media: Media, dies: Dies = perfectDies) {
    this.geometry = geometry;
    this.media = media;
    this.blocks = new BlockTable(geometry, dies.chip.spareBlocksPerUnit);
    this.errors = new CellErrors(dies.chip, geometry, this.blocks);
    this.#failures = dies.failures;
    this.#nextPage = new Uint16Array(geometry.superblockCount * geometry.unitCount).fill(geometry.pagesPerBlock);
    this.#freePages = new Uint32Array(geometry.superblockCount);
  }

  /** Of a new drive: which blocks the maker has marked. */
  markFactoryBad(): void {
    const { unitCount, blocksPerUnit } = this.blocks;
    for (let unit = 0; unit < unitCount; unit++) {
      for (let block = 0; block < blocksPerUnit; block++) {
        if (!this.#failures.isFactoryBad(unit, block)) continue;
        this.blocks.markBad({ unit, block, reason: 'factory', eraseCount: 0 });
      }
    }
  }

  nextPage(superblock: number, unit: number): number {
    return this.#nextPage[superblock * this.geometry.unitCount + unit]!;
  }

  /** After a start: what the last run left of an open block. */
  restoreNextPage(superblock: number, unit: number, page: number): void {
    assert(page <= this.geometry.pagesPerBlock, `page ${page} of a block`);
    this.#setNextPage(superblock, unit, page);
  }

  #setNextPage(superblock: number, unit: number, page: number): void {
    const index = superblock * this.geometry.unitCount + unit;
    this.#freePages[superblock]! += this.#nextPage[index]! - page;
    this.#nextPage[index] = page;
  }

  /**
   * Erases a superblock; `header` is what stands in its header from now on. Blocks that are bad, or fail now, are replaced
   * by spares. False if a unit has none left: the superblock is retired.
   */
  erase(superblock: number, header: Uint8Array): boolean {
    const { unitCount } = this.geometry;
    for (let unit = 0; unit < unitCount; unit++) {
      if (this.#eraseBlock(superblock, unit)) continue;
      this.blocks.retire(superblock);
      return false;
    }
    // If the disk refuses, the blocks stay as they are.
    this.media.writeSuperblockHeader(superblock, header);
    this.blocks.erased(superblock);
    this.errors.erased(superblock);
    for (let unit = 0; unit < unitCount; unit++) this.#setNextPage(superblock, unit, 0);
    this.counters.superblocksErased++;
    return true;
  }

  #eraseBlock(superblock: number, unit: number): boolean {
    const { blocks } = this;
    for (;;) {
      const block = blocks.blockAt(superblock, unit);
      if (!blocks.isBad(unit, block)) {
        const cycle = blocks.eraseCountAt(superblock, unit) + 1;
        if (!this.#failures.eraseFails(superblock, unit, block, cycle)) return true;
        blocks.fail(superblock, unit, 'erase', cycle);
      }
      if (!blocks.replace(superblock, unit)) return false;
    }
  }

  /** False if it failed: the page holds nothing, and its block takes no more pages until the superblock is erased. */
  program(ppn: number, data: Uint8Array, oob: Uint8Array, cause: NandCause): boolean {
    assert(data.length === this.geometry.pageSizeBytes, 'a program is a whole page');
    if (!this.charge(ppn)) return false;
    this.store(ppn, data, oob, cause);
    return true;
  }

  /**
   * The first half of a program: the page is used from here on, whatever happens. `store` of what it is to hold follows
   * before anything is waited for. False as `program`.
   */
  charge(ppn: number): boolean {
    const { geometry, blocks } = this;
    const superblock = superblockOf(geometry, ppn);
    const unit = unitOf(geometry, ppn);
    const page = pageInBlockOf(geometry, ppn);
    const next = this.nextPage(superblock, unit);
    assert(page === next, () => `program of ${describePage(geometry, ppn)} out of order: page ${next} is next`);
    const cycle = blocks.eraseCountAt(superblock, unit);
    if (this.#failures.programFails(ppn, blocks.blockAt(superblock, unit), cycle)) {
      this.#setNextPage(superblock, unit, geometry.pagesPerBlock);
      blocks.fail(superblock, unit, 'program', cycle);
      return false;
    }
    // The page counts as used even if the disk refuses: real cells would be half charged.
    this.#setNextPage(superblock, unit, page + 1);
    return true;
  }

  /** What pages hold that lie side by side, from `ppn` on, and were charged. DriveError writeFault if the disk refuses. */
  store(ppn: number, data: Uint8Array, oob: Uint8Array, cause: NandCause): void {
    const { pageSizeBytes } = this.geometry;
    const pageCount = data.length / pageSizeBytes;
    assert(Number.isInteger(pageCount), 'whole pages are stored');
    this.media.program(ppn, this.errors.programmed(ppn, data), oob);
    this.counters.programs[cause] += pageCount;
  }

  /** Reads part of the cells; every page touched must be programmed. DriveError unrecoveredRead if it can't. */
  async read(byteOffset: number, target: Uint8Array, cause: NandCause): Promise<void> {
    const { pageSizeBytes } = this.geometry;
    const first = Math.floor(byteOffset / pageSizeBytes);
    const last = Math.floor((byteOffset + target.length - 1) / pageSizeBytes);
    for (let ppn = first; ppn <= last; ppn++) this.#beginRead(ppn);
    this.counters.reads[cause] += last - first + 1;
    await this.media.readCells(byteOffset, target);
  }

  /** `read` without waiting; false: something has to be waited for, and nothing was read. DriveError as there. */
  readNow(byteOffset: number, target: Uint8Array, cause: NandCause): boolean {
    const { pageSizeBytes } = this.geometry;
    const first = Math.floor(byteOffset / pageSizeBytes);
    const last = Math.floor((byteOffset + target.length - 1) / pageSizeBytes);
    // Before the dies are asked: they fail a read once, not once for each try to be quick.
    if (!this.media.copyNow(byteOffset, target)) return false;
    for (let ppn = first; ppn <= last; ppn++) this.#beginRead(ppn);
    this.counters.reads[cause] += last - first + 1;
    return true;
  }

  #beginRead(ppn: number): void {
    this.assertProgrammed(ppn);
    if (this.readFails(ppn)) throw new DriveError('unrecoveredRead', 'the die does not answer');
    this.errors.countRead(ppn);
  }

  /** Whether the die fails a read of the page that is made now, here or by a thread that reads by itself. */
  readFails(ppn: number): boolean {
    return this.#failures.readFails(ppn);
  }

  /** Whether some die might fail a read. */
  get mayFailReads(): boolean {
    return this.#failures.mayFailReads;
  }

  assertProgrammed(ppn: number): void {
    const { geometry } = this;
    const superblock = superblockOf(geometry, ppn);
    const isProgrammed = pageInBlockOf(geometry, ppn) < this.nextPage(superblock, unitOf(geometry, ppn));
    assert(isProgrammed, () => `read of ${describePage(geometry, ppn)}, which is not programmed`);
  }

  /** Pages of the superblock that can still be programmed. */
  freePages(superblock: number): number {
    return this.#freePages[superblock]!;
  }

  nextPpn(superblock: number, unit: number): number {
    return ppnOf(this.geometry, superblock, this.nextPage(superblock, unit), unit);
  }
}
