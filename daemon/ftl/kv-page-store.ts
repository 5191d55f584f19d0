import { untimed } from '../timing/device-job.ts';
import { oobKinds } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { Geometry } from '../nand/geometry.ts';
import {
  type CheckpointSink,
  type KvPageRun,
  type KvRunPages,
  type KvPages,
  type KvRunTarget,
  type Lpn,
  type OperationCounter,
  type PagePins,
  type PageReservation,
  type Ppn,
  PROGRAM_PAGES_MAX,
} from './contract.ts';
import type { Flash, KvPageEntries, OobEntry } from './flash.ts';
import type { Relocatable } from './mover.ts';
import type { PageWriter } from './page-writer.ts';
import { SegmentedMap, UNMAPPED } from './segmented-map.ts';
import type { Space, SpaceReservation } from './space.ts';

export interface KvPageModules {
  readonly flash: Flash;
  readonly writer: PageWriter;
  readonly space: Space;
  readonly operations: OperationCounter;
  readonly arena: Arena;
  readonly checkpoint: () => Promise<void>;
}

/**
 * Page numbers beyond the promised pages: a number that was freed is not given again before a checkpoint, so that a lost
 * reclaim can't come back onto somebody else's bytes.
 */
const spareNumbers = (pageCount: number): number => Math.max(1024, Math.ceil(pageCount / 8));
/** Holders that a page may have. */
export const REFERENCES_MAX = 0xffff;

/** Numbers of logical pages, those included that wait to be given again. */
export function kvPageNumberCount(geometry: Geometry): number {
  const pageCount = geometry.kvCapacityBytes / geometry.pageSizeBytes;
  return pageCount + spareNumbers(pageCount);
}

/** The KV namespace: logical pages, whole flash pages, counted references. */
export class KvPageStore implements KvPages, Relocatable {
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly pageCount: number;
  readonly map: SegmentedMap;
  readonly #modules: KvPageModules;
  #references: Uint16Array;
  /** Numbers to give out; the first `#freeCount` count. */
  readonly #free: Uint32Array;
  #freeCount = 0;
  /** In order of the operation that freed them. */
  #freedLater: { readonly lpn: number; readonly operation: number }[] = [];
  #liveCount = 0;
  /** By superblock: the latest `pinAll` that pinned it. */
  readonly #pinStamps: Float64Array;
  #pinStamp = 0;
  #reservedCount = 0;
  /** Of the run that is being programmed. */
  readonly #ppns = new Uint32Array(PROGRAM_PAGES_MAX);
  readonly #runOperations = new Float64Array(PROGRAM_PAGES_MAX);

  constructor(modules: KvPageModules) {
    this.#modules = modules;
    const { geometry } = modules.flash;
    this.pageSizeBytes = geometry.pageSizeBytes;
    this.channelCount = geometry.channelCount;
    this.pageCount = geometry.kvCapacityBytes / geometry.pageSizeBytes;
    const numberCount = kvPageNumberCount(geometry);
    this.map = new SegmentedMap(metaNamespaces.kvMap, numberCount);
    this.#references = new Uint16Array(numberCount);
    this.#free = new Uint32Array(numberCount);
    this.#pinStamps = new Float64Array(geometry.superblockCount);
  }

  get lpnCount(): number {
    return this.#references.length;
  }

  get freePageCount(): number {
    return this.pageCount - this.#liveCount - this.#reservedCount;
  }

  // --- Programming ---

  assertWritable(): void {
    this.#modules.space.assertWritable();
  }

