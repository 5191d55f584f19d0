/** Conversions between f32, f16 and bf16 by their bits, so that NaN payloads pass through JavaScript unchanged. */
import { type ElementType, elementTypeOf, type FloatType, isQuantised } from '../../../spec/element-type.ts';
import { dequantiseRow, quantiseRow, rowSizeBytes } from '../../../spec/quantised-row.ts';
import { assert } from '../../base/assert.ts';

/** binary16 bits of the binary32 `bits`: round to nearest even, overflow to infinity, NaN to a quiet NaN. */
export function f16FromF32Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  if (magnitude >= 0x4780_0000) return sign | 0x7c00;
  if (magnitude >= 0x3880_0000) {
    // A carry out of the mantissa raises the exponent, up to infinity: that is the right result.
    return sign | (((magnitude + 0xfff + ((magnitude >>> 13) & 1)) >>> 13) - (112 << 10));
  }
  // Subnormal result: count units of 2^-24.
  const shift = 126 - (magnitude >>> 23);
  if (shift > 24) return sign;
  const mantissa = (magnitude & 0x7f_ffff) | 0x80_0000;
  const units = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (units + (rest > half || (rest === half && (units & 1) === 1) ? 1 : 0));
}

/** binary32 bits of the binary16 `half`: exact; a signalling NaN becomes quiet, as processors make it. */
export function f32BitsFromF16(half: number): number {
  const sign = (half & 0x8000) * 0x1_0000;
  const exponent = (half >>> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f) return sign + 0x7f80_0000 + (mantissa === 0 ? 0 : (mantissa << 13) | 0x40_0000);
  if (exponent !== 0) return sign + ((exponent + 112) << 23) + (mantissa << 13);
  if (mantissa === 0) return sign;
  // Subnormal: shift the leading one into the hidden place.
  const shift = Math.clz32(mantissa) - 21;
  return sign + ((113 - shift) << 23) + (((mantissa << shift) & 0x3ff) << 13);
}

/** bfloat16 bits of the binary32 `bits`: round to nearest even, NaN to a quiet NaN. */
export function bf16FromF32Bits(bits: number): number {
  if ((bits & 0x7fff_ffff) > 0x7f80_0000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** binary32 bits of a bfloat16: exact. */
export const f32BitsFromBf16 = (half: number): number => (half << 16) >>> 0;

/** Views of all of a memory, by element size; offsets are divided by it. */
export interface MemoryViews {
  readonly bytes: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly f32: Float32Array;
}

const halfAsF32Bits = Uint32Array.from({ length: 65_536 }, (_, half) => f32BitsFromF16(half));
const halfAsF32 = new Float32Array(halfAsF32Bits.buffer);
const scratchBits = new Uint32Array(1);
const scratchF32 = new Float32Array(scratchBits.buffer);

/** Reads a row at byte `offset`, a multiple of rowAlignmentBytes. */
export function readRow(views: MemoryViews, type: ElementType, offset: number, target: Float32Array): void {
  const count = target.length;
  if (isQuantised(type)) dequantiseRow(views.bytes, offset, type, target);
  else if (type === 'f32') for (let i = 0, at = offset / 4; i < count; i++) target[i] = views.f32[at + i]!;
  else if (type === 'f16') for (let i = 0, at = offset / 2; i < count; i++) target[i] = halfAsF32[views.u16[at + i]!]!;
  else {
    for (let i = 0, at = offset / 2; i < count; i++) {
      scratchBits[0] = views.u16[at + i]! << 16;
      target[i] = scratchF32[0]!;
    }
  }
}

/** Writes a row at byte `offset`, rounding as `convert` does. */
export function writeRow(views: MemoryViews, type: ElementType, offset: number, source: Float32Array): void {
  if (isQuantised(type)) {
    quantiseRow(source, type, views.bytes, offset);
    return;
  }
  for (let i = 0; i < source.length; i++) {
    scratchF32[0] = source[i]!;
    if (type === 'f32') views.u32[offset / 4 + i] = scratchBits[0]!;
    else if (type === 'f16') views.u16[offset / 2 + i] = f16FromF32Bits(scratchBits[0]!);
    else views.u16[offset / 2 + i] = bf16FromF32Bits(scratchBits[0]!);
  }
}

/** Row conversion; equal types are copied as they are, other floats bit by bit. */
export function convert(
  views: MemoryViews,
  source: number,
  sourceCode: number,
  target: number,
  targetCode: number,
  rowCount: number,
  rowElements: number,
): void {
  const sourceType = elementTypeOf(sourceCode);
  const targetType = elementTypeOf(targetCode);
  assert(sourceType !== undefined && targetType !== undefined, 'known element types');
  if (sourceType === targetType) {
    views.bytes.copyWithin(target, source, source + rowCount * rowSizeBytes(sourceType, rowElements));
  } else if (isQuantised(sourceType) || isQuantised(targetType)) {
    const row = new Float32Array(rowElements);
    for (let i = 0; i < rowCount; i++) {
      readRow(views, sourceType, source + i * rowSizeBytes(sourceType, rowElements), row);
      writeRow(views, targetType, target + i * rowSizeBytes(targetType, rowElements), row);
    }
  } else {
    convertFloats(views, source, sourceType, target, targetType, rowCount * rowElements);
  }
}

function convertFloats(
  views: MemoryViews,
  source: number,
  sourceType: FloatType,
  target: number,
  targetType: FloatType,
  count: number,
): void {
  for (let i = 0; i < count; i++) {
    const bits =
      sourceType === 'f32'
        ? views.u32[source / 4 + i]!
        : sourceType === 'f16'
          ? halfAsF32Bits[views.u16[source / 2 + i]!]!
          : f32BitsFromBf16(views.u16[source / 2 + i]!);
    if (targetType === 'f32') views.u32[target / 4 + i] = bits;
    else if (targetType === 'f16') views.u16[target / 2 + i] = f16FromF32Bits(bits);
    else views.u16[target / 2 + i] = bf16FromF32Bits(bits);
  }
}
