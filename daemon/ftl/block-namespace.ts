import { blockDeallocation, blockStagedSlot } from '../../spec/media-format/staging.ts';
import { oobKinds, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { Allocator } from './allocator.ts';
import type { BlockNamespace, CheckpointSink, OperationCounter } from './contract.ts';
import type { Flash, OobEntry } from './flash.ts';
import type { Relocatable } from './garbage-collector.ts';
import { SegmentedMap, UNMAPPED } from './segmented-map.ts';
import type { Space, SpaceReservation } from './space.ts';
import type { StagingWriter } from './staging-log.ts';

export interface BlockModules {
  readonly flash: Flash;
  readonly allocator: Allocator;
  readonly space: Space;
  readonly staging: StagingWriter;
  readonly operations: OperationCounter;
  readonly arena: Arena;
  /** Makes what is staged and programmed durable. */
  readonly syncStaging: () => Promise<void>;
}

/** One LBA in the write cache. */
interface CachedSlot {
  lba: number;
  operation: number;
  isStaged: boolean;
}

const NO_LBA = -1;

/**
 * The block namespace: a map from LBA to 4 KiB slot, and a write cache of one flash page in which LBAs gather until they
 * fill it. An LBA is mapped to a slot, or in the cache (and unmapped), or nowhere.
 */
export class BlockDevice implements BlockNamespace, Relocatable {
  readonly lbaCount: number;
  readonly map: SegmentedMap;
  readonly #modules: BlockModules;
  readonly #frame: number;
  readonly #slots: CachedSlot[];
  readonly #cached = new Map<number, number>();
  lbasWritten = 0;
  lbasRead = 0;
  mappedCount = 0;

  constructor(modules: BlockModules) {
    this.#modules = modules;
    const { geometry } = modules.flash;
    this.lbaCount = geometry.blockCapacityBytes / SLOT_BYTES;
    this.map = new SegmentedMap(metaNamespaces.blockMap, this.lbaCount);
    this.#frame = modules.arena.allocate(geometry.pageSizeBytes);
    this.#slots = Array.from({ length: geometry.slotsPerPage }, emptySlot);
  }

  // --- Commands ---

  async write(lba: number, lbaCount: number, source: Uint8Array, fua: boolean): Promise<void> {
    this.#check(lba, lbaCount);
    assert(source.length === lbaCount * SLOT_BYTES, 'the data is as long as the LBAs');
    const { geometry } = this.#modules.flash;
    const reservation = await this.#modules.space.reserve(Math.ceil(lbaCount / geometry.slotsPerPage) + 1);
    try {
      for (let i = 0; i < lbaCount; i++) {
        const data = source.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
        this.#put(lba + i, data, this.#modules.operations.next(), reservation);
      }
    } finally {
      reservation.release();
    }
    this.lbasWritten += lbaCount;
    if (fua) await this.#modules.syncStaging();
  }

  async read(lba: number, lbaCount: number, target: Uint8Array): Promise<void> {
    this.#check(lba, lbaCount);
    assert(target.length === lbaCount * SLOT_BYTES, 'the target is as long as the LBAs');
    this.lbasRead += lbaCount;
    const reads: Promise<void>[] = [];
    for (let i = 0; i < lbaCount; ) {
      const bytes = target.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
      const cached = this.#cached.get(lba + i);
      const slot = this.map.get(lba + i);
      if (cached !== undefined) bytes.set(this.#slotBytes(cached));
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

  deallocate(lba: number, lbaCount: number): Promise<void> {
    try {
      this.#check(lba, lbaCount);
      const payload = blockDeallocation.encode({ lba, lbaCount });
      const operation = this.#modules.staging.append('deallocate', payload);
      for (let i = 0; i < lbaCount; i++) this.#drop(lba + i, operation);
      return Promise.resolve();
    } catch (error) {
      return Promise.reject(error);
    }
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
    while (run < countMax && !this.#cached.has(lba + run) && this.map.get(lba + run) === first + run) {
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
      await flash.readBlockSlots(slot, lbas, target, 'block');
    } finally {
      flash.superblocks.unpin(superblock);
    }
  }

  // --- Write cache ---

  #slotBytes(index: number): Uint8Array {
    return this.#modules.arena.view(this.#frame + index * SLOT_BYTES, SLOT_BYTES);
  }

  #put(lba: number, data: Uint8Array, operation: number, reservation: SpaceReservation): void {
    const index = this.#cached.get(lba) ?? this.#slots.findIndex((slot) => slot.lba === NO_LBA);
    assert(index >= 0, 'a full cache page is programmed at once');
    this.#slotBytes(index).set(data);
    this.#slots[index] = { lba, operation, isStaged: false };
    this.#cached.set(lba, index);
    this.#unmap(lba, operation);
    if (this.#cached.size === this.#slots.length) this.#program(reservation);
  }

  #program(reservation: SpaceReservation): void {
    const { allocator, arena, flash } = this.#modules;
    reservation.take();
    const ppn = allocator.takeHostPage('block', 0, undefined);
    const entries = this.#slots.map(({ lba, operation }) => ({ kind: oobKinds.block, operation, logical: lba }));
    flash.program(ppn, arena.view(this.#frame, flash.geometry.pageSizeBytes), entries, 'block');
    this.#slots.forEach(({ lba }, index) => {
      this.#map(lba, ppn * flash.geometry.slotsPerPage + index);
      this.#slots[index] = emptySlot();
    });
    this.#cached.clear();
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
    const index = this.#cached.get(lba);
    if (index !== undefined) {
      this.#slots[index] = emptySlot();
      this.#cached.delete(lba);
    }
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
    this.#slots.forEach((slot, index) => {
      if (slot.lba === NO_LBA || (slot.isStaged && !restage)) return;
      const payload = new Uint8Array(blockStagedSlot.sizeBytes + SLOT_BYTES);
      blockStagedSlot.encode({ lba: slot.lba }, payload);
      payload.set(this.#slotBytes(index), blockStagedSlot.sizeBytes);
      // The record stands for the write, so it carries the write's number, as the page will.
      this.#modules.staging.append('block', payload, slot.operation);
      slot.isStaged = true;
    });
  }

  checkpoint(sink: CheckpointSink): void {
    this.stageBuffered(sink.restage);
    const staged = this.#slots.filter(({ lba }) => lba !== NO_LBA).map(({ lba, operation }) => [lba, operation]);
    sink.put(metaNamespaces.stagedBlocks, ['list'], staged);
    this.map.checkpoint(sink);
  }

  /** Recovery: an LBA whose bytes are only in the staging log goes into the cache again. */
  async restoreStaged(lba: number, data: Uint8Array, operation: number): Promise<void> {
    const reservation = await this.#modules.space.reserve(1);
    try {
      this.#put(lba, data, operation, reservation);
    } finally {
      reservation.release();
    }
  }

  /** Recovery: after the map was loaded and rolled forward. */
  countMapped(): void {
    const { entries } = this.map;
    for (let lba = 0; lba < entries.length; lba++) {
      const slot = entries[lba]!;
      if (slot === UNMAPPED) continue;
      this.#modules.flash.superblocks.markValid(slot, 1);
      this.mappedCount++;
    }
  }
}

const emptySlot = (): CachedSlot => ({ lba: NO_LBA, operation: 0, isStaged: false });
