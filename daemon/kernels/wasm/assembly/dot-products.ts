// The K phase: logits of a block of tokens, before scale and masks.
import { bytesOf, gather, gathered, isTrick, load4, loadSome } from './elements';
import { QUERY_STRIDE } from './layout';
import { sumEach } from './math';

/**
 * Dot products of four query rows with two tokens: f32 [2][4] at `target`. False if K has an exponent 31 that the trick
 * got wrong. `factor` multiplies K (1, or 2^112 where the queries are too large to carry it).
 */
@inline
function dots4x2<T>(queries: usize, k0: usize, k1: usize, dim: i32, target: usize, factor: v128): bool {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
  let b0 = f32x4.splat(0), b1 = f32x4.splat(0), b2 = f32x4.splat(0), b3 = f32x4.splat(0);
  let flags = i32x4.splat(0);
  let q = queries;
  let left = dim;
  for (; left > 0; left -= 4, q += 16) {
    let x: v128, y: v128;
    if (left >= 4) {
      x = load4<T>(k0);
      y = load4<T>(k1);
    } else {
      x = loadSome<T>(k0, left);
      y = loadSome<T>(k1, left);
    }
    k0 += 4 * bytesOf<T>();
    k1 += 4 * bytesOf<T>();
    flags = gather<T>(gather<T>(flags, x), y);
    if (!isFloat<T>() && sizeof<T>() == 4) {
      x = f32x4.mul(x, factor);
      y = f32x4.mul(y, factor);
    }
    const q0 = v128.load(q);
    a0 = f32x4.add(a0, f32x4.mul(x, q0));
    b0 = f32x4.add(b0, f32x4.mul(y, q0));
    const q1 = v128.load(q, QUERY_STRIDE);
    a1 = f32x4.add(a1, f32x4.mul(x, q1));
    b1 = f32x4.add(b1, f32x4.mul(y, q1));
    const q2 = v128.load(q, 2 * QUERY_STRIDE);
    a2 = f32x4.add(a2, f32x4.mul(x, q2));
    b2 = f32x4.add(b2, f32x4.mul(y, q2));
    const q3 = v128.load(q, 3 * QUERY_STRIDE);
    a3 = f32x4.add(a3, f32x4.mul(x, q3));
    b3 = f32x4.add(b3, f32x4.mul(y, q3));
  }
  v128.store(target, sumEach(a0, a1, a2, a3));
  v128.store(target, sumEach(b0, b1, b2, b3), 16);
  return !gathered<T>(flags);
}

/** Dot products of one query row with four tokens: f32 [4] at `target`. */
@inline
function dots1x4<T>(queries: usize, rows: usize, dim: i32, target: usize, factor: v128): bool {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
  let flags = i32x4.splat(0);
  let k0: usize = load<u32>(rows), k1: usize = load<u32>(rows, 4);
  let k2: usize = load<u32>(rows, 8), k3: usize = load<u32>(rows, 12);
  let q = queries;
  let left = dim;
  for (; left > 0; left -= 4, q += 16) {
    let x0: v128, x1: v128, x2: v128, x3: v128;
    if (left >= 4) {
      x0 = load4<T>(k0);
      x1 = load4<T>(k1);
      x2 = load4<T>(k2);
      x3 = load4<T>(k3);
    } else {
      x0 = loadSome<T>(k0, left);
      x1 = loadSome<T>(k1, left);
      x2 = loadSome<T>(k2, left);
      x3 = loadSome<T>(k3, left);
    }
    k0 += 4 * bytesOf<T>();
    k1 += 4 * bytesOf<T>();
    k2 += 4 * bytesOf<T>();
    k3 += 4 * bytesOf<T>();
    flags = gather<T>(gather<T>(gather<T>(gather<T>(flags, x0), x1), x2), x3);
    let query = v128.load(q);
    if (!isFloat<T>() && sizeof<T>() == 4) query = f32x4.mul(query, factor);
    a0 = f32x4.add(a0, f32x4.mul(x0, query));
    a1 = f32x4.add(a1, f32x4.mul(x1, query));
    a2 = f32x4.add(a2, f32x4.mul(x2, query));
    a3 = f32x4.add(a3, f32x4.mul(x3, query));
  }
  v128.store(target, sumEach(a0, a1, a2, a3));
  return !gathered<T>(flags);
}

/** Four query rows with a block's `count` tokens: f32 [count][4]. The list of rows is padded to an even number. */
export function blockDots4<T>(
  queries: usize, rows: usize, count: i32, dim: i32, target: usize, factor: f32,
): bool {
  const factors = f32x4.splat(factor);
  for (let t = 0; t < count; t += 2) {
    const k = rows + (<usize>t << 2);
    const fine = dots4x2<T>(queries, load<u32>(k), load<u32>(k, 4), dim, target + (<usize>t << 4), factors);
    if (isTrick<T>() && !fine) return false;
  }
  return true;
}

/** One query row with a block's `count` tokens: f32 [count]. The list of rows is padded to a multiple of four. */
export function blockDots1<T>(
  queries: usize, rows: usize, count: i32, dim: i32, target: usize, factor: f32,
): bool {
  const factors = f32x4.splat(factor);
  for (let t = 0; t < count; t += 4) {
    const fine = dots1x4<T>(queries, rows + (<usize>t << 2), dim, target + (<usize>t << 2), factors);
    if (isTrick<T>() && !fine) return false;
  }
  return true;
}
