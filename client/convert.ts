/**
 * Element types on the host: f32 arrays to and from the bits of f16 and bf16, rounding to nearest even as the drive
 * does. Node has no 16-bit float arrays; bits travel in Uint16Array.
 */
import {
  dequantiseRow,
  type ElementType,
  elementSizeBytes,
  type FloatType,
  isQuantised,
  quantiseRow,
  type QuantisedType,
  rowSizeBytes,
} from '../spec/index.ts';

/** Rows of K, V, queries or outputs: f32 values, or the bits of f16 or bf16. */
export type ElementArray = Float32Array | Uint16Array;
/** Rows of K or V as they may be stored: the same, or quantised rows one behind the other. */
export type RowArray = ElementArray | Uint8Array;

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

let f16Values: Float32Array | undefined;

/** Every f16 value by its bits; 256 KiB, made when first needed. */
function f16Table(): Float32Array {
  if (f16Values !== undefined) return f16Values;
  const table = new Float32Array(65_536);
  const bits = new Uint32Array(table.buffer);
  for (let half = 0; half < 65_536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) {
      table[half] = (sign < 0 ? -1 : 1) * fraction * 2 ** -24;
      if (fraction === 0) bits[half] = sign >>> 0;
    } else {
      const wide = exponent === 31 ? 0xff : exponent + 112;
      bits[half] = (sign | (wide << 23) | (fraction << 13)) >>> 0;
    }
  }
  f16Values = table;
  return table;
}

function f16Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  // 65520 and above round to infinity.
  if (magnitude >= 0x477f_f000) return sign | 0x7c00;
  if (magnitude >= 0x3880_0000) {
    const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return sign | ((rounded - 0x3800_0000) >>> 13);
  }
  // Below 2^-14: a subnormal, in units of 2^-24.
  const shift = 126 - (magnitude >>> 23);
  if (shift > 24) return sign;
  const significand = (magnitude & 0x7f_ffff) | 0x80_0000;
  const kept = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0));
}

