// Rows of halves or quantised rows to rows of f32 in the call's scratch, once for all query rows: the loops over dimensions and
// columns then need few registers, which is what they are short of.
//
// binary16 is widened by its bits: 13 places up they are those of the value times 2^-112, subnormals included. The 2^112
// goes into the other factor (queries, weights), which costs nothing. Exponent 31 comes out as a finite number: if a row
// has such an element, its block is unpacked again with infinities and NaN where they belong.
import { isQuantised, TYPE_BF16 } from './elements';
import { dequantiseRow } from './quantise';

/** What unpacked binary16 elements lack, unless `factor` gave it to them. */
export const FOLD: f32 = 5192296858534827628530496329220096.0;

/**
 * Unpacks `count` rows, from a list of their addresses, to `target`, rows of `stride` bytes padded with zeros to whole
 * vectors. `factor` multiplies binary16 elements (1, or the 2^112 where the other factor is too large to carry it).
 */
export function unpackRows(
  type: u32, list: usize, count: i32, dim: i32, target: usize, stride: usize, factor: f32,
): void {
  const end = list + (<usize>count << 2);
  if (isQuantised(type)) {
    for (let at = list, row = target; at < end; at += 4, row += stride) dequantiseRow(type, load<u32>(at), row, dim);
    return;
  }
  if (type == TYPE_BF16) {
    for (let at = list, row = target; at < end; at += 4, row += stride) unpackBf16(load<u32>(at), dim, row);
    return;
  }
  let largest = i64x2.splat(0);
  for (let at = list, row = target; at < end; at += 4, row += stride) {
    largest = i16x8.max_u(largest, unpackF16(load<u32>(at), dim, row));
  }
  const isSpecial = v128.any_true(i16x8.ge_u(largest, i16x8.splat(<i16>0xf800)));
  if (!isSpecial && factor == 1) return;
  for (let row = target; row < target + <usize>count * stride; row += stride) mend(row, dim, factor);
}

/** Eight halves to two vectors: their bits 13 places up, but for the sign. */
@inline
function storeWidened(row: usize, halves: v128): void {
  const high = v128.and(i16x8.shr_s(halves, 3), i16x8.splat(<i16>0x8fff));
  const low = i16x8.shl(halves, 13);
  v128.store(row, v128.shuffle<i16>(low, high, 0, 8, 1, 9, 2, 10, 3, 11));
  v128.store(row, v128.shuffle<i16>(low, high, 4, 12, 5, 13, 6, 14, 7, 15), 16);
}

/** The largest magnitudes found, one place up, in 16-bit lanes. */
@inline
function unpackF16(at: usize, dim: i32, row: usize): v128 {
  let largest = i64x2.splat(0);
  let left = dim;
  for (; left >= 16; left -= 16, at += 32, row += 64) {
    const a = v128.load(at), b = v128.load(at, 16);
    largest = i16x8.max_u(largest, i16x8.max_u(i16x8.shl(a, 1), i16x8.shl(b, 1)));
    storeWidened(row, a);
    storeWidened(row + 32, b);
  }
  for (; left > 0; left -= 4, at += 8, row += 16) {
    const halves = loadHalves(at, left);
    largest = i16x8.max_u(largest, i16x8.shl(halves, 1));
    v128.store(row, v128.and(i32x4.shl(halves, 13), i32x4.splat(0x8fffe000)));
  }
  return largest;
}

/** Puts exponent 31 right in an unpacked row, and multiplies it. */
function mend(row: usize, dim: i32, factor: f32): void {
  for (let end = row + (<usize>dim << 2); row < end; row += 16) {
    const x = v128.load(row);
    const special = i32x4.ge_s(v128.and(x, i32x4.splat(0x7fffffff)), i32x4.splat(0x0f800000));
    const whole = v128.or(x, v128.and(special, i32x4.splat(0x70000000)));
    v128.store(row, f32x4.mul(whole, f32x4.splat(factor)));
  }
}

@inline
function unpackBf16(at: usize, dim: i32, row: usize): void {
  let left = dim;
  for (; left >= 8; left -= 8, at += 16, row += 32) {
    v128.store(row, i32x4.shl(v128.load16x4_s(at), 16));
    v128.store(row, i32x4.shl(v128.load16x4_s(at, 8), 16), 16);
  }
  for (; left > 0; left -= 4, at += 8, row += 16) v128.store(row, i32x4.shl(loadHalves(at, left), 16));
}

/** Up to four halves, sign-extended, the rest zero. Reads nothing beyond them. */
function loadHalves(at: usize, count: i32): v128 {
  if (count >= 4) return v128.load16x4_s(at);
  let v = i32x4.replace_lane(i32x4.splat(0), 0, load<i16>(at));
  if (count > 1) v = i32x4.replace_lane(v, 1, load<i16>(at, 2));
  if (count > 2) v = i32x4.replace_lane(v, 2, load<i16>(at, 4));
  return v;
}

