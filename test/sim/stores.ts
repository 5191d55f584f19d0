/** The drive's stores on a simulated machine. Each start has its own; it takes over what the one before has left. */
import { MEDIA_FORMAT_VERSION } from '../../spec/media-format/drive-superblock.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { MetaChange } from '../../daemon/meta/contract.ts';
import type { FtlStores } from '../../daemon/ftl/ftl.ts';
import { CellReader } from '../../daemon/nand/cell-reader.ts';
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import { cellOffset, type Geometry, mediaSizes, oobOffset } from '../../daemon/nand/geometry.ts';
import { MediaMemory } from '../../daemon/nand/media-memory.ts';
import { MetaMemory } from '../ftl/meta-memory.ts';
import { StagingMemory, type StagingStep } from '../ftl/staging-memory.ts';
import type { UnsyncedFates } from '../ftl/unsynced-fates.ts';
import type { Machine } from './machine.ts';

class SimMedia extends MediaMemory {
  readonly #machine: Machine;

  constructor(geometry: Geometry, machine: Machine, from: MediaMemory | undefined) {
    super(geometry, from);
    this.#machine = machine;
    this.isResident = () => machine.isResident();
  }

  protected override settle(what: 'read' | 'sync'): Promise<void> {
    return this.#machine.finish(what);
  }

  override async readCells(byteOffset: number, target: Uint8Array): Promise<void> {
    await super.readCells(byteOffset, target);
    this.#checkRead(target);
  }

  override async readOob(ppn: number, target: Uint8Array): Promise<void> {
    await super.readOob(ppn, target);
    this.#checkRead(target);
  }

  #checkRead(target: Uint8Array): void {
    if (this.#machine.reads()) return;
    // As a read that was stopped in its middle.
    target.fill(0xbb, target.length >> 1);
    throw new DriveError('unrecoveredRead', 'simulated disk: a read failed');
  }

  override program(ppn: number, data: Uint8Array, oob: Uint8Array): void {
    if (!this.#machine.step('program', 'begins', ppn)) return;
    try {
      this.#machine.take('program');
    } catch (error) {
      // Real cells would be half charged.
      if (this.#machine.tears()) super.program(ppn, data.subarray(0, data.length >> 1), new Uint8Array(0));
      throw error;
    }
    super.program(ppn, data, oob);
  }

  override writeSuperblockHeader(superblock: number, header: Uint8Array): void {
    if (!this.#machine.step('header', 'begins', superblock)) return;
    this.#machine.take('header');
    super.writeSuperblockHeader(superblock, header);
  }

  override writeCells(byteOffset: number, bytes: Uint8Array): void {
    if (!this.#machine.step('wipe', 'begins', byteOffset)) return;
    this.#machine.take('wipe');
    super.writeCells(byteOffset, bytes);
  }

  override wipe(ppn: number, pageCount: number): void {
    if (!this.#machine.step('wipe', 'begins', ppn)) return;
    this.#machine.take('wipe');
    super.wipe(ppn, pageCount);
  }

  override sync(): Promise<void> {
    if (!this.#machine.step('sync', 'begins')) return new Promise(() => undefined);
    return super.sync();
  }
}

class SimMeta extends MetaMemory {
  readonly #machine: Machine;

  constructor(machine: Machine, from: MetaMemory | undefined) {
    super(from);
    this.#machine = machine;
  }

  protected override settle(): Promise<void> {
    return this.#machine.finish('commit');
  }

  override commit(changes: readonly MetaChange[]): Promise<void> {
    if (!this.#machine.step('commit', 'begins', changes.length)) return new Promise(() => undefined);
    return super.commit(changes);
  }
}

class SimStaging extends StagingMemory {
  readonly #machine: Machine;

  constructor(machine: Machine) {
    super();
    this.#machine = machine;
  }

  override settle(): Promise<void> {
    return this.#machine.finish('sync');
  }

  override step(what: StagingStep): boolean {
    if (!this.#machine.step(what, 'begins')) return false;
    if (what === 'append' || what === 'create') this.#machine.take(what);
    return true;
  }
}

/** Pages for whoever computes over them at once: attention without workers. */
class MemoryCellReader extends CellReader {
  readonly #media: MediaMemory;
  readonly #machine: Machine;

  constructor(geometry: Geometry, media: MediaMemory, machine: Machine) {
    const cells = { fileDescriptor: -1, sizeBytes: mediaSizes(geometry).cells };
    super({ cells, oobFileDescriptor: -1, geometry });
    this.#media = media;
    this.#machine = machine;
  }

  protected override readFile(file: 'cells' | 'oob', target: Uint8Array, position: number): boolean {
    const { geometry, cells, oob } = this.#media;
    const first = file === 'cells' ? cellOffset(geometry, 0) : oobOffset(geometry, 0);
    target.set((file === 'cells' ? cells : oob).subarray(position - first, position - first + target.length));
    return this.#machine.reads();
  }
}

/** What lies on the disks between two starts. */
export interface Remains {
  readonly geometry: Geometry;
  readonly media: MediaMemory;
  readonly meta: MetaMemory;
  readonly staging: StagingMemory;
}

/** A drive that was formatted and never started. */
export const newRemains = (geometry: Geometry): Remains => ({
  geometry,
  media: new MediaMemory(geometry),
  meta: new MetaMemory(),
  staging: new StagingMemory(),
});

/** Of every simulated drive. */
export const identity = { uuid: new Uint8Array(16).fill(7), formatVersion: MEDIA_FORMAT_VERSION };

export class SimStores {
  readonly geometry: Geometry;
  readonly media: SimMedia;
  readonly meta: SimMeta;
  readonly staging: SimStaging;
  readonly reader: CellReader;

  constructor(remains: Remains, machine: Machine) {
    const { geometry } = remains;
    this.geometry = geometry;
    this.media = new SimMedia(geometry, machine, remains.media);
    this.meta = new SimMeta(machine, remains.meta);
    this.staging = new SimStaging(machine);
    remains.staging.copyTo(this.staging);
    this.reader = new MemoryCellReader(geometry, this.media, machine);
  }

  stores(chip: Chip = idealChip): FtlStores {
    const { geometry, media, meta, staging } = this;
    return { ...identity, geometry, chip, media, meta, staging, release: () => undefined };
  }

  /** The process is gone; all that it wrote is there, and what it had not synced still is not. */
  afterKill(fates: UnsyncedFates): Remains {
    const { geometry, staging } = this;
    const media = new MediaMemory(geometry, this.media);
    return { geometry, media, meta: this.meta.afterPowerCut(fates), staging };
  }

  /** The power is gone, and with it some of what was not synced. */
  afterPowerCut(fates: UnsyncedFates): Remains {
    const { geometry } = this;
    const media = new MediaMemory(geometry, this.media);
    media.powerCut(fates.ofWrites(media.unsyncedWriteCount));
    const staging = new StagingMemory();
    this.staging.powerCut(staging, fates);
    return { geometry, media, meta: this.meta.afterPowerCut(fates), staging };
  }
}
