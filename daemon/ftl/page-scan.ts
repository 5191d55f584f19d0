import { oobEntry, oobKinds } from '../../spec/media-format/oob.ts';
import { DriveError } from '../base/errors.ts';
import { oobBytesPerPage } from '../nand/geometry.ts';
import { type Flash, isCopy, type OobEntry } from './flash.ts';

/** What one read of cells takes at most. */
const READ_BYTES_MAX = 2 ** 20;

/** Entries that recovery asks for, by what they say of themselves. */
export interface EntryFilter {
  /** Those of later operations are wanted. */
  readonly afterOperation: number;
  /** [LBA] -> operation: a block of that operation is wanted too. */
  readonly blocks: ReadonlyMap<number, number>;
}

/** A page with the entries of its slots that are wanted, whole and of the present life; copies are left out. */
export interface FoundPage {
  readonly ppn: number;
  readonly entries: readonly (OobEntry | undefined)[];
}

/**
 * Pages of a superblock that were programmed since, in order. Their bytes are read and must be those that the entries were
 * made for: a page that a power cut tore was not programmed.
 */
export async function scanSuperblock(flash: Flash, superblock: number, filter: EntryFilter): Promise<FoundPage[]> {
  const { pageSizeBytes } = flash.geometry;
  const wanted = await readEntries(flash, superblock, filter);
  const found: FoundPage[] = [];
  const pagesMax = Math.max(1, Math.floor(READ_BYTES_MAX / pageSizeBytes));
  const bytes = new Uint8Array(pagesMax * pageSizeBytes);
  for (let first = 0; first < wanted.length; ) {
    let end = first + 1;
    while (end < wanted.length && end - first < pagesMax && wanted[end]!.ppn === wanted[end - 1]!.ppn + 1) end++;
    const run = wanted.slice(first, end);
    found.push(...(await checkRun(flash, run, bytes)));
    first = end;
  }
  return found;
}

async function readEntries(flash: Flash, superblock: number, filter: EntryFilter): Promise<FoundPage[]> {
  const { geometry, array } = flash;
  const { pagesPerSuperblock, slotsPerPage } = geometry;
  const oobBytes = oobBytesPerPage(geometry);
  const oob = new Uint8Array(pagesPerSuperblock * oobBytes);
  const view = new DataView(oob.buffer);
  const firstPpn = superblock * pagesPerSuperblock;
  await array.media.readOob(firstPpn, oob);
  const wanted: FoundPage[] = [];
  for (let page = 0; page < pagesPerSuperblock; page++) {
    let entries: (OobEntry | undefined)[] | undefined;
    for (let slot = 0; slot < slotsPerPage; slot++) {
      if (!isWanted(view, page * oobBytes + slot * oobEntry.sizeBytes, filter)) continue;
      const area = oob.subarray(page * oobBytes, (page + 1) * oobBytes);
      const entry = flash.checkedEntry(firstPpn + page, area, slot);
      if (entry === undefined || isCopy(entry)) continue;
      entries ??= Array.from({ length: slotsPerPage }, () => undefined);
      entries[slot] = entry;
    }
    if (entries !== undefined) wanted.push({ ppn: firstPpn + page, entries });
  }
  return wanted;
}

const { kind, operation, logical } = oobEntry.offsetOf;

/** Most entries of a superblock are not: this looks at single fields, before the entry is decoded and its sum made. */
function isWanted(view: DataView, at: number, { afterOperation, blocks }: EntryFilter): boolean {
  const kindCode = view.getUint8(at + kind);
  if (kindCode === oobKinds.padding) return false;
  const number = view.getUint32(at + operation, true) + view.getUint32(at + operation + 4, true) * 2 ** 32;
  if (number > afterOperation) return true;
  return kindCode === oobKinds.block && blocks.get(view.getUint32(at + logical, true)) === number;
}

/** Pages that lie side by side. */
async function checkRun(flash: Flash, run: readonly FoundPage[], bytes: Uint8Array): Promise<FoundPage[]> {
  const { pageSizeBytes } = flash.geometry;
  const first = run[0]!;
  const target = bytes.subarray(0, run.length * pageSizeBytes);
  try {
    await flash.array.media.readCells(first.ppn * pageSizeBytes, target);
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    if (run.length > 1) return checkEach(flash, run, bytes);
    // It may be a page that was promised: whoever reads it will be told.
    return [first];
  }
  return run.map(({ ppn, entries }, i) => {
    const page = target.subarray(i * pageSizeBytes, (i + 1) * pageSizeBytes);
    const isRight = (entry: OobEntry, slot: number): boolean => flash.isSlotIntact(entry, slot, page);
    return { ppn, entries: entries.map((entry, slot) => (entry && isRight(entry, slot) ? entry : undefined)) };
  });
}

async function checkEach(flash: Flash, run: readonly FoundPage[], bytes: Uint8Array): Promise<FoundPage[]> {
  const found: FoundPage[] = [];
  for (const page of run) found.push(...(await checkRun(flash, [page], bytes)));
  return found;
}
