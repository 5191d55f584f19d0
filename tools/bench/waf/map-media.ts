import { superblockHeader } from '../../../spec/media-format/oob.ts';
import { type Geometry, oobBytesPerPage } from '../../../daemon/nand/geometry.ts';
import type { Media } from '../../../daemon/nand/media.ts';

/** Flash without cells: it keeps what says who owns a page, and no page's content. */
export class MapMedia implements Media {
  readonly files = undefined;
  readonly #oobBytes: number;
  readonly #oob: Uint8Array;
  readonly #headers: Uint8Array;

  constructor(geometry: Geometry) {
    this.#oobBytes = oobBytesPerPage(geometry);
    this.#oob = new Uint8Array(geometry.pageCount * this.#oobBytes);
    this.#headers = new Uint8Array(geometry.superblockCount * superblockHeader.sizeBytes);
  }

  program(ppn: number, _data: Uint8Array, oob: Uint8Array): void {
    this.#oob.set(oob, ppn * this.#oobBytes);
  }

  wipe(ppn: number, pageCount: number): void {
    this.#oob.fill(0, ppn * this.#oobBytes, (ppn + pageCount) * this.#oobBytes);
  }

  readCells(): Promise<void> {
    return Promise.resolve();
  }

  copyNow(): boolean {
    return false;
  }

  readOob(ppn: number, target: Uint8Array): Promise<void> {
    const offset = ppn * this.#oobBytes;
    target.set(this.#oob.subarray(offset, offset + target.length));
    return Promise.resolve();
  }

  writeCells(): void {}

  writeSuperblockHeader(superblock: number, header: Uint8Array): void {
    this.#headers.set(header, superblock * superblockHeader.sizeBytes);
  }

  readSuperblockHeaders(): Promise<Uint8Array> {
    return Promise.resolve(this.#headers.slice());
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
