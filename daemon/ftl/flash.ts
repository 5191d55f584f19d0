import { SLOT_BYTES, oobEntry, oobFlags, oobKinds } from '../../spec/media-format/oob.ts';
import type { StructValue } from '../../spec/struct.ts';
import type { Arena } from '../base/arena.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import type { Kernels } from '../kernels/contract.ts';
import type { NandArray, NandCause } from '../nand/array.ts';
import { describePage, type Geometry, oobBytesPerPage } from '../nand/geometry.ts';
import type { Superblocks } from './superblocks.ts';

export type OobEntry = StructValue<(typeof oobEntry)['fields']>;

/** One for each slot of a page, without sums; undefined: padding. */
export type PageEntries = readonly (Partial<OobEntry> | undefined)[];

const CHECKED_BYTES = oobEntry.sizeBytes - 4;

/** Pages with their out-of-band entries: sums are made on the way in and checked on the way out. */
export class Flash {
  readonly geometry: Geometry;
  readonly array: NandArray;
  readonly superblocks: Superblocks;
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #oob: Uint8Array;
  unrecoveredReadCount = 0;

  constructor(modules: { array: NandArray; superblocks: Superblocks; arena: Arena; kernels: Kernels }) {
    this.array = modules.array;
    this.geometry = modules.array.geometry;
    this.superblocks = modules.superblocks;
    this.#arena = modules.arena;
    this.#kernels = modules.kernels;
    this.#oob = new Uint8Array(oobBytesPerPage(this.geometry));
  }

