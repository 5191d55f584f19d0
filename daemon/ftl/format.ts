import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import {
  DRIVE_MAGIC,
  driveSuperblock,
  MEDIA_FORMAT_VERSION,
  MEDIA_FORMAT_VERSIONS_READ,
} from '../../spec/media-format/drive-superblock.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import { fileError, fileErrorReason } from '../base/file-errors.ts';
import { type FileSystem, systemFileSystem, writeWhole } from '../base/file-system.ts';
import type { Random } from '../base/random.ts';
import { ideal } from '../profiles/ideal.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { LmdbStore } from '../meta/store.ts';
import type { DriveProfile } from '../profiles/profile.ts';
import { profileOf } from '../profiles/profiles.ts';
import { type Chip, planChip } from '../nand/chip.ts';
import {
  SLOT_COUNT_MAX,
  completeGeometry,
  type Geometry,
  type GeometryRequest,
  planGeometry,
} from '../nand/geometry.ts';
import { createMediaFiles } from '../nand/media-file.ts';
import type { DriveIdentity } from './contract.ts';
import { FolderLock } from './folder-lock.ts';

const CHECKED_BYTES = driveSuperblock.sizeBytes - 4;
/** What a drive's folder holds besides its superblock. */
const DRIVE_PARTS = ['media', 'staging', 'meta'];
/** While a format is under way; renamed at its end. */
const NEW_SUPERBLOCK = 'superblock.new';

export interface FormatOptions extends GeometryRequest {
  /** Formats a folder that has a drive already; everything on it is lost. */
  readonly force: boolean;
  /** Default ideal. */
  readonly profile?: DriveProfile | undefined;
}

/**
 * Makes a drive in a folder; when it resolves, the drive outlives a power cut. A format that is cut short leaves the old
 * drive whole, or no drive, which `readSuperblock` then says: the new superblock is written first, under another name, the
 * old one goes, then everything else is made anew, and the rename comes last.
 *
 * DriveError invalidField for a wrong geometry or a folder with something else in it, folderInUse, writeFault.
 */
export async function formatDrive(
  folder: string,
  options: FormatOptions,
  random: Random,
  fileSystem: FileSystem = systemFileSystem,
): Promise<DriveIdentity> {
  const geometry = planGeometry(options);
  const above = makeFolders(resolve(folder), fileSystem);
  const lock = FolderLock.take(folder);
  try {
    const isDrive = checkContents(folder, options.force);
    const uuid = random.bytes(16);
    const chip = planChip(options.profile ?? ideal, geometry, random.nextUint32());
    const description = { uuid, geometry, chip, formatVersion: MEDIA_FORMAT_VERSION };
    fileSystem.remove(`${folder}/${NEW_SUPERBLOCK}`);
    await writeSuperblock(`${folder}/${NEW_SUPERBLOCK}`, description, fileSystem);
    await fileSystem.syncFolder(folder);
    if (isDrive) {
      fileSystem.remove(`${folder}/superblock`);
      await fileSystem.syncFolder(folder);
    }
    for (const name of [...DRIVE_PARTS, 'running.json']) fileSystem.remove(`${folder}/${name}`);
    await createMediaFiles(folder, geometry, uuid, fileSystem);
    fileSystem.makeFolder(`${folder}/staging`);
    await createStore(`${folder}/meta`, uuid, fileSystem);
    await fileSystem.syncFolder(folder);
    fileSystem.rename(`${folder}/${NEW_SUPERBLOCK}`, `${folder}/superblock`);
    for (const path of [folder, ...above]) await fileSystem.syncFolder(path);
    return identityOf(description);
  } catch (error) {
    if (error instanceof DriveError) throw error;
    throw new DriveError('writeFault', `format of ${folder}: ${fileErrorReason(error, folder)}`, { cause: error });
  } finally {
    lock.release();
  }
}

/** Makes the folder and those above it that are missing; returns the folders whose names are new, nearest last. */
function makeFolders(folder: string, fileSystem: FileSystem): string[] {
  const missing: string[] = [];
  for (let path = folder; !existsSync(path); path = dirname(path)) missing.unshift(path);
  try {
    for (const path of missing) fileSystem.makeFolder(path);
    readdirSync(folder);
  } catch (error) {
    throw new DriveError('invalidField', `folder ${folder}: ${fileErrorReason(error, folder)}`, { cause: error });
  }
  return missing.map((path) => dirname(path));
}

/** The store is there from the first day, so that one that is missing is missed, and names its drive. */
async function createStore(folder: string, uuid: Uint8Array, fileSystem: FileSystem): Promise<void> {
  fileSystem.makeFolder(folder);
  const store = LmdbStore.create(folder);
  try {
    await store.commit([{ kind: 'put', namespace: metaNamespaces.drive, key: ['uuid'], value: uuid }]);
  } finally {
    await store.close();
  }
  await fileSystem.syncFolder(folder);
}

/** Whether a drive is there that may be wiped. DriveError invalidField if the folder must be left alone. */
function checkContents(folder: string, force: boolean): boolean {
  const refuse = (what: string): never => {
    throw new DriveError('invalidField', `folder ${folder} holds ${what}`);
  };
  const entries = readdirSync(folder).filter((name) => !/^lock(\.|$)/.test(name));
  const own = ['superblock', NEW_SUPERBLOCK, ...DRIVE_PARTS, 'running.json'];
  const foreign = entries.find((name) => !own.includes(name));
  if (foreign !== undefined) refuse(`${foreign}; give an empty folder or a drive's`);
  const isDrive = entries.includes('superblock');
  if (isDrive && !force) refuse('a drive; --force formats it, and all it stores is lost');
  // A format that was cut short has left its own superblock; without one, these may be all that is left of a drive.
  const part = entries.find((name) => DRIVE_PARTS.includes(name));
  if (part !== undefined && !isDrive && !entries.includes(NEW_SUPERBLOCK) && !force) {
    refuse(`a drive's ${part} without its superblock; --force formats it, and all it stores is lost`);
  }
  return isDrive;
}

