import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { RegionUnavailableError } from './errors.ts';

/** How a region is deleted in the drive. */
export type RegionDelete = (key: number) => Promise<void>;

/**
 * Memory of the drive that commands name by key: the bytes never cross the socket. The client reads and writes the
 * region's file (on tmpfs, so every access is a copy in memory, never disk); another process may map it.
 *
 * A region dies with the connection that created it.
 */
export class Region {
  /** For keyed SGL descriptors and attend entries. */
  readonly key: number;
  readonly sizeBytes: number;
  /** The file on this machine. */
  readonly path: string;
  readonly #fileDescriptor: number;
  readonly #delete: RegionDelete;
  #open = true;
  #movedBytes = 0;

  /** Opens the region's file. RegionUnavailableError if it isn't there or isn't what the drive says it is. */
  constructor(region: { key: number; sizeBytes: number; path: string }, modules: { delete: RegionDelete }) {
    this.key = region.key;
    this.sizeBytes = region.sizeBytes;
    this.path = region.path;
    this.#delete = modules.delete;
    this.#fileDescriptor = openRegionFile(region.path, region.sizeBytes);
  }

  /** Bytes written and read by this process so far. */
  get movedBytes(): number {
    return this.#movedBytes;
  }

  /** Copies `bytes` to `offset`. RangeError outside the region. */
  write(offset: number, bytes: Uint8Array): void {
    this.#check(offset, bytes.byteLength);
    this.#movedBytes += bytes.byteLength;
    let done = 0;
    while (done < bytes.byteLength) {
      done += writeSync(this.#fileDescriptor, bytes, done, bytes.byteLength - done, offset + done);
    }
  }

  /** Copies `length` bytes from `offset` into a fresh array. */
  read(offset: number, length: number): Uint8Array {
    const target = new Uint8Array(length);
    this.readInto(offset, target);
    return target;
  }

  /** Copies bytes from `offset` until `target` is full. RegionUnavailableError if somebody has shortened the file. */
  readInto(offset: number, target: Uint8Array): void {
    this.#check(offset, target.byteLength);
    this.#movedBytes += target.byteLength;
    let done = 0;
    while (done < target.byteLength) {
      const count = readSync(this.#fileDescriptor, target, done, target.byteLength - done, offset + done);
      if (count === 0) throw new RegionUnavailableError(`${this.path} ends at ${offset + done} of ${this.sizeBytes}`);
      done += count;
    }
  }

  /** Gives the memory back to the drive. Commands that use the region must have ended. */
  async close(): Promise<void> {
    if (!this.#open) return;
    this.closeFile();
    await this.#delete(this.key);
  }

  /** Closes the file only: the association is gone, and the region with it. */
  closeFile(): void {
    if (this.#open) closeSync(this.#fileDescriptor);
    this.#open = false;
  }

  #check(offset: number, length: number): void {
    if (!this.#open) throw new RegionUnavailableError(`region ${this.key} is closed`);
    if (!Number.isInteger(offset) || offset < 0 || offset + length > this.sizeBytes) {
      throw new RangeError(`bytes ${offset} to ${offset + length} of a region of ${this.sizeBytes}`);
    }
  }
}

/** Only a regular file of exactly the stated size is believed; links are not followed. */
function openRegionFile(path: string, sizeBytes: number): number {
  let fileDescriptor: number;
  try {
    fileDescriptor = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  } catch (error) {
    throw new RegionUnavailableError(`cannot open ${path}: ${(error as NodeJS.ErrnoException).code}`, { cause: error });
  }
  const stat = fstatSync(fileDescriptor);
  if (stat.isFile() && stat.size === sizeBytes) return fileDescriptor;
  closeSync(fileDescriptor);
  throw new RegionUnavailableError(`${path} is not a file of ${sizeBytes} bytes but of ${stat.size}`);
}
