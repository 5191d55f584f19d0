import { MEDIA_HEADER_BYTES } from '../../spec/media-format/drive-superblock.ts';
import { oobEntry, SLOT_BYTES, superblockHeader } from '../../spec/media-format/oob.ts';
import { limits } from '../../spec/limits.ts';
import { DriveError } from '../base/errors.ts';

/** What format is asked for. Sizes in bytes; multiples are rounded up. */
export interface GeometryRequest {
  readonly blockCapacityBytes: number;
  readonly kvCapacityBytes: number;
  /** A power of two from 4 KiB to 64 KiB. */
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly diesPerChannel: number;
  /** Default 1. */
  readonly planesPerDie?: number;
  /** Share of each namespace's capacity that is added to it for garbage collection: 0.07 is 7 %. */
  readonly overProvisioning: number;
}

/**
 * The flash array: sizes, and where a page lies. A unit is one plane of one die, the smallest part that has erase blocks
 * of its own; a superblock is one erase block of every unit. Units are numbered (die * planesPerDie + plane) *
 * channelCount + channel, so that neighbours in a superpage are on neighbouring channels.
 */
export interface Geometry {
  readonly pageSizeBytes: number;
  readonly slotsPerPage: number;
  readonly channelCount: number;
  readonly diesPerChannel: number;
  readonly planesPerDie: number;
  readonly unitCount: number;
  readonly pagesPerBlock: number;
  readonly pagesPerSuperblock: number;
  readonly superblockCount: number;
  readonly pageCount: number;
  readonly blockSuperblockCount: number;
  readonly kvSuperblockCount: number;
  readonly blockCapacityBytes: number;
  readonly kvCapacityBytes: number;
}

/**
 * Superblocks of each namespace beyond capacity and over-provisioning: those that may stand open half full, one that
 * garbage collection fills and one that it empties, and a few so that it needn't run all the time.
 */
export const RESERVE_SUPERBLOCKS = { block: 10, kv: 16 } as const;
const PAGES_PER_BLOCK_MAX = 256;
const PAGES_PER_BLOCK_MIN = 4;
/** Bounds what is kept in memory for one superblock. */
const PAGES_PER_SUPERBLOCK_MAX = 65_536;
/** Slots have 32-bit addresses, and the highest one means that nothing is mapped. */
export const SLOT_COUNT_MAX = 2 ** 32 - 1;

/**
 * The geometry for the capacities asked for. Erase blocks are as large as leaves at least `limits.superblockCountMin`
 * superblocks; tiny drives get spare superblocks instead. DriveError invalidField for values that are not allowed.
 */
export function planGeometry(request: GeometryRequest): Geometry {
  checkRequest(request);
  const { pageSizeBytes, channelCount, diesPerChannel, planesPerDie = 1, overProvisioning } = request;
  const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;
  const blockCapacityBytes = roundUp(request.blockCapacityBytes, pageSizeBytes);
  const kvCapacityBytes = roundUp(request.kvCapacityBytes, pageSizeBytes);
  const unitCount = channelCount * diesPerChannel * planesPerDie;
  const share = (capacityBytes: number, superblockBytes: number, reserve: number): number =>
    Math.ceil((capacityBytes * (1 + overProvisioning)) / superblockBytes) + reserve;
  let pagesPerBlock = PAGES_PER_BLOCK_MAX;
  let block = 0;
  let kv = 0;
  for (; ; pagesPerBlock /= 2) {
    const superblockBytes = unitCount * pagesPerBlock * pageSizeBytes;
    block = share(blockCapacityBytes, superblockBytes, RESERVE_SUPERBLOCKS.block);
    kv = share(kvCapacityBytes, superblockBytes, RESERVE_SUPERBLOCKS.kv);
    // The reserve is to be a small part of the drive, so it doesn't count here.
    const reserve = RESERVE_SUPERBLOCKS.block + RESERVE_SUPERBLOCKS.kv;
    const isFine = unitCount * pagesPerBlock <= PAGES_PER_SUPERBLOCK_MAX;
    if ((isFine && block + kv - reserve >= limits.superblockCountMin) || pagesPerBlock === PAGES_PER_BLOCK_MIN) break;
  }
  const missing = Math.max(0, limits.superblockCountMin - block - kv);
  block += Math.floor(missing / 2);
  kv += Math.ceil(missing / 2);
  const geometry = completeGeometry({
    pageSizeBytes,
    channelCount,
    diesPerChannel,
    planesPerDie,
    pagesPerBlock,
    superblockCount: block + kv,
    blockSuperblockCount: block,
    kvSuperblockCount: kv,
    blockCapacityBytes,
    kvCapacityBytes,
  });
  const slotCount = geometry.pageCount * geometry.slotsPerPage;
  if (slotCount > SLOT_COUNT_MAX) {
    refuse('capacity', `of ${slotCount} blocks of 4 KiB with all that is set aside`, `at most ${SLOT_COUNT_MAX}`);
  }
  return geometry;
}

