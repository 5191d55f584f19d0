import { superblockHeader } from '../../spec/media-format/oob.ts';
import { type Geometry, oobBytesPerPage } from './geometry.ts';
import type { Media } from './media.ts';

/** What became of a write that was not synced when the power went. */
export type UnsyncedFate = 'kept' | 'lost' | 'torn';

interface Write {
  readonly area: 'cells' | 'oob' | 'headers';
  readonly offset: number;
  readonly before: Uint8Array;
}

/**
 * Cells in memory. It remembers every write since the last sync, so that `powerCut` can take any of them back, whole or
 * in part and in any combination, as a disk that reorders may.
 */
export class MediaMemory implements Media {
  readonly files = undefined;
  readonly #geometry: Geometry;
  readonly cells: Uint8Array;
  readonly oob: Uint8Array;
  readonly headers: Uint8Array;
  #unsynced: Write[] = [];
  /** Called before every write and sync; may throw to stop a run there. */
  onStep: (what: 'program' | 'header' | 'sync') => void = () => undefined;

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.cells = new Uint8Array(geometry.pageCount * geometry.pageSizeBytes);
    this.oob = new Uint8Array(geometry.pageCount * oobBytesPerPage(geometry));
    this.headers = new Uint8Array(geometry.superblockCount * superblockHeader.sizeBytes);
  }

  program(ppn: number, data: Uint8Array, oob: Uint8Array): void {
    this.onStep('program');
    this.#write('cells', ppn * this.#geometry.pageSizeBytes, data);
    this.#write('oob', ppn * oobBytesPerPage(this.#geometry), oob);
  }

  readCells(byteOffset: number, target: Uint8Array): Promise<void> {
    target.set(this.cells.subarray(byteOffset, byteOffset + target.length));
    return Promise.resolve();
  }

  readOob(ppn: number, target: Uint8Array): Promise<void> {
    const offset = ppn * oobBytesPerPage(this.#geometry);
    target.set(this.oob.subarray(offset, offset + target.length));
    return Promise.resolve();
  }

  writeSuperblockHeader(superblock: number, header: Uint8Array): void {
    this.onStep('header');
    this.#write('headers', superblock * superblockHeader.sizeBytes, header);
  }

  readSuperblockHeaders(): Promise<Uint8Array> {
    return Promise.resolve(this.headers.slice());
  }

  async sync(): Promise<void> {
    this.onStep('sync');
    const covered = new Set(this.#unsynced);
    // Writes made while the sync is on its way are not covered by it.
    await Promise.resolve();
    this.#unsynced = this.#unsynced.filter((write) => !covered.has(write));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Takes back what `fateOf` says of each write that was not synced. */
  powerCut(fateOf: () => UnsyncedFate): void {
    for (const { area: name, offset, before } of this.#unsynced.splice(0).reverse()) {
      const area = this[name];
      const fate = fateOf();
      if (fate === 'lost') area.set(before, offset);
      else if (fate === 'torn') area.set(before.subarray(before.length >> 1), offset + (before.length >> 1));
    }
  }

  /** Another media with the same bytes and the same writes not synced. */
  copyTo(other: MediaMemory): void {
    other.cells.set(this.cells);
    other.oob.set(this.oob);
    other.headers.set(this.headers);
    other.#unsynced = [...this.#unsynced];
  }

  #write(name: Write['area'], offset: number, bytes: Uint8Array): void {
    const area = this[name];
    this.#unsynced.push({ area: name, offset, before: area.slice(offset, offset + bytes.length) });
    area.set(bytes, offset);
  }
}
