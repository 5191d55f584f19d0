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

  /** Programs a page; `entries` are those of its slots, in order, without sums; missing ones are padding. */
  program(ppn: number, data: Uint8Array, entries: readonly Partial<OobEntry>[], cause: NandCause): void {
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
    this.array.program(ppn, data, oob, cause);
  }

  /** The entry of a slot if it is whole and of the superblock's present life; undefined if not. */
  checkedEntry(ppn: number, oob: Uint8Array, slot: number): OobEntry | undefined {
    const at = slot * oobEntry.sizeBytes;
    const entry = oobEntry.decode(oob, at);
    if (entry.kind === oobKinds.padding) return undefined;
    if (entry.crc32c !== crc32c(oob.subarray(at, at + CHECKED_BYTES))) return undefined;
    const superblock = Math.floor(ppn / this.geometry.pagesPerSuperblock);
    const isCurrent =
      entry.epoch === this.superblocks.epoch[superblock] && entry.openTag === this.superblocks.openTag[superblock];
    return isCurrent ? entry : undefined;
  }

  /**
   * Reads slots that lie one after another (they may cross pages), and checks those that were not checked yet.
   * `expected` gives each slot's LBA. DriveError unrecoveredRead. The caller holds a pin.
   */
  async readBlockSlots(
    firstSlot: number,
    lbas: readonly number[],
    target: Uint8Array,
    cause: NandCause,
  ): Promise<void> {
    await this.array.read(firstSlot * SLOT_BYTES, target, cause);
    const { slotsPerPage } = this.geometry;
    for (let i = 0; i < lbas.length; i++) {
      const slot = firstSlot + i;
      if (this.superblocks.isVerified(slot)) continue;
      const ppn = Math.floor(slot / slotsPerPage);
      const entry = await this.#readEntry(ppn, slot % slotsPerPage);
      const bytes = target.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
      if (entry?.kind !== oobKinds.block || entry.logical !== lbas[i] || entry.dataCrc32c !== this.sum(bytes)) {
        throw this.unrecovered(ppn, `LBA ${lbas[i]}`);
      }
      this.superblocks.markVerified(slot);
    }
  }

  /** Reads one KV page and checks it if it was not checked yet. The caller holds a pin. */
  async readKvPage(ppn: number, lpn: number, target: Uint8Array, cause: NandCause): Promise<void> {
    await this.array.read(ppn * this.geometry.pageSizeBytes, target, cause);
    const slot = ppn * this.geometry.slotsPerPage;
    if (this.superblocks.isVerified(slot)) return;
    const entry = await this.#readEntry(ppn, 0);
    if (entry?.kind !== oobKinds.kv || entry.logical !== lpn || entry.dataCrc32c !== this.sum(target)) {
      throw this.unrecovered(ppn, `KV page ${lpn}`);
    }
    this.superblocks.markVerified(slot);
  }

  unrecovered(ppn: number, what: string): DriveError {
    this.unrecoveredReadCount++;
    const detail = `${describePage(this.geometry, ppn)} fails its checksum; it held ${what}`;
    return new DriveError('unrecoveredRead', detail, { result: ppn });
  }

  async #readEntry(ppn: number, slot: number): Promise<OobEntry | undefined> {
    const oob = new Uint8Array(oobBytesPerPage(this.geometry));
    await this.array.media.readOob(ppn, oob);
    return this.checkedEntry(ppn, oob, slot);
  }
}

export const isCopy = (entry: OobEntry): boolean => (entry.flags & oobFlags.copy) !== 0;
