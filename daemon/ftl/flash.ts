import { SLOT_BYTES, oobEntry, oobFlags, oobKinds } from '../../spec/media-format/oob.ts';
import type { StructValue } from '../../spec/struct.ts';
import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Checksum } from '../kernels/checksum.ts';
import type { NandArray, NandCause } from '../nand/array.ts';
import { describePage, type Geometry, oobBytesPerPage } from '../nand/geometry.ts';
import { type KvPageRun, PROGRAM_PAGES_MAX } from './contract.ts';
import { kvOwnerText } from './page-owner.ts';
import type { Superblocks } from './superblocks.ts';
import type { VerifyPolicy } from './verify-policy.ts';

export type OobEntry = StructValue<(typeof oobEntry)['fields']>;

/** What stands in the entries of a run's pages. */
export interface KvPageEntries {
  readonly run: KvPageRun;
  /** [index in the run] */
  readonly lpns: Uint32Array;
  readonly operations: Float64Array;
  /** CRC32C of the pages. */
  readonly checksums: Uint32Array;
}

/** One for each slot of a page, without sums; undefined: padding. */
export type PageEntries = readonly (Partial<OobEntry> | undefined)[];

const CHECKED_BYTES = oobEntry.sizeBytes - 4;
const place = oobEntry.offsetOf;
/** Bad pages that are remembered; then they are told of anew. */
const TOLD_MAX = 65_536;

/** A page that is in use and can't be read. */
export interface BadPage {
  readonly ppn: number;
  /** Which page, why, and whose it is. */
  readonly detail: string;
}

/** Pages with their out-of-band entries: sums are made on the way in and checked on the way out. */
export class Flash {
  readonly geometry: Geometry;
  readonly array: NandArray;
  readonly superblocks: Superblocks;
  readonly #checksum: Checksum;
  readonly #verify: VerifyPolicy;
  readonly #logger: Logger;
  /** [ppn] -> what was told of it, and in which epoch. */
  readonly #told = new Map<number, { readonly epoch: number; readonly detail: string }>();
  /** Of as many pages as are stored together. */
  readonly #oob: Uint8Array<ArrayBuffer>;
  readonly #oobView: DataView;
  unrecoveredReadCount = 0;
  /** Pages that others read from the cells by themselves. */
  readsOutside = 0;

  constructor(
    options: { readonly verify: VerifyPolicy },
    modules: { array: NandArray; superblocks: Superblocks; checksum: Checksum; logger: Logger },
  ) {
    this.#logger = modules.logger;
    this.#verify = options.verify;
    this.array = modules.array;
    this.geometry = modules.array.geometry;
    this.superblocks = modules.superblocks;
    this.#checksum = modules.checksum;
    this.#oob = new Uint8Array(PROGRAM_PAGES_MAX * oobBytesPerPage(this.geometry));
    this.#oobView = new DataView(this.#oob.buffer);
  }

