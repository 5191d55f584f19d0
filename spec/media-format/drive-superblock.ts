/**
 * `superblock`: the one file that says what a drive's folder is. 4096 bytes, written by format, never changed.
 * Every media file begins with `mediaFileHeader`, which names the same drive.
 */
import { bytes, defineStruct, reserved, text, u16, u32, uint64 } from '../struct.ts';

export const DRIVE_MAGIC = 'ATTNDRIV';
export const MEDIA_FORMAT_VERSION = 3;
/** Versions that this program reads. 1 has no profile, no chip seed and no spare blocks: those fields are zero. */
export const MEDIA_FORMAT_VERSIONS_READ: readonly number[] = [1, 2, MEDIA_FORMAT_VERSION];
/** From this version on metadata is there before the first start, its values have checksums, and it names the drive. */
export const SUMMED_METADATA_VERSION = 3;
/** Pages begin here in `cells.bin`, entries in `oob.bin`, headers in `blocks.bin`. */
export const MEDIA_HEADER_BYTES = 65_536;

export const driveSuperblock = defineStruct('drive superblock', 4096, {
  magic: text(0, 8, 'DRIVE_MAGIC'),
  version: u16(8, 'MEDIA_FORMAT_VERSION'),
  reserved0: reserved(10, 2),
  pageSizeBytes: u32(12, 'flash page'),
  uuid: bytes(16, 16, 'who the drive is'),
  channelCount: u16(32, 'channels'),
  diesPerChannel: u16(34, 'dies per channel'),
  pagesPerBlock: u32(36, 'pages of an erase block of one die'),
  superblockCount: u32(40, 'erase blocks per die'),
  blockSuperblockCount: u32(44, 'superblocks that the block namespace may use'),
  kvSuperblockCount: u32(48, 'superblocks that the KV-cache namespace may use'),
  planesPerDie: u16(52, 'planes per die'),
  reserved1: reserved(54, 2),
  blockCapacityBytes: uint64(56, 'size of the block namespace'),
  kvCapacityBytes: uint64(64, 'pages that the KV-cache namespace promises, in bytes'),
  profile: text(72, 32, 'name of the profile; empty: ideal'),
  chipSeed: u32(104, 'what the chips are like: bad blocks, endurance, bit errors follow from it and the profile'),
  spareBlocksPerUnit: u32(108, 'erase blocks of each unit beyond superblockCount, to replace bad ones'),
  reserved2: reserved(112, 3980),
  crc32c: u32(4092, 'of the bytes before'),
});

export const mediaFileKinds = { cells: 1, oob: 2, blocks: 3 } as const;
export type MediaFileKind = keyof typeof mediaFileKinds;

export const mediaFileHeader = defineStruct('media file header', 64, {
  magic: text(0, 8, 'DRIVE_MAGIC'),
  version: u16(8, 'MEDIA_FORMAT_VERSION'),
  kind: u16(10, 'mediaFileKinds'),
  reserved0: reserved(12, 4),
  uuid: bytes(16, 16, 'of the drive'),
  sizeBytes: uint64(32, 'size of the file, this header included'),
  reserved1: reserved(40, 20),
  crc32c: u32(60, 'of the bytes before'),
});
