import { fstatSync, read, readSync } from 'node:fs';
import {
  DRIVE_MAGIC,
  MEDIA_FORMAT_VERSION,
  MEDIA_FORMAT_VERSIONS_READ,
  MEDIA_HEADER_BYTES,
  type MediaFileKind,
  mediaFileHeader,
  mediaFileKinds,
} from '../../spec/media-format/drive-superblock.ts';
import { superblockHeader } from '../../spec/media-format/oob.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import { fileError, fileErrorReason } from '../base/file-errors.ts';
import { type FileSystem, systemFileSystem, writeWhole } from '../base/file-system.ts';
import { cellOffset, type Geometry, headerOffset, mediaSizes, oobBytesPerPage, oobOffset } from './geometry.ts';
import { createSlab, DirectIo } from '../kernels/native/direct-io.ts';
import { DIRECT_BUFFER_BYTES, DirectCells } from './direct-cells.ts';
import { UnwrittenError } from './write-behind.ts';
import type { DirectMedia, Media, MediaFiles } from './media.ts';

const CHECKED_BYTES = mediaFileHeader.sizeBytes - 4;

export const mediaFileName = (folder: string, kind: MediaFileKind): string => `${folder}/media/${kind}.bin`;

/** Makes the three media files, sparse; they are on disk when it resolves. They must not exist. */
export async function createMediaFiles(
  folder: string,
  geometry: Geometry,
  uuid: Uint8Array,
  fileSystem: FileSystem = systemFileSystem,
): Promise<void> {
  fileSystem.makeFolder(`${folder}/media`);
  const sizes = mediaSizes(geometry);
  for (const kind of Object.keys(mediaFileKinds) as MediaFileKind[]) {
    const descriptor = fileSystem.open(mediaFileName(folder, kind), 'new');
    try {
      writeWhole(fileSystem, descriptor, encodeHeader(kind, uuid, sizes[kind]), 0);
      fileSystem.resize(descriptor, sizes[kind]);
      await fileSystem.sync(descriptor);
    } finally {
      fileSystem.close(descriptor);
    }
  }
  await fileSystem.syncFolder(`${folder}/media`);
}

function encodeHeader(kind: MediaFileKind, uuid: Uint8Array, sizeBytes: number): Uint8Array {
  const fields = { magic: DRIVE_MAGIC, version: MEDIA_FORMAT_VERSION, kind: mediaFileKinds[kind], uuid, sizeBytes };
  const header = mediaFileHeader.encode(fields);
  new DataView(header.buffer).setUint32(CHECKED_BYTES, crc32c(header.subarray(0, CHECKED_BYTES)), true);
  return header;
}

/** How a drive's cells are read and written: by the page cache, or past it, with memory for so many bytes of pages. */
export type CellsIo = 'mapped' | { readonly direct: { readonly cacheBytes: number } };

/** The cells in files: superpage-major, so that the pages of a superpage lie side by side. */
export class MediaFile implements Media {
  readonly #folder: string;
  readonly #geometry: Geometry;
  readonly #fileSystem: FileSystem;
  readonly #descriptors: Record<MediaFileKind, number>;
  readonly #direct: OpenDirect | undefined;
  readonly files: MediaFiles;
  copyResident: ((offset: number, target: Uint8Array) => boolean) | undefined;
  /** Reads and syncs that run. The descriptors are closed after the last, since their numbers may be used again. */
  #pendingCount = 0;
  #isClosed = false;
  #closed: () => void = () => undefined;

  private constructor(
    folder: string,
    geometry: Geometry,
    descriptors: Record<MediaFileKind, number>,
    { fileSystem, direct }: { fileSystem: FileSystem; direct: OpenDirect | undefined },
  ) {
    this.#folder = folder;
    this.#geometry = geometry;
    this.#fileSystem = fileSystem;
    this.#descriptors = descriptors;
    this.#direct = direct;
    this.files = {
      cellsDescriptor: descriptors.cells,
      oobDescriptor: descriptors.oob,
      cellsSizeBytes: mediaSizes(geometry).cells,
      direct: direct && this.#loader(direct),
    };
  }

  /**
   * DriveError mediaFormat if a file is missing, of another drive or format, or not as long as it must be; invalidField if
   * direct I/O can't be had.
   */
  static open(
    folder: string,
    geometry: Geometry,
    uuid: Uint8Array,
    fileSystem: FileSystem = systemFileSystem,
    io: CellsIo = 'mapped',
  ): MediaFile {
    const descriptors: Partial<Record<MediaFileKind, number>> = {};
    try {
      for (const kind of Object.keys(mediaFileKinds) as MediaFileKind[]) {
        descriptors[kind] = openChecked(fileSystem, mediaFileName(folder, kind), kind, { geometry, uuid });
      }
      const cells = mediaFileName(folder, 'cells');
      const direct = io === 'mapped' ? undefined : openDirect(cells, geometry, io.direct.cacheBytes, fileSystem);
      return new MediaFile(folder, geometry, descriptors as Record<MediaFileKind, number>, { fileSystem, direct });
    } catch (error) {
      for (const descriptor of Object.values(descriptors)) fileSystem.close(descriptor);
      throw error;
    }
  }