  async reserve(pageCount: number): Promise<PageReservation> {
    if (pageCount > this.freePageCount) {
      throw new DriveError(
        'capacityExceeded',
        `${pageCount} KV pages needed, ${this.freePageCount} of ${this.pageCount} free; reclaim sequences`,
      );
    }
    this.#reservedCount += pageCount;
    try {
      // Pages freed before the call are gone for good after one checkpoint; others may be freed, and reserved, meanwhile.
      while (!this.#areReservedFree()) await this.#modules.checkpoint();
      const space = await this.#modules.space.reserve(pageCount);
      return new KvReservation(space, (count) => (this.#reservedCount -= count));
    } catch (error) {
      this.#reservedCount -= pageCount;
      throw error;
    }
  }

  /**
   * Whether there are numbers for what is reserved, and room for it beside what a crash could bring back: else the drive
   * might come up with more pages than it promises.
   */
  #areReservedFree(): boolean {
    const heldAtWorst = this.#liveCount + this.#freedLater.length;
    return this.#freeCount >= this.#reservedCount && heldAtWorst + this.#reservedCount <= this.pageCount;
  }

  nextChannel(placement: number): number {
    return this.#modules.writer.nextKvChannel(placement);
  }

  program(
    reservation: PageReservation,
    run: KvPageRun,
    pages: KvRunPages,
    target: KvRunTarget,
    lpns: Uint32Array,
  ): void {
    assert(reservation instanceof KvReservation, 'the reservation is of this namespace');
    const { pageCount } = run;
    assert(pageCount > 0 && pageCount <= PROGRAM_PAGES_MAX, () => `a run of ${pageCount} pages`);
    assert(this.#freeCount >= pageCount, 'page numbers were reserved');
    for (let i = 0; i < pageCount; i++) {
      reservation.take();
      lpns[i] = this.#free[--this.#freeCount]!;
    }
    try {
      this.#writeRun(run, pages, target, lpns);
    } catch (error) {
      const { operations } = this.#modules;
      // What reached the cells may look whole after a restart: the numbers wait for a checkpoint too.
      for (let i = 0; i < pageCount; i++) this.#freedLater.push({ lpn: lpns[i]!, operation: operations.next() });
      throw error;
    }
    const { superblocks, geometry } = this.#modules.flash;
    const { slotsPerPage } = geometry;
    for (let i = 0; i < pageCount; i++) {
      const lpn = lpns[i]!;
      this.map.set(lpn, this.#ppns[i]!);
      this.#references[lpn] = 1;
      superblocks.markValid(this.#ppns[i]! * slotsPerPage, slotsPerPage);
    }
    this.#liveCount += pageCount;
  }

  /** Pages that come to lie side by side are stored together. Their numbers are left in `#ppns`. */
  #writeRun(run: KvPageRun, pages: KvRunPages, target: KvRunTarget, lpns: Uint32Array): void {
    const { writer, operations } = this.#modules;
    const { channel, placement, job = untimed } = target;
    const ppns = this.#ppns;
    const entries = { run, lpns, operations: this.#runOperations, checksums: pages.checksums };
    let first = 0;
    for (let i = 0; i < run.pageCount; i++) {
      entries.operations[i] = operations.next();
      const pageChannel = (channel + i) % this.channelCount;
      const ppn = writer.charge({ pool: 'kv', role: 'host', placement, channel: pageChannel, job });
      ppns[i] = ppn;
      const isNext = i > first && ppn === ppns[i - 1]! + 1;
      if (isNext || i === first) continue;
      this.#store(pages.offset, first, i, entries);
      first = i;
    }
    this.#store(pages.offset, first, run.pageCount, entries);
  }

  /** Pages [from, to) of a run, which lie side by side. */
  #store(pageOffset: number, from: number, to: number, entries: KvPageEntries): void {
    const { arena, flash } = this.#modules;
    const data = arena.view(pageOffset + from * this.pageSizeBytes, (to - from) * this.pageSizeBytes);
    flash.storeKv(this.#ppns[from]!, data, from, entries);
  }

  // --- References ---

  referenceCount(lpn: Lpn): number {
    return this.#references[lpn]!;
  }

  retain(lpn: Lpn): void {
    const references = this.#references[lpn]!;
    assert(references > 0, () => `page ${lpn} has a holder`);
    if (references === REFERENCES_MAX) {
      throw new DriveError('sequenceLimit', `KV page ${lpn} is shared by ${references} sequences already`);
    }
    this.#references[lpn] = references + 1;
  }

  release(lpn: Lpn): void {
    const references = this.#references[lpn]!;
    assert(references > 0, () => `page ${lpn} has a holder`);
    this.#references[lpn] = references - 1;
    if (references > 1) return;
    const { flash, operations } = this.#modules;
    const operation = operations.next();
    const { slotsPerPage } = flash.geometry;
    flash.superblocks.markInvalid(this.map.get(lpn) * slotsPerPage, slotsPerPage, operation);
    this.map.set(lpn, UNMAPPED);
    this.#liveCount--;
    this.#freedLater.push({ lpn, operation });
  }

  // --- Reading ---

  pin(lpn: Lpn): Ppn {
    const ppn = this.locate(lpn);
    this.#modules.flash.superblocks.pin(this.#superblockOf(ppn));
    return ppn;
  }

  locate(lpn: Lpn): Ppn {
    const ppn = this.map.get(lpn);
    assert(ppn !== UNMAPPED, () => `page ${lpn} is mapped`);
    return ppn as Ppn;
  }

  unpin(ppn: Ppn): void {
    this.#modules.flash.superblocks.unpin(this.#superblockOf(ppn));
  }

  pinAll(logical: Uint32Array, physical: Uint32Array): PagePins {
    const { superblocks, geometry } = this.#modules.flash;
    const { pagesPerSuperblock } = geometry;
    const { entries } = this.map;
    const stamp = ++this.#pinStamp;
    const pinned: number[] = [];
    // Pages of the superblock at hand; most pages lie in that of the page before.
    let first = 0;
    let end = 0;
    for (let i = 0; i < logical.length; i++) {
      const ppn = entries[logical[i]!]!;
      physical[i] = ppn;
      if (ppn >= first && ppn < end) continue;
      assert(ppn !== UNMAPPED, () => `page ${logical[i]} is mapped`);
      const superblock = Math.floor(ppn / pagesPerSuperblock);
      first = superblock * pagesPerSuperblock;
      end = first + pagesPerSuperblock;
      if (this.#pinStamps[superblock] === stamp) continue;
      this.#pinStamps[superblock] = stamp;
      pinned.push(superblock);
    }
    for (const superblock of pinned) superblocks.pin(superblock);
    return {
      release: () => {
        for (const superblock of pinned) superblocks.unpin(superblock);
      },
    };
  }

  async read(lpn: Lpn, targetOffset: number): Promise<void> {
    const ppn = this.pin(lpn);
    try {
      const target = this.#modules.arena.view(targetOffset, this.pageSizeBytes);
      await this.#modules.flash.readKvPage(ppn, lpn, target);
    } finally {
      this.unpin(ppn);
    }
  }

  readNow(lpn: Lpn, byteOffset: number, sizeBytes: number, targetOffset: number): boolean {
    const target = this.#modules.arena.view(targetOffset, sizeBytes);
    return this.#modules.flash.readKvBytesNow(this.locate(lpn), byteOffset, lpn, target);
  }

  isVerified(ppn: Ppn): boolean {
    return this.#modules.flash.superblocks.isVerified(ppn * this.#modules.flash.geometry.slotsPerPage);
  }

  markVerified(ppn: Ppn): void {
    const { flash } = this.#modules;
    flash.superblocks.markVerified(ppn * flash.geometry.slotsPerPage);
    flash.array.errors.countRead(ppn);
  }

  areReadable(pages: Uint32Array, from: number, to: number): boolean {
    const { superblocks, geometry, array } = this.#modules.flash;
    return !array.mayFailReads && superblocks.arePagesVerified(pages, from, to, geometry.slotsPerPage);
  }

  eraseCount(ppn: Ppn): number {
    return this.#modules.flash.superblocks.epoch[this.#superblockOf(ppn)]!;
  }

  readFails(ppn: Ppn): boolean {
    return this.#modules.flash.array.readFails(ppn);
  }

  unrecovered(ppn: Ppn, owner: string, isUnreadable: boolean): DriveError {
    const { flash } = this.#modules;
    flash.array.errors.countRead(ppn);
    const cause = isUnreadable ? new DriveError('unrecoveredRead', 'neither the die nor the disk gives it') : undefined;
    return flash.unrecovered(ppn, owner, cause);
  }

  countReads(pageCount: number): void {
    this.#modules.flash.readsOutside += pageCount;
  }

  #superblockOf(ppn: number): number {
    return Math.floor(ppn / this.#modules.flash.geometry.pagesPerSuperblock);
  }

  // --- Garbage collection ---

  isCurrent(entry: OobEntry, slot: number): boolean {
    return (
      entry.kind === oobKinds.kv && this.map.get(entry.logical) * this.#modules.flash.geometry.slotsPerPage === slot
    );
  }

  moved(entry: OobEntry, from: number, to: number): void {
    const { superblocks, geometry } = this.#modules.flash;
    this.map.set(entry.logical, to / geometry.slotsPerPage);
    superblocks.markInvalid(from, geometry.slotsPerPage, this.#modules.operations.next());
    superblocks.markValid(to, geometry.slotsPerPage);
  }

  // --- Durability ---

  checkpoint(sink: CheckpointSink): void {
    this.map.checkpoint(sink);
  }

  /** A checkpoint that covers everything up to `operation` is durable. */
  checkpointed(operation: number): void {
    const covered = this.#freedLater.findIndex((freed) => freed.operation > operation);
    const freed = this.#freedLater.splice(0, covered < 0 ? this.#freedLater.length : covered);
    for (const { lpn } of freed) this.#free[this.#freeCount++] = lpn;
  }

  /**
   * Recovery: takes the holders that the KV room counted. Pages without one are free at once, since nothing is programmed
   * before the opening checkpoint. DriveError mediaFormat if map and holders don't fit together.
   */
  adopt(references: Uint16Array): void {
    const { superblocks, geometry } = this.#modules.flash;
    assert(references.length === this.lpnCount, 'holders of every page number');
    this.#references = references;
    const { entries } = this.map;
    for (let lpn = entries.length - 1; lpn >= 0; lpn--) {
      const isMapped = entries[lpn] !== UNMAPPED;
      if (references[lpn] === 0) {
        if (isMapped) this.map.set(lpn, UNMAPPED);
        this.#free[this.#freeCount++] = lpn;
      } else if (!isMapped) {
        throw new DriveError('mediaFormat', `metadata: KV page ${lpn} belongs to a sequence but is nowhere`);
      }
    }
    this.#liveCount = superblocks.claimAll('kv', entries, geometry.slotsPerPage, references);
    if (this.#liveCount > this.pageCount) {
      throw new DriveError(
        'mediaFormat',
        `metadata: ${this.#liveCount} KV pages are held, there are ${this.pageCount}`,
      );
    }
  }
}

/** Pages and page numbers set aside. */
class KvReservation implements PageReservation {
  readonly #space: SpaceReservation;
  readonly #giveBack: (count: number) => void;

  constructor(space: SpaceReservation, giveBack: (count: number) => void) {
    this.#space = space;
    this.#giveBack = giveBack;
  }

  get remaining(): number {
    return this.#space.remaining;
  }

  take(): void {
    this.#space.take();
    this.#giveBack(1);
  }

  release(): void {
    this.#giveBack(this.#space.remaining);
    this.#space.release();
  }
}
