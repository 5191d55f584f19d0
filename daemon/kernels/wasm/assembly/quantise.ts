// Quantised rows to f32 and back, as spec/quantised-row.ts says. Every step is one binary32 operation, so that all kernel sets
// get the same bytes.
import { fromF16 } from './convert';
import { integersOffset, rowBytes, TYPE_INT8 } from './elements';

const GROUP: usize = 64;

@inline
function floatFromHalf(half: u32): f32 {
  return f32x4.extract_lane(fromF16(i32x4.splat(half)), 0);
}

/** Bits of the largest binary16 that is not above x >= 0. */
function halfBelow(x: f32): u32 {
  if (x >= 65504) return x == Infinity ? 0x7c00 : 0x7bff;
  if (x < 0.00006103515625) return <u32>(x * 16777216);
  return (reinterpret<u32>(x) >> 13) - (112 << 10);
}

/** Bits of the smallest binary16 that is not below x >= 0. */
function halfAbove(x: f32): u32 {
  const below = halfBelow(x);
  return floatFromHalf(below) < x ? below + 1 : below;
}

/** Scale in the low half, minimum in the high one; NaN twice if an element is not finite or binary16 can't hold them. */
function groupOf(elements: usize, count: usize, largest: f32): u32 {
  let low: f32 = Infinity, high: f32 = -Infinity, finite: f32 = 0;
  for (const end = elements + (count << 2); elements < end; elements += 4) {
    const x = load<f32>(elements);
    if (x < low) low = x;
    if (x > high) high = x;
    finite += x * 0;
  }
  if (finite != finite) return 0x7e007e00;
  // A negative zero becomes positive.
  const minimum = low < 0 ? 0x8000 | halfAbove(-low) : halfBelow(low + 0);
  const scale = halfAbove((high - floatFromHalf(minimum)) / largest);
  return (minimum & 0x7fff) >= 0x7c00 || scale >= 0x7c00 ? 0x7e007e00 : scale | (minimum << 16);
}

/** `row` has room for another four elements; `integers` for a row's, a byte each, and another four. */
export function quantiseRow(type: u32, row: usize, target: usize, elements: usize, integers: usize): void {
  const largest = type == TYPE_INT8 ? 255 : 15;
  memory.fill(integers, 0, elements + 4);
  for (let first: usize = 0; first < elements; first += GROUP) {
    const count = min(GROUP, elements - first);
    const group = groupOf(row + (first << 2), count, <f32>largest);
    store<u32>(target + (first >> 4), group);
    const scale = floatFromHalf(group & 0xffff);
    if (!(scale > 0)) continue;
    const s = f32x4.splat(scale), m = f32x4.splat(floatFromHalf(group >> 16));
    for (let d = first; d < first + count; d += 4) {
      const steps = f32x4.nearest(f32x4.div(f32x4.sub(v128.load(row + (d << 2)), m), s));
      const q = i32x4.min_s(i32x4.trunc_sat_f32x4_s(steps), i32x4.splat(largest));
      const halves = i16x8.narrow_i32x4_s(q, q);
      v128.store32_lane(integers + d, i8x16.narrow_i16x8_u(halves, halves), 0);
    }
  }
  const offset = integersOffset(elements);
  store<u32>(target + rowBytes(type, elements) - 4, 0);
  if (type == TYPE_INT8) {
    memory.copy(target + offset, integers, elements);
    return;
  }
  const half = (elements + 1) >> 1;
  store<u8>(integers + elements, 0);
  for (let i: usize = 0; i < half; i++) {
    store<u8>(target + offset + i, load<u8>(integers + i) | (load<u8>(integers + half + i) << 4));
  }
}

/** Integers, shifted and masked, to f32: `count` of them, eight at a time as long as there are so many. */
function widen(source: usize, count: usize, shift: i32, mask: i32, target: usize): void {
  const masks = i32x4.splat(mask);
  let i: usize = 0;
  for (; i + 8 <= count; i += 8) {
    const halves = i16x8.shr_u(v128.load8x8_u(source + i), shift);
    const low = v128.and(i32x4.extend_low_i16x8_u(halves), masks);
    const high = v128.and(i32x4.extend_high_i16x8_u(halves), masks);
    v128.store(target + (i << 2), f32x4.convert_i32x4_s(low));
    v128.store(target + (i << 2), f32x4.convert_i32x4_s(high), 16);
  }
  for (; i < count; i++) store<f32>(target + (i << 2), <f32>((<i32>load<u8>(source + i) >> shift) & mask));
}

/** Writes whole vectors: zeros behind the last element. */
export function dequantiseRow(type: u32, source: usize, row: usize, elements: usize): void {
  const integers = source + integersOffset(elements);
  const half = (elements + 1) >> 1;
  if (elements & 3) v128.store(row + ((elements & ~3) << 2), i32x4.splat(0));
  if (type == TYPE_INT8) {
    widen(integers, elements, 0, 255, row);
  } else {
    widen(integers, half, 0, 15, row);
    widen(integers, elements - half, 4, 15, row + (half << 2));
  }
  for (let first: usize = 0; first < elements; first += GROUP) {
    const group = load<u32>(source + (first >> 4));
    const s = f32x4.splat(floatFromHalf(group & 0xffff)), m = f32x4.splat(floatFromHalf(group >> 16));
    const end = row + (min(elements, first + GROUP) << 2);
    // The product is exact.
    for (let at = row + (first << 2); at < end; at += 16) v128.store(at, f32x4.add(f32x4.mul(v128.load(at), s), m));
  }
}
