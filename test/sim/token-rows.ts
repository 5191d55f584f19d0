/** K and V rows of tokens. A token is a number; every element of its rows tells whose it is. */
import assert from 'node:assert/strict';
import { elementSizeBytes, type FloatType, isQuantised } from '../../spec/element-type.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import type { RowsOptions as AnyRowsOptions } from '../kv/fixture.ts';

/** Values are multiples of 1/64 from -1 to 1, which every element type holds exactly. */
const VALUE_COUNT = 129;
const valueOf = (index: number): number => (index - 64) / 64;

/** [index] -> the value's bits in a type. */
function encodings(type: FloatType): Uint16Array | Uint32Array {
  const wide = new Uint32Array(Float32Array.from({ length: VALUE_COUNT }, (_, i) => valueOf(i)).buffer);
  if (type === 'f32') return wide;
  if (type === 'bf16') return Uint16Array.from(wide, (bits) => bits >>> 16);
  return Uint16Array.from(wide, (bits) => {
    const sign = (bits >>> 16) & 0x8000;
    const exponent = (bits >>> 23) & 0xff;
    return exponent === 0 ? sign : sign | ((exponent - 127 + 15) << 10) | ((bits & 0x7fffff) >>> 13);
  });
}

const tables: Readonly<Record<FloatType, Uint16Array | Uint32Array>> = {
  f32: encodings('f32'),
  f16: encodings('f16'),
  bf16: encodings('bf16'),
};

const streamHash = (token: number, layer: number, head: number, part: number): number =>
  Math.imul(token + 1, 0x9e3779b1) ^ Math.imul(layer * 977 + head * 31 + part * 7 + 1, 0x85ebca6b);

function indexOf(hash: number, dim: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 15) ^ Math.imul(dim + 1, 0xc2b2ae35), 0x2c1b3c6d);
  mixed ^= mixed >>> 13;
  return (mixed >>> 0) % VALUE_COUNT;
}

/** One element, as a number. */
export const element = (token: number, layer: number, head: number, part: number, dim: number): number =>
  valueOf(indexOf(streamHash(token, layer, head, part), dim));

export interface RowsOptions extends Omit<AnyRowsOptions, 'elementType'> {
  readonly elementType?: FloatType | undefined;
}

/** Bytes of one token's rows in one head. */
function rowBytesOf(shape: SequenceShape, part: 0 | 1, type: FloatType | undefined): number {
  return (part === 0 ? shape.headDimK : shape.headDimV) * elementSizeBytes(type ?? storedType(shape, part));
}

/** The simulation stores floats only: it tells tokens by their exact elements. */
function storedType(shape: SequenceShape, part: 0 | 1): FloatType {
  const type = part === 0 ? shape.elementTypeK : shape.elementTypeV;
  assert.ok(!isQuantised(type), `${type} rows are not simulated`);
  return type;
}

/** Bytes of the widest row: what decides how many tokens a page holds. */
export const widestRowBytes = (shape: SequenceShape): number =>
  Math.max(rowBytesOf(shape, 0, undefined), rowBytesOf(shape, 1, undefined));

/** Rows of these tokens, K then V, in the order asked for. */
export function rowsOf(
  shape: SequenceShape,
  layer: number,
  tokens: readonly number[],
  options: RowsOptions = {},
): Uint8Array {
  const { firstHead = 0, headCount = shape.kvHeadCount, part: parts = 3, elementType } = options;
  let sizeBytes = 0;
  for (const part of [0, 1] as const) {
    if ((parts & (1 << part)) !== 0) sizeBytes += tokens.length * headCount * rowBytesOf(shape, part, elementType);
  }
  const rows = new Uint8Array(sizeBytes);
  let at = 0;
  for (const part of [0, 1] as const) {
    if ((parts & (1 << part)) === 0) continue;
    const type = elementType ?? storedType(shape, part);
    const dim = part === 0 ? shape.headDimK : shape.headDimV;
    const target = new (elementSizeBytes(type) === 4 ? Uint32Array : Uint16Array)(tokens.length * headCount * dim);
    for (let t = 0; t < tokens.length; t++) {
      for (let h = 0; h < headCount; h++) {
        const row = options.headMajor === true ? h * tokens.length + t : t * headCount + h;
        const hash = streamHash(tokens[t]!, layer, firstHead + h, part);
        for (let d = 0; d < dim; d++) target[row * dim + d] = tables[type][indexOf(hash, d)]!;
      }
    }
    rows.set(new Uint8Array(target.buffer), at);
    at += target.byteLength;
  }
  return rows;
}
