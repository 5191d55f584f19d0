/** What rows of K and V look like in memory and what numbers they are: shares no code with the kernels. */
import {
  elementTypes,
  type ElementType,
  type FloatType,
  isQuantised,
  type QuantisedType,
} from '../../spec/element-type.ts';

/** The number that a bit pattern stands for. */
export function valueOf(type: FloatType, pattern: number): number {
  const [exponentBits, mantissaBits] = type === 'f32' ? [8, 23] : type === 'f16' ? [5, 10] : [8, 7];
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = Math.floor(pattern / 2 ** (exponentBits + mantissaBits)) % 2 === 1 ? -1 : 1;
  const exponent = Math.floor(pattern / 2 ** mantissaBits) % 2 ** exponentBits;
  const mantissa = pattern % 2 ** mantissaBits;
  if (exponent === 2 ** exponentBits - 1) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias);
}

/** Patterns of elements that are to be quantised are those of f32. */
export const patternTypeOf = (type: ElementType): FloatType => (isQuantised(type) ? 'f32' : type);

export interface StoredRows {
  /** One row behind the other. */
  readonly bytes: Uint8Array;
  readonly values: Float64Array;
  /** Of each element's group: of floats 0. */
  readonly minima: Float64Array;
  readonly scales: Float64Array;
}

/** Rows of `dim` elements each, given as patterns of patternTypeOf(type). */
export function storedRows(type: ElementType, patterns: Uint32Array, dim: number): StoredRows {
  if (isQuantised(type)) {
    const rows = Array.from({ length: patterns.length / dim }, (_, i) =>
      quantisedRow(
        type,
        Float64Array.from(patterns.subarray(i * dim, (i + 1) * dim), (bits) => valueOf('f32', bits)),
      ),
    );
    const values = new Float64Array(patterns.length);
    const minima = new Float64Array(patterns.length);
    const scales = new Float64Array(patterns.length);
    rows.forEach((row, i) => {
      values.set(row.values, i * dim);
      minima.set(row.minima, i * dim);
      scales.set(row.scales, i * dim);
    });
    return { bytes: Buffer.concat(rows.map(({ bytes }) => bytes)), values, minima, scales };
  }
  const size = elementTypes[type].bits / 8;
  const bytes = new Uint8Array(patterns.length * size);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < patterns.length; i++) {
    if (size === 4) view.setUint32(i * 4, patterns[i]!, true);
    else view.setUint16(i * 2, patterns[i]!, true);
  }
  const none = new Float64Array(patterns.length);
  return {
    bytes,
    values: Float64Array.from(patterns, (pattern) => valueOf(type, pattern)),
    minima: none,
    scales: none,
  };
}

/** All finite f16 in ascending order, by their bits. */
const halves = [
  ...Array.from({ length: 0x7c00 }, (_, i) => 0xfbff - i),
  ...Array.from({ length: 0x7bff }, (_, i) => i + 1),
];

/** Bits of the largest f16 not above x, of zeros the positive one; undefined: there is none. */
function halfAtMost(x: number): number | undefined {
  let low = -1;
  for (let high = halves.length - 1; low < high; ) {
    const middle = Math.ceil((low + high) / 2);
    if (valueOf('f16', halves[middle]!) <= x) low = middle;
    else high = middle - 1;
  }
  const bits = halves[low];
  return bits === 0x8000 ? 0 : bits;
}

function halfAtLeast(x: number): number | undefined {
  const below = halfAtMost(-x);
  return below === undefined ? undefined : below === 0 ? 0 : below ^ 0x8000;
}

/** One row as spec/quantised-row.ts says, in float64 with a rounding to float32 after each step. */
export function quantisedRow(type: QuantisedType, elements: Float64Array): StoredRows {
  const largest = 2 ** elementTypes[type].bits - 1;
  const groups = Math.ceil(elements.length / 64);
  const integers: number[] = [];
  const header: number[] = [];
  const values = new Float64Array(elements.length);
  const minima = new Float64Array(elements.length);
  const scales = new Float64Array(elements.length);
  for (let group = 0; group < groups; group++) {
    const members = elements.subarray(group * 64, group * 64 + 64);
    const isFinite = members.every(Number.isFinite);
    const minimum = isFinite ? halfAtMost(Math.min(...members)) : undefined;
    const base = minimum === undefined ? Number.NaN : valueOf('f16', minimum);
    const range = Math.fround(Math.max(...members) - base);
    const scale = Number.isNaN(range) ? undefined : halfAtLeast(Math.fround(range / largest));
    const isHeld = minimum !== undefined && scale !== undefined;
    header.push(isHeld ? scale : 0x7e00, isHeld ? minimum : 0x7e00);
    const step = isHeld ? valueOf('f16', scale) : Number.NaN;
    members.forEach((x, i) => {
      const steps = Math.fround(Math.fround(x - base) / step);
      const up = steps - Math.floor(steps) > 0.5 || (steps - Math.floor(steps) === 0.5 && Math.floor(steps) % 2 === 1);
      const q = step > 0 ? Math.min(largest, Math.floor(steps) + (up ? 1 : 0)) : 0;
      integers.push(q);
      values[group * 64 + i] = Math.fround(base + step * q);
      minima[group * 64 + i] = base;
      scales[group * 64 + i] = step;
    });
  }
  const half = Math.ceil(integers.length / 2);
  const packed =
    type === 'int8' ? integers : Array.from({ length: half }, (_, i) => integers[i]! + 16 * (integers[half + i] ?? 0));
  const bytes = [...header.flatMap((bits) => [bits % 256, bits >> 8]), ...packed];
  while (bytes.length % 4 !== 0) bytes.push(0);
  return { bytes: Uint8Array.from(bytes), values, minima, scales };
}