  /** Stores a page that was charged; entries left out at the end are padding. DriveError writeFault if the disk refuses. */
  store(ppn: number, data: Uint8Array, entries: PageEntries, cause: NandCause): void {
    const { slotsPerPage } = this.geometry;
    const oob = this.#oob.subarray(0, slotsPerPage * oobEntry.sizeBytes).fill(0);
    for (let slot = 0; slot < slotsPerPage; slot++) {
      this.superblocks.clearVerified(ppn * slotsPerPage + slot);
      const entry = entries[slot];
      if (entry === undefined) continue;
      const at = slot * oobEntry.sizeBytes;
      const summed = entry.kind === oobKinds.kv ? data : data.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
      putEntry(this.#oobView, at, entry);
      this.#seal(ppn, at, entry.dataCrc32c ?? this.#checksum.of(summed));
    }
    this.array.store(ppn, data, oob, cause);
  }

  /**
   * Stores KV pages that lie side by side and were charged: the pages [from, from + `data` in pages) of the run, whose
   * numbers and operations are `lpns` and `operations` from `from` on. DriveError writeFault if the disk refuses.
   */
  storeKv(ppn: number, data: Uint8Array, from: number, entries: KvPageEntries): void {
    const { run, lpns, operations, checksums } = entries;
    const { pageSizeBytes, slotsPerPage } = this.geometry;
    const pageCount = data.length / pageSizeBytes;
    const oobBytes = slotsPerPage * oobEntry.sizeBytes;
    const oob = this.#oob.subarray(0, pageCount * oobBytes).fill(0);
    for (let i = 0; i < pageCount; i++) {
      const at = i * oobBytes;
      this.superblocks.clearVerified((ppn + i) * slotsPerPage);
      putKvEntry(this.#oobView, at, run, from + i, operations[from + i]!, lpns[from + i]!);
      this.#seal(ppn + i, at, checksums[from + i]!);
    }
    this.array.store(ppn, data, oob, 'kv');
  }

  /** Completes the entry at `at` of the buffer. */
  #seal(ppn: number, at: number, dataCrc32c: number): void {
    const superblock = Math.floor(ppn / this.geometry.pagesPerSuperblock);
    const view = this.#oobView;
    view.setUint32(at + place.epoch, this.superblocks.epoch[superblock]!, true);
    view.setUint32(at + place.openTag, this.superblocks.openTag[superblock]!, true);
    view.setUint32(at + place.dataCrc32c, dataCrc32c, true);
    view.setUint32(at + CHECKED_BYTES, crc32c(this.#oob.subarray(at, at + CHECKED_BYTES)), true);
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
   * Reads slots that lie one after another (they may cross pages), and checks those that the policy says to check.
   * `lbas` gives each slot's LBA. DriveError unrecoveredRead. The caller holds a pin: cells change, and are taken for
   * checked, only where nobody holds one.
   */
  async readBlockSlots(firstSlot: number, lbas: readonly number[], target: Uint8Array): Promise<void> {
    const cells = this.readCells(firstSlot * SLOT_BYTES, target, 'block', `LBA ${lbas[0]}`);
    const isTrusted = lbas.every((_, i) => this.isTrusted(firstSlot + i));
    const oob = await both(isTrusted ? undefined : this.#readOobOf(firstSlot, lbas.length), cells);
    if (oob === undefined) return;
    const { slotsPerPage } = this.geometry;
    const firstPpn = Math.floor(firstSlot / slotsPerPage);
    for (let i = 0; i < lbas.length; i++) {
      const ppn = Math.floor((firstSlot + i) / slotsPerPage);
      const entry = this.checkedEntry(ppn, oob, firstSlot + i - firstPpn * slotsPerPage);
      this.checkBlockSlot(firstSlot + i, entry, lbas[i]!, target.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES));
    }
  }

  /**
   * `readBlockSlots` without waiting; false: something has to be waited for, or checked, and nothing was read. `lba`: of the
   * first. DriveError unrecoveredRead.
   */
  readBlockSlotsNow(firstSlot: number, lba: number, target: Uint8Array): boolean {
    const end = firstSlot + target.length / SLOT_BYTES;
    for (let slot = firstSlot; slot < end; slot++) if (!this.isTrusted(slot)) return false;
    return this.#readCellsNow(firstSlot * SLOT_BYTES, target, 'block', lba);
  }

  /** Part of a KV page without waiting; false as above. DriveError unrecoveredRead. */
  readKvBytesNow(ppn: number, byteOffset: number, lpn: number, target: Uint8Array): boolean {
    const { slotsPerPage, pageSizeBytes } = this.geometry;
    if (!this.isTrusted(ppn * slotsPerPage)) return false;
    return this.#readCellsNow(ppn * pageSizeBytes + byteOffset, target, 'kv', lpn);
  }

  /** `logical`: LBA or number of a KV page; only a failure costs a text. */
  #readCellsNow(byteOffset: number, target: Uint8Array, cause: 'block' | 'kv', logical: number): boolean {
    try {
      return this.array.readNow(byteOffset, target, cause);
    } catch (error) {
      throw this.#readFailure(byteOffset, cause === 'block' ? `LBA ${logical}` : `KV page ${logical}`, error);
    }
  }

  /** Whether the bytes of a slot may be used without a look at their checksum. */
  isTrusted(slot: number): boolean {
    return this.#verify === 'first-use' && this.superblocks.isVerified(slot);
  }

  /** Checks a slot's bytes against its entry. DriveError unrecoveredRead. */
  checkBlockSlot(slot: number, entry: OobEntry | undefined, lba: number, bytes: Uint8Array): void {
    const isRight = entry?.kind === oobKinds.block && entry.logical === lba && this.#isIntact(entry, bytes);
    if (!isRight) throw this.unrecovered(Math.floor(slot / this.geometry.slotsPerPage), `LBA ${lba}`);
    this.superblocks.markVerified(slot);
  }

  /** Reads one KV page and checks it if the policy says so. The caller holds a pin. */
  async readKvPage(ppn: number, lpn: number, target: Uint8Array): Promise<void> {
    const slot = ppn * this.geometry.slotsPerPage;
    const cells = this.readCells(ppn * this.geometry.pageSizeBytes, target, 'kv', `KV page ${lpn}`);
    const oob = await both(this.isTrusted(slot) ? undefined : this.#readOobOf(slot, 1), cells);
    if (oob !== undefined) this.checkKvPage(ppn, this.checkedEntry(ppn, oob, 0), lpn, target);
  }

  /** Checks a page's bytes against its entry. DriveError unrecoveredRead. */
  checkKvPage(ppn: number, entry: OobEntry | undefined, lpn: number, bytes: Uint8Array): void {
    const slot = ppn * this.geometry.slotsPerPage;
    const isRight = entry?.kind === oobKinds.kv && entry.logical === lpn && this.#isIntact(entry, bytes);
    if (!isRight) throw this.unrecovered(ppn, entry?.kind === oobKinds.kv ? kvOwnerText(entry) : `KV page ${lpn}`);
    this.superblocks.markVerified(slot);
  }

  #isIntact(entry: OobEntry, bytes: Uint8Array): boolean {
    return entry.dataCrc32c === this.#checksum.of(bytes);
  }

  /** Whether the bytes of a slot (of a whole page for KV) are those that its entry was made for. */
  isSlotIntact(entry: OobEntry, slot: number, page: Uint8Array): boolean {
    return this.#isIntact(
      entry,
      entry.kind === oobKinds.kv ? page : page.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES),
    );
  }

  /** Reads cells without checking them. DriveError unrecoveredRead names the first page. `what` it holds. */
  async readCells(byteOffset: number, target: Uint8Array, cause: NandCause, what: string): Promise<void> {
    try {
      await this.array.read(byteOffset, target, cause);
    } catch (error) {
      throw this.#readFailure(byteOffset, what, error);
    }
  }

  #readFailure(byteOffset: number, what: string, error: unknown): unknown {
    if (!(error instanceof DriveError)) return error;
    return this.unrecovered(Math.floor(byteOffset / this.geometry.pageSizeBytes), what, error);
  }

