import type { DriveError } from '../base/errors.ts';

/**
 * The cells of the flash array as bytes: no rules, no logical addresses, no time. Programs are synchronous and reach the
 * operating system, not the disk; `sync` makes everything before it durable.
 */
export interface Media {
  /**
   * Pages that lie side by side, from `ppn` on: `data` is whole pages, `oob` the whole out-of-band area of each. DriveError
   * writeFault if the disk refuses; then any of them may be written.
   */
  program(ppn: number, data: Uint8Array, oob: Uint8Array): void;
  /** Changes cells of a programmed page from a byte offset within the array of cells on: what disturbs real ones. */
  writeCells(byteOffset: number, bytes: Uint8Array): void;
  /** Bytes of consecutive pages' cells from a byte offset within the array of cells. DriveError unrecoveredRead. */
  readCells(byteOffset: number, target: Uint8Array): Promise<void>;
  /**
   * The same without waiting, if none of the bytes has to come from the disk. False: some have, or nobody knows; `target`
   * may hold anything.
   */
  copyNow(byteOffset: number, target: Uint8Array): boolean;
  /** Out-of-band areas of consecutive pages. */
  readOob(ppn: number, target: Uint8Array): Promise<void>;
  /** Overwrites pages that lie side by side and their out-of-band areas with zeros. DriveError writeFault. */
  wipe(ppn: number, pageCount: number): void;
  writeSuperblockHeader(superblock: number, header: Uint8Array): void;
  /** All of them, back to back. */
  readSuperblockHeaders(): Promise<Uint8Array>;
  /** DriveError writeFault; with an UnwrittenError as its cause it may be tried again, since nothing has been lost. */
  sync(): Promise<void>;
  close(): Promise<void>;
  /** The files, for threads that read by themselves; undefined if the cells are not in a file. */
  readonly files: MediaFiles | undefined;
  /**
   * Set by whoever maps the cells' file: copies bytes of it, from its start on, that are in memory; false if some are not.
   * Without it `copyNow` has nothing.
   */
  copyResident?: ((offset: number, target: Uint8Array) => boolean) | undefined;
}

/** Open descriptors; they stay the media's. */
export interface MediaFiles {
  readonly cellsDescriptor: number;
  readonly oobDescriptor: number;
  readonly cellsSizeBytes: number;
  /** Set if the cells are read and written past the page cache: then nobody else may read or map them. */
  readonly direct: DirectMedia | undefined;
}

/** Memory in which pages can be had for kernels, instead of a mapping of the cells. */
export interface DirectMedia {
  /** Number of the slab (daemon/kernels/native/direct-io.ts). */
  readonly slab: number;
  /** The part of it that is the caller's. */
  readonly cacheOffset: number;
  readonly cacheSizeBytes: number;
  /**
   * Reads pages that lie side by side to `offset` in the slab; `done` is called later. DriveError unrecoveredRead. Any number
   * of loads may run.
   */
  load(firstPage: number, pageCount: number, offset: number, done: (error: DriveError | undefined) => void): void;
}
