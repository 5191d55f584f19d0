import { type oobEntry, oobFlags, oobKinds, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { StructValue } from '../../spec/struct.ts';
import { DriveError } from '../base/errors.ts';
import { wholeEntry } from '../ftl/flash.ts';
import { kvOwnerText } from '../ftl/page-owner.ts';
import { UNMAPPED } from '../ftl/segmented-map.ts';
import type { Pool } from '../ftl/superblocks.ts';
import { describePage, oobBytesPerPage, superblockOf } from '../nand/geometry.ts';
import type { DriveImage } from './image.ts';

/**
 * none: padding, or never programmed. damaged: its own checksum is wrong. formerLife: of an opening of the superblock that
 * does not count any more. present: it counts.
 */
export type EntryState = 'none' | 'damaged' | 'formerLife' | 'present';

export interface SlotInspection {
  /** Within the page; a KV page has one. */
  readonly slot: number;
  readonly entryState: EntryState;
  /** Left out where there is none, or it is damaged. */
  readonly entry?: StructValue<(typeof oobEntry)['fields']>;
  /** Whose it was when it was programmed. */
  readonly owner?: string;
  readonly isCopy?: boolean;
  /** Whether the map still names it: else it is garbage. */
  readonly isMapped: boolean;
  /** Whether the bytes have the entry's checksum; left out where there is no entry, or the cells can't be read. */
  readonly isIntact?: boolean;
}

export interface PageInspection {
  readonly page: number;
  /** "physical page 105 (superblock 13, page 0, die 0, plane 0, channel 1)". */
  readonly place: string;
  readonly superblock: number;
  readonly superblockState: string;
  readonly pool: Pool | undefined;
  /** Of the superblock's header. */
  readonly epoch: number;
  readonly openTag: number;
  readonly slots: readonly SlotInspection[];
  /** Why cells or entries can't be read. */
  readonly unreadable?: string;
  /** Bytes of the page's cells. */
  readonly cells?: Uint8Array;
}

export interface LbaInspection {
  readonly lba: number;
  /** stagingLog: its newest bytes are there and in no page. */
  readonly where: 'page' | 'stagingLog' | 'nowhere';
  /** Number of the 4 KiB slot on the media. */
  readonly slot?: number;
  readonly page?: PageInspection;
}

/** One flash page as it lies there, whatever the maps say. DriveError invalidField if there is none. */
export async function inspectPage(image: DriveImage, page: number): Promise<PageInspection> {
  const { geometry, superblocks } = image;
  checkBelow('page', page, geometry.pageCount);
  const superblock = superblockOf(geometry, page);
  const about = {
    page,
    place: describePage(geometry, page),
    superblock,
    superblockState: superblocks.state(superblock),
    pool: superblocks.pool(superblock),
    epoch: superblocks.epoch[superblock]!,
    openTag: superblocks.openTag[superblock]!,
  };
  const oob = new Uint8Array(oobBytesPerPage(geometry));
  const cells = new Uint8Array(geometry.pageSizeBytes);
  const { media } = image.stores;
  const oobFailure = await failureOf(media.readOob(page, oob));
  if (oobFailure !== undefined) return { ...about, slots: [], unreadable: oobFailure };
  const unreadable = await failureOf(media.readCells(page * geometry.pageSizeBytes, cells));
  const readable = unreadable === undefined ? { cells } : { unreadable };
  const isKv = wholeEntry(oob, 0)?.kind === oobKinds.kv;
  const slots = Array.from({ length: isKv ? 1 : geometry.slotsPerPage }, (_, slot) =>
    inspectSlot(image, { page, slot }, oob, readable.cells),
  );
  return { ...about, slots, ...readable };
}

/** Where a block lies. DriveError invalidField if there is none. */
export async function inspectLba(image: DriveImage, lba: number): Promise<LbaInspection> {
  checkBelow('LBA', lba, image.lbaCount);
  if (image.stagedLbas.has(lba)) return { lba, where: 'stagingLog' };
  const slot = image.blockMap.get(lba);
  if (slot === UNMAPPED) return { lba, where: 'nowhere' };
  const page = await inspectPage(image, Math.floor(slot / image.geometry.slotsPerPage));
  return { lba, where: 'page', slot, page };
}

function inspectSlot(
  image: DriveImage,
  { page, slot }: { page: number; slot: number },
  oob: Uint8Array,
  cells: Uint8Array | undefined,
): SlotInspection {
  const { superblocks, geometry, blockMap, kvMap, checksum } = image;
  const entry = wholeEntry(oob, slot);
  if (entry === undefined) {
    const bytes = oob.subarray((slot * oob.length) / geometry.slotsPerPage);
    return { slot, entryState: bytes[0] === oobKinds.padding ? 'none' : 'damaged', isMapped: false };
  }
  const superblock = superblockOf(geometry, page);
  const isPresent = entry.epoch === superblocks.epoch[superblock] && entry.openTag === superblocks.openTag[superblock];
  const isKv = entry.kind === oobKinds.kv;
  const address = isKv ? kvMap.get(entry.logical) : blockMap.get(entry.logical);
  const bytes = isKv ? cells : cells?.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
  return {
    slot,
    entryState: isPresent ? 'present' : 'formerLife',
    entry,
    owner: isKv ? `${kvOwnerText(entry)}; logical page ${entry.logical}` : `LBA ${entry.logical}`,
    isCopy: (entry.flags & oobFlags.copy) !== 0,
    isMapped: isPresent && address === (isKv ? page : page * geometry.slotsPerPage + slot),
    ...(bytes && { isIntact: checksum.of(bytes) === entry.dataCrc32c }),
  };
}

async function failureOf(work: Promise<void>): Promise<string | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    return error.message;
  }
}

/** DriveError invalidField. */
export function checkBelow(what: string, value: number, end: number): void {
  if (Number.isInteger(value) && value >= 0 && value < end) return;
  throw new DriveError('invalidField', `${what} ${value}; allowed: 0 to ${end - 1}`);
}
