import {
  existsSync,
  fsyncSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import {
  DRIVE_MAGIC,
  driveSuperblock,
  MEDIA_FORMAT_VERSION,
  MEDIA_FORMAT_VERSIONS_READ,
} from '../../spec/media-format/drive-superblock.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import { ideal } from '../profiles/ideal.ts';
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
import { StagingFolder } from './staging-log.ts';

const CHECKED_BYTES = driveSuperblock.sizeBytes - 4;
const DRIVE_ENTRIES = ['superblock', 'media', 'staging', 'meta'];

export interface FormatOptions extends GeometryRequest {
  /** Formats a folder that has a drive already; everything on it is lost. */
  readonly force: boolean;
  /** Default ideal. */
  readonly profile?: DriveProfile | undefined;
}

/**
 * Makes a drive in a folder. The superblock is written last, so a format that was interrupted leaves no drive.
 * DriveError invalidField for a wrong geometry or a folder with something else in it, folderInUse, writeFault.
 */
export function formatDrive(folder: string, options: FormatOptions, random: Random): DriveIdentity {
  const geometry = planGeometry(options);
  try {
    // The usual case first: making a folder under /proc recursively never returns in some versions of Node.
    mkdirSync(folder, { recursive: existsSync(folder) || !existsSync(dirname(folder)) });
  } catch (error) {
    throw new DriveError('invalidField', `folder ${folder}: ${(error as Error).message}`, { cause: error });
  }
  const lock = FolderLock.take(folder);
  try {
    clear(folder, options.force);
    const uuid = random.bytes(16);
    const chip = planChip(options.profile ?? ideal, geometry, random.nextUint32());
    createMediaFiles(folder, geometry, uuid);
    StagingFolder.create(`${folder}/staging`);
    mkdirSync(`${folder}/meta`);
    for (const name of ['media', 'staging', 'meta', '.']) syncPath(`${folder}/${name}`);
    writeSuperblock(`${folder}/superblock`, { uuid, geometry, chip });
    syncPath(folder);
    return identityOf({ uuid, geometry, chip });
  } catch (error) {
    if (error instanceof DriveError) throw error;
    throw new DriveError('writeFault', `format of ${folder}: ${(error as Error).message}`, { cause: error });
  } finally {
    lock.release();
  }
}

function syncPath(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function clear(folder: string, force: boolean): void {
  const entries = readdirSync(folder).filter((name) => !/^lock(\.|$)/.test(name));
  const foreign = entries.filter((name) => ![...DRIVE_ENTRIES, 'running.json'].includes(name));
  if (foreign.length > 0) {
    throw new DriveError('invalidField', `folder ${folder} holds ${foreign[0]}; give an empty folder or a drive's`);
  }
  if (existsSync(`${folder}/superblock`) && !force) {
    throw new DriveError(
      'invalidField',
      `folder ${folder} holds a drive; --force formats it, and all it stores is lost`,
    );
  }
  // The superblock first: without it the folder is no drive.
  rmSync(`${folder}/superblock`, { force: true });
  for (const name of entries) rmSync(`${folder}/${name}`, { recursive: true, force: true });
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

function writeSuperblock(path: string, { uuid, geometry, chip }: DriveDescription): void {
  const { slotsPerPage, unitCount, pagesPerSuperblock, pageCount, ...stored } = geometry;
  void [slotsPerPage, unitCount, pagesPerSuperblock, pageCount];
  const { profile, seed, spareBlocksPerUnit } = chip;
  const made = { profile: profile.name, chipSeed: seed, spareBlocksPerUnit };
  const bytes = driveSuperblock.encode({ magic: DRIVE_MAGIC, version: MEDIA_FORMAT_VERSION, uuid, ...stored, ...made });
  new DataView(bytes.buffer).setUint32(CHECKED_BYTES, crc32c(bytes.subarray(0, CHECKED_BYTES)), true);
  const descriptor = openSync(path, 'wx', 0o600);
  try {
    writeFileSync(descriptor, bytes);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** What the drive superblock says. */
export interface DriveDescription {
  readonly uuid: Uint8Array;
  readonly geometry: Geometry;
  readonly chip: Chip;
}

/** Reads who the drive is. DriveError mediaFormat says what is wrong. */
export function readSuperblock(folder: string): DriveDescription {
  const path = `${folder}/superblock`;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : (error as Error).message;
    throw new DriveError('mediaFormat', `${folder} is no drive: ${path}: ${why}; make one with "attndrive format"`, {
      cause: error,
    });
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
  const { uuid, chipSeed: seed, spareBlocksPerUnit } = fields;
  return {
    uuid,
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

export function identityOf({ uuid, geometry, chip }: DriveDescription): DriveIdentity {
  const text = Buffer.from(uuid).toString('hex');
  const { blockCapacityBytes, kvCapacityBytes, pageSizeBytes, channelCount, diesPerChannel, planesPerDie } = geometry;
  return {
    uuid: text,
    serial: `AD${text.slice(0, 14).toUpperCase()}`,
    formatVersion: MEDIA_FORMAT_VERSION,
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
