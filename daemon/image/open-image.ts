import { existsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { SUMMED_METADATA_VERSION } from '../../spec/media-format/drive-superblock.ts';
import { FolderLock } from '../ftl/folder-lock.ts';
import { type DriveDescription, readSuperblock } from '../ftl/format.ts';
import { StagingFolder } from '../ftl/staging-log.ts';
import type { KernelName } from '../kernels/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { MetaSnapshot } from '../meta/snapshot.ts';
import { type Report, unknown } from './finding.ts';
import { ImageMedia } from './image-media.ts';
import type { ImageStores } from './image.ts';
import type { PageSummer } from './page-summer.ts';
import { ThreadedSummer } from './threaded-summer.ts';

/** A drive's folder opened for reading alone. Nothing in it changes, not even a lock. */
export interface OpenImage extends DriveDescription {
  readonly folder: string;
  readonly stores: ImageStores;
  readonly media: ImageMedia;
  /** DriveError folderInUse if a daemon has come meanwhile: what was read is of no one moment then. */
  assertUnused(): void;
  close(): Promise<void>;
}

/**
 * DriveError mediaFormat if the folder is no drive or its superblock is damaged: nothing else can be said then;
 * folderInUse while a daemon serves it. Whatever else is wrong with its files is reported.
 */
export function openImage(folder: string, report: Report): OpenImage {
  FolderLock.assertFree(folder);
  const description = readSuperblock(folder);
  const { uuid, geometry, formatVersion } = description;
  const wrong = (text: string): void => report({ kind: 'file', text, lost: [] });
  const media = ImageMedia.open(folder, { geometry, uuid }, wrong);
  const meta = readMetadata(folder, formatVersion, report);
  if (formatVersion >= SUMMED_METADATA_VERSION) checkOwner(meta, uuid, `${folder}/meta`, wrong);
  const staging = readableStaging(new StagingFolder(`${folder}/staging`), wrong);
  return {
    ...description,
    folder,
    media,
    stores: { ...description, media, meta, staging },
    assertUnused: () => FolderLock.assertFree(folder),
    close: () => media.close(),
  };
}

function readMetadata(folder: string, formatVersion: number, report: Report): MetaSnapshot {
  const path = `${folder}/meta/data.mdb`;
  const isSummed = formatVersion >= SUMMED_METADATA_VERSION;
  // Drives of earlier formats had no store before their first start.
  const isNew = !isSummed && (!existsSync(path) || statSync(path).size === 0);
  if (isNew) return new MetaSnapshot();
  return MetaSnapshot.read(`${folder}/meta`, isSummed ? 'summed' : 'plain', ({ message }) =>
    report({ kind: 'file', text: message, lost: [unknown] }),
  );
}

function checkOwner(meta: MetaSnapshot, uuid: Uint8Array, path: string, wrong: (text: string) => void): void {
  const stored = meta.get(metaNamespaces.drive, ['uuid']);
  if (!(stored instanceof Uint8Array)) wrong(`${path} names no drive`);
  else if (Buffer.compare(stored, uuid) !== 0) {
    wrong(`${path} belongs to drive ${Buffer.from(stored).toString('hex')}, not to this one`);
  }
}

/** A folder that is missing holds no segments. */
function readableStaging(folder: StagingFolder, wrong: (text: string) => void): ImageStores['staging'] {
  try {
    folder.list();
    return folder;
  } catch (error) {
    wrong((error as Error).message);
    return { list: () => [], read: (segment) => folder.read(segment) };
  }
}

/** Sums on a thread for each CPU; undefined if the cells file could not be opened. */
export function threadedSummer({ media, geometry }: OpenImage, kernels: KernelName): PageSummer | undefined {
  const { files } = media;
  if (files === undefined) return undefined;
  const { cellsDescriptor } = files;
  return new ThreadedSummer({ threadCount: availableParallelism(), kernels }, { cellsDescriptor, geometry });
}
