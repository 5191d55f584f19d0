import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { RegionUnavailableError } from './errors.ts';
import { RegionMapping } from './region-mapping.ts';

/** How a region is deleted in the drive. */
export type RegionDelete = (key: number) => Promise<void>;

/**
 * Memory of the drive that commands name by key: the bytes never cross the socket. The client maps the region's file (on
 * tmpfs, so never on disk) where there is the native addon, and reads and writes it where there is not.
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
  readonly #mapping: RegionMapping | undefined;
  readonly #delete: RegionDelete;
  #open = true;
  #movedBytes = 0;

  /** Opens the region's file. RegionUnavailableError if it isn't there or isn't what the drive says it is. */
  constructor(
    region: { key: number; sizeBytes: number; path: string; isMapped: boolean },
    modules: { delete: RegionDelete },
  ) {
    this.key = region.key;
    this.sizeBytes = region.sizeBytes;
    this.path = region.path;
    this.#delete = modules.delete;
    this.#fileDescriptor = openRegionFile(region.path, region.sizeBytes);
    this.#mapping = region.isMapped ? RegionMapping.tryMap(this.#fileDescriptor, region.sizeBytes) : undefined;
  }

  /** Bytes written and read by this process so far. */
  get movedBytes(): number {
    return this.#movedBytes;
  }

  /** Copies `bytes` to `offset`. RangeError outside the region. */
  write(offset: number, bytes: Uint8Array): void {
    this.#check(offset, bytes.byteLength);
    this.#movedBytes += bytes.byteLength;
    if (this.#mapping?.write(offset, bytes) === true) return;
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
    if (this.#mapping?.read(offset, target) === true) return;
    let done = 0;
    while (done < target.byteLength) {
      const count = readSync(this.#fileDescriptor, target, done, target.byteLength - done, offset + done);
      if (count === 0) throw new RegionUnavailableError(`${this.path} ends at ${offset + done} of ${this.sizeBytes}`);
      done += count;
    }
  }

  /**
   * All of the region as memory of this process; undefined where it can't be mapped. It may be used as long as anybody has
   * it: once the region is closed, the drive sees no more of what is written there.
   */
  memory(): ArrayBuffer | undefined {
    this.#check(0, 0);
    return this.#mapping?.buffer();
  }

  /** Where in the region these bytes are, if they are of its `memory`. */
  offsetOf(bytes: Uint8Array): number | undefined {
    return this.#open && this.#mapping?.holds(bytes) === true ? bytes.byteOffset : undefined;
  }

  /** Gives the memory back to the drive. Commands that use the region must have ended. */
  async close(): Promise<void> {
    if (!this.#open) return;
    this.closeFile();
    await this.#delete(this.key);
  }

  /** Closes the file only: the association is gone, and the region with it. */
  closeFile(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#mapping?.unmap();
    closeSync(this.#fileDescriptor);
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
