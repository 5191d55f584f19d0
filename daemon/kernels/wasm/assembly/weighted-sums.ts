// The V phase: weighted sums of a block's V rows.
import { bytesOf, gather, gathered, load4, loadSome } from './elements';

@inline
function storeSome(at: usize, v: v128, count: i32): void {
  store<f32>(at, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(at, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(at, f32x4.extract_lane(v, 2), 8);
}

/** Eight columns of four rows. Nothing is stored, and false given, if V has an exponent 31 that the trick got wrong. */
@inline
function columns4x8<T>(
  rows: usize, count: i32, column: usize, weights: usize, factors: usize, w0: usize, w1: usize, w2: usize, w3: usize,
): bool {
  let f = v128.load32_splat(factors);
  let a0 = f32x4.mul(v128.load(w0), f), b0 = f32x4.mul(v128.load(w0, 16), f);
  f = v128.load32_splat(factors, 4);
  let a1 = f32x4.mul(v128.load(w1), f), b1 = f32x4.mul(v128.load(w1, 16), f);
  f = v128.load32_splat(factors, 8);
  let a2 = f32x4.mul(v128.load(w2), f), b2 = f32x4.mul(v128.load(w2, 16), f);
  f = v128.load32_splat(factors, 12);
  let a3 = f32x4.mul(v128.load(w3), f), b3 = f32x4.mul(v128.load(w3, 16), f);
  let flags = i32x4.splat(0);
  const end = rows + (<usize>count << 2);
  for (let at = rows, w = weights; at < end; at += 4, w += 16) {
    const v = <usize>load<u32>(at) + column * bytesOf<T>();
    const x = load4<T>(v), y = load4<T>(v + 4 * bytesOf<T>());
    flags = gather<T>(gather<T>(flags, x), y);
    const p0 = v128.load32_splat(w);
    a0 = f32x4.add(a0, f32x4.mul(x, p0));
    b0 = f32x4.add(b0, f32x4.mul(y, p0));
    const p1 = v128.load32_splat(w, 4);
    a1 = f32x4.add(a1, f32x4.mul(x, p1));
    b1 = f32x4.add(b1, f32x4.mul(y, p1));
    const p2 = v128.load32_splat(w, 8);
    a2 = f32x4.add(a2, f32x4.mul(x, p2));
    b2 = f32x4.add(b2, f32x4.mul(y, p2));
    const p3 = v128.load32_splat(w, 12);
    a3 = f32x4.add(a3, f32x4.mul(x, p3));
    b3 = f32x4.add(b3, f32x4.mul(y, p3));
  }
  if (gathered<T>(flags)) return false;
  v128.store(w0, a0), v128.store(w0, b0, 16);
  v128.store(w1, a1), v128.store(w1, b1, 16);
  v128.store(w2, a2), v128.store(w2, b2, 16);
  v128.store(w3, a3), v128.store(w3, b3, 16);
  return true;
}

/** The last `width` <= 4 columns, or four more, of one row whose weights are `weightStride` bytes apart. */
@inline
function columns1x4<T>(
  rows: usize, count: i32, column: usize, weights: usize, weightStride: usize, factor: f32, weighted: usize, width: i32,
): bool {
  const f = f32x4.splat(factor);
  let a = f32x4.mul(width >= 4 ? v128.load(weighted) : loadSome<f32>(weighted, width), f);
  let flags = i32x4.splat(0);
  const end = rows + (<usize>count << 2);
  for (let at = rows, w = weights; at < end; at += 4, w += weightStride) {
    const v = <usize>load<u32>(at) + column * bytesOf<T>();
    const x = width >= 4 ? load4<T>(v) : loadSome<T>(v, width);
    flags = gather<T>(flags, x);
    a = f32x4.add(a, f32x4.mul(x, v128.load32_splat(w)));
  }
  if (gathered<T>(flags)) return false;
  if (width >= 4) v128.store(weighted, a);
  else storeSome(weighted, a, width);
  return true;
}

/** Sixteen columns of one row. */
@inline
function columns1x16<T>(
  rows: usize, count: i32, column: usize, weights: usize, factor: f32, weighted: usize,
): bool {
  const f = f32x4.splat(factor);
  let a = f32x4.mul(v128.load(weighted), f), b = f32x4.mul(v128.load(weighted, 16), f);
  let c = f32x4.mul(v128.load(weighted, 32), f), d = f32x4.mul(v128.load(weighted, 48), f);
  let flags = i32x4.splat(0);
  const end = rows + (<usize>count << 2);
  for (let at = rows, w = weights; at < end; at += 4, w += 4) {
    const v = <usize>load<u32>(at) + column * bytesOf<T>();
    const p = v128.load32_splat(w);
    const x0 = load4<T>(v);
    a = f32x4.add(a, f32x4.mul(x0, p));
    const x1 = load4<T>(v + 4 * bytesOf<T>());
    b = f32x4.add(b, f32x4.mul(x1, p));
    const x2 = load4<T>(v + 8 * bytesOf<T>());
    c = f32x4.add(c, f32x4.mul(x2, p));
    const x3 = load4<T>(v + 12 * bytesOf<T>());
    d = f32x4.add(d, f32x4.mul(x3, p));
    flags = gather<T>(gather<T>(gather<T>(gather<T>(flags, x0), x1), x2), x3);
  }
  if (gathered<T>(flags)) return false;
  v128.store(weighted, a), v128.store(weighted, b, 16), v128.store(weighted, c, 32), v128.store(weighted, d, 48);
  return true;
}

/**
 * Adds weights[t][q] * V[t] to four rows' weighted sums, each first multiplied by its factor. Fast is the marker to try,
 * Exact the one that is right for all values.
 */
export function addValues4<Fast, Exact>(
  rows: usize, count: i32, dim: i32, weights: usize, factors: usize, w0: usize, w1: usize, w2: usize, w3: usize,
): void {
  let d = 0;
  for (; d + 8 <= dim; d += 8) {
    const at = <usize>d << 2;
    if (!columns4x8<Fast>(rows, count, d, weights, factors, w0 + at, w1 + at, w2 + at, w3 + at)) {
      columns4x8<Exact>(rows, count, d, weights, factors, w0 + at, w1 + at, w2 + at, w3 + at);
    }
  }
  for (; d < dim; d += 4) {
    const at = <usize>d << 2;
    const width = min(4, dim - d);
    columns1x4<Exact>(rows, count, d, weights, 16, load<f32>(factors), w0 + at, width);
    columns1x4<Exact>(rows, count, d, weights + 4, 16, load<f32>(factors, 4), w1 + at, width);
    columns1x4<Exact>(rows, count, d, weights + 8, 16, load<f32>(factors, 8), w2 + at, width);
    columns1x4<Exact>(rows, count, d, weights + 12, 16, load<f32>(factors, 12), w3 + at, width);
  }
}

/** The same for one row, its weights [t]. */
export function addValues1<Fast, Exact>(
  rows: usize, count: i32, dim: i32, weights: usize, factor: f32, weighted: usize,
): void {
  let d = 0;
  for (; d + 16 <= dim; d += 16) {
    const at = weighted + (<usize>d << 2);
    if (!columns1x16<Fast>(rows, count, d, weights, factor, at)) {
      columns1x16<Exact>(rows, count, d, weights, factor, at);
    }
  }
  for (; d < dim; d += 4) {
    columns1x4<Exact>(rows, count, d, weights, 4, factor, weighted + (<usize>d << 2), min(4, dim - d));
  }
}
