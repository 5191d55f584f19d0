import {
  closeSync,
  constants,
  fdatasync,
  fsync,
  ftruncateSync,
  mkdirSync,
  open,
  openSync,
  renameSync,
  rmSync,
  writeSync,
  close,
} from 'node:fs';
import { promisify } from 'node:util';
import type { DirectFile } from './direct-file.ts';

/**
 * How a drive's folder is written. Injected, so that a test sees every write and every sync in their order, leaves out
 * what a power cut would, or refuses what a disk would. Reads change nothing and go to Node directly.
 *
 * All but the syncs are synchronous and reach the operating system, not the disk. Errors are Node's, with their `code`.
 */
export interface FileSystem {
  /** For reading and writing. `new`: it must not exist; mode 0600. `direct`: it exists; past the page cache. */
  open(path: string, how: OpenHow): number;
  close(descriptor: number): void;
  /** Returns how many bytes were written: fewer than given if the disk is full. */
  write(descriptor: number, bytes: Uint8Array, position: number): number;
  resize(descriptor: number, sizeBytes: number): void;
  makeFolder(path: string): void;
  /** Within one folder. */
  rename(from: string, to: string): void;
  /** A file, or a folder with everything in it; nothing happens if it is not there. */
  remove(path: string): void;
  /** What was written to the file before the call is on disk when it resolves, and the size that it needs. */
  sync(descriptor: number): Promise<void>;
  /** Which names the folder holds is on disk when it resolves. */
  syncFolder(path: string): Promise<void>;
  /** Direct I/O on an open file goes through what this makes of it. */
  readonly watchDirect?: (descriptor: number, file: DirectFile) => DirectFile;
}

export type OpenHow = 'existing' | 'new' | 'direct';

const openFolder = promisify(open);
const closeFolder = promisify(close);
const syncNames = promisify(fsync);

const openFlags = { existing: 'r+', new: 'wx+', direct: constants.O_RDWR | constants.O_DIRECT } as const;

export const systemFileSystem: FileSystem = {
  open: (path, how) => openSync(path, openFlags[how], 0o600),
  close: closeSync,
  write: (descriptor, bytes, position) => writeSync(descriptor, bytes, 0, bytes.length, position),
  resize: ftruncateSync,
  makeFolder: (path) => mkdirSync(path),
  rename: renameSync,
  remove: (path) => rmSync(path, { recursive: true, force: true }),
  sync: promisify(fdatasync),
  async syncFolder(path) {
    const descriptor = await openFolder(path, 'r');
    try {
      await syncNames(descriptor);
    } finally {
      await closeFolder(descriptor);
    }
  },
};

/** An error as a full disk gives it if not all of it was written. */
export function writeWhole(fileSystem: FileSystem, descriptor: number, bytes: Uint8Array, position: number): void {
  const written = fileSystem.write(descriptor, bytes, position);
  if (written !== bytes.length) throw new Error(`${written} of ${bytes.length} bytes were written: the disk is full`);
}
