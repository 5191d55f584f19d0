import { DriveError } from './errors.ts';
import { assert } from './assert.ts';

/**
 * The drive's working memory: one shared linear memory that the event loop and every compute worker see. Tail buffers,
 * page frames, queries, outputs, job lists and transfer buffers all lie in it and are named by byte offset, so that the
 * same job can be run by native code, by WebAssembly (whose linear memory this is) and by plain TypeScript.
 */
export interface Arena {
  readonly memory: WebAssembly.Memory;
  readonly buffer: SharedArrayBuffer;
  /** All of it. */
  readonly bytes: Uint8Array;
  readonly sizeBytes: number;
  readonly freeBytes: number;
  /** Offset of `sizeBytes` zeroed or dirty bytes, aligned to 64 (4096 from 4096 bytes on). DriveError bufferFull if none. */
  allocate(sizeBytes: number): number;
  free(offset: number): void;
  view(offset: number, sizeBytes: number): Uint8Array;
}

const WASM_PAGE_BYTES = 65_536;
const SMALL_STEP_BYTES = 64;
const LARGE_STEP_BYTES = 4096;
/** Offset 0 names nothing, and the start of memory is left to the WebAssembly kernels: their tables and scratch. */
export const ARENA_RESERVED_BYTES = 524_288;

/**
 * Makes an arena of `sizeBytes`, rounded up to 64 KiB. Free space is kept in exact-size free lists over a bump pointer;
 * sizes repeat (pages, tail frames, job lists), so a freed block is nearly always taken again as it is. `roundUp` bounds
 * the number of different sizes; neighbours that are free are joined only when nothing else fits.
 */
export function createArena(sizeBytes: number): Arena {
  const pageCount = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
  assert(
    sizeBytes > ARENA_RESERVED_BYTES && pageCount <= 65_536,
    `arena of ${sizeBytes} bytes: more than ${ARENA_RESERVED_BYTES}, at most 4 GiB`,
  );
  const memory = new WebAssembly.Memory({ initial: pageCount, maximum: pageCount, shared: true });
  return new SlabArena(memory);
}

/**
 * An arena over memory that no other arena gives out any more. Simulations open one drive after another in the same memory:
 * each shared memory reserves gigabytes of address space.
 */
export const createArenaOver = (memory: WebAssembly.Memory): Arena => new SlabArena(memory);

/** The same memory seen from another thread; only its owner allocates. */
export const arenaBytes = (memory: WebAssembly.Memory): Uint8Array => new Uint8Array(memory.buffer);

function roundUp(sizeBytes: number): number {
  const step = sizeBytes < LARGE_STEP_BYTES ? SMALL_STEP_BYTES : LARGE_STEP_BYTES;
  if (sizeBytes <= 16 * step) return Math.ceil(sizeBytes / step) * step;
  // Sixteen sizes per power of two: at most 6 % is lost to rounding.
  const quantum = 2 ** Math.max(Math.ceil(Math.log2(sizeBytes)) - 4, Math.log2(step));
  return Math.ceil(sizeBytes / quantum) * quantum;
}

const alignmentOf = (size: number): number => (size < LARGE_STEP_BYTES ? SMALL_STEP_BYTES : LARGE_STEP_BYTES);
const alignUp = (offset: number, alignment: number): number => Math.ceil(offset / alignment) * alignment;

class SlabArena implements Arena {
  readonly memory: WebAssembly.Memory;
  readonly buffer: SharedArrayBuffer;
  readonly bytes: Uint8Array;
  readonly sizeBytes: number;
  /** Offsets of free blocks by size. Their alignment is that of their neighbours' history: check it. */
  readonly #freeLists = new Map<number, number[]>();
  readonly #sizes = new Map<number, number>();
  #bump = ARENA_RESERVED_BYTES;
  #usedBytes = ARENA_RESERVED_BYTES;
  /** Whether anything was freed since neighbours were last joined. */
  #joinable = false;

  constructor(memory: WebAssembly.Memory) {
    this.memory = memory;
    this.buffer = memory.buffer as unknown as SharedArrayBuffer;
    this.bytes = new Uint8Array(this.buffer);
    this.sizeBytes = this.bytes.byteLength;
  }

