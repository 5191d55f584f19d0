// Attention of query rows over a stream of tokens: one pass, online softmax over blocks, tiles of four rows (or one), so
// that each K and V row is loaded once for the rows of a tile. A row's running state is its partial record.
import { BLOCK_TOKENS, nextBlock, startBlocks } from './blocks';
import { blockDots1, blockDots4 } from './dot-products';
import { elementBytes, FOLD, TYPE_BF16, TYPE_F16, TYPE_F32 } from './elements';
import {
  claimSlot, DISCARDED, FACTORS, K_ROWS, LANES, LOGITS, POSITIONS, QUERIES, QUERY_STRIDE, releaseSlot, V_ROWS,
} from './layout';
import { exponential, exponentialOf, hyperbolicTangent, sumLanes } from './math';
import { addValues1, addValues4 } from './weighted-sums';

const HEAD_DIM_MAX: u32 = 256;
const MINUS_INFINITY: f32 = -Infinity;

// The running job; each instance's own.
let scratch: usize = 0;
let queryCount: u32 = 0;
let headDimK: u32 = 0;
let headDimV: u32 = 0;
let typeK: u32 = 0;
let typeV: u32 = 0;
let queries: usize = 0;
let bounds: usize = 0;
let sinks: u32 = 0;
let scale: f32 = 0;
let softCap: f32 = 0;
let partials: usize = 0;
/** Row whose tile stands in the scratch, and whether those queries carry the 2^112. */
let prepared: u32 = 0;
let folded: bool = false;

/** 0, or 1 if the job is not one for this kernel set. */
export function attend(job: usize): i32 {
  queryCount = load<u32>(job);
  headDimK = load<u32>(job, 4);
  headDimV = load<u32>(job, 8);
  typeK = load<u32>(job, 12);
  typeV = load<u32>(job, 16);
  queries = load<u32>(job, 28);
  bounds = load<u32>(job, 32);
  sinks = load<u32>(job, 36);
  scale = load<f32>(job, 40);
  softCap = load<f32>(job, 44);
  partials = load<u32>(job, 48);
  if (headDimK - 1 >= HEAD_DIM_MAX || headDimV - 1 >= HEAD_DIM_MAX) return 1;
  if (typeK - 1 >= TYPE_BF16 || typeV - 1 >= TYPE_BF16) return 1;
  let minStart: u32 = u32.MAX_VALUE, maxEnd: u32 = 0;
  for (let row: u32 = 0; row < queryCount; row++) {
    const record = recordOf(row);
    store<f32>(record, MINUS_INFINITY);
    memory.fill(record + 4, 0, 4 + headDimV * 4);
    const bound = bounds + (<usize>row << 3);
    minStart = min(minStart, load<u32>(bound));
    maxEnd = max(maxEnd, load<u32>(bound, 4));
  }
  scratch = claimSlot();
  prepared = u32.MAX_VALUE;
  startBlocks(
    load<u32>(job, 24), load<u32>(job, 20), minStart, maxEnd, sinks,
    headDimK * elementBytes(typeK), headDimV * elementBytes(typeV),
  );
  let count = nextBlock(scratch);
  for (; count > 0; count = nextBlock(scratch)) attendBlock(count);
  releaseSlot();
  if (count < 0) return 1;
  for (let row: u32 = 0; row < queryCount; row++) {
    const record = recordOf(row);
    if (load<f32>(record) == load<f32>(record)) continue;
    for (let i: u32 = 1; i < 2 + headDimV; i++) store<f32>(record + (<usize>i << 2), NaN);
  }
  return 0;
}

@inline
function recordOf(row: u32): usize {
  return partials + <usize>row * (8 + (<usize>headDimV << 2));
}

function attendBlock(count: i32): void {
  for (let row: u32 = 0; row < queryCount; ) {
    if (queryCount - row == 1) {
      tile1(row, count);
      row++;
    } else {
      tile4(row, min(4, queryCount - row), count);
      row += 4;
    }
  }
}

@inline
function sees(row: u32, position: u32): bool {
  const bound = bounds + (<usize>row << 3);
  return position < load<u32>(bound, 4) && (position >= load<u32>(bound) || position < sinks);
}

/** 2: the row sees all of the block's tokens; 0: none of them; 1: some. */
function sight(row: u32, count: i32): i32 {
  let seen = 0;
  for (let t = 0; t < count; t++) seen += sees(row, load<u32>(scratch + (<usize>t << 2), POSITIONS)) ? 1 : 0;
  return seen == count ? 2 : seen == 0 ? 0 : 1;
}

