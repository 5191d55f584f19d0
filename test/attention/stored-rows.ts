import { type ElementType, elementTypes } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import type { Arena } from '../../daemon/base/arena.ts';
import type { Kernels } from '../../daemon/kernels/contract.ts';
import type { Random } from './random.ts';

/** Random rows [token][head][dim], as a sequence stores them. */
export interface StoredRows {
  /** The stored elements' bytes. */
  readonly bytes: Uint8Array;
  /** The same elements, exact. */
  readonly values: Float32Array;
  readonly at: (token: number, head: number, dim: number) => number;
}

export function randomRows(
  random: Random,
  modules: { arena: Arena; kernels: Kernels },
  {
    tokenCount,
    headCount,
    dim,
    type,
    magnitude = 1,
  }: {
    tokenCount: number;
    headCount: number;
    dim: number;
    type: ElementType;
    magnitude?: number;
  },
): StoredRows {
  const count = tokenCount * headCount * dim;
  const source = new Float32Array(count);
  for (let i = 0; i < count; i++) source[i] = magnitude * random.normal();
  const { bytes, values } = asStored(source, type, dim, modules);
  return { bytes, values, at: (token, head, d) => values[(token * headCount + head) * dim + d]! };
}

/** Converts rows of `dim` elements to `type`; gives the bytes and what they stand for. */
export function asStored(
  source: Float32Array,
  type: ElementType,
  dim: number,
  { arena, kernels }: { arena: Arena; kernels: Kernels },
): { bytes: Uint8Array; values: Float32Array } {
  const count = source.length;
  if (count === 0) return { bytes: new Uint8Array(0), values: new Float32Array(0) };
  const wide = arena.allocate(count * 4);
  const rowCount = count / dim;
  const narrowBytes = rowCount * rowSizeBytes(type, dim);
  const narrow = arena.allocate(narrowBytes);
  const f32 = elementTypes.f32.code;
  const { code } = elementTypes[type];
  new Float32Array(arena.buffer, wide, count).set(source);
  kernels.convert(wide, f32, narrow, code, rowCount, dim);
  kernels.convert(narrow, code, wide, f32, rowCount, dim);
  const result = {
    bytes: arena.view(narrow, narrowBytes).slice(),
    values: new Float32Array(arena.buffer, wide, count).slice(),
  };
  arena.free(wide);
  arena.free(narrow);
  return result;
}