  program(ppn: number, data: Uint8Array, oob: Uint8Array): void {
    this.#write('cells', data, cellOffset(this.#geometry, ppn));
    this.#write('oob', oob, oobOffset(this.#geometry, ppn));
  }

  wipe(ppn: number, pageCount: number): void {
    const { pageSizeBytes } = this.#geometry;
    this.#write('cells', new Uint8Array(pageCount * pageSizeBytes), cellOffset(this.#geometry, ppn));
    const oobBytes = pageCount * oobBytesPerPage(this.#geometry);
    this.#write('oob', new Uint8Array(oobBytes), oobOffset(this.#geometry, ppn));
  }

  writeCells(byteOffset: number, bytes: Uint8Array): void {
    this.#write('cells', bytes, MEDIA_HEADER_BYTES + byteOffset);
  }

  async readCells(byteOffset: number, target: Uint8Array): Promise<void> {
    await this.#read('cells', target, MEDIA_HEADER_BYTES + byteOffset);
  }

  copyNow(byteOffset: number, target: Uint8Array): boolean {
    // Past the page cache a mapping knows nothing.
    if (this.#isClosed || this.#direct !== undefined || this.copyResident === undefined) return false;
    return this.copyResident(MEDIA_HEADER_BYTES + byteOffset, target);
  }

  async readOob(ppn: number, target: Uint8Array): Promise<void> {
    await this.#read('oob', target, MEDIA_HEADER_BYTES + ppn * oobBytesPerPage(this.#geometry));
  }

  writeSuperblockHeader(superblock: number, header: Uint8Array): void {
    this.#write('blocks', header, headerOffset(superblock));
  }

  async readSuperblockHeaders(): Promise<Uint8Array> {
    const target = new Uint8Array(this.#geometry.superblockCount * superblockHeader.sizeBytes);
    await this.#read('blocks', target, MEDIA_HEADER_BYTES);
    return target;
  }

  async sync(): Promise<void> {
    this.#assertOpen('writeFault');
    this.#pendingCount++;
    try {
      await this.#settle();
      const syncs = Object.values(this.#descriptors).map((descriptor) => this.#fileSystem.sync(descriptor));
      for (const result of await Promise.allSettled(syncs)) if (result.status === 'rejected') throw result.reason;
    } catch (error) {
      if (error instanceof DriveError) throw error;
      throw new DriveError('writeFault', `sync of the media files failed: ${fileErrorReason(error, this.#folder)}`, {
        cause: error,
      });
    } finally {
      this.#pendingCount--;
      this.#closeIfIdle();
    }
  }

  async #settle(): Promise<void> {
    try {
      await this.#direct?.cells.settle();
    } catch (error) {
      if (!(error instanceof UnwrittenError)) throw error;
      const path = mediaFileName(this.#folder, 'cells');
      throw new DriveError('writeFault', `${path}: ${fileErrorReason(error.cause, this.#folder)}`, { cause: error });
    }
  }

  /** Nothing is read or written after it was called; resolves when what was going on has ended. */
  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#isClosed = true;
    return new Promise((resolve) => {
      this.#closed = resolve;
      this.#closeIfIdle();
    });
  }

  #closeIfIdle(): void {
    if (!this.#isClosed || this.#pendingCount > 0) return;
    this.#direct?.cells.close();
    if (this.#direct) this.#fileSystem.close(this.#direct.descriptor);
    for (const descriptor of Object.values(this.#descriptors)) this.#fileSystem.close(descriptor);
    this.#closed();
  }

  #assertOpen(code: 'writeFault' | 'unrecoveredRead'): void {
    if (this.#isClosed) throw new DriveError(code, 'the media files are closed');
  }

  #write(kind: MediaFileKind, bytes: Uint8Array, position: number): void {
    this.#assertOpen('writeFault');
    let written = 0;
    try {
      if (kind === 'cells' && this.#direct) {
        this.#direct.cells.write(position - MEDIA_HEADER_BYTES, bytes);
        return;
      }
      written = this.#fileSystem.write(this.#descriptors[kind], bytes, position);
    } catch (error) {
      throw new DriveError(
        'writeFault',
        `${mediaFileName(this.#folder, kind)} at byte ${position}: ${fileErrorReason(error, this.#folder)}`,
        { cause: error },
      );
    }
    if (written !== bytes.length) {
      throw new DriveError('writeFault', `${mediaFileName(this.#folder, kind)} at byte ${position}: the disk is full`);
    }
  }

  async #read(kind: MediaFileKind, target: Uint8Array, position: number): Promise<void> {
    this.#assertOpen('unrecoveredRead');
    this.#pendingCount++;
    try {
      if (kind === 'cells' && this.#direct) await this.#direct.cells.read(position - MEDIA_HEADER_BYTES, target);
      else await readWhole(this.#descriptors[kind], target, position);
    } catch (error) {
      throw this.#unread(kind, position, error);
    } finally {
      this.#pendingCount--;
      this.#closeIfIdle();
    }
  }

  #unread(kind: MediaFileKind, position: number, error: unknown): DriveError {
    const detail = `${mediaFileName(this.#folder, kind)} at byte ${position}: ${fileErrorReason(error, this.#folder)}`;
    return new DriveError('unrecoveredRead', detail, { cause: error });
  }

  #loader({ slab, cells, cacheBytes }: OpenDirect): DirectMedia {
    return {
      slab,
      cacheOffset: DIRECT_BUFFER_BYTES,
      cacheSizeBytes: cacheBytes,
      load: (firstPage, pageCount, offset, done) => {
        this.#assertOpen('unrecoveredRead');
        this.#pendingCount++;
        cells.load(firstPage, pageCount, offset, (error) => {
          this.#pendingCount--;
          this.#closeIfIdle();
          done(error && this.#unread('cells', cellOffset(this.#geometry, firstPage), error));
        });
      },
    };
  }
}

/** The cells' file a second time, opened for direct I/O. */
interface OpenDirect {
  readonly descriptor: number;
  readonly slab: number;
  readonly cells: DirectCells;
  readonly cacheBytes: number;
}

function openDirect(path: string, geometry: Geometry, cacheBytes: number, fileSystem: FileSystem): OpenDirect {
  const slab = createSlab(DIRECT_BUFFER_BYTES + cacheBytes);
  let descriptor: number;
  try {
    descriptor = fileSystem.open(path, 'direct');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'EINVAL' ? 'its file system has no direct I/O' : undefined;
    throw new DriveError('invalidField', `${path}: ${why ?? fileErrorReason(error, path)}`, { cause: error });
  }
  const io = new DirectIo(descriptor, slab);
  const file = fileSystem.watchDirect?.(descriptor, io) ?? io;
  return { descriptor, slab: slab.id, cells: new DirectCells(file, geometry.pageSizeBytes), cacheBytes };
}

function readWhole(descriptor: number, target: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    read(descriptor, target, 0, target.length, position, (error, byteCount) => {
      if (error !== null) reject(error);
      else if (byteCount === target.length) resolve();
      else reject(new Error(`${byteCount} of ${target.length} bytes: the file is too short`));
    });
  });
}

function openChecked(
  fileSystem: FileSystem,
  path: string,
  kind: MediaFileKind,
  { geometry, uuid }: { geometry: Geometry; uuid: Uint8Array },
): number {
  const wrong = (what: string): DriveError => new DriveError('mediaFormat', `${path}: ${what}`);
  let descriptor: number;
  try {
    descriptor = fileSystem.open(path, 'existing');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw wrong('is missing; it is part of the drive');
    throw fileError('mediaFormat', error, path);
  }
  const problem = mediaFileProblem(descriptor, kind, { geometry, uuid });
  if (problem === undefined) return descriptor;
  fileSystem.close(descriptor);
  throw wrong(problem);
}

/** What is wrong with an open media file's header or size; undefined: nothing. */
export function mediaFileProblem(
  descriptor: number,
  kind: MediaFileKind,
  { geometry, uuid }: { geometry: Geometry; uuid: Uint8Array },
): string | undefined {
  const header = new Uint8Array(mediaFileHeader.sizeBytes);
  const isWhole = readSync(descriptor, header, 0, header.length, 0) === header.length;
  const fields = mediaFileHeader.decode(header);
  if (!isWhole || fields.magic !== DRIVE_MAGIC) return `does not begin with ${DRIVE_MAGIC}: no media file`;
  if (!MEDIA_FORMAT_VERSIONS_READ.includes(fields.version)) {
    return `format version ${fields.version}; this program reads ${MEDIA_FORMAT_VERSIONS_READ.join(', ')}`;
  }
  if (fields.crc32c !== crc32c(header.subarray(0, CHECKED_BYTES))) return 'header checksum is wrong';
  if (fields.kind !== mediaFileKinds[kind]) return `is a media file of kind ${fields.kind}, not ${kind}`;
  if (Buffer.compare(fields.uuid, uuid) !== 0) {
    return `belongs to drive ${Buffer.from(fields.uuid).toString('hex')}, not to this one`;
  }
  const sizeBytes = mediaSizes(geometry)[kind];
  const foundBytes = fstatSync(descriptor).size;
  return foundBytes === sizeBytes ? undefined : `${foundBytes} bytes long; must be ${sizeBytes}`;
}