/** Superblocks that each namespace can't do without: its capacity, and what stands half full or works for it. */
export function neededSuperblocks(geometry: Geometry): { block: number; kv: number } {
  const superblockBytes = geometry.pagesPerSuperblock * geometry.pageSizeBytes;
  const block = Math.ceil(geometry.blockCapacityBytes / superblockBytes) + RESERVE_SUPERBLOCKS.block;
  const kv = Math.ceil(geometry.kvCapacityBytes / superblockBytes) + RESERVE_SUPERBLOCKS.kv;
  // A drive that was formatted with less does with less.
  return { block: Math.min(block, geometry.blockSuperblockCount), kv: Math.min(kv, geometry.kvSuperblockCount) };
}

/**
 * Superblocks that each namespace may use once so many are bad: each is taken from that which has more beyond its needs, in
 * proportion to them.
 */
export function superblockQuotas(geometry: Geometry, badCount: number): { block: number; kv: number } {
  const needed = neededSuperblocks(geometry);
  const quotas = { block: geometry.blockSuperblockCount, kv: geometry.kvSuperblockCount };
  for (let i = 0; i < badCount; i++) {
    quotas[quotas.block / needed.block > quotas.kv / needed.kv ? 'block' : 'kv']--;
  }
  return quotas;
}

type StoredGeometry = Pick<
  Geometry,
  | 'pageSizeBytes'
  | 'channelCount'
  | 'diesPerChannel'
  | 'planesPerDie'
  | 'pagesPerBlock'
  | 'superblockCount'
  | 'blockSuperblockCount'
  | 'kvSuperblockCount'
  | 'blockCapacityBytes'
  | 'kvCapacityBytes'
>;

/** Fills in what follows from the numbers that the media format stores. */
export function completeGeometry(fields: StoredGeometry): Geometry {
  const { pageSizeBytes, channelCount, diesPerChannel, planesPerDie, pagesPerBlock, superblockCount } = fields;
  const { blockSuperblockCount, kvSuperblockCount, blockCapacityBytes, kvCapacityBytes } = fields;
  const stored = {
    pageSizeBytes,
    channelCount,
    diesPerChannel,
    planesPerDie,
    pagesPerBlock,
    superblockCount,
    blockSuperblockCount,
    kvSuperblockCount,
    blockCapacityBytes,
    kvCapacityBytes,
  };
  const unitCount = stored.channelCount * stored.diesPerChannel * stored.planesPerDie;
  const pagesPerSuperblock = unitCount * stored.pagesPerBlock;
  return Object.freeze({
    ...stored,
    slotsPerPage: stored.pageSizeBytes / SLOT_BYTES,
    unitCount,
    pagesPerSuperblock,
    pageCount: pagesPerSuperblock * stored.superblockCount,
  });
}

