// The K phase: logits of a block of tokens, before scale and masks. Keys and queries are f32 rows padded with zeros to whole
// vectors, named by lists of addresses.
import { loadSome } from './elements';
import { QUERY_STRIDE } from './layout';
import { sumEach } from './math';

/** Dot products of four query rows with two tokens: f32 [2][4] at `target`. */
@inline
function dots4x2(queries: usize, k0: usize, k1: usize, dim: i32, target: usize): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
  let b0 = f32x4.splat(0), b1 = f32x4.splat(0), b2 = f32x4.splat(0), b3 = f32x4.splat(0);
  let q = queries;
  let left = dim;
  for (; left >= 4; left -= 4, q += 16, k0 += 16, k1 += 16) {
    const x = v128.load(k0), y = v128.load(k1);
    const q0 = v128.load(q);
    a0 = f32x4.add(a0, f32x4.mul(x, q0)), b0 = f32x4.add(b0, f32x4.mul(y, q0));
    const q1 = v128.load(q, QUERY_STRIDE);
    a1 = f32x4.add(a1, f32x4.mul(x, q1)), b1 = f32x4.add(b1, f32x4.mul(y, q1));
    const q2 = v128.load(q, 2 * QUERY_STRIDE);
    a2 = f32x4.add(a2, f32x4.mul(x, q2)), b2 = f32x4.add(b2, f32x4.mul(y, q2));
    const q3 = v128.load(q, 3 * QUERY_STRIDE);
    a3 = f32x4.add(a3, f32x4.mul(x, q3)), b3 = f32x4.add(b3, f32x4.mul(y, q3));
  }
  if (left > 0) {
    const x = loadSome(k0, left), y = loadSome(k1, left);
    const q0 = v128.load(q), q1 = v128.load(q, QUERY_STRIDE);
    a0 = f32x4.add(a0, f32x4.mul(x, q0)), b0 = f32x4.add(b0, f32x4.mul(y, q0));
    a1 = f32x4.add(a1, f32x4.mul(x, q1)), b1 = f32x4.add(b1, f32x4.mul(y, q1));
    const q2 = v128.load(q, 2 * QUERY_STRIDE), q3 = v128.load(q, 3 * QUERY_STRIDE);
    a2 = f32x4.add(a2, f32x4.mul(x, q2)), b2 = f32x4.add(b2, f32x4.mul(y, q2));
    a3 = f32x4.add(a3, f32x4.mul(x, q3)), b3 = f32x4.add(b3, f32x4.mul(y, q3));
  }
  v128.store(target, sumEach(a0, a1, a2, a3));
  v128.store(target, sumEach(b0, b1, b2, b3), 16);
}

/** Dot products of one query row with four tokens: f32 [4] at `target`. */
@inline
function dots1x4(query: usize, rows: usize, dim: i32, target: usize): void {
  let a0 = f32x4.splat(0), a1 = f32x4.splat(0), a2 = f32x4.splat(0), a3 = f32x4.splat(0);
  let k0: usize = load<u32>(rows), k1: usize = load<u32>(rows, 4);
  let k2: usize = load<u32>(rows, 8), k3: usize = load<u32>(rows, 12);
  let q = query;
  let left = dim;
  for (; left >= 4; left -= 4, q += 16) {
    const x = v128.load(q);
    a0 = f32x4.add(a0, f32x4.mul(v128.load(k0), x));
    a1 = f32x4.add(a1, f32x4.mul(v128.load(k1), x));
    a2 = f32x4.add(a2, f32x4.mul(v128.load(k2), x));
    a3 = f32x4.add(a3, f32x4.mul(v128.load(k3), x));
    k0 += 16, k1 += 16, k2 += 16, k3 += 16;
  }
  if (left > 0) {
    const x = v128.load(q);
    a0 = f32x4.add(a0, f32x4.mul(loadSome(k0, left), x));
    a1 = f32x4.add(a1, f32x4.mul(loadSome(k1, left), x));
    a2 = f32x4.add(a2, f32x4.mul(loadSome(k2, left), x));
    a3 = f32x4.add(a3, f32x4.mul(loadSome(k3, left), x));
  }
  v128.store(target, sumEach(a0, a1, a2, a3));
}

/** Four query rows with a block's `count` tokens: f32 [count][4]. The list of rows is padded to an even number. */
export function blockDots4(queries: usize, rows: usize, count: i32, dim: i32, target: usize): void {
  for (let t = 0; t < count; t += 2) {
    const k = rows + (<usize>t << 2);
    dots4x2(queries, load<u32>(k), load<u32>(k, 4), dim, target + (<usize>t << 4));
  }
}

/** One query row with a block's `count` tokens: f32 [count]. The list of rows is padded to a multiple of four. */
export function blockDots1(query: usize, rows: usize, count: i32, dim: i32, target: usize): void {
  for (let t = 0; t < count; t += 4) {
    dots1x4(query, rows + (<usize>t << 2), dim, target + (<usize>t << 2));
  }
}
