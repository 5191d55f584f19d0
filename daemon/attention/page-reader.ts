import { closeSync, readSync } from 'node:fs';

/** The flash as a thread can open it: plain data. */
export interface MediaAccess {
  readonly cells: { readonly fileDescriptor: number; readonly sizeBytes: number };
  readonly oobFileDescriptor: number;
  readonly pageSizeBytes: number;
}

/** Pages as a job runner reads them: blocking, from any thread. */
export interface PageReader {
  readonly pageSizeBytes: number;
  /** Where the page lies in the media file. */
  cellOffset(page: number): number;
  /** Reads the page's bytes; false if that failed. */
  read(page: number, target: Uint8Array): boolean;
  /** Whether the out-of-band entry says that `logicalPage` lies there, intact, and that its bytes have this CRC32C. */
  matches(page: number, logicalPage: number, crc32c: number): boolean;
  /** Names the page for people. */
  describe(page: number): string;
  close(): void;
}

export function openPageReader(media: MediaAccess): PageReader {
  const entry = new Uint32Array(2);
  const bytes = new Uint8Array(entry.buffer);
  void closeSync;
  return {
    pageSizeBytes: media.pageSizeBytes,
    cellOffset: (page) => 65_536 + page * media.pageSizeBytes,
    read: (page, target) =>
      readSync(media.cells.fileDescriptor, target, 0, media.pageSizeBytes, 65_536 + page * media.pageSizeBytes) ===
      media.pageSizeBytes,
    matches(page, logicalPage, crc32c) {
      readSync(media.oobFileDescriptor, bytes, 0, 8, page * 8);
      return entry[0] === crc32c >>> 0 && entry[1] === logicalPage;
    },
    describe: (page) => `page ${page}`,
    close: () => undefined,
  };
}