/** Copies a tile's queries, padded with zeros (the last row repeated), times 2^112 where K's trick wants it. */
function prepareQueries(row: u32, rows: u32, tileRows: u32): void {
  if (prepared == row) return;
  prepared = row;
  const target = scratch + QUERIES;
  folded = typeK == TYPE_F16;
  for (let i: u32 = 0; folded && i < rows * headDimK; i++) {
    // NaN and what the 2^112 would make infinite are left as they are.
    if (!(abs(load<f32>(queries + <usize>(row * headDimK + i) * 4)) < 32768)) folded = false;
  }
  const factor: f32 = folded ? FOLD : 1;
  for (let q: u32 = 0; q < tileRows; q++) {
    const source = queries + <usize>((row + min(q, rows - 1)) * headDimK) * 4;
    for (let d: u32 = 0; d < ((headDimK + 3) & ~3); d++) {
      const value: f32 = d < headDimK ? load<f32>(source + (<usize>d << 2)) * factor : 0;
      store<f32>(target + <usize>q * QUERY_STRIDE + (<usize>d << 2), value);
    }
  }
}

function dots4(count: i32): void {
  const q = scratch + QUERIES, k = scratch + K_ROWS, l = scratch + LOGITS;
  if (typeK == TYPE_F32) blockDots4<f32>(q, k, count, headDimK, l, 1);
  else if (typeK == TYPE_BF16) blockDots4<i16>(q, k, count, headDimK, l, 1);
  else if (!folded || !blockDots4<u16>(q, k, count, headDimK, l, 1)) {
    blockDots4<u32>(q, k, count, headDimK, l, folded ? 1 : FOLD);
  }
}

function dots1(count: i32): void {
  const q = scratch + QUERIES, k = scratch + K_ROWS, l = scratch + LOGITS;
  if (typeK == TYPE_F32) blockDots1<f32>(q, k, count, headDimK, l, 1);
  else if (typeK == TYPE_BF16) blockDots1<i16>(q, k, count, headDimK, l, 1);
  else if (!folded || !blockDots1<u16>(q, k, count, headDimK, l, 1)) {
    blockDots1<u32>(q, k, count, headDimK, l, folded ? 1 : FOLD);
  }
}

/** Dot products to logits, in place: `bytes` of them. */
function finishLogits(bytes: usize): void {
  const s = f32x4.splat(scale), cap = f32x4.splat(softCap);
  const end = scratch + LOGITS + bytes;
  for (let at = scratch + LOGITS; at < end; at += 16) {
    let l = f32x4.mul(v128.load(at), s);
    if (softCap > 0) l = f32x4.mul(hyperbolicTangent(f32x4.div(l, cap)), cap);
    v128.store(at, l);
  }
}

@inline
function isOrdinary(top: v128, low: v128): bool {
  const fine = v128.and(
    f32x4.lt(top, f32x4.splat(Infinity)),
    f32x4.gt(low, f32x4.splat(MINUS_INFINITY)),
  );
  return i32x4.all_true(fine);
}

/** Up to four rows. Rows beyond `rows` repeat the last one and go nowhere. */
function tile4(row: u32, rows: u32, count: i32): void {
  let all = true, none = true;
  for (let q: u32 = 0; q < rows; q++) {
    const seen = sight(row + q, count);
    all = all && seen == 2;
    none = none && seen == 0;
  }
  if (none) return;
  prepareQueries(row, rows, 4);
  dots4(count);
  finishLogits(<usize>count << 4);
  const logits = scratch + LOGITS;
  const end = logits + (<usize>count << 4);
  const lanes = scratch + LANES;
  for (let q: u32 = 0; q < 4; q++) {
    store<f32>(lanes + (<usize>q << 2), load<f32>(recordOf(row + min(q, rows - 1))));
  }
  const before = v128.load(lanes);
  let top = before, low = f32x4.splat(Infinity);
  for (let at = logits; at < end; at += 16) {
    const l = v128.load(at);
    // These carry NaN on.
    top = f32x4.max(top, l);
    low = f32x4.min(low, l);
  }
  if (!all || !isOrdinary(top, low)) {
    for (let q: u32 = 0; q < rows; q++) rowByRow(row + q, count, logits + (<usize>q << 2), 16);
    return;
  }
  const factors = exponential(f32x4.sub(before, top));
  const fold = f32x4.splat(typeV == TYPE_F16 ? FOLD : 1);
  let sum = f32x4.splat(0);
  for (let at = logits; at < end; at += 16) {
    const weight = exponential(f32x4.sub(v128.load(at), top));
    sum = f32x4.add(sum, weight);
    v128.store(at, f32x4.mul(weight, fold));
  }
  v128.store(scratch + FACTORS, factors);
  updateRecords(row, rows, top, sum);
  valuesOf4(row, rows, count);
}

function updateRecords(row: u32, rows: u32, top: v128, sum: v128): void {
  const lanes = scratch + LANES;
  v128.store(lanes, top);
  for (let q: u32 = 0; q < rows; q++) store<f32>(recordOf(row + q), load<f32>(lanes + (<usize>q << 2)));
  v128.store(lanes, sum);
  for (let q: u32 = 0; q < rows; q++) {
    const record = recordOf(row + q);
    const factor = load<f32>(scratch + FACTORS + (<usize>q << 2));
    store<f32>(record, load<f32>(record, 4) * factor + load<f32>(lanes + (<usize>q << 2)), 4);
  }
}

