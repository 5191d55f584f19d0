import { mkdirSync, readdirSync, unlinkSync } from 'node:fs';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { limits } from '../../spec/limits.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import type { HostAccount } from '../hosts/host-account.ts';
import type { FrontCounters, HeldRegion, Limits, MemoryRegion } from '../commands/contract.ts';
import { RegionMapping } from '../kernels/native/region-mapping.ts';

/**
 * Up to this size a region is written at once: tmpfs never waits for a disk, and the copy takes less time (4 KiB: 1 us,
 * 64 KiB: 3 us) than handing it to the thread pool and back (about 50 us).
 */
const SYNC_WRITE_BYTES_MAX = 65_536;
/** The same of reading (1 MiB: 40 us), so that what follows one another in a queue is read in that order. */
const SYNC_READ_BYTES_MAX = limits.regionReadNowBytesMax;
const FILE_PREFIX = 'region-';
const NAME_BYTES = 16;
/** Random keys that happen to be taken or 0 are drawn again; this often is not chance any more. */
const KEY_DRAWS_MAX = 64;

export interface RegionFolderOptions {
  /** On tmpfs; made if missing. */
  readonly folder: string;
  /** 0o600, or 0o660 where the folder belongs to a group of clients. */
  readonly fileMode: number;
  /** Whether regions are mapped where that can be had; if not, every transfer is a system call. */
  readonly isMapped: boolean;
}

/** The folder of region files of a drive. Whatever lies in it when the drive starts is from a daemon that is gone. */
export class RegionFolder {
  readonly #options: RegionFolderOptions;
  readonly #random: Random;

  constructor(options: RegionFolderOptions, modules: { random: Random }) {
    this.#options = options;
    this.#random = modules.random;
    mkdirSync(options.folder, { recursive: true, mode: options.fileMode === 0o600 ? 0o700 : 0o770 });
    for (const name of readdirSync(options.folder)) {
      if (name.startsWith(FILE_PREFIX)) unlinkSync(join(options.folder, name));
    }
  }

  randomKey(): number {
    return this.#random.nextUint32();
  }

  /** DriveError regionLimit if the file system has no room. */
  async create(key: number, sizeBytes: number, counters: FrontCounters): Promise<RegionFile> {
    const { folder, fileMode, isMapped } = this.#options;
    const path = join(folder, `${FILE_PREFIX}${Buffer.from(this.#random.bytes(NAME_BYTES)).toString('hex')}`);
    const { bavail, bsize } = await fs.promises.statfs(folder);
    if (bavail * bsize < sizeBytes) {
      throw new DriveError('regionLimit', `${sizeBytes} bytes asked for, ${bavail * bsize} free in ${folder}`);
    }
    const fd = createFile(path, sizeBytes, fileMode);
    const mapping = isMapped ? RegionMapping.tryMap(fd, sizeBytes) : undefined;
    return new RegionFile({ key, sizeBytes, path, fd }, { counters, mapping });
  }
}

/** A new file, never one that is there already. Sparse: memory is taken as it is written to. DriveError regionLimit. */
function createFile(path: string, sizeBytes: number, mode: number): number {
  const flags = fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_RDWR | fs.constants.O_NOFOLLOW;
  let fd: number | undefined;
  try {
    fd = fs.openSync(path, flags, mode);
    // The process's umask must not decide who may open it.
    fs.fchmodSync(fd, mode);
    fs.ftruncateSync(fd, sizeBytes);
    return fd;
  } catch (error) {
    if (fd !== undefined) {
      fs.closeSync(fd);
      unlinkSync(path);
    }
    throw new DriveError('regionLimit', `${sizeBytes} bytes in ${path}: ${String(error)}`, { cause: error });
  }
}

/**
 * One region. A client that truncates its file makes its own transfers fail and nothing else: bytes move by pread and
 * pwrite, or by copies that notice where the mapping has nothing behind it any more. Those then do the same transfer by the
 * descriptor, so that what it comes to, and what the host is told, never depends on whether there is a mapping.
 */
