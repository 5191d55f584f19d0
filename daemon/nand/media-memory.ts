import { superblockHeader } from '../../spec/media-format/oob.ts';
import { type Geometry, oobBytesPerPage } from './geometry.ts';
import type { Media } from './media.ts';

/** What a disk writes as a whole or not at all. */
export const SECTOR_BYTES = 512;

/** Operations of the media that something may happen at. */
export type MediaStep = 'program' | 'header' | 'sync';

/**
 * What became of a write that was not synced when the power went: whether its sector `sector` (counted from the one that
 * its first byte lies in) reached the disk. Writes are numbered from 0 in the order in which they were made.
 */
export type SectorFate = (write: number, sector: number) => boolean;

/** The three files of a drive's media, as bytes. */
const areas = ['cells', 'oob', 'headers'] as const;
type Area = (typeof areas)[number];

interface UnsyncedWrite {
  readonly id: number;
  readonly area: Area;
  readonly offset: number;
  readonly before: Uint8Array;
}

/**
 * Cells in memory. It remembers every write since the last sync, so that `powerCut` can take any sectors of them back, as
 * a disk that reorders may. Writes to one sector are never reordered: where a later one survives, so do those before it.
 */
export class MediaMemory implements Media {
  readonly files = undefined;
  readonly geometry: Geometry;
  readonly cells: Uint8Array;
  readonly oob: Uint8Array;
  readonly headers: Uint8Array;
  #unsynced: UnsyncedWrite[] = [];
  #nextId = 0;
  /** Called before every write and sync; may throw to stop a run there. */
  onStep: (what: MediaStep) => void = () => undefined;
  /** Whether cells can be had without waiting. Not by default, so that whoever waits is seen to wait. */
  isResident: () => boolean = () => false;

  /** `from`: takes over the bytes of another media, and what it has not synced. The other must not be used any more. */
  constructor(geometry: Geometry, from?: MediaMemory) {
    this.geometry = geometry;
    this.cells = from?.cells ?? new Uint8Array(geometry.pageCount * geometry.pageSizeBytes);
    this.oob = from?.oob ?? new Uint8Array(geometry.pageCount * oobBytesPerPage(geometry));
    this.headers = from?.headers ?? new Uint8Array(geometry.superblockCount * superblockHeader.sizeBytes);
    if (from === undefined) return;
    this.#unsynced = from.#unsynced;
    this.#nextId = from.#nextId;
  }

  /** Resolves when an operation that takes time is done. */
  protected settle(_what: 'read' | 'sync'): Promise<void> {
    return Promise.resolve();
  }

  program(ppn: number, data: Uint8Array, oob: Uint8Array): void {
    this.onStep('program');
    this.#write('cells', ppn * this.geometry.pageSizeBytes, data);
    this.#write('oob', ppn * oobBytesPerPage(this.geometry), oob);
  }

  wipe(ppn: number, pageCount: number): void {
    this.onStep('program');
    const { pageSizeBytes } = this.geometry;
    this.#write('cells', ppn * pageSizeBytes, new Uint8Array(pageCount * pageSizeBytes));
    const oobBytes = oobBytesPerPage(this.geometry);
    this.#write('oob', ppn * oobBytes, new Uint8Array(pageCount * oobBytes));
  }

  async readCells(byteOffset: number, target: Uint8Array): Promise<void> {
    await this.settle('read');
    target.set(this.cells.subarray(byteOffset, byteOffset + target.length));
  }

  copyNow(byteOffset: number, target: Uint8Array): boolean {
    if (!this.isResident()) return false;
    target.set(this.cells.subarray(byteOffset, byteOffset + target.length));
    return true;
  }

  async readOob(ppn: number, target: Uint8Array): Promise<void> {
    await this.settle('read');
    const offset = ppn * oobBytesPerPage(this.geometry);
    target.set(this.oob.subarray(offset, offset + target.length));
  }

  writeCells(byteOffset: number, bytes: Uint8Array): void {
    this.#write('cells', byteOffset, bytes);
  }

  writeSuperblockHeader(superblock: number, header: Uint8Array): void {
    this.onStep('header');
    this.#write('headers', superblock * superblockHeader.sizeBytes, header);
  }

  async readSuperblockHeaders(): Promise<Uint8Array> {
    await this.settle('read');
    return this.headers.slice();
  }

  async sync(): Promise<void> {
    this.onStep('sync');
    // Writes made while the sync is on its way are not covered by it.
    const end = this.#nextId;
    await this.settle('sync');
    this.#unsynced = this.#unsynced.filter(({ id }) => id >= end);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  get unsyncedWriteCount(): number {
    return this.#unsynced.length;
  }

  /** Takes back every sector of unsynced writes that `isKept` does not keep. What is left is on the disk. */
  powerCut(isKept: SectorFate): void {
    const kept = new Set<number>();
    const writes = this.#unsynced.splice(0);
    for (let write = writes.length - 1; write >= 0; write--) {
      const { area: name, offset, before } = writes[write]!;
      const area = this[name];
      const first = Math.floor(offset / SECTOR_BYTES);
      const last = Math.floor((offset + before.length - 1) / SECTOR_BYTES);
      for (let sector = first; sector <= last; sector++) {
        const key = sector * areas.length + areas.indexOf(name);
        if (kept.has(key)) continue;
        if (isKept(write, sector - first)) {
          kept.add(key);
          continue;
        }
        const start = Math.max(offset, sector * SECTOR_BYTES);
        const end = Math.min(offset + before.length, (sector + 1) * SECTOR_BYTES);
        area.set(before.subarray(start - offset, end - offset), start);
      }
    }
  }

  /** Another media with the same bytes and the same writes not synced. */
  copyTo(other: MediaMemory): void {
    for (const area of areas) other[area].set(this[area]);
    other.#unsynced = [...this.#unsynced];
    other.#nextId = this.#nextId;
  }

  #write(area: Area, offset: number, bytes: Uint8Array): void {
    const before = this[area].slice(offset, offset + bytes.length);
    this.#unsynced.push({ id: this.#nextId++, area, offset, before });
    this[area].set(bytes, offset);
  }
}
