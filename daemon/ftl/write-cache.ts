import { oobKinds, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { Geometry } from '../nand/geometry.ts';
import type { PageEntries } from './flash.ts';

/** One LBA that waits for its page to be filled. */
export interface CachedBlock {
  lba: number;
  operation: number;
  isStaged: boolean;
}

const NO_LBA = -1;

/** A flash page in which LBAs gather until they fill it. */
export class WriteCache {
  /** The page. */
  readonly cells: Uint8Array;
  readonly #slotBytes: readonly Uint8Array[];
  readonly #blocks: readonly CachedBlock[];
  /** Of the page, for who programs it: made once, since a page is programmed every few commands. */
  readonly #entries: readonly { kind: number; operation: number; logical: number }[];
  /** [LBA] -> slot. */
  readonly #slots = new Map<number, number>();

  constructor(geometry: Geometry, arena: Arena) {
    const { pageSizeBytes, slotsPerPage } = geometry;
    const frame = arena.allocate(pageSizeBytes);
    this.cells = arena.view(frame, pageSizeBytes);
    const slots = Array.from({ length: slotsPerPage }, (_, slot) => slot);
    this.#slotBytes = slots.map((slot) => arena.view(frame + slot * SLOT_BYTES, SLOT_BYTES));
    this.#blocks = slots.map(() => ({ lba: NO_LBA, operation: 0, isStaged: false }));
    this.#entries = slots.map(() => ({ kind: oobKinds.block, operation: 0, logical: 0 }));
  }

  get isFull(): boolean {
    return this.#slots.size === this.#blocks.length;
  }

  get freeSlotCount(): number {
    return this.#blocks.length - this.#slots.size;
  }

  has(lba: number): boolean {
    return this.#slots.has(lba);
  }

  bytes(lba: number): Uint8Array | undefined {
    const slot = this.#slots.get(lba);
    return slot === undefined ? undefined : this.#slotBytes[slot];
  }

  /** Where the LBA is already, or into a free slot. */
  put(lba: number, data: Uint8Array, operation: number, isStaged: boolean): void {
    const slot = this.#slots.get(lba) ?? this.#freeSlot();
    this.#slotBytes[slot]!.set(data);
    const block = this.#blocks[slot]!;
    block.lba = lba;
    block.operation = operation;
    block.isStaged = isStaged;
    this.#slots.set(lba, slot);
  }

  #freeSlot(): number {
    const blocks = this.#blocks;
    let slot = 0;
    while (slot < blocks.length && blocks[slot]!.lba !== NO_LBA) slot++;
    assert(slot < blocks.length, 'the cache has room after its page was programmed');
    return slot;
  }

  drop(lba: number): void {
    const slot = this.#slots.get(lba);
    if (slot === undefined) return;
    this.#blocks[slot]!.lba = NO_LBA;
    this.#slots.delete(lba);
  }

  /** Of a full page; valid until something is put. */
  entries(): PageEntries {
    for (let slot = 0; slot < this.#blocks.length; slot++) {
      const { lba, operation } = this.#blocks[slot]!;
      const entry = this.#entries[slot]!;
      entry.operation = operation;
      entry.logical = lba;
    }
    return this.#entries;
  }

  /** Once the page is programmed, or what is in it is given up. */
  clear(each: (lba: number, slot: number) => void = () => undefined): void {
    for (const [lba, slot] of this.#slots) each(lba, slot);
    for (const block of this.#blocks) block.lba = NO_LBA;
    this.#slots.clear();
  }

  /** What is in it, in order of slots. */
  forEach(each: (block: CachedBlock, bytes: Uint8Array) => void): void {
    for (const [slot, block] of this.#blocks.entries()) if (block.lba !== NO_LBA) each(block, this.#slotBytes[slot]!);
  }
}