export class RegionFile implements MemoryRegion {
  readonly key: number;
  readonly sizeBytes: number;
  readonly path: string;
  readonly #fd: number;
  readonly #mapping: RegionMapping | undefined;
  readonly #counters: FrontCounters;
  #closed = false;
  /**
   * Transfers in the thread pool, and holders: the descriptor must not be closed, and given to another file, under them, nor
   * the mapping's number given to another region.
   */
  #busyCount = 0;

  constructor(
    options: { key: number; sizeBytes: number; path: string; fd: number },
    modules: { counters: FrontCounters; mapping: RegionMapping | undefined },
  ) {
    this.key = options.key;
    this.sizeBytes = options.sizeBytes;
    this.path = options.path;
    this.#fd = options.fd;
    this.#mapping = modules.mapping;
    this.#counters = modules.counters;
  }

  check(offset: number, lengthBytes: number): void {
    if (this.#closed) throw new DriveError('sglDataBlock', `region ${this.key} is deleted`);
    this.#checkRange(offset, lengthBytes);
  }

  #checkRange(offset: number, lengthBytes: number): void {
    if (!(offset >= 0 && offset + lengthBytes <= this.sizeBytes)) {
      throw new DriveError('sglDataBlock', `${offset}+${lengthBytes} in a region of ${this.sizeBytes} bytes`);
    }
  }