function checkRequest(request: GeometryRequest): void {
  const { pageSizeBytes, channelCount, diesPerChannel, overProvisioning } = request;
  const { pageSizeBytesMin, pageSizeBytesMax, channelCountMax } = limits;
  const isPowerOfTwo = Number.isInteger(Math.log2(pageSizeBytes));
  if (!isPowerOfTwo || pageSizeBytes < pageSizeBytesMin || pageSizeBytes > pageSizeBytesMax) {
    refuse('page size', pageSizeBytes, `a power of two from ${pageSizeBytesMin} to ${pageSizeBytesMax} bytes`);
  }
  checkInteger('channels', channelCount, 1, channelCountMax);
  checkInteger('dies per channel', diesPerChannel, 1, 64);
  checkInteger('planes per die', request.planesPerDie ?? 1, 1, 8);
  checkInteger('block capacity', request.blockCapacityBytes, SLOT_BYTES, 2 ** 44 - SLOT_BYTES);
  checkInteger('KV capacity', request.kvCapacityBytes, pageSizeBytes, 2 ** 44);
  if (!(overProvisioning >= 0.01 && overProvisioning <= 4)) {
    refuse('over-provisioning', overProvisioning, 'a fraction from 0.01 to 4');
  }
}

function checkInteger(what: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    refuse(what, value, `an integer from ${min} to ${max}`);
  }
}

function refuse(what: string, value: unknown, allowed: string): never {
  throw new DriveError('invalidField', `${what} ${value}; allowed: ${allowed}`);
}

// --- Where things lie ---

export const superblockOf = (geometry: Geometry, ppn: number): number => Math.floor(ppn / geometry.pagesPerSuperblock);
export const unitOf = (geometry: Geometry, ppn: number): number => ppn % geometry.unitCount;
export const pageInBlockOf = (geometry: Geometry, ppn: number): number =>
  Math.floor((ppn % geometry.pagesPerSuperblock) / geometry.unitCount);
export const ppnOf = (geometry: Geometry, superblock: number, page: number, unit: number): number =>
  (superblock * geometry.pagesPerBlock + page) * geometry.unitCount + unit;
export const channelOf = (geometry: Geometry, unit: number): number => unit % geometry.channelCount;

/** Byte offset of a page in `cells.bin`. */
export const cellOffset = (geometry: { readonly pageSizeBytes: number }, ppn: number): number =>
  MEDIA_HEADER_BYTES + ppn * geometry.pageSizeBytes;
export const oobBytesPerPage = (geometry: { readonly slotsPerPage: number }): number =>
  geometry.slotsPerPage * oobEntry.sizeBytes;
/** Byte offset of a page's first entry in `oob.bin`. */
export const oobOffset = (geometry: { readonly slotsPerPage: number }, ppn: number): number =>
  MEDIA_HEADER_BYTES + ppn * oobBytesPerPage(geometry);
export const headerOffset = (superblock: number): number =>
  MEDIA_HEADER_BYTES + superblock * superblockHeader.sizeBytes;

/** Sizes of the three media files. */
export const mediaSizes = (geometry: Geometry): { cells: number; oob: number; blocks: number } => ({
  cells: cellOffset(geometry, geometry.pageCount),
  oob: oobOffset(geometry, geometry.pageCount),
  blocks: headerOffset(geometry.superblockCount),
});

/** "physical page 4711 (superblock 9, page 12, die 0, plane 1, channel 3)". */
export function describePage(geometry: Geometry, ppn: number): string {
  const unit = unitOf(geometry, ppn);
  const where = [
    `superblock ${superblockOf(geometry, ppn)}`,
    `page ${pageInBlockOf(geometry, ppn)}`,
    `die ${Math.floor(unit / (geometry.channelCount * geometry.planesPerDie))}`,
    `plane ${Math.floor(unit / geometry.channelCount) % geometry.planesPerDie}`,
    `channel ${channelOf(geometry, unit)}`,
  ];
  return `physical page ${ppn} (${where.join(', ')})`;
}
