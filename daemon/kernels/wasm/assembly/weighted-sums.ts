// The V phase: weighted sums of a block's V rows, f32, named by a list of addresses.
import { loadSome, storeSome } from './elements';

/** Eight columns of four rows. */
@inline
function columns4x8(
  rows: usize, count: i32, at: usize, weights: usize, factors: usize, w0: usize, w1: usize, w2: usize, w3: usize,
): void {
  let f = v128.load32_splat(factors);
  let a0 = f32x4.mul(v128.load(w0), f), b0 = f32x4.mul(v128.load(w0, 16), f);
  f = v128.load32_splat(factors, 4);
  let a1 = f32x4.mul(v128.load(w1), f), b1 = f32x4.mul(v128.load(w1, 16), f);
  f = v128.load32_splat(factors, 8);
  let a2 = f32x4.mul(v128.load(w2), f), b2 = f32x4.mul(v128.load(w2, 16), f);
  f = v128.load32_splat(factors, 12);
  let a3 = f32x4.mul(v128.load(w3), f), b3 = f32x4.mul(v128.load(w3, 16), f);
  const end = rows + (<usize>count << 2);
  for (let row = rows, w = weights; row < end; row += 4, w += 16) {
    const v = <usize>load<u32>(row) + at;
    const x = v128.load(v), y = v128.load(v, 16);
    const p0 = v128.load32_splat(w);
    a0 = f32x4.add(a0, f32x4.mul(x, p0)), b0 = f32x4.add(b0, f32x4.mul(y, p0));
    const p1 = v128.load32_splat(w, 4);
    a1 = f32x4.add(a1, f32x4.mul(x, p1)), b1 = f32x4.add(b1, f32x4.mul(y, p1));
    const p2 = v128.load32_splat(w, 8);
    a2 = f32x4.add(a2, f32x4.mul(x, p2)), b2 = f32x4.add(b2, f32x4.mul(y, p2));
    const p3 = v128.load32_splat(w, 12);
    a3 = f32x4.add(a3, f32x4.mul(x, p3)), b3 = f32x4.add(b3, f32x4.mul(y, p3));
  }
  v128.store(w0, a0), v128.store(w0, b0, 16);
  v128.store(w1, a1), v128.store(w1, b1, 16);
  v128.store(w2, a2), v128.store(w2, b2, 16);
  v128.store(w3, a3), v128.store(w3, b3, 16);
}

/** `width` <= 4 columns of one row whose weights are `weightStride` bytes apart. */
@inline
function columns1x4(
  rows: usize, count: i32, at: usize, weights: usize, weightStride: usize, factor: f32, weighted: usize, width: i32,
): void {
  let a = f32x4.mul(width == 4 ? v128.load(weighted) : loadSome(weighted, width), f32x4.splat(factor));
  const end = rows + (<usize>count << 2);
  for (let row = rows, w = weights; row < end; row += 4, w += weightStride) {
    const v = <usize>load<u32>(row) + at;
    a = f32x4.add(a, f32x4.mul(width == 4 ? v128.load(v) : loadSome(v, width), v128.load32_splat(w)));
  }
  if (width == 4) v128.store(weighted, a);
  else storeSome(weighted, a, width);
}

/** Sixteen columns of one row. */
@inline
function columns1x16(rows: usize, count: i32, at: usize, weights: usize, factor: f32, weighted: usize): void {
  const f = f32x4.splat(factor);
  let a = f32x4.mul(v128.load(weighted), f), b = f32x4.mul(v128.load(weighted, 16), f);
  let c = f32x4.mul(v128.load(weighted, 32), f), d = f32x4.mul(v128.load(weighted, 48), f);
  const end = rows + (<usize>count << 2);
  for (let row = rows, w = weights; row < end; row += 4, w += 4) {
    const v = <usize>load<u32>(row) + at;
    const p = v128.load32_splat(w);
    a = f32x4.add(a, f32x4.mul(v128.load(v), p));
    b = f32x4.add(b, f32x4.mul(v128.load(v, 16), p));
    c = f32x4.add(c, f32x4.mul(v128.load(v, 32), p));
    d = f32x4.add(d, f32x4.mul(v128.load(v, 48), p));
  }
  v128.store(weighted, a), v128.store(weighted, b, 16), v128.store(weighted, c, 32), v128.store(weighted, d, 48);
}

/** Adds weights[t][q] * V[t] to four rows' weighted sums, each first multiplied by its factor. */
export function addValues4(
  rows: usize, count: i32, dim: i32, weights: usize, factors: usize, w0: usize, w1: usize, w2: usize, w3: usize,
): void {
  let d = 0;
  for (; d + 8 <= dim; d += 8) {
    const at = <usize>d << 2;
    columns4x8(rows, count, at, weights, factors, w0 + at, w1 + at, w2 + at, w3 + at);
  }
  for (; d < dim; d += 4) {
    const at = <usize>d << 2;
    const width = min(4, dim - d);
    columns1x4(rows, count, at, weights, 16, load<f32>(factors), w0 + at, width);
    columns1x4(rows, count, at, weights + 4, 16, load<f32>(factors, 4), w1 + at, width);
    columns1x4(rows, count, at, weights + 8, 16, load<f32>(factors, 8), w2 + at, width);
    columns1x4(rows, count, at, weights + 12, 16, load<f32>(factors, 12), w3 + at, width);
  }
}

/** The same for one row, its weights [t]. */
export function addValues1(
  rows: usize, count: i32, dim: i32, weights: usize, factor: f32, weighted: usize,
): void {
  let d = 0;
  for (; d + 16 <= dim; d += 16) {
    const at = <usize>d << 2;
    columns1x16(rows, count, at, weights, factor, weighted + at);
  }
  for (; d < dim; d += 4) {
    const at = <usize>d << 2;
    columns1x4(rows, count, at, weights, 4, factor, weighted + at, min(4, dim - d));
  }
}