function isPlausible(geometry: Geometry): boolean {
  const { superblockCount, blockSuperblockCount, kvSuperblockCount, pagesPerBlock, unitCount } = geometry;
  const { slotsPerPage, pageCount, pageSizeBytes, blockCapacityBytes, kvCapacityBytes } = geometry;
  return (
    [blockSuperblockCount, kvSuperblockCount, pagesPerBlock, unitCount, slotsPerPage].every((count) => count >= 1) &&
    blockSuperblockCount + kvSuperblockCount === superblockCount &&
    pagesPerBlock < 0xffff &&
    Number.isInteger(Math.log2(slotsPerPage)) &&
    pageCount * slotsPerPage <= SLOT_COUNT_MAX &&
    blockCapacityBytes + kvCapacityBytes <= pageCount * pageSizeBytes
  );
}

async function writeSuperblock(path: string, description: DriveDescription, fileSystem: FileSystem): Promise<void> {
  const descriptor = fileSystem.open(path, 'new');
  try {
    writeWhole(fileSystem, descriptor, encodeSuperblock(description), 0);
    await fileSystem.sync(descriptor);
  } finally {
    fileSystem.close(descriptor);
  }
}

function encodeSuperblock({ uuid, geometry, chip, formatVersion }: DriveDescription): Uint8Array {
  const { slotsPerPage, unitCount, pagesPerSuperblock, pageCount, ...stored } = geometry;
  void [slotsPerPage, unitCount, pagesPerSuperblock, pageCount];
  const { profile, seed, spareBlocksPerUnit } = chip;
  const made = { profile: profile.name, chipSeed: seed, spareBlocksPerUnit };
  const bytes = driveSuperblock.encode({ magic: DRIVE_MAGIC, version: formatVersion, uuid, ...stored, ...made });
  new DataView(bytes.buffer).setUint32(CHECKED_BYTES, crc32c(bytes.subarray(0, CHECKED_BYTES)), true);
  return bytes;
}

/** What the drive superblock says. */
export interface DriveDescription {
  readonly uuid: Uint8Array;
  readonly geometry: Geometry;
  readonly chip: Chip;
  /** Of MEDIA_FORMAT_VERSIONS_READ. */
  readonly formatVersion: number;
}

/** Reads who the drive is. DriveError mediaFormat says what is wrong. */
export function readSuperblock(folder: string): DriveDescription {
  const path = `${folder}/superblock`;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (!isMissing) throw fileError('mediaFormat', error, path);
    const advice = existsSync(`${folder}/${NEW_SUPERBLOCK}`)
      ? 'a format of it was cut short, run "attndrive format" again'
      : 'make one with "attndrive format"';
    throw new DriveError('mediaFormat', `${folder} is no drive: ${path}: no such file; ${advice}`, { cause: error });
  }
  const wrong = (what: string): DriveError => new DriveError('mediaFormat', `${path}: ${what}`);
  if (bytes.length !== driveSuperblock.sizeBytes) {
    throw wrong(`${bytes.length} bytes long; must be ${driveSuperblock.sizeBytes}`);
  }
  const fields = driveSuperblock.decode(bytes);
  if (fields.magic !== DRIVE_MAGIC) throw wrong(`does not begin with ${DRIVE_MAGIC}`);
  if (!MEDIA_FORMAT_VERSIONS_READ.includes(fields.version)) {
    throw wrong(`format version ${fields.version}; this program reads ${MEDIA_FORMAT_VERSIONS_READ.join(', ')}`);
  }
  if (fields.crc32c !== crc32c(bytes.subarray(0, CHECKED_BYTES))) throw wrong('checksum is wrong');
  if (!isPlausible(completeGeometry(fields))) throw wrong('its geometry cannot be');
  const { uuid, version: formatVersion, chipSeed: seed, spareBlocksPerUnit } = fields;
  return {
    uuid,
    formatVersion,
    geometry: completeGeometry(fields),
    chip: { profile: storedProfile(fields.profile, wrong), seed, spareBlocksPerUnit },
  };
}

function storedProfile(name: string, wrong: (what: string) => DriveError): DriveProfile {
  try {
    return name === '' ? ideal : profileOf(name);
  } catch (error) {
    throw wrong((error as Error).message);
  }
}

export function identityOf({ uuid, geometry, chip, formatVersion }: DriveDescription): DriveIdentity {
  const text = Buffer.from(uuid).toString('hex');
  const { blockCapacityBytes, kvCapacityBytes, pageSizeBytes, channelCount, diesPerChannel, planesPerDie } = geometry;
  return {
    uuid: text,
    serial: `AD${text.slice(0, 14).toUpperCase()}`,
    formatVersion,
    blockCapacityBytes,
    kvCapacityBytes,
    pageSizeBytes,
    channelCount,
    diesPerChannel,
    planesPerDie,
    pagesPerBlock: geometry.pagesPerBlock,
    superblockCount: geometry.superblockCount,
    profile: chip.profile.name,
  };
}
