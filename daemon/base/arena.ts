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
export const ARENA_RESERVED_BYTES = 262_144;

/**
 * Free space is kept in exact-size free lists over a bump pointer; sizes repeat (pages, tail frames, job lists), so a
 * freed block is nearly always taken again as it is. `roundUp` bounds the number of different sizes.
 */
export function createArena(sizeBytes: number): Arena {
  const pageCount = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
  assert(pageCount >= 5 && pageCount <= 65_536, `arena of ${sizeBytes} bytes: 320 KiB to 4 GiB`);
  const memory = new WebAssembly.Memory({ initial: pageCount, maximum: pageCount, shared: true });
  return new SlabArena(memory);
}

/** The same memory seen from another thread; only its owner allocates. */
export const arenaBytes = (memory: WebAssembly.Memory): Uint8Array => new Uint8Array(memory.buffer);

function roundUp(sizeBytes: number): number {
  const step = sizeBytes < LARGE_STEP_BYTES ? SMALL_STEP_BYTES : LARGE_STEP_BYTES;
  if (sizeBytes <= 16 * step) return Math.ceil(sizeBytes / step) * step;
  // Sixteen sizes per power of two: at most 6 % is lost to rounding.
  const quantum = 2 ** Math.max(Math.ceil(Math.log2(sizeBytes)) - 4, Math.log2(step));
  return Math.ceil(sizeBytes / quantum) * quantum;
}

class SlabArena implements Arena {
  readonly memory: WebAssembly.Memory;
  readonly buffer: SharedArrayBuffer;
  readonly bytes: Uint8Array;
  readonly sizeBytes: number;
  readonly #freeLists = new Map<number, number[]>();
  readonly #sizes = new Map<number, number>();
  #bump = ARENA_RESERVED_BYTES;
  #usedBytes = ARENA_RESERVED_BYTES;

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
    let offset = this.#freeLists.get(size)?.pop();
    if (offset === undefined) {
      const alignment = size < LARGE_STEP_BYTES ? SMALL_STEP_BYTES : LARGE_STEP_BYTES;
      offset = Math.ceil(this.#bump / alignment) * alignment;
      if (offset + size > this.sizeBytes) {
        offset = this.#takeLarger(size);
      } else {
        this.#bump = offset + size;
      }
    }
    this.#sizes.set(offset, size);
    this.#usedBytes += size;
    return offset;
  }

  /** The bump pointer is at the end: carve from the smallest freed block that is large enough. */
  #takeLarger(size: number): number {
    let best = Number.POSITIVE_INFINITY;
    for (const [candidate, offsets] of this.#freeLists) {
      if (candidate >= size && offsets.length > 0 && candidate < best) best = candidate;
    }
    if (best === Number.POSITIVE_INFINITY) {
      throw new DriveError('bufferFull', `${size} bytes asked for, ${this.freeBytes} of ${this.sizeBytes} free`);
    }
    const offset = this.#freeLists.get(best)?.pop();
    assert(offset !== undefined, 'a free list that was seen non-empty has an element');
    if (best > size) this.#release(offset + size, best - size);
    return offset;
  }

  free(offset: number): void {
    const size = this.#sizes.get(offset);
    assert(size !== undefined, `free of ${offset}, which is not allocated`);
    this.#sizes.delete(offset);
    this.#usedBytes -= size;
    this.#release(offset, size);
  }

  #release(offset: number, size: number): void {
    const list = this.#freeLists.get(size);
    if (list) list.push(offset);
    else this.#freeLists.set(size, [offset]);
  }

  view(offset: number, sizeBytes: number): Uint8Array {
    assert(offset >= ARENA_RESERVED_BYTES && offset + sizeBytes <= this.sizeBytes, `view ${offset}+${sizeBytes}`);
    return this.bytes.subarray(offset, offset + sizeBytes);
  }
}