  read(offset: number, target: Uint8Array): Promise<void> | void {
    this.check(offset, target.length);
    this.#counters.regionReadBytes += target.length;
    if (target.length > SYNC_READ_BYTES_MAX) return this.#transfer(fs.read, offset, target);
    if (this.#mapping?.read(offset, target) === true) return;
    this.#transferSync(fs.readSync, offset, target);
  }

  write(offset: number, source: Uint8Array): Promise<void> | void {
    this.check(offset, source.length);
    if (source.length <= SYNC_WRITE_BYTES_MAX && this.#mapping?.write(offset, source) === true) {
      this.#counters.regionWrittenBytes += source.length;
      return;
    }
    // A file that its client has shortened is not made longer again.
    const fileBytes = fs.fstatSync(this.#fd).size;
    if (fileBytes < offset + source.length)
      throw this.#truncated(offset, source.length, Math.max(0, fileBytes - offset));
    this.#counters.regionWrittenBytes += source.length;
    if (source.length > SYNC_WRITE_BYTES_MAX) return this.#transfer(fs.write, offset, source);
    this.#transferSync(fs.writeSync, offset, source);
  }

  hold(offset: number, lengthBytes: number): HeldRegion {
    this.check(offset, lengthBytes);
    const mapping = this.#mapping;
    this.#counters.regionReadBytes += lengthBytes;
    this.#busyCount++;
    let isHeld = true;
    return {
      mapping: mapping?.id,
      check: (from, sizeBytes) => this.#checkRange(from, sizeBytes),
      read: (from, target) => {
        assert(isHeld, 'a region is read while it is held');
        if (mapping?.read(from, target) !== true) this.#transferSync(fs.readSync, from, target);
      },
      release: () => {
        assert(isHeld, 'a region is released once');
        isHeld = false;
        this.#busyCount--;
        this.#endIfIdle();
      },
    };
  }

  /** Removes the file; its memory is given back when running transfers and holders have ended. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      unlinkSync(this.path);
    } catch (error) {
      // The client may have removed it: it is its folder too.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    this.#endIfIdle();
  }

  #endIfIdle(): void {
    if (!this.#closed || this.#busyCount > 0) return;
    this.#mapping?.unmap();
    fs.closeSync(this.#fd);
  }

  #transferSync(operation: typeof fs.readSync | typeof fs.writeSync, offset: number, bytes: Uint8Array): void {
    let count = 0;
    try {
      count = (operation as typeof fs.readSync)(this.#fd, bytes, 0, bytes.length, offset);
    } catch (error) {
      throw this.#failed(error);
    }
    if (count !== bytes.length) throw this.#truncated(offset, bytes.length, count);
  }

  #transfer(operation: typeof fs.read | typeof fs.write, offset: number, bytes: Uint8Array): Promise<void> {
    this.#busyCount++;
    return new Promise<void>((resolve, reject) => {
      const step = (done: number): void => {
        const settle = (error: Error | null, count: number): void => {
          if (!error && count > 0 && done + count < bytes.length) {
            step(done + count);
            return;
          }
          this.#busyCount--;
          this.#endIfIdle();
          if (error) reject(this.#failed(error));
          else if (done + count < bytes.length) reject(this.#truncated(offset, bytes.length, done + count));
          else resolve();
        };
        (operation as typeof fs.read)(this.#fd, bytes, done, bytes.length - done, offset + done, settle);
      };
      step(0);
    });
  }

  #truncated(offset: number, lengthBytes: number, count: number): DriveError {
    return new DriveError('sglDataBlock', `${count} of ${lengthBytes} bytes at ${offset}: the file was shortened`);
  }

  #failed(error: unknown): DriveError {
    if (error instanceof DriveError) return error;
    const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC';
    return new DriveError(isFull ? 'regionLimit' : 'internal', `${this.path}: ${String(error)}`, { cause: error });
  }
}

/** Regions of one association. */
export class AssociationRegions {
  readonly #limits: Limits;
  readonly #folder: RegionFolder;
  readonly #counters: FrontCounters;
  readonly #account: HostAccount;
  readonly #regions = new Map<number, RegionFile>();
  /** Created and being created. */
  #count = 0;
  #totalBytes = 0;
  #ended = false;

  constructor(
    options: { limits: Limits },
    modules: { folder: RegionFolder; counters: FrontCounters; account: HostAccount },
  ) {
    this.#account = modules.account;
    this.#limits = options.limits;
    this.#folder = modules.folder;
    this.#counters = modules.counters;
  }

  get count(): number {
    return this.#count;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  /** DriveError sglDataBlock. */
  get(key: number): RegionFile {
    const region = this.#regions.get(key);
    if (region === undefined) throw new DriveError('sglDataBlock', `key ${key} names no region of this association`);
    return region;
  }

  async create(sizeBytes: number): Promise<RegionFile> {
    const { regionCountMax, regionBytesMax, regionBytesTotalMax } = this.#limits;
    if (sizeBytes < 1 || sizeBytes > regionBytesMax) {
      throw new DriveError('regionLimit', `${sizeBytes} bytes, allowed: 1 to ${regionBytesMax}`);
    }
    if (this.#count >= regionCountMax) throw new DriveError('regionLimit', `${regionCountMax} regions exist already`);
    if (this.#totalBytes + sizeBytes > regionBytesTotalMax) {
      throw new DriveError('regionLimit', `${this.#totalBytes} of ${regionBytesTotalMax} bytes in use`);
    }
    this.#account.check('regionBytes', sizeBytes);
    this.#account.take('regions', 1);
    this.#account.take('regionBytes', sizeBytes);
    this.#count++;
    this.#totalBytes += sizeBytes;
    try {
      const region = await this.#folder.create(this.#newKey(), sizeBytes, this.#counters);
      if (this.#ended || this.#regions.has(region.key)) {
        region.close();
        throw new DriveError('aborted', 'the association ended while its region was made');
      }
      this.#regions.set(region.key, region);
      return region;
    } catch (error) {
      this.#given(sizeBytes);
      throw error;
    }
  }

  delete(key: number): void {
    const region = this.get(key);
    this.#regions.delete(key);
    this.#given(region.sizeBytes);
    region.close();
  }

  #given(sizeBytes: number): void {
    this.#count--;
    this.#totalBytes -= sizeBytes;
    this.#account.give('regions', 1);
    this.#account.give('regionBytes', sizeBytes);
  }

  end(): void {
    this.#ended = true;
    for (const key of [...this.#regions.keys()]) this.delete(key);
  }

  #newKey(): number {
    for (let draw = 0; draw < KEY_DRAWS_MAX; draw++) {
      const key = this.#folder.randomKey();
      if (key !== 0 && !this.#regions.has(key)) return key;
    }
    assert(false, `${KEY_DRAWS_MAX} random keys in a row were taken`);
  }
}
