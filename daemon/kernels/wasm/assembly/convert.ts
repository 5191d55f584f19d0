// Element conversion: to the halves by round to nearest even, overflow to infinity, NaN to a quiet NaN.
import { floatBytes, isQuantised, rowBytes, TYPE_BF16, TYPE_F16, TYPE_F32 } from './elements';
import { claimSlot, INTEGERS, QUERIES, releaseSlot } from './layout';
import { dequantiseRow, quantiseRow } from './quantise';

/** Four binary32 to the low halves of four words. */
@inline
function toF16(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  const magnitude = v128.xor(x, sign);
  // Normal: rebias the exponent and round; a carry rises into the exponent, up to infinity.
  const odd = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(magnitude, i32x4.splat(0xc8000fff)), odd), 13);
  // Subnormal: adding 0.5 rounds to units of 2^-24 in the low mantissa bits.
  const small = i32x4.sub(f32x4.add(magnitude, f32x4.splat(0.5)), f32x4.splat(0.5));
  const quiet = v128.or(
    i32x4.splat(0x7e00), v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(0x3ff)),
  );
  let half = v128.bitselect(small, normal, i32x4.lt_s(magnitude, i32x4.splat(0x38800000)));
  half = v128.bitselect(i32x4.splat(0x7c00), half, i32x4.ge_s(magnitude, i32x4.splat(0x47800000)));
  half = v128.bitselect(quiet, half, i32x4.gt_s(magnitude, i32x4.splat(0x7f800000)));
  return v128.or(half, i32x4.shr_u(sign, 16));
}

@inline
function toBf16(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), odd), 16);
  const quiet = v128.or(i32x4.shr_u(x, 16), i32x4.splat(0x40));
  return v128.bitselect(quiet, rounded, f32x4.ne(x, x));
}

/** Four binary16 in the low halves of four words to binary32; a signalling NaN becomes quiet. */
@inline
export function fromF16(halves: v128): v128 {
  const sign = i32x4.shl(v128.and(halves, i32x4.splat(0x8000)), 16);
  const magnitude = i32x4.shl(v128.and(halves, i32x4.splat(0x7fff)), 13);
  const special = i32x4.ge_s(magnitude, i32x4.splat(0x0f800000));
  const isNan = i32x4.gt_s(magnitude, i32x4.splat(0x0f800000));
  const scaled = f32x4.mul(magnitude, i32x4.splat(0x77800000));
  const whole = v128.or(scaled, v128.and(special, i32x4.splat(0x7f800000)));
  return v128.or(v128.or(whole, v128.and(isNan, i32x4.splat(0x00400000))), sign);
}

@inline
function read4(at: usize, type: u32): v128 {
  if (type == TYPE_F32) return v128.load(at);
  const halves = v128.load16x4_u(at);
  return type == TYPE_BF16 ? i32x4.shl(halves, 16) : fromF16(halves);
}

@inline
function write4(at: usize, type: u32, x: v128): void {
  if (type == TYPE_F32) {
    v128.store(at, x);
    return;
  }
  const halves = type == TYPE_F16 ? toF16(x) : toBf16(x);
  v128.store64_lane(at, i16x8.narrow_i32x4_u(halves, halves), 0);
}

export function convert(
  source: usize, sourceType: u32, target: usize, targetType: u32, rowCount: usize, rowElements: usize,
): void {
  if (sourceType == targetType) {
    memory.copy(target, source, rowCount * rowBytes(sourceType, rowElements));
  } else if (isQuantised(sourceType) || isQuantised(targetType)) {
    convertRows(source, sourceType, target, targetType, rowCount, rowElements);
  } else {
    convertFloats(source, sourceType, target, targetType, rowCount * rowElements);
  }
}

/** Row by row, through f32 in a scratch slot. */
function convertRows(
  source: usize, sourceType: u32, target: usize, targetType: u32, rowCount: usize, rowElements: usize,
): void {
  const sourceBytes = rowBytes(sourceType, rowElements), targetBytes = rowBytes(targetType, rowElements);
  const slot = claimSlot();
  const row = slot + QUERIES;
  for (let i: usize = 0; i < rowCount; i++, source += sourceBytes, target += targetBytes) {
    if (isQuantised(sourceType)) dequantiseRow(sourceType, source, row, rowElements);
    else convertFloats(source, sourceType, row, TYPE_F32, rowElements);
    if (isQuantised(targetType)) quantiseRow(targetType, row, target, rowElements, slot + INTEGERS);
    else convertFloats(row, TYPE_F32, target, targetType, rowElements);
  }
  releaseSlot();
}

export function convertFloats(source: usize, sourceType: u32, target: usize, targetType: u32, count: usize): void {
  if (sourceType == targetType) {
    memory.copy(target, source, count * floatBytes(sourceType));
    return;
  }
  const sourceBytes = floatBytes(sourceType), targetBytes = floatBytes(targetType);
  let i: usize = 0;
  for (; i + 4 <= count; i += 4) {
    write4(target + i * targetBytes, targetType, read4(source + i * sourceBytes, sourceType));
  }
  for (; i < count; i++) convertOne(source + i * sourceBytes, sourceType, target + i * targetBytes, targetType);
}

export function convertOne(source: usize, sourceType: u32, target: usize, targetType: u32): void {
  let x: v128;
  if (sourceType == TYPE_F32) {
    x = i32x4.splat(load<i32>(source));
  } else {
    const halves = i32x4.splat(<i32>load<u16>(source));
    x = sourceType == TYPE_BF16 ? i32x4.shl(halves, 16) : fromF16(halves);
  }
  if (targetType == TYPE_F32) store<i32>(target, i32x4.extract_lane(x, 0));
  else store<u16>(target, <u16>i32x4.extract_lane(targetType == TYPE_F16 ? toF16(x) : toBf16(x), 0));
}
