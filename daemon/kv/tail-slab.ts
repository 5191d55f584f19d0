import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { Holding } from './holdings.ts';
import type { Part, RowLayout } from './shape.ts';

/**
 * The incomplete group of one layer, in the arena: for each KV head its K rows, then its V rows. Held by its layer and
 * by every view of it; freed by the last. Rows that a view has seen are never written again while the view holds them.
 */
export class TailSlab {
  readonly #arena: Arena;
  readonly #onFree: () => void;
  readonly layout: RowLayout;
  readonly offset: number;
  #holderCount = 1;

  /** Dirty memory. DriveError bufferFull. */
  constructor(layout: RowLayout, modules: { arena: Arena; onFree: () => void }) {
    this.layout = layout;
    this.#arena = modules.arena;
    this.#onFree = modules.onFree;
    this.offset = this.#arena.allocate(layout.slabBytes);
  }

  /** Arena offset of a row; rows of one head and part lie together. */
  row(head: number, part: Part, index: number): number {
    const { slabStride, rowBytes } = this.layout;
    const base = this.offset + head * this.headStrideBytes + (part === 0 ? 0 : slabStride[0]);
    return base + index * rowBytes[part];
  }

  /** From one head's rows to the next head's. */
  get headStrideBytes(): number {
    const { slabStride } = this.layout;
    return slabStride[0] + slabStride[1];
  }

  /** Whether a view holds it besides its layer. */
  get isViewed(): boolean {
    return this.#holderCount > 1;
  }

  hold(): void {
    assert(this.#holderCount > 0, 'hold of a freed slab');
    this.#holderCount++;
  }

  letGo(): void {
    assert(this.#holderCount > 0, 'slab freed twice');
    if (--this.#holderCount > 0) return;
    this.#arena.free(this.offset);
    this.#onFree();
  }

  /** Copies the first rows of every head from another slab of the same layout. */
  copyRows(source: TailSlab, rowCount: number): void {
    const { layout } = this;
    for (const part of [0, 1] as const) {
      const sizeBytes = rowCount * layout.rowBytes[part];
      for (let head = 0; head < layout.headCount; head++) {
        const from = source.row(head, part, 0);
        this.#arena.bytes.copyWithin(this.row(head, part, 0), from, from + sizeBytes);
      }
    }
  }
}

/** Makes slabs and counts the bytes that the arena gives for them, which are a little more than were asked for. */
export class TailBuffer {
  readonly #arena: Arena;
  #usedBytes = 0;

  constructor(modules: { arena: Arena }) {
    this.#arena = modules.arena;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** `holding`: whose it is. DriveError bufferFull. */
  allocate(layout: RowLayout, holding: Holding): TailSlab {
    const arena = this.#arena;
    const { freeBytes } = arena;
    const count = (bytes: number): void => {
      this.#usedBytes += bytes;
      holding.tailBytes += bytes;
    };
    const slab = new TailSlab(layout, { arena, onFree: () => count(-takenBytes) });
    const takenBytes = freeBytes - arena.freeBytes;
    count(takenBytes);
    return slab;
  }
}
