/** Sequences over a drive in memory, and rows whose every element tells whose it is. */
import assert from 'node:assert/strict';
import { ARENA_RESERVED_BYTES, createArena, type Arena } from '../../daemon/base/arena.ts';
import type { Clock, Timer } from '../../daemon/base/clock.ts';
import type { Lpn, RecoveredEvent } from '../../daemon/ftl/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import type { LayerView, SequenceShape } from '../../daemon/kv/contract.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { elementSizeBytes, type ElementType, type FloatType, isQuantised } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import {
  MemoryDrive,
  newRemains,
  seededRandom,
  type DriveRemains,
  type MemoryDriveOptions,
  type Random,
} from './memory-drive.ts';
import { quantisedRow } from '../kernels/stored-rows.ts';

export class ManualClock implements Clock {
  #nowNs = 0;
  #timers = new Map<() => void, number>();

  nowNs(): number {
    return this.#nowNs;
  }

  wallMs(): number {
    return 0;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    this.#timers.set(callback, this.#nowNs + delayMs * 1e6);
    return { cancel: () => void this.#timers.delete(callback) };
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  /** As a clock that is set, or one of a machine that slept: timers are due as long from now as before. */
  jump(seconds: number): void {
    this.#nowNs += seconds * 1e9;
    this.#timers = new Map([...this.#timers].map(([callback, dueNs]) => [callback, dueNs + seconds * 1e9]));
  }

  advance(seconds: number): void {
    for (let step = 0; step < seconds; step++) {
      this.#nowNs += 1e9;
      for (const [callback, dueNs] of [...this.#timers]) {
        if (dueNs <= this.#nowNs && this.#timers.delete(callback)) callback();
      }
    }
  }
}

export const smallDrive: MemoryDriveOptions = { pageSizeBytes: 4096, channelCount: 4, pageCount: 4096 };

export interface Opened {
  readonly arena: Arena;
  readonly store: SequenceStore;
  /** A page's bytes as they lie on the media. */
  readPage(lpn: Lpn): Promise<Uint8Array>;
}

export interface OpenedMemory extends Opened {
  readonly drive: MemoryDrive;
  readonly clock: ManualClock;
}

export async function openDrive(
  remains: DriveRemains = newRemains(smallDrive),
  options: { arenaBytes?: number; random?: Random; moreEvents?: RecoveredEvent[] } = {},
): Promise<OpenedMemory> {
  const arena = createArena(options.arenaBytes ?? 8 * 1024 * 1024);
  new Float64Array(arena.buffer, ARENA_RESERVED_BYTES).fill(-1e150);
  const clock = new ManualClock();
  const kernels = loadKernels('reference', { memory: arena.memory });
  const store = new SequenceStore({ arena, kernels, clock });
  const modules = { arena, random: options.random ?? seededRandom(1) };
  const drive = await MemoryDrive.open(remains, store, modules, options.moreEvents);
  return { arena, drive, store, clock, readPage: async (lpn) => drive.pages.get(lpn)!.bytes };
}

/** Small numbers, which every type of floats holds exactly. */
export function element(token: number, layer: number, head: number, part: number, index: number): number {
  let hash = Math.imul(token + 1, 0x9e3779b1) ^ Math.imul(layer * 977 + head * 31 + part * 7 + index + 1, 0x85ebca6b);
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 0x2c1b3c6d);
  return ((hash ^ (hash >>> 13)) >>> 0) % 251;
}

export function encodeElement(value: number, type: FloatType, target: DataView, at: number): void {
  if (type === 'f32') {
    target.setFloat32(at, value, true);
    return;
  }
  const exponent = value === 0 ? 0 : Math.floor(Math.log2(value));
  const fraction = value === 0 ? 0 : value / 2 ** exponent - 1;
  const bits =
    type === 'f16'
      ? value === 0
        ? 0
        : ((exponent + 15) << 10) | (fraction * 1024)
      : value === 0
        ? 0
        : ((exponent + 127) << 7) | (fraction * 128);
  target.setUint16(at, bits, true);
}

function encodeRow(elements: Float64Array, type: ElementType): Uint8Array {
  if (isQuantised(type)) return quantisedRow(type, elements).bytes;
  const size = elementSizeBytes(type);
  const bytes = new Uint8Array(elements.length * size);
  elements.forEach((value, d) => encodeElement(value, type, new DataView(bytes.buffer), d * size));
  return bytes;
}

export interface RowsOptions {
  readonly elementType?: ElementType | undefined;
  readonly headMajor?: boolean;
  readonly firstHead?: number;
  readonly headCount?: number;
  /** As in a read-back request. */
  readonly part?: 1 | 2 | 3;
}

/** Rows of the given tokens (named by what `element` makes of them), K then V, in the order asked for. */
export function rowsOf(
  shape: SequenceShape,
  layer: number,
  tokens: readonly number[],
  options: RowsOptions = {},
): Uint8Array {
  const { firstHead = 0, headCount = shape.kvHeadCount, part: parts = 3, headMajor = false } = options;
  const chunks: Uint8Array[] = [];
  for (const part of [0, 1] as const) {
    if ((parts & (1 << part)) === 0) continue;
    const type = options.elementType ?? (part === 0 ? shape.elementTypeK : shape.elementTypeV);
    const dim = part === 0 ? shape.headDimK : shape.headDimV;
    const rowBytes = rowSizeBytes(type, dim);
    const bytes = new Uint8Array(tokens.length * headCount * rowBytes);
    for (const [t, token] of tokens.entries()) {
      for (let h = 0; h < headCount; h++) {
        const row = headMajor ? h * tokens.length + t : t * headCount + h;
        const elements = Float64Array.from({ length: dim }, (_, d) => element(token, layer, firstHead + h, part, d));
        bytes.set(encodeRow(elements, type), row * rowBytes);
      }
    }
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}

export async function appendRows(
  { arena, store }: Opened,
  id: bigint,
  layer: number,
  position: number,
  tokens: readonly number[],
  options: RowsOptions = {},
): Promise<number> {
  const rows = rowsOf(store.shape(id), layer, tokens, options);
  assert.equal(rows.byteLength, store.appendSizeBytes(id, tokens.length, options.elementType));
  const room = arena.allocate(rows.byteLength + 3);
  // A command's data may start anywhere.
  const offset = room + (position % 4);
  try {
    arena.bytes.set(rows, offset);
    const { elementType, headMajor = false } = options;
    return await store.append(id, layer, position, tokens.length, { offset, elementType, headMajor });
  } finally {
    // Whatever still refers to the source now reads rubbish.
    arena.bytes.fill(0xdd, offset, offset + rows.byteLength);
    arena.free(room);
  }
}

export async function readRows(
  { arena, store }: Opened,
  id: bigint,
  layer: number,
  tokenStart: number,
  tokenCount: number,
  options: RowsOptions = {},
): Promise<Uint8Array> {
  const { part = 3, firstHead = 0, headMajor = false, elementType } = options;
  const headCount = options.headCount ?? store.shape(id).kvHeadCount;
  const request = { id, layer, part, tokenStart, tokenCount, firstHead, headCount, headMajor, elementType };
  const sizeBytes = store.readBackSizeBytes(request);
  const offset = arena.allocate(sizeBytes);
  try {
    arena.bytes.fill(0xcc, offset, offset + sizeBytes);
    await store.readBack(request, offset);
    return arena.bytes.slice(offset, offset + sizeBytes);
  } finally {
    arena.free(offset);
  }
}

/** Asserts that a layer holds exactly these tokens, by reading them back. */
export async function assertTokens(
  opened: Opened,
  id: bigint,
  layer: number,
  tokens: readonly number[],
): Promise<void> {
  assert.equal(opened.store.summary(id).lengths[layer], tokens.length, `length of layer ${layer} of ${id}`);
  if (tokens.length === 0) return;
  const found = await readRows(opened, id, layer, 0, tokens.length);
  assertEqualBytes(found, rowsOf(opened.store.shape(id), layer, tokens), `layer ${layer} of sequence ${id}`);
}

/** Rows of a view, gathered the way an attention plan does: pages from the drive, the tail from the arena. */
export async function rowsOfView(
  { arena, readPage }: Opened,
  view: LayerView,
  head: number,
  part: 0 | 1,
): Promise<Uint8Array> {
  const { shape } = view;
  const rowBytes =
    part === 0 ? rowSizeBytes(shape.elementTypeK, shape.headDimK) : rowSizeBytes(shape.elementTypeV, shape.headDimV);
  const chunks: Uint8Array[] = [];
  for (let group = 0; group * shape.groupTokens < view.flashTokenCount; group++) {
    const bytes = await readPage(view.page(group, head, part));
    chunks.push(bytes.subarray(0, shape.groupTokens * rowBytes));
    assert.ok(
      bytes.subarray(shape.groupTokens * rowBytes).every((byte) => byte === 0),
      'padding is zero',
    );
  }
  chunks.push(rowsOfTail(arena, view, head, part, rowBytes));
  return Buffer.concat(chunks);
}

export function rowsOfTail(arena: Arena, view: LayerView, head: number, part: 0 | 1, rowBytes: number): Uint8Array {
  const count = view.length - view.flashTokenCount;
  return count === 0 ? new Uint8Array() : arena.view(view.tail(head, part), count * rowBytes).slice();
}

export function assertEqualBytes(found: Uint8Array, expected: Uint8Array, what: string): void {
  assert.equal(found.byteLength, expected.byteLength, `${what}: bytes`);
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  assert.fail(`${what}: byte ${at} is ${found[at]}, expected ${expected[at]}`);
}

/** `count` token names from `first` on. */
export const tokenRange = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);

export const plainShape: SequenceShape = {
  layerCount: 2,
  kvHeadCount: 2,
  headDimK: 32,
  headDimV: 32,
  elementTypeK: 'f16',
  elementTypeV: 'f16',
  groupTokens: 8,
};

export function createSequence(
  { store }: Opened,
  shape: Partial<SequenceShape> = {},
  id = 0n,
  leaseSeconds = 0,
): bigint {
  return store.create({ shape: { ...plainShape, ...shape }, id, label: 'test', leaseSeconds, owner: 7n });
}
