import { readSync } from 'node:fs';
import { oobEntry, oobKinds } from '../../spec/media-format/oob.ts';
import { crc32c } from '../base/crc32c.ts';
import { cellOffset, type Geometry, oobOffset } from './geometry.ts';
import type { MediaFiles } from './media.ts';

/** The flash's files as any thread of the process can read them: plain data. */
export interface CellAccess {
  readonly cells: { readonly fileDescriptor: number; readonly sizeBytes: number };
  readonly oobFileDescriptor: number;
  readonly geometry: Geometry;
  /** Set if the cells' file may not be mapped: kernels find pages in the slab of this number. */
  readonly slab?: number;
}

export const cellAccess = (files: MediaFiles, geometry: Geometry): CellAccess => ({
  cells: { fileDescriptor: files.cellsDescriptor, sizeBytes: files.cellsSizeBytes },
  oobFileDescriptor: files.oobDescriptor,
  geometry,
  ...(files.direct && { slab: files.direct.slab }),
});

/** The cells as kernels of any thread see them. */
export const kernelMedia = ({ cells, slab }: CellAccess): { media: CellAccess['cells'] } | { slab: number } =>
  slab === undefined ? { media: cells } : { slab };

const CHECKED_BYTES = oobEntry.sizeBytes - 4;

/** Reads pages, blocking, for compute workers. */
export class CellReader {
  readonly pageSizeBytes: number;
  readonly #access: CellAccess;
  readonly #entry = new Uint8Array(oobEntry.sizeBytes);

  constructor(access: CellAccess) {
    this.#access = access;
    this.pageSizeBytes = access.geometry.pageSizeBytes;
  }

  /** Byte offset of the page in the cells file. */
  cellOffset(ppn: number): number {
    return cellOffset(this.#access.geometry, ppn);
  }

  /** Reads a page's bytes; false if that failed. */
  read(ppn: number, target: Uint8Array): boolean {
    return this.readFile('cells', target.subarray(0, this.pageSizeBytes), this.cellOffset(ppn));
  }

  /** False if not all of it could be read. */
  protected readFile(file: 'cells' | 'oob', target: Uint8Array, position: number): boolean {
    const { cells, oobFileDescriptor } = this.#access;
    return readWhole(file === 'cells' ? cells.fileDescriptor : oobFileDescriptor, target, position);
  }

  /**
   * Whether the out-of-band entry is whole, was written in this epoch of its superblock, says that KV page `lpn` lies
   * there, and that its bytes have this CRC32C.
   */
  matches(ppn: number, expected: { lpn: number; epoch: number; dataCrc32c: number }): boolean {
    const bytes = this.#entry;
    if (!this.readFile('oob', bytes, oobOffset(this.#access.geometry, ppn))) return false;
    const entry = oobEntry.decode(bytes);
    if (entry.crc32c !== crc32c(bytes.subarray(0, CHECKED_BYTES))) return false;
    return (
      entry.kind === oobKinds.kv &&
      entry.epoch === expected.epoch &&
      entry.logical === expected.lpn &&
      entry.dataCrc32c === expected.dataCrc32c >>> 0
    );
  }
}

function readWhole(descriptor: number, target: Uint8Array, position: number): boolean {
  try {
    return readSync(descriptor, target, 0, target.length, position) === target.length;
  } catch {
    return false;
  }
}
