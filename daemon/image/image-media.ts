import { closeSync, fstatSync, openSync, read } from 'node:fs';
import { MEDIA_HEADER_BYTES, type MediaFileKind, mediaFileKinds } from '../../spec/media-format/drive-superblock.ts';
import { superblockHeader } from '../../spec/media-format/oob.ts';
import { InvariantError } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { type Geometry, oobBytesPerPage } from '../nand/geometry.ts';
import { mediaFileName, mediaFileProblem } from '../nand/media-file.ts';
import type { Media, MediaFiles } from '../nand/media.ts';

const kinds = Object.keys(mediaFileKinds) as MediaFileKind[];

/** A drive's media files opened for reading alone. Files that are missing or wrong are reported; what they have is read. */
export class ImageMedia implements Media {
  readonly #geometry: Geometry;
  readonly #descriptors: Partial<Record<MediaFileKind, number>>;

  private constructor(geometry: Geometry, descriptors: Partial<Record<MediaFileKind, number>>) {
    this.#geometry = geometry;
    this.#descriptors = descriptors;
  }

  static open(
    folder: string,
    identity: { readonly geometry: Geometry; readonly uuid: Uint8Array },
    wrong: (text: string) => void,
  ): ImageMedia {
    const descriptors: Partial<Record<MediaFileKind, number>> = {};
    for (const kind of kinds) {
      const path = mediaFileName(folder, kind);
      try {
        const descriptor = openSync(path, 'r');
        descriptors[kind] = descriptor;
        const problem = mediaFileProblem(descriptor, kind, identity);
        if (problem !== undefined) wrong(`${path}: ${problem}`);
      } catch (error) {
        wrong(`${path}: cannot be opened (${(error as NodeJS.ErrnoException).code}); it is part of the drive`);
      }
    }
    return new ImageMedia(identity.geometry, descriptors);
  }

  /** undefined unless cells and out-of-band areas are there. */
  get files(): MediaFiles | undefined {
    const { cells, oob } = this.#descriptors;
    if (cells === undefined || oob === undefined) return undefined;
    return { cellsDescriptor: cells, oobDescriptor: oob, cellsSizeBytes: fstatSync(cells).size, direct: undefined };
  }

  async readCells(byteOffset: number, target: Uint8Array): Promise<void> {
    await this.#read('cells', target, MEDIA_HEADER_BYTES + byteOffset);
  }

  copyNow(): boolean {
    return false;
  }

  async readOob(ppn: number, target: Uint8Array): Promise<void> {
    await this.#read('oob', target, MEDIA_HEADER_BYTES + ppn * oobBytesPerPage(this.#geometry));
  }

  async readSuperblockHeaders(): Promise<Uint8Array> {
    const target = new Uint8Array(this.#geometry.superblockCount * superblockHeader.sizeBytes);
    await this.#read('blocks', target, MEDIA_HEADER_BYTES);
    return target;
  }

  program(): never {
    throw new InvariantError('an image is not written');
  }

  wipe(): never {
    throw new InvariantError('an image is not written');
  }

  writeCells(): never {
    throw new InvariantError('an image is not written');
  }

  writeSuperblockHeader(): never {
    throw new InvariantError('an image is not written');
  }

  sync(): never {
    throw new InvariantError('an image is not written');
  }

  /** Nothing may be in flight. */
  close(): Promise<void> {
    for (const descriptor of Object.values(this.#descriptors)) closeSync(descriptor);
    return Promise.resolve();
  }

  #read(kind: MediaFileKind, target: Uint8Array, position: number): Promise<void> {
    const descriptor = this.#descriptors[kind];
    const failed = (why: string): DriveError =>
      new DriveError('unrecoveredRead', `media file ${kind}.bin at ${position}: ${why}`);
    if (descriptor === undefined) return Promise.reject(failed('the file could not be opened'));
    return new Promise((resolve, reject) => {
      read(descriptor, target, 0, target.length, position, (error, byteCount) => {
        if (error !== null) reject(failed(error.message));
        else if (byteCount === target.length) resolve();
        else reject(failed(`${byteCount} of ${target.length} bytes: the file is too short`));
      });
    });
  }
}