function bf16Bits(bits: number): number {
  if ((bits & 0x7fff_ffff) > 0x7f80_0000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Bits of the nearest f16 of each value; overflow becomes infinity, NaN a quiet NaN. */
export function f32ToF16(source: Float32Array, target = new Uint16Array(source.length)): Uint16Array {
  for (let i = 0; i < source.length; i++) {
    scratchFloat[0] = source[i] ?? 0;
    target[i] = f16Bits(scratchBits[0] ?? 0);
  }
  return target;
}

export function f16ToF32(source: Uint16Array, target = new Float32Array(source.length)): Float32Array {
  const table = f16Table();
  for (let i = 0; i < source.length; i++) target[i] = table[source[i] ?? 0] ?? 0;
  return target;
}

/** Bits of the nearest bf16 of each value; overflow becomes infinity, NaN a quiet NaN. */
export function f32ToBf16(source: Float32Array, target = new Uint16Array(source.length)): Uint16Array {
  for (let i = 0; i < source.length; i++) {
    scratchFloat[0] = source[i] ?? 0;
    target[i] = bf16Bits(scratchBits[0] ?? 0);
  }
  return target;
}

export function bf16ToF32(source: Uint16Array, target = new Float32Array(source.length)): Float32Array {
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let i = 0; i < source.length; i++) bits[i] = (source[i] ?? 0) << 16;
  return target;
}

/** f32 values as elements of `type`. For f32 the array itself. */
export function fromF32(source: Float32Array, type: FloatType): ElementArray {
  if (type === 'f32') return source;
  return type === 'f16' ? f32ToF16(source) : f32ToBf16(source);
}

/** Elements of `type` as f32 values. For f32 the array itself. */
export function toF32(source: ElementArray, type: FloatType): Float32Array {
  if (source instanceof Float32Array) return source;
  return type === 'f16' ? f16ToF32(source) : bf16ToF32(source);
}

/** Rows of `rowElements` values each, quantised as the drive does it. */
export function quantise(source: Float32Array, type: QuantisedType, rowElements: number): Uint8Array {
  const rowBytes = rowSizeBytes(type, rowElements);
  const rows = new Uint8Array((source.length / rowElements) * rowBytes);
  for (let i = 0; i * rowElements < source.length; i++) {
    quantiseRow(source.subarray(i * rowElements, (i + 1) * rowElements), type, rows, i * rowBytes);
  }
  return rows;
}

/** What quantised rows of `rowElements` stand for. */
export function dequantise(rows: Uint8Array, type: QuantisedType, rowElements: number): Float32Array {
  const rowBytes = rowSizeBytes(type, rowElements);
  const values = new Float32Array((rows.length / rowBytes) * rowElements);
  for (let i = 0; i * rowBytes < rows.length; i++) {
    dequantiseRow(rows, i * rowBytes, type, values.subarray(i * rowElements, (i + 1) * rowElements));
  }
  return values;
}

/** A fresh array for `rowCount` rows of `rowElements` elements of `type`. */
export function rowArray(type: ElementType, rowCount: number, rowElements: number): RowArray {
  if (isQuantised(type)) return new Uint8Array(rowCount * rowSizeBytes(type, rowElements));
  return type === 'f32' ? new Float32Array(rowCount * rowElements) : new Uint16Array(rowCount * rowElements);
}

/** `rowCount` rows of `rowElements` elements of `type` that lie in `buffer`, `offsetBytes` from its start. */
export function rowView(
  type: ElementType,
  buffer: ArrayBuffer,
  offsetBytes: number,
  rowCount: number,
  rowElements: number,
): RowArray {
  if (isQuantised(type)) return new Uint8Array(buffer, offsetBytes, rowCount * rowSizeBytes(type, rowElements));
  return elementView(type, buffer, offsetBytes, rowCount * rowElements);
}

/** `length` elements of `type` that lie in `buffer`, `offsetBytes` from its start. */
export const elementView = (type: FloatType, buffer: ArrayBuffer, offsetBytes: number, length: number) =>
  type === 'f32' ? new Float32Array(buffer, offsetBytes, length) : new Uint16Array(buffer, offsetBytes, length);

/** The bytes of an array, without copying. */
export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/**
 * Element type of an array that a caller gave: as stated, else f32 for Float32Array, else the type that the sequence
 * stores if that has 16 bits. TypeError if the array can't hold it or nothing tells f16 from bf16.
 */
export function resolveFloatType(
  what: string,
  array: ElementArray,
  stated: FloatType | undefined,
  stored: ElementType,
): FloatType {
  const type = resolveElementType(what, array, stated, stored);
  if (!isQuantised(type)) return type;
  throw new TypeError(`${what} must be a Float32Array (f32) or a Uint16Array (bits of f16 or bf16)`);
}

/** The same of rows, which may be quantised ones: a Uint8Array. */
export function resolveElementType(
  what: string,
  array: RowArray,
  stated: ElementType | undefined,
  stored: ElementType,
): ElementType {
  const isFloat = array instanceof Float32Array;
  if (!isFloat && !(array instanceof Uint16Array) && !(array instanceof Uint8Array)) {
    throw new TypeError(
      `${what} must be a Float32Array (f32), a Uint16Array (bits of f16 or bf16), or a Uint8Array (quantised rows)`,
    );
  }
  const type = stated ?? (isFloat ? 'f32' : stored);
  if ((isQuantised(type) ? 1 : elementSizeBytes(type)) !== array.BYTES_PER_ELEMENT) {
    const given = isFloat ? 'a Float32Array' : array instanceof Uint16Array ? 'a Uint16Array' : 'a Uint8Array';
    throw new TypeError(`${what} is ${given} but its element type is ${type}; state elementType`);
  }
  return type;
}
