import { assert } from '../base/assert.ts';
import { describePage, type Geometry, pageInBlockOf, ppnOf, superblockOf, unitOf } from './geometry.ts';
import type { Media } from './media.ts';

/** Why a page is programmed or read. */
export const nandCauses = ['block', 'kv', 'gc'] as const;
export type NandCause = (typeof nandCauses)[number];

export interface NandCounters {
  readonly programs: Record<NandCause, number>;
  readonly reads: Record<NandCause, number>;
  superblocksErased: number;
}

/**
 * NAND rules over the cells, enforced: pages of a die's block are programmed in order, once, until the block is erased;
 * only programmed pages are read. A broken rule is a bug of the room above and stops the drive.
 */
export class NandArray {
  readonly geometry: Geometry;
  readonly media: Media;
  readonly counters: NandCounters = {
    programs: { block: 0, kv: 0, gc: 0 },
    reads: { block: 0, kv: 0, gc: 0 },
    superblocksErased: 0,
  };
  /** [superblock][unit]: page that may be programmed next; pagesPerBlock: none until it is erased. */
  readonly #nextPage: Uint16Array;

  constructor(geometry: Geometry, media: Media) {
    this.geometry = geometry;
    this.media = media;
    this.#nextPage = new Uint16Array(geometry.superblockCount * geometry.unitCount).fill(geometry.pagesPerBlock);
  }

  nextPage(superblock: number, unit: number): number {
    return this.#nextPage[superblock * this.geometry.unitCount + unit]!;
  }

  /** After a start: what the last run left of an open block. */
  restoreNextPage(superblock: number, unit: number, page: number): void {
    assert(page <= this.geometry.pagesPerBlock, `page ${page} of a block`);
    this.#nextPage[superblock * this.geometry.unitCount + unit] = page;
  }

  /** Erases a superblock; `header` is what stands in its header from now on. */
  erase(superblock: number, header: Uint8Array): void {
    // If the disk refuses, the blocks stay as they are.
    this.media.writeSuperblockHeader(superblock, header);
    const first = superblock * this.geometry.unitCount;
    this.#nextPage.fill(0, first, first + this.geometry.unitCount);
    this.counters.superblocksErased++;
  }

  program(ppn: number, data: Uint8Array, oob: Uint8Array, cause: NandCause): void {
    const { geometry } = this;
    const superblock = superblockOf(geometry, ppn);
    const unit = unitOf(geometry, ppn);
    const page = pageInBlockOf(geometry, ppn);
    const next = this.nextPage(superblock, unit);
    assert(page === next, `program of ${describePage(geometry, ppn)} out of order: page ${next} is next`);
    assert(data.length === geometry.pageSizeBytes, 'a program is a whole page');
    // The page counts as used even if the program fails: real cells would be half charged.
    this.#nextPage[superblock * geometry.unitCount + unit] = page + 1;
    this.media.program(ppn, data, oob);
    this.counters.programs[cause]++;
  }

  /** Reads part of the cells; every page touched must be programmed. */
  async read(byteOffset: number, target: Uint8Array, cause: NandCause): Promise<void> {
    const { pageSizeBytes } = this.geometry;
    const first = Math.floor(byteOffset / pageSizeBytes);
    const last = Math.floor((byteOffset + target.length - 1) / pageSizeBytes);
    for (let ppn = first; ppn <= last; ppn++) this.assertProgrammed(ppn);
    this.counters.reads[cause] += last - first + 1;
    await this.media.readCells(byteOffset, target);
  }

  assertProgrammed(ppn: number): void {
    const { geometry } = this;
    const superblock = superblockOf(geometry, ppn);
    const isProgrammed = pageInBlockOf(geometry, ppn) < this.nextPage(superblock, unitOf(geometry, ppn));
    assert(isProgrammed, `read of ${describePage(geometry, ppn)}, which is not programmed`);
  }

  /** Pages of the superblock that can still be programmed. */
  freePages(superblock: number): number {
    let free = 0;
    for (let unit = 0; unit < this.geometry.unitCount; unit++) {
      free += this.geometry.pagesPerBlock - this.nextPage(superblock, unit);
    }
    return free;
  }

  nextPpn(superblock: number, unit: number): number {
    return ppnOf(this.geometry, superblock, this.nextPage(superblock, unit), unit);
  }
}