  get freeBytes(): number {
    return this.sizeBytes - this.#usedBytes;
  }

  allocate(sizeBytes: number): number {
    assert(sizeBytes > 0, `allocate ${sizeBytes} bytes`);
    const size = roundUp(sizeBytes);
    const offset = this.#takeExact(size) ?? this.#takeNew(size) ?? this.#takeLarger(size) ?? this.#takeJoined(size);
    if (offset === undefined) {
      throw new DriveError('bufferFull', `${size} bytes asked for, ${this.freeBytes} of ${this.sizeBytes} free`);
    }
    this.#sizes.set(offset, size);
    this.#usedBytes += size;
    return offset;
  }

  #takeExact(size: number): number | undefined {
    const list = this.#freeLists.get(size);
    const offset = list?.at(-1);
    if (list === undefined || offset === undefined || offset % alignmentOf(size) !== 0) return undefined;
    list.pop();
    return offset;
  }

  #takeNew(size: number): number | undefined {
    const offset = alignUp(this.#bump, alignmentOf(size));
    if (offset + size > this.sizeBytes) return undefined;
    if (offset > this.#bump) this.#release(this.#bump, offset - this.#bump);
    this.#bump = offset + size;
    return offset;
  }

  /** The bump pointer is at the end: carve from the smallest free block that has room for it at its alignment. */
  #takeLarger(size: number): number | undefined {
    let best: { list: number[]; index: number; blockSize: number; offset: number } | undefined;
    for (const [blockSize, list] of this.#freeLists) {
      if (blockSize < size || (best !== undefined && blockSize >= best.blockSize)) continue;
      for (let index = list.length - 1; index >= 0; index--) {
        const block = list[index] ?? 0;
        const offset = alignUp(block, alignmentOf(size));
        if (offset + size > block + blockSize) continue;
        best = { list, index, blockSize, offset };
        break;
      }
    }
    if (best === undefined) return undefined;
    const [block = 0] = best.list.splice(best.index, 1);
    const { offset, blockSize } = best;
    if (offset > block) this.#release(block, offset - block);
    if (offset + size < block + blockSize) this.#release(offset + size, block + blockSize - offset - size);
    return offset;
  }

  #takeJoined(size: number): number | undefined {
    if (!this.#joinable || this.freeBytes < size) return undefined;
    this.#joinNeighbours();
    return this.#takeNew(size) ?? this.#takeLarger(size);
  }

  #joinNeighbours(): void {
    this.#joinable = false;
    const blocks = [...this.#freeLists].flatMap(([size, offsets]) => offsets.map((offset) => ({ offset, size })));
    blocks.sort((a, b) => a.offset - b.offset);
    this.#freeLists.clear();
    let joined = { offset: 0, size: 0 };
    for (const block of blocks) {
      if (block.offset === joined.offset + joined.size) {
        joined.size += block.size;
        continue;
      }
      if (joined.size > 0) this.#release(joined.offset, joined.size);
      joined = block;
    }
    // The last one may touch what was never taken.
    if (joined.offset + joined.size === this.#bump && joined.size > 0) this.#bump = joined.offset;
    else if (joined.size > 0) this.#release(joined.offset, joined.size);
  }

  free(offset: number): void {
    const size = this.#sizes.get(offset);
    assert(size !== undefined, `free of ${offset}, which is not allocated`);
    this.#sizes.delete(offset);
    this.#usedBytes -= size;
    this.#joinable = true;
    this.#release(offset, size);
  }

  #release(offset: number, size: number): void {
    const list = this.#freeLists.get(size);
    if (list) list.push(offset);
    else this.#freeLists.set(size, [offset]);
  }

  view(offset: number, sizeBytes: number): Uint8Array {
    const isInside = offset >= ARENA_RESERVED_BYTES && offset + sizeBytes <= this.sizeBytes;
    assert(isInside, () => `view ${offset}+${sizeBytes}`);
    return this.bytes.subarray(offset, offset + sizeBytes);
  }
}