function valuesOf4(row: u32, rows: u32, count: i32): void {
  const discarded = scratch + DISCARDED;
  const w0 = recordOf(row) + 8;
  const w1 = recordOf(row + 1) + 8;
  const w2 = rows > 2 ? recordOf(row + 2) + 8 : discarded;
  const w3 = rows > 3 ? recordOf(row + 3) + 8 : discarded;
  const v = scratch + V_ROWS, w = scratch + LOGITS, f = scratch + FACTORS;
  if (typeV == TYPE_F32) addValues4<f32, f32>(v, count, headDimV, w, f, w0, w1, w2, w3);
  else if (typeV == TYPE_BF16) addValues4<i16, i16>(v, count, headDimV, w, f, w0, w1, w2, w3);
  else addValues4<u16, u32>(v, count, headDimV, w, f, w0, w1, w2, w3);
}

function valuesOf1(rows: usize, count: i32, weights: usize, factor: f32, weighted: usize): void {
  if (typeV == TYPE_F32) addValues1<f32, f32>(rows, count, headDimV, weights, factor, weighted);
  else if (typeV == TYPE_BF16) addValues1<i16, i16>(rows, count, headDimV, weights, factor, weighted);
  else addValues1<u16, u32>(rows, count, headDimV, weights, factor, weighted);
}

/** One row alone; its logits lie one after another. */
function tile1(row: u32, count: i32): void {
  const seen = sight(row, count);
  if (seen == 0) return;
  prepareQueries(row, 1, 1);
  dots1(count);
  const logits = scratch + LOGITS;
  const padded = <usize>((count + 3) & ~3) << 2;
  finishLogits(padded);
  // What the padding holds repeats the last token: it changes neither maximum nor minimum.
  const record = recordOf(row);
  let tops = f32x4.splat(load<f32>(record)), low = f32x4.splat(Infinity);
  for (let at = logits; at < logits + padded; at += 16) {
    const l = v128.load(at);
    tops = f32x4.max(tops, l);
    low = f32x4.min(low, l);
  }
  if (seen != 2 || !isOrdinary(tops, low)) {
    rowByRow(row, count, logits, 4);
    return;
  }
  const top = max(
    max(f32x4.extract_lane(tops, 0), f32x4.extract_lane(tops, 1)),
    max(f32x4.extract_lane(tops, 2), f32x4.extract_lane(tops, 3)),
  );
  for (let at = logits + (<usize>count << 2); at < logits + padded; at += 4) store<f32>(at, MINUS_INFINITY);
  const fold = f32x4.splat(typeV == TYPE_F16 ? FOLD : 1);
  let sum = f32x4.splat(0);
  for (let at = logits; at < logits + padded; at += 16) {
    const weight = exponential(f32x4.sub(v128.load(at), f32x4.splat(top)));
    sum = f32x4.add(sum, weight);
    v128.store(at, f32x4.mul(weight, fold));
  }
  const factor = exponentialOf(load<f32>(record) - top);
  store<f32>(record, top);
  store<f32>(record, load<f32>(record, 4) * factor + sumLanes(sum), 4);
  valuesOf1(scratch + V_ROWS, count, logits, factor, record + 8);
}

/**
 * A row that doesn't see all of the block, or has a logit that is not finite. Each run of tokens that weigh is added by
 * itself: what is excluded is not even multiplied by zero, for it may be NaN. Its logits are `stride` bytes apart.
 */
function rowByRow(row: u32, count: i32, logits: usize, stride: usize): void {
  const record = recordOf(row);
  const before = load<f32>(record);
  let top = before;
  for (let t = 0; t < count; t++) {
    const at = logits + <usize>t * stride;
    if (!sees(row, load<u32>(scratch + (<usize>t << 2), POSITIONS))) store<f32>(at, MINUS_INFINITY);
    const l = load<f32>(at);
    if (!(l < Infinity)) top = NaN;
    top = max(top, l);
  }
  if (top != top) store<f32>(record, NaN);
  if (top != top || top == MINUS_INFINITY) return;
  let factor = exponentialOf(before - top);
  let sum = load<f32>(record, 4) * factor;
  const fold: f32 = typeV == TYPE_F16 ? FOLD : 1;
  // The run's weights go where they are one after another: the query rows' scratch is not needed any more, but would
  // have to be prepared again, so the discarded row serves.
  const weights = scratch + DISCARDED;
  for (let t = 0; t < count; ) {
    let length = 0;
    for (; t + length < count; length++) {
      const l = load<f32>(logits + <usize>(t + length) * stride);
      if (l == MINUS_INFINITY) break;
      const weight = exponentialOf(l - top);
      sum += weight;
      store<f32>(weights + (<usize>length << 2), weight * fold);
    }
    if (length > 0) {
      valuesOf1(scratch + V_ROWS + (<usize>t << 2), length, weights, factor, record + 8);
      factor = 1;
    }
    t += max(length, 1);
  }
  store<f32>(record, top);
  store<f32>(record, sum, 4);
}