  /**
   * Counts it, and logs it the first time in the page's life. `cause`: why the page can't be read; without one, its checksum
   * is wrong.
   */
  unrecovered(ppn: number, what: string, cause?: DriveError): DriveError {
    this.unrecoveredReadCount++;
    const why =
      cause === undefined ? `fails its checksum${this.#correctionText(ppn)}` : `cannot be read (${cause.message})`;
    const detail = `${describePage(this.geometry, ppn)} ${why}; it held ${what}`;
    this.#tell(ppn, detail);
    return new DriveError('unrecoveredRead', detail, { result: ppn, cause });
  }

  #tell(ppn: number, detail: string): void {
    const epoch = this.superblocks.epoch[Math.floor(ppn / this.geometry.pagesPerSuperblock)]!;
    if (this.#told.get(ppn)?.epoch === epoch) return;
    if (this.#told.size >= TOLD_MAX) this.#told.clear();
    this.#told.set(ppn, { epoch, detail });
    this.#logger.error({ page: ppn, detail }, 'a flash page cannot be read');
  }

  /** Pages in use that could not be read, or were not what was programmed, since the start. */
  badPages(): BadPage[] {
    const { epoch } = this.superblocks;
    return [...this.#told]
      .filter(([ppn, told]) => {
        const isSameLife = epoch[Math.floor(ppn / this.geometry.pagesPerSuperblock)] === told.epoch;
        return isSameLife && this.superblocks.hasValid(ppn);
      })
      .map(([ppn, { detail }]) => ({ ppn, detail }));
  }

  /** What the error correction has to say of it. */
  #correctionText(ppn: number): string {
    const { worstBits, retryCount, isCorrectable } = this.array.errors.errorsOf(ppn);
    if (isCorrectable) return '';
    const { correctableBits } = this.array.errors;
    const retries = retryCount === 0 ? '' : ` after ${retryCount} read retries`;
    const errors = `${worstBits} raw bit error${worstBits === 1 ? '' : 's'} in a codeword`;
    return ` (${errors}, of which ${correctableBits} can be corrected${retries})`;
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

/** What `oobEntry.encode` puts there of an entry whose place is zero, but for what `Flash` adds: each program comes here. */
function putEntry(view: DataView, at: number, entry: Partial<OobEntry>): void {
  const {
    kind = 0,
    flags = 0,
    part = 0,
    operation = 0,
    logical = 0,
    group = 0,
    generation = 0,
    layer = 0,
    head = 0,
  } = entry;
  assert(Number.isSafeInteger(operation) && layer <= 0xffff && head <= 0xffff, 'an out-of-band entry fits its fields');
  view.setUint8(at + place.kind, kind);
  view.setUint8(at + place.flags, flags);
  view.setUint8(at + place.part, part);
  view.setUint32(at + place.operation, operation % 2 ** 32, true);
  view.setUint32(at + place.operation + 4, Math.floor(operation / 2 ** 32), true);
  view.setUint32(at + place.logical, logical, true);
  view.setUint32(at + place.group, group, true);
  if (entry.sequenceId !== undefined) view.setBigUint64(at + place.sequenceId, entry.sequenceId, true);
  view.setUint32(at + place.generation, generation, true);
  view.setUint16(at + place.layer, layer, true);
  view.setUint16(at + place.head, head, true);
}

/** The same of page `index` of a run. */
function putKvEntry(
  view: DataView,
  at: number,
  { sequenceId, generation, layer, firstGroup, groupCount, firstIndex }: KvPageRun,
  index: number,
  operation: number,
  lpn: number,
): void {
  const stream = Math.floor((firstIndex + index) / groupCount);
  const head = stream >> 1;
  assert(Number.isSafeInteger(operation) && layer <= 0xffff && head <= 0xffff, 'an out-of-band entry fits its fields');
  view.setUint8(at + place.kind, oobKinds.kv);
  view.setUint8(at + place.part, stream & 1);
  view.setUint32(at + place.operation, operation % 2 ** 32, true);
  view.setUint32(at + place.operation + 4, Math.floor(operation / 2 ** 32), true);
  view.setUint32(at + place.logical, lpn, true);
  view.setUint32(at + place.group, firstGroup + ((firstIndex + index) % groupCount), true);
  view.setBigUint64(at + place.sequenceId, sequenceId, true);
  view.setUint32(at + place.generation, generation, true);
  view.setUint16(at + place.layer, layer, true);
  view.setUint16(at + place.head, head, true);
}

/** Waits for both even if one fails: the caller may give the memory to others as soon as it is told. */
async function both<T>(first: Promise<T> | undefined, second: Promise<void>): Promise<T | undefined> {
  const [a, b] = await Promise.allSettled([first, second]);
  if (b.status === 'rejected') throw b.reason;
  if (a.status === 'rejected') throw a.reason;
  return a.value;
}

/** The entry of a page that garbage collection programs: that of the original, marked. */
export function copyOf(entry: OobEntry): OobEntry {
  entry.flags |= oobFlags.copy;
  return entry;
}

export const isCopy = (entry: OobEntry): boolean => (entry.flags & oobFlags.copy) !== 0;

/** An entry whose checksum is right, of whatever life of its superblock; undefined for padding too. */
export function wholeEntry(oob: Uint8Array, slot: number): OobEntry | undefined {
  const at = slot * oobEntry.sizeBytes;
  if (oob[at + oobEntry.offsetOf.kind] === oobKinds.padding) return undefined;
  const entry = oobEntry.decode(oob, at);
  return entry.crc32c === crc32c(oob.subarray(at, at + CHECKED_BYTES)) ? entry : undefined;
}
