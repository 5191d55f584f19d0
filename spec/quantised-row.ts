/**
 * Rows of quantised elements: groups of 64 along the head dimension, each with a scale and a minimum in binary16
 * (asymmetric group-wise quantisation, FlexGen section 5). An element is minimum + scale * q, which binary32 holds but for
 * one rounding.
 *
 * A row is, for each group, {scale, minimum}; then the integers q, of int8 a byte each; of int4 the first half of them in the
 * low halves of bytes, the second in the high ones; then zeros to a multiple of 4 bytes.
 *
 * Quantising rounds the minimum down and the scale up, so that no element is cut off: an element moves by at most half a
 * scale. All steps are binary32 operations, so everyone gets the same bytes.
 */
import { elementSizeBytes, type ElementType, isQuantised, type QuantisedType } from './element-type.ts';

/** Elements that share a scale and a minimum; a row's last group may have fewer. */
export const QUANTISATION_GROUP = 64;

/** Largest integer of a type. */
export const quantisedMax = { int8: 255, int4: 15 } as const;

export const groupCountOf = (elements: number): number => Math.ceil(elements / QUANTISATION_GROUP);

/** Where the integers begin in a row. */
export const integersOffset = (elements: number): number => 4 * groupCountOf(elements);

const alignFour = (bytes: number): number => Math.ceil(bytes / 4) * 4;

/** Bytes of one row of K or V. */
export function rowSizeBytes(type: ElementType, elements: number): number {
  if (!isQuantised(type)) return elements * elementSizeBytes(type);
  return alignFour(integersOffset(elements) + (type === 'int8' ? elements : Math.ceil(elements / 2)));
}

/** Rows lie at multiples of this. */
export const rowAlignmentBytes = (type: ElementType): number => (isQuantised(type) ? 2 : elementSizeBytes(type));

const F16_INFINITY = 0x7c00;
const F16_NAN = 0x7e00;
const scratchF32 = new Float32Array(1);
const scratchBits = new Uint32Array(scratchF32.buffer);

/** Bits of the largest f16 that is not above x >= 0. */
function f16Below(x: number): number {
  if (x >= 65_504) return x === Number.POSITIVE_INFINITY ? F16_INFINITY : 0x7bff;
  if (x < 2 ** -14) return Math.floor(x * 2 ** 24);
  scratchF32[0] = x;
  return (scratchBits[0]! >>> 13) - (112 << 10);
}

/** Bits of the smallest f16 that is not below the f32 x >= 0. */
function f16Above(x: number): number {
  const below = f16Below(x);
  return f16Value(below) < x ? below + 1 : below;
}

function f16Value(bits: number): number {
  const magnitude = bits & 0x7fff;
  const fraction = magnitude & 0x3ff;
  const exponent = magnitude >>> 10;
  const value =
    exponent === 31
      ? fraction === 0
        ? Number.POSITIVE_INFINITY
        : Number.NaN
      : exponent === 0
        ? fraction * 2 ** -24
        : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -value : value;
}

/** Bits of scale and minimum of a group; NaN twice if an element is not finite or binary16 can't hold them. */
function parametersOf(group: Float32Array, max: number): [scale: number, minimum: number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  let isFinite = true;
  for (const x of group) {
    if (x < low) low = x;
    if (x > high) high = x;
    if (Number.isNaN(x)) isFinite = false;
  }
  // Adding 0 makes a negative zero positive.
  low += 0;
  const minimum = low < 0 ? 0x8000 | f16Above(-low) : f16Below(low);
  const range = Math.fround(high - f16Value(minimum));
  const scale = isFinite ? f16Above(Math.fround(range / max)) : F16_NAN;
  if (!isFinite || (minimum & 0x7fff) >= F16_INFINITY || scale >= F16_INFINITY) return [F16_NAN, F16_NAN];
  return [scale, minimum];
}

function roundToEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** Writes the quantised form of `row` at `at`: rowSizeBytes bytes. */
export function quantiseRow(row: Float32Array, type: QuantisedType, target: Uint8Array, at = 0): void {
  const max = quantisedMax[type];
  const integers = at + integersOffset(row.length);
  const half = Math.ceil(row.length / 2);
  target.fill(0, at, at + rowSizeBytes(type, row.length));
  for (let first = 0; first < row.length; first += QUANTISATION_GROUP) {
    const group = row.subarray(first, first + QUANTISATION_GROUP);
    const [scaleBits, minimumBits] = parametersOf(group, max);
    const header = at + first / (QUANTISATION_GROUP / 4);
    for (const [i, bits] of [scaleBits, minimumBits].entries()) {
      target[header + 2 * i] = bits & 0xff;
      target[header + 2 * i + 1] = bits >>> 8;
    }
    const scale = f16Value(scaleBits);
    const minimum = f16Value(minimumBits);
    // All elements equal the minimum, or none has a meaning.
    if (!(scale > 0)) continue;
    for (let i = 0; i < group.length; i++) {
      const steps = Math.fround(Math.fround(group[i]! - minimum) / scale);
      const q = Math.min(max, roundToEven(steps));
      const d = first + i;
      if (type === 'int8') target[integers + d] = q;
      else if (d < half) target[integers + d]! |= q;
      else target[integers + d - half]! |= q << 4;
    }
  }
}

/** The elements of the quantised row at `at`, as binary32. */
export function dequantiseRow(bytes: Uint8Array, at: number, type: QuantisedType, row: Float32Array): void {
  const integers = at + integersOffset(row.length);
  const half = Math.ceil(row.length / 2);
  for (let first = 0; first < row.length; first += QUANTISATION_GROUP) {
    const header = at + first / (QUANTISATION_GROUP / 4);
    const scale = f16Value(bytes[header]! | (bytes[header + 1]! << 8));
    const minimum = f16Value(bytes[header + 2]! | (bytes[header + 3]! << 8));
    const end = Math.min(row.length, first + QUANTISATION_GROUP);
    for (let d = first; d < end; d++) {
      const q =
        type === 'int8'
          ? bytes[integers + d]!
          : d < half
            ? bytes[integers + d]! & 15
            : bytes[integers + d - half]! >>> 4;
      row[d] = minimum + scale * q;
    }
  }
}
