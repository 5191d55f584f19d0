import { DIRECT_BLOCK_BYTES, type DirectFile } from '../base/direct-file.ts';
import { MEDIA_HEADER_BYTES } from '../../spec/media-format/drive-superblock.ts';
import { WriteBehind } from './write-behind.ts';

/** Programs on their way to the disk: what it writes in a few milliseconds. */
const WRITE_BYTES = 8 * 2 ** 20;
const READ_SLOT_BYTES = 256 * 1024;
const READ_SLOTS = 8;

/** Memory that direct I/O needs besides a cache of pages. */
export const DIRECT_BUFFER_BYTES = WRITE_BYTES + READ_SLOTS * READ_SLOT_BYTES;

/**
 * The cells' file past the page cache. Its memory begins with the buffers of this class; what follows is for pages of whoever
 * asks for them by `load`. Byte offsets count from the first page.
 */
export class DirectCells {
  readonly #file: DirectFile;
  readonly #pageSizeBytes: number;
  readonly #behind: WriteBehind;
  readonly #freeSlots: number[] = [];
  readonly #slotWaiters: ((slot: number) => void)[] = [];

  constructor(file: DirectFile, pageSizeBytes: number) {
    this.#file = file;
    this.#pageSizeBytes = pageSizeBytes;
    this.#behind = new WriteBehind(file, {
      pageSizeBytes,
      fileOffset: MEDIA_HEADER_BYTES,
      memoryOffset: 0,
      frameCount: WRITE_BYTES / pageSizeBytes,
    });
    for (let slot = 0; slot < READ_SLOTS; slot++) this.#freeSlots.push(WRITE_BYTES + slot * READ_SLOT_BYTES);
  }

  /** Any bytes; whole pages go to the disk without one being read. Throws what the disk says, now or of earlier writes. */
  write(byteOffset: number, bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      const page = Math.floor((byteOffset + at) / this.#pageSizeBytes);
      const start = byteOffset + at - page * this.#pageSizeBytes;
      const end = at + this.#pageSizeBytes - start;
      this.#behind.put(page, bytes.subarray(at, end), start);
      at = end;
    }
  }

  /** Any bytes. */
  async read(byteOffset: number, target: Uint8Array): Promise<void> {
    const reads: Promise<void>[] = [];
    let at = 0;
    while (at < target.length) {
      const page = Math.floor((byteOffset + at) / this.#pageSizeBytes);
      const start = byteOffset + at - page * this.#pageSizeBytes;
      const written = this.#behind.find(page);
      const end = written
        ? Math.min(target.length, at + this.#pageSizeBytes - start)
        : this.#onDiskUntil(byteOffset, at, target.length);
      const piece = target.subarray(at, end);
      if (written) piece.set(written.subarray(start, start + piece.length));
      else reads.push(this.#readFromDisk(byteOffset + at, piece));
      at = end;
    }
    // All of them, even if one fails: the caller may give the memory to others as soon as it is told.
    for (const result of await Promise.allSettled(reads)) if (result.status === 'rejected') throw result.reason;
  }

  /** Reads pages that lie side by side to `offset` in the file's memory. `done` is called later. */
  load(firstPage: number, pageCount: number, offset: number, done: (error: Error | undefined) => void): void {
    let left = 1;
    let failure: Error | undefined;
    const ended = (error: Error | undefined): void => {
      failure ??= error;
      if (--left === 0) done(failure);
    };
    for (let page = firstPage; page < firstPage + pageCount; ) {
      const target = offset + (page - firstPage) * this.#pageSizeBytes;
      const written = this.#behind.find(page);
      if (written) {
        this.#file.memory.set(written, target);
        page++;
        continue;
      }
      let end = page + 1;
      while (end < firstPage + pageCount && this.#behind.find(end) === undefined) end++;
      const sizeBytes = (end - page) * this.#pageSizeBytes;
      left++;
      this.#file.transfer('read', { position: this.#positionOf(page), offset: target, sizeBytes }, ended);
      page = end;
    }
    queueMicrotask(() => ended(undefined));
  }

  /** Resolves when all that was written before is with the disk, which may still keep it in a cache of its own. */
  settle(): Promise<void> {
    return this.#behind.settle();
  }

  /** Waits, blocking, for whatever is on its way. */
  close(): void {
    this.#behind.finish();
    this.#file.close();
  }

  #positionOf(page: number): number {
    return MEDIA_HEADER_BYTES + page * this.#pageSizeBytes;
  }

  /** How far, from `at`, the bytes are all on the disk, and fit a slot. */
  #onDiskUntil(byteOffset: number, at: number, length: number): number {
    const max = Math.min(length, at + READ_SLOT_BYTES - 2 * DIRECT_BLOCK_BYTES);
    if (this.#behind.pageCount === 0) return max;
    let page = Math.floor((byteOffset + at) / this.#pageSizeBytes) + 1;
    while (page * this.#pageSizeBytes - byteOffset < max && this.#behind.find(page) === undefined) page++;
    return Math.min(max, page * this.#pageSizeBytes - byteOffset);
  }

  async #readFromDisk(byteOffset: number, target: Uint8Array): Promise<void> {
    const slot = await this.#takeSlot();
    try {
      const first = roundDown(byteOffset);
      const end = roundDown(byteOffset + target.length + DIRECT_BLOCK_BYTES - 1);
      await new Promise<void>((resolve, reject) => {
        const range = { position: MEDIA_HEADER_BYTES + first, offset: slot, sizeBytes: end - first };
        this.#file.transfer('read', range, (error) => (error ? reject(error) : resolve()));
      });
      const start = slot + byteOffset - first;
      target.set(this.#file.memory.subarray(start, start + target.length));
    } finally {
      this.#giveSlot(slot);
    }
  }

  #takeSlot(): number | Promise<number> {
    return this.#freeSlots.pop() ?? new Promise((resolve) => this.#slotWaiters.push(resolve));
  }

  #giveSlot(slot: number): void {
    const waiter = this.#slotWaiters.shift();
    if (waiter) waiter(slot);
    else this.#freeSlots.push(slot);
  }
}

const roundDown = (offset: number): number => offset - (offset % DIRECT_BLOCK_BYTES);