  /** CRC32C of bytes, by the kernels if they lie in the arena. */
  sum(bytes: Uint8Array): number {
    if (bytes.buffer === (this.#arena.buffer as unknown)) return this.#kernels.crc32c(bytes.byteOffset, bytes.length);
    return crc32c(bytes);
  }

  /**
   * Programs a page; entries left out at the end are padding. False if the
   * cells failed: the page holds nothing. DriveError writeFault if the disk refuses.
   */
  program(ppn: number, data: Uint8Array, entries: PageEntries, cause: NandCause): boolean {
    const superblock = Math.floor(ppn / this.geometry.pagesPerSuperblock);
    const epoch = this.superblocks.epoch[superblock]!;
    const openTag = this.superblocks.openTag[superblock]!;
    const oob = this.#oob.fill(0);
    const view = new DataView(oob.buffer);
    for (let slot = 0; slot < this.geometry.slotsPerPage; slot++) {
      this.superblocks.clearVerified(ppn * this.geometry.slotsPerPage + slot);
      const entry = entries[slot];
      if (entry === undefined) continue;
      const at = slot * oobEntry.sizeBytes;
      const summed = entry.kind === oobKinds.kv ? data : data.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
      const dataCrc32c = entry.dataCrc32c ?? this.sum(summed);
      oobEntry.encode({ ...entry, epoch, openTag, dataCrc32c }, oob, at);
      view.setUint32(at + CHECKED_BYTES, crc32c(oob.subarray(at, at + CHECKED_BYTES)), true);
    }
    return this.array.program(ppn, data, oob, cause);
  }

  /** The entry of a slot if it is whole and of the superblock's present life; undefined if not. */
  checkedEntry(ppn: number, oob: Uint8Array, slot: number): OobEntry | undefined {
    const entry = wholeEntry(oob, slot);
    if (entry === undefined) return undefined;
    const superblock = Math.floor(ppn / this.geometry.pagesPerSuperblock);
    const isCurrent =
      entry.epoch === this.superblocks.epoch[superblock] && entry.openTag === this.superblocks.openTag[superblock];
    return isCurrent ? entry : undefined;
  }

  /**
   * Reads slots that lie one after another (they may cross pages), and checks those that were not checked yet.
   * `lbas` gives each slot's LBA. DriveError unrecoveredRead. The caller holds a pin.
   */
  async readBlockSlots(firstSlot: number, lbas: readonly number[], target: Uint8Array): Promise<void> {
    const cells = this.readCells(firstSlot * SLOT_BYTES, target, 'block', `LBA ${lbas[0]}`);
    const isVerified = lbas.every((_, i) => this.superblocks.isVerified(firstSlot + i));
    const oob = await both(isVerified ? undefined : this.#readOobOf(firstSlot, lbas.length), cells);
    if (oob === undefined) return;
    const { slotsPerPage } = this.geometry;
    const firstPpn = Math.floor(firstSlot / slotsPerPage);
    for (let i = 0; i < lbas.length; i++) {
      const ppn = Math.floor((firstSlot + i) / slotsPerPage);
      const entry = this.checkedEntry(ppn, oob, firstSlot + i - firstPpn * slotsPerPage);
      this.checkBlockSlot(firstSlot + i, entry, lbas[i]!, target.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES));
    }
  }

  /** Checks a slot's bytes against its entry unless that was done before. DriveError unrecoveredRead. */
  checkBlockSlot(slot: number, entry: OobEntry | undefined, lba: number, bytes: Uint8Array): void {
    if (this.superblocks.isVerified(slot)) return;
    const isRight = entry?.kind === oobKinds.block && entry.logical === lba && entry.dataCrc32c === this.sum(bytes);
    if (!isRight) throw this.unrecovered(Math.floor(slot / this.geometry.slotsPerPage), `LBA ${lba}`);
    this.superblocks.markVerified(slot);
  }

  /** Reads one KV page and checks it if it was not checked yet. The caller holds a pin. */
  async readKvPage(ppn: number, lpn: number, target: Uint8Array): Promise<void> {
    const slot = ppn * this.geometry.slotsPerPage;
    const cells = this.readCells(ppn * this.geometry.pageSizeBytes, target, 'kv', `KV page ${lpn}`);
    const oob = await both(this.superblocks.isVerified(slot) ? undefined : this.#readOobOf(slot, 1), cells);
    if (oob !== undefined) this.checkKvPage(ppn, this.checkedEntry(ppn, oob, 0), lpn, target);
  }

  /** Checks a page's bytes against its entry unless that was done before. DriveError unrecoveredRead. */
  checkKvPage(ppn: number, entry: OobEntry | undefined, lpn: number, bytes: Uint8Array): void {
    const slot = ppn * this.geometry.slotsPerPage;
    if (this.superblocks.isVerified(slot)) return;
    const isRight = entry?.kind === oobKinds.kv && entry.logical === lpn && entry.dataCrc32c === this.sum(bytes);
    if (!isRight) throw this.unrecovered(ppn, `KV page ${lpn}`);
    this.superblocks.markVerified(slot);
  }

  /** Reads cells without checking them. DriveError unrecoveredRead names the first page. `what` it holds. */
  async readCells(byteOffset: number, target: Uint8Array, cause: NandCause, what: string): Promise<void> {
    try {
      await this.array.read(byteOffset, target, cause);
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      throw this.unrecovered(Math.floor(byteOffset / this.geometry.pageSizeBytes), what, error);
    }
  }

  /** Counts it. `cause`: why the page can't be read; without one, its checksum is wrong. */
  unrecovered(ppn: number, what: string, cause?: DriveError): DriveError {
    this.unrecoveredReadCount++;
    const why = cause === undefined ? 'fails its checksum' : `cannot be read (${cause.message})`;
    const detail = `${describePage(this.geometry, ppn)} ${why}; it held ${what}`;
    return new DriveError('unrecoveredRead', detail, { result: ppn, cause });
  }

  /** Out-of-band areas of the pages that these slots are in. */
  async #readOobOf(firstSlot: number, slotCount: number): Promise<Uint8Array> {
    const { slotsPerPage } = this.geometry;
    const firstPpn = Math.floor(firstSlot / slotsPerPage);
    const lastPpn = Math.floor((firstSlot + slotCount - 1) / slotsPerPage);
    const oob = new Uint8Array((lastPpn - firstPpn + 1) * oobBytesPerPage(this.geometry));
    await this.array.media.readOob(firstPpn, oob);
    return oob;
  }
}

/** Waits for both even if one fails: the caller may give the memory to others as soon as it is told. */
async function both<T>(first: Promise<T> | undefined, second: Promise<void>): Promise<T | undefined> {
  const [a, b] = await Promise.allSettled([first, second]);
  if (b.status === 'rejected') throw b.reason;
  if (a.status === 'rejected') throw a.reason;
  return a.value;
}

export const isCopy = (entry: OobEntry): boolean => (entry.flags & oobFlags.copy) !== 0;

/** An entry whose checksum is right, of whatever life of its superblock; undefined for padding too. */
export function wholeEntry(oob: Uint8Array, slot: number): OobEntry | undefined {
  const at = slot * oobEntry.sizeBytes;
  if (oob[at + oobEntry.offsetOf.kind] === oobKinds.padding) return undefined;
  const entry = oobEntry.decode(oob, at);
  return entry.crc32c === crc32c(oob.subarray(at, at + CHECKED_BYTES)) ? entry : undefined;
}
