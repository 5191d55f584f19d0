import { oobKinds, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import { oobBytesPerPage, pageInBlockOf, superblockOf, unitOf } from '../nand/geometry.ts';
import type { PoolName, UserDataEraser } from './contract.ts';
import type { Flash } from './flash.ts';

/** Read, and overwritten in one turn, between two chances for everybody else. */
const CHUNK_BYTES = 1 << 20;
/** Overwritten before they are synced, so that the operating system need not hold back everybody's writes. */
const UNSYNCED_BYTES_MAX = 64 << 20;

export interface EraserModules {
  readonly flash: Flash;
  /** What was overwritten is durable then. */
  readonly sync: () => Promise<void>;
  /** The same, and a new staging log begins. */
  readonly settle: () => Promise<void>;
}

/** What is known of a superblock before a chunk of it is read. */
interface Before {
  readonly epoch: number;
  /** By unit. */
  readonly nextPages: readonly number[];
}

/**
 * Overwrites what pools have given up. Erasing a superblock only makes its pages writable: in the files the bytes stay
 * until they are programmed again. So what a namespace once held may lie in its own superblocks, in free and retired ones,
 * and in what another namespace's superblocks have not programmed: not yet, or not any more since a crash closed them or
 * one of their blocks failed.
 */
export class Overwriter implements UserDataEraser {
  readonly #modules: EraserModules;

  constructor(modules: EraserModules) {
    this.#modules = modules;
  }

  async erase(pools: readonly PoolName[]): Promise<void> {
    const { flash, sync, settle } = this.#modules;
    const { superblockCount, pagesPerSuperblock, pageSizeBytes } = flash.geometry;
    const chunkPages = Math.min(pagesPerSuperblock, Math.max(1, Math.floor(CHUNK_BYTES / pageSizeBytes)));
    const chunk = new Chunk(flash, chunkPages);
    // The log first: what the end syncs covers the removal of its files, which a power cut could bring back.
    await settle();
    let unsyncedBytes = 0;
    for (let superblock = 0; superblock < superblockCount; superblock++) {
      for (let page = 0; page < pagesPerSuperblock; page += chunkPages) {
        const pageCount = Math.min(chunkPages, pagesPerSuperblock - page);
        unsyncedBytes += (await chunk.erase(superblock, page, pageCount, pools)) * pageSizeBytes;
        if (unsyncedBytes < UNSYNCED_BYTES_MAX) continue;
        unsyncedBytes = 0;
        await sync();
      }
    }
    await settle();
  }
}

class Chunk {
  readonly #flash: Flash;
  readonly #cells: Uint8Array;
  readonly #oob: Uint8Array;
  readonly #zeros: Uint8Array;
  /** All of what was read last could be. */
  #isRead = false;

  constructor(flash: Flash, pagesMax: number) {
    this.#flash = flash;
    this.#cells = new Uint8Array(pagesMax * flash.geometry.pageSizeBytes);
    this.#oob = new Uint8Array(pagesMax * oobBytesPerPage(flash.geometry));
    this.#zeros = new Uint8Array(flash.geometry.pageSizeBytes);
  }

  /** Returns how many pages it overwrote. Those that are zeros stay as they are: files may have holes there. */
  async erase(superblock: number, page: number, pageCount: number, pools: readonly PoolName[]): Promise<number> {
    const { geometry, superblocks, array } = this.#flash;
    const nextPages = Array.from({ length: geometry.unitCount }, (_, unit) => array.nextPage(superblock, unit));
    const before = { epoch: superblocks.epoch[superblock]!, nextPages };
    const firstPpn = superblock * geometry.pagesPerSuperblock + page;
    await this.#read(firstPpn, pageCount);
    // From here on in one turn: a free superblock may be opened, and a page programmed, at any other time.
    const isErased = (i: number): boolean =>
      this.#holdsSomething(i) && this.#isGivenUp(superblock, firstPpn, i, pools, before);
    let erasedCount = 0;
    for (let i = 0; i < pageCount; i++) {
      let end = i;
      while (end < pageCount && isErased(end)) end++;
      if (end === i) {
        if (this.#eraseTorn(firstPpn, i, before)) erasedCount++;
        continue;
      }
      array.media.wipe(firstPpn + i, end - i);
      erasedCount += end - i;
      i = end;
    }
    return erasedCount;
  }

  async #read(firstPpn: number, pageCount: number): Promise<void> {
    const { geometry, array } = this.#flash;
    const { pageSizeBytes } = geometry;
    const cells = this.#cells.subarray(0, pageCount * pageSizeBytes);
    const oob = this.#oob.subarray(0, pageCount * oobBytesPerPage(geometry));
    const reads = [array.media.readCells(firstPpn * pageSizeBytes, cells), array.media.readOob(firstPpn, oob)];
    const [ofCells, ofOob] = await Promise.allSettled(reads);
    this.#isRead = ofCells?.status === 'fulfilled' && ofOob?.status === 'fulfilled';
    // What can't be read may be anything.
    if (!this.#isRead) cells.fill(0xff);
  }

  #holdsSomething(i: number): boolean {
    const oob = this.#oobOf(i);
    return (
      Buffer.compare(this.#cellsOf(i), this.#zeros) !== 0 ||
      Buffer.compare(oob, this.#zeros.subarray(0, oob.length)) !== 0
    );
  }

  #cellsOf(i: number): Uint8Array {
    const { pageSizeBytes } = this.#flash.geometry;
    return this.#cells.subarray(i * pageSizeBytes, (i + 1) * pageSizeBytes);
  }

  #oobOf(i: number): Uint8Array {
    const oobBytes = oobBytesPerPage(this.#flash.geometry);
    return this.#oob.subarray(i * oobBytes, (i + 1) * oobBytes);
  }

  /** Whether its bytes are nobody's, or of a pool that is to be erased. */
  #isGivenUp(superblock: number, firstPpn: number, i: number, pools: readonly PoolName[], before: Before): boolean {
    const { geometry, superblocks, array } = this.#flash;
    const pool = superblocks.pool(superblock);
    if (pool === undefined || pools.includes(pool)) return true;
    const ppn = firstPpn + i;
    const unit = unitOf(geometry, ppn);
    const page = pageInBlockOf(geometry, ppn);
    if (page >= array.nextPage(superblock, unit)) return true;
    // Programmed while it was read: by the other pool, over all that was there.
    if (superblocks.epoch[superblock] !== before.epoch || page >= before.nextPages[unit]!) return false;
    return this.#isRead && this.#keptSlots(ppn, i).every((isKept) => !isKept);
  }

  /**
   * Of a page of another pool: [slot] -> whether its bytes are in use, or recovery may need them. A program that a crash tore
   * has left some of what was there before, even where its entry is whole.
   */
  #keptSlots(ppn: number, i: number): boolean[] {
    const { geometry, superblocks } = this.#flash;
    const slots = Array.from({ length: geometry.slotsPerPage }, (_, slot) => slot);
    const cells = this.#cellsOf(i);
    const entries = slots.map((slot) => this.#flash.checkedEntry(ppn, this.#oobOf(i), slot));
    const kept = slots.map((slot) => {
      if (superblocks.isValid(ppn * geometry.slotsPerPage + slot)) return true;
      const entry = entries[slot];
      return entry !== undefined && this.#flash.isSlotIntact(entry, slot, cells);
    });
    // A page of KV is one as a whole.
    return kept[0] === true && entries[0]?.kind === oobKinds.kv ? kept.fill(true) : kept;
  }

  /** Of a page that stays: slots that a crash tore. True if there were any. */
  #eraseTorn(firstPpn: number, i: number, { epoch, nextPages }: Before): boolean {
    const { geometry, superblocks, array } = this.#flash;
    const ppn = firstPpn + i;
    const superblock = superblockOf(geometry, ppn);
    const isSeen = pageInBlockOf(geometry, ppn) < nextPages[unitOf(geometry, ppn)]!;
    if (!this.#isRead || !isSeen || superblocks.epoch[superblock] !== epoch) return false;
    const zeros = this.#zeros.subarray(0, SLOT_BYTES);
    const torn = [...this.#keptSlots(ppn, i).entries()].filter(([slot, isKept]) => {
      const bytes = this.#cellsOf(i).subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
      return !isKept && Buffer.compare(bytes, zeros) !== 0;
    });
    for (const [slot] of torn) array.media.writeCells(ppn * geometry.pageSizeBytes + slot * SLOT_BYTES, zeros);
    return torn.length > 0;
  }
}
