import { type DeviceJob, untimed } from '../timing/device-job.ts';
import { blockDeallocation, blockStagedSlot } from '../../spec/media-format/staging.ts';
import { oobKinds, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { BlockNamespace, CheckpointSink, OperationCounter } from './contract.ts';
import type { Flash, OobEntry } from './flash.ts';
import type { Relocatable } from './mover.ts';
import type { PageWriter } from './page-writer.ts';
import { SegmentedMap, UNMAPPED } from './segmented-map.ts';
import type { Space, SpaceReservation } from './space.ts';
import type { StagingWriter } from './staging-log.ts';
import { temperatures, type TemperatureSensor } from './temperature.ts';
import { WriteCache } from './write-cache.ts';

export interface BlockModules {
  readonly flash: Flash;
  readonly writer: PageWriter;
  readonly space: Space;
  readonly staging: StagingWriter;
  readonly operations: OperationCounter;
  readonly arena: Arena;
  readonly temperature: TemperatureSensor;
  /** Write points that hosts' blocks have. */
  readonly writePointCount: number;
  /** Makes what is staged and programmed durable. */
  readonly syncStaging: () => Promise<void>;
}

/** An LBA's newest bytes, of which the staging log has a record. */
export interface StagedSlot {
  readonly operation: number;
  readonly data: Uint8Array;
}

/** Where LBAs of one temperature are gathered, and written. */
interface Writer {
  readonly cache: WriteCache;
  readonly placement: number;
}

/** What pages are programmed from. */
interface Room {
  /** Undefined: nothing will be programmed. */
  readonly reservation: SpaceReservation | undefined;
  readonly job: DeviceJob;
}

/**
 * The block namespace: a map from LBA to 4 KiB slot, and a write cache of one flash page for each temperature, in which
 * LBAs gather until they fill it. An LBA is mapped to a slot, or in the cache (and unmapped), or nowhere.
 */
export class BlockDevice implements BlockNamespace, Relocatable {
  readonly lbaCount: number;
  readonly map: SegmentedMap;
  readonly #modules: BlockModules;
  /** By temperature. One if blocks are not kept apart. */
  readonly #writers: readonly Writer[];
  /**
   * What recovery found in the staging log and in no page. Empty once it is in the cache, which is before any command
   * unless the drive is read-only: then it stays.
   */
  readonly #held = new Map<number, StagedSlot>();
  /** LBAs that are given room at once. A full namespace has few superblocks to spare for what is being superseded. */
  readonly #batchLbas: number;
  lbasWritten = 0;
  lbasRead = 0;
  mappedCount = 0;

  constructor(modules: BlockModules) {
    this.#modules = modules;
    const { geometry } = modules.flash;
    this.lbaCount = geometry.blockCapacityBytes / SLOT_BYTES;
    this.map = new SegmentedMap(metaNamespaces.blockMap, this.lbaCount);
    this.#writers = Array.from({ length: modules.writePointCount }, (_, placement) => ({
      cache: new WriteCache(geometry, modules.arena),
      placement,
    }));
    this.#batchLbas = Math.max(1, geometry.pagesPerSuperblock >> 2) * geometry.slotsPerPage;
  }

  // --- Commands ---

  async write(
    lba: number,
    lbaCount: number,
    source: Uint8Array,
    fua: boolean,
    job: DeviceJob = untimed,
  ): Promise<void> {
    this.#check(lba, lbaCount);
    assert(source.length === lbaCount * SLOT_BYTES, 'the data is as long as the LBAs');
    for (let done = 0; done < lbaCount; done += this.#batchLbas) {
      const batch = source.subarray(done * SLOT_BYTES, (done + this.#batchLbas) * SLOT_BYTES);
      await this.#writeBatch(lba + done, batch, job);
    }
    this.lbasWritten += lbaCount;
    if (fua) await this.#modules.syncStaging();
  }

  async #writeBatch(lba: number, source: Uint8Array, job: DeviceJob): Promise<void> {
    const reservation = await this.#modules.space.reserve(this.#pagesFor(source.length / SLOT_BYTES));
    this.#putAll(lba, source, reservation, job);
  }

  #putAll(lba: number, source: Uint8Array, reservation: SpaceReservation | undefined, job: DeviceJob): void {
    const { operations } = this.#modules;
    const room = { reservation, job };
    try {
      const lbaCount = source.length / SLOT_BYTES;
      for (let i = 0; i < lbaCount; i++) {
        const data = lbaCount === 1 ? source : source.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
        this.#put(lba + i, { data, operation: operations.next() }, false, room);
      }
    } finally {
      reservation?.release();
    }
  }

  canWriteNow(lbaCount: number): boolean {
    const { space } = this.#modules;
    if (this.#fitsCaches(lbaCount)) {
      space.assertWritable();
      return true;
    }
    return lbaCount <= this.#batchLbas && space.hasRoomNow(this.#pagesFor(lbaCount));
  }

  /**
   * Whether so many LBAs fill no page, whichever caches they go to: then they need no room. Whoever fills it has reserved
   * what the caches held.
   */
  #fitsCaches(lbaCount: number): boolean {
    for (const { cache } of this.#writers) if (lbaCount >= cache.freeSlotCount) return false;
    return true;
  }

  writeNow(lba: number, lbaCount: number, source: Uint8Array, job: DeviceJob = untimed): void {
    this.#check(lba, lbaCount);
    assert(source.length === lbaCount * SLOT_BYTES, 'the data is as long as the LBAs');
    const isCached = this.#fitsCaches(lbaCount);
    const reservation = isCached ? undefined : this.#modules.space.reserveNow(this.#pagesFor(lbaCount));
    this.#putAll(lba, source, reservation, job);
    this.lbasWritten += lbaCount;
  }

  readNow(lba: number, lbaCount: number, target: Uint8Array): boolean {
    this.#check(lba, lbaCount);
    assert(target.length === lbaCount * SLOT_BYTES, 'the target is as long as the LBAs');
    for (let i = 0; i < lbaCount; ) {
      const cached = this.#cachedBytes(lba + i);
      const slot = this.map.get(lba + i);
      const isInFlash = cached === undefined && slot !== UNMAPPED;
      const run = isInFlash ? this.#runLength(lba + i, lbaCount - i) : 1;
      const bytes = run === lbaCount ? target : target.subarray(i * SLOT_BYTES, (i + run) * SLOT_BYTES);
      if (cached !== undefined) bytes.set(cached);
      else if (!isInFlash) bytes.fill(0);
      else if (!this.#modules.flash.readBlockSlotsNow(slot, lba + i, bytes)) return false;
      i += run;
    }
    this.lbasRead += lbaCount;
    return true;
  }

  isInFlash(lba: number, lbaCount: number): boolean {
    this.#check(lba, lbaCount);
    for (let at = lba; at < lba + lbaCount; at++) {
      if (this.map.get(at) !== UNMAPPED && this.#cachedBytes(at) === undefined) return true;
    }
    return false;
  }

  async read(lba: number, lbaCount: number, target: Uint8Array): Promise<void> {
    this.#check(lba, lbaCount);
    assert(target.length === lbaCount * SLOT_BYTES, 'the target is as long as the LBAs');
    this.lbasRead += lbaCount;
    const reads: Promise<void>[] = [];
    for (let i = 0; i < lbaCount; ) {
      const bytes = target.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
      const cached = this.#cachedBytes(lba + i);
      const slot = this.map.get(lba + i);
      if (cached !== undefined) bytes.set(cached);
      else if (slot === UNMAPPED) bytes.fill(0);
      if (cached !== undefined || slot === UNMAPPED) {
        i++;
        continue;
      }
      const run = this.#runLength(lba + i, lbaCount - i);
      reads.push(this.#readRun(lba + i, run, target.subarray(i * SLOT_BYTES, (i + run) * SLOT_BYTES)));
      i += run;
    }
    const results = await Promise.allSettled(reads);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  bookRead(lba: number, lbaCount: number, job: DeviceJob, destination: 'controller' | 'host'): void {
    if (job === untimed) return;
    const { slotsPerPage } = this.#modules.flash.geometry;
    const isToHost = destination === 'host';
    for (let at = lba; at < lba + lbaCount; ) {
      const slot = this.map.get(at);
      if (slot === UNMAPPED || this.#cachedBytes(at) !== undefined) {
        if (isToHost) job.deviceToHost(SLOT_BYTES);
        at++;
        continue;
      }
      const run = Math.min(this.#runLength(at, lba + lbaCount - at), slotsPerPage - (slot % slotsPerPage));
      const ppn = Math.floor(slot / slotsPerPage);
      if (isToHost) job.readToHost(ppn, run * SLOT_BYTES);
      else job.read(ppn, run * SLOT_BYTES);
      at += run;
    }
  }

  async deallocate(lba: number, lbaCount: number): Promise<void> {
    this.#check(lba, lbaCount);
    this.#modules.space.assertWritable();
    // The record comes first: what is dropped below must not come back once the record is durable.
    const operation = this.#modules.staging.append('deallocate', blockDeallocation.encode({ lba, lbaCount }));
    for (let i = 0; i < lbaCount; i++) this.#drop(lba + i, operation);
  }

  clear(): void {
    const { staging, flash, space } = this.#modules;
    space.assertWritable();
    // As above: the record comes first.
    const operation = staging.append('deallocate', blockDeallocation.encode({ lba: 0, lbaCount: this.lbaCount }));
    this.#held.clear();
    for (const { cache } of this.#writers) cache.clear();
    this.map.clear();
    flash.superblocks.markAllInvalid('block', operation);
    this.mappedCount = 0;
  }

  /** Pages that so many puts can program: what they fill, and what the caches held already. */
  #pagesFor(lbaCount: number): number {
    return Math.ceil(lbaCount / this.#modules.flash.geometry.slotsPerPage) + this.#writers.length;
  }

  #check(lba: number, lbaCount: number): void {
    const isInside = Number.isInteger(lba) && lba >= 0 && lbaCount > 0 && lba + lbaCount <= this.lbaCount;
    if (isInside) return;
    throw new DriveError(
      'lbaRange',
      `LBA ${lba}, ${lbaCount} blocks; the namespace has LBAs 0 to ${this.lbaCount - 1}`,
    );
  }

  // --- Reading ---

  /** LBAs from `lba` on that lie one after another in the same superblock. */
  #runLength(lba: number, countMax: number): number {
    const first = this.map.get(lba);
    const { superblocks } = this.#modules.flash;
    const superblock = superblocks.superblockOfSlot(first);
    let run = 1;
    while (run < countMax && this.#cacheOf(lba + run) === undefined && this.map.get(lba + run) === first + run) {
      if (superblocks.superblockOfSlot(first + run) !== superblock) break;
      run++;
    }
    return run;
  }

  async #readRun(lba: number, lbaCount: number, target: Uint8Array): Promise<void> {
    const { flash } = this.#modules;
    const slot = this.map.get(lba);
    const superblock = flash.superblocks.superblockOfSlot(slot);
    const lbas = Array.from({ length: lbaCount }, (_, i) => lba + i);
    flash.superblocks.pin(superblock);
    try {
      await flash.readBlockSlots(slot, lbas, target);
    } finally {
      flash.superblocks.unpin(superblock);
    }
  }

  // --- Write cache ---

  #cacheOf(lba: number): Writer | undefined {
    for (const writer of this.#writers) if (writer.cache.has(lba)) return writer;
    return undefined;
  }

  #cachedBytes(lba: number): Uint8Array | undefined {
    return this.#cacheOf(lba)?.cache.bytes(lba) ?? this.#held.get(lba)?.data;
  }

  /** By how soon the LBA was written over before. */
  #chooseWriter(lba: number): Writer {
    const slot = this.map.get(lba);
    const isKnown = slot !== UNMAPPED && this.#writers.length > 1;
    const temperature = isKnown ? this.#modules.temperature.of(slot) : temperatures.cold;
    return this.#writers[temperature]!;
  }

  #put(lba: number, { data, operation }: StagedSlot, isStaged: boolean, room: Room): void {
    const writer = this.#cacheOf(lba) ?? this.#chooseWriter(lba);
    const { cache } = writer;
    // A program that the disk refused leaves the cache full.
    if (!cache.has(lba) && cache.isFull) this.#program(writer, room);
    cache.put(lba, data, operation, isStaged);
    this.#held.delete(lba);
    this.#unmap(lba, operation);
    if (cache.isFull) this.#program(writer, room);
  }

  #program({ cache, placement }: Writer, { reservation, job }: Room): void {
    const { writer, flash } = this.#modules;
    assert(reservation !== undefined, 'room was reserved for what fills a page');
    reservation.take();
    const target = { pool: 'block', role: 'host', placement, channel: undefined, job } as const;
    const ppn = writer.write(target, cache.cells, cache.entries());
    cache.clear((lba, slot) => this.#map(lba, ppn * flash.geometry.slotsPerPage + slot));
  }

  #map(lba: number, slot: number): void {
    this.map.set(lba, slot);
    this.#modules.flash.superblocks.markValid(slot, 1);
    this.mappedCount++;
  }

  #unmap(lba: number, operation: number): void {
    const slot = this.map.get(lba);
    if (slot === UNMAPPED) return;
    this.map.set(lba, UNMAPPED);
    this.#modules.flash.superblocks.markInvalid(slot, 1, operation);
    this.mappedCount--;
  }

  #drop(lba: number, operation: number): void {
    this.#held.delete(lba);
    for (const { cache } of this.#writers) cache.drop(lba);
    this.#unmap(lba, operation);
  }

  // --- Garbage collection ---

  isCurrent(entry: OobEntry, slot: number): boolean {
    return entry.kind === oobKinds.block && this.map.get(entry.logical) === slot;
  }

  moved(entry: OobEntry, from: number, to: number): void {
    const { superblocks } = this.#modules.flash;
    this.map.set(entry.logical, to);
    superblocks.markInvalid(from, 1, this.#modules.operations.next());
    superblocks.markValid(to, 1);
  }

  // --- Durability ---

  /** Appends what is in the write cache only to the staging log. */
  stageBuffered(restage: boolean): void {
    for (const { cache } of this.#writers) {
      cache.forEach((block, data) => {
        if (block.isStaged && !restage) return;
        this.#stage(block.lba, { data, operation: block.operation });
        block.isStaged = true;
      });
    }
    if (restage) for (const [lba, held] of this.#held) this.#stage(lba, held);
  }

  /** The record stands for the write, so it carries the write's number, as the page will. */
  #stage(lba: number, { data, operation }: StagedSlot): void {
    const payload = new Uint8Array(blockStagedSlot.sizeBytes + SLOT_BYTES);
    blockStagedSlot.encode({ lba }, payload);
    payload.set(data, blockStagedSlot.sizeBytes);
    this.#modules.staging.append('block', payload, operation);
  }

  checkpoint(sink: CheckpointSink): void {
    this.stageBuffered(sink.restage);
    const staged = [...this.#held].map(([lba, { operation }]) => [lba, operation]);
    for (const { cache } of this.#writers) cache.forEach(({ lba, operation }) => staged.push([lba, operation]));
    sink.put(metaNamespaces.stagedBlocks, ['list'], staged);
    this.map.checkpoint(sink);
  }

  /** Recovery: LBAs whose bytes are only in the staging log. They belong to checkpoints from here on. */
  holdStaged(staged: ReadonlyMap<number, StagedSlot>): void {
    for (const [lba, slot] of staged) this.#held.set(lba, slot);
  }

  /** Puts what is held into the write cache. May collect garbage and make checkpoints. Before any command. */
  async cacheHeld(): Promise<void> {
    if (this.#modules.space.isReadOnly) return;
    while (this.#held.size > 0) {
      const batch = [...this.#held].slice(0, this.#batchLbas);
      const reservation = await this.#modules.space.reserve(this.#pagesFor(batch.length));
      try {
        for (const [lba, slot] of batch) this.#put(lba, slot, true, { reservation, job: untimed });
      } finally {
        reservation.release();
      }
    }
  }

  /** Recovery: after the map was loaded and rolled forward. DriveError mediaFormat if it can't be right. */
  countMapped(): void {
    this.mappedCount = this.#modules.flash.superblocks.claimAll('block', this.map.entries, 1);
  }
}
