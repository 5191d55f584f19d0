// Attention of query rows over a stream of tokens: one pass, online softmax over blocks, tiles of four rows (or one), so
// that each K and V row is loaded once for the rows of a tile. A row's running state is its partial record.
import { BLOCK_TOKENS_MAX, nextBlock, startBlocks } from './blocks';
import { blockDots1, blockDots4 } from './dot-products';
import { rowBytes, TYPE_F16, TYPE_F32, TYPE_INT4 } from './elements';
import {
  claimSlot, DISCARDED, FACTORS, K_ROWS, K_UNPACKED, LANES, LISTS, LOGITS, POSITIONS, QUERIES, QUERY_STRIDE,
  releaseSlot, UNPACKED_BYTES, V_ROWS, V_UNPACKED,
} from './layout';
import { exponential, exponentialOf, hyperbolicTangent, sumLanes } from './math';
import { FOLD, unpackRows } from './unpack';
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
/** Row whose tile stands in the scratch. */
let prepared: u32 = 0;
/** What queries and weights are multiplied with, since unpacked K and V lack it; and K, where queries can't take it. */
let foldQ: f32 = 1;
let foldK: f32 = 1;
let foldV: f32 = 1;
/** The block that is worked on: its positions, and lists of its rows as f32, those of V only once they are needed. */
let positions: usize = 0;
let firstPosition: u32 = 0;
let lastPosition: u32 = 0;
let isContiguous: bool = false;
let kRows: usize = 0;
let vRows: usize = 0;
let isPacked: bool = false;
/** Of the logits last finished. */
let areFinite: bool = false;

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
  if (typeK - 1 >= TYPE_INT4 || typeV - 1 >= TYPE_INT4) return 1;
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
  chooseFolds();
  const kBytes = rowBytes(typeK, headDimK), vBytes = rowBytes(typeV, headDimV);
  startBlocks(load<u32>(job, 24), load<u32>(job, 20), minStart, maxEnd, sinks, kBytes, vBytes, blockTokens());
  const count = attendBlocks();
  releaseSlot();
  if (count < 0) return 1;
  for (let row: u32 = 0; row < queryCount; row++) {
    const record = recordOf(row);
    if (load<f32>(record) == load<f32>(record)) continue;
    for (let i: u32 = 1; i < 2 + headDimV; i++) store<f32>(record + (<usize>i << 2), NaN);
  }
  return 0;
}

/** As many as there is room for unpacked, in fours. */
function blockTokens(): u32 {
  const widest = <u32>max(strideOf(headDimK), strideOf(headDimV));
  return min(BLOCK_TOKENS_MAX, (<u32>UNPACKED_BYTES / widest) & ~3);
}

/** Bytes of an unpacked row. */
@inline
function strideOf(dim: u32): usize {
  return <usize>((dim + 3) & ~3) << 2;
}

function chooseFolds(): void {
  foldV = typeV == TYPE_F16 ? FOLD : 1;
  foldK = foldQ = 1;
  if (typeK != TYPE_F16) return;
  foldQ = FOLD;
  for (let i: u32 = 0; i < queryCount * headDimK; i++) {
    // NaN and what the 2^112 would make infinite are left as they are.
    if (abs(load<f32>(queries + (<usize>i << 2))) < 32768) continue;
    foldQ = 1;
    foldK = FOLD;
    return;
  }
}

/** 0, or -1 for a frame outside the arena. */
function attendBlocks(): i32 {
  let count = nextBlock(scratch + LISTS);
  for (; count > 0; count = nextBlock(scratch + LISTS)) {
    startBlock(scratch + LISTS, count);
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
  return count;
}

function startBlock(lists: usize, count: i32): void {
  positions = lists + POSITIONS;
  firstPosition = load<u32>(positions);
  lastPosition = load<u32>(positions + (<usize>(count - 1) << 2));
  isContiguous = lastPosition - firstPosition == <u32>(count - 1);
  kRows = lists + K_ROWS;
  vRows = lists + V_ROWS;
  isPacked = true;
  if (typeK != TYPE_F32) {
    unpackRows(typeK, kRows, count, headDimK, scratch + K_UNPACKED, strideOf(headDimK), foldK);
    listUnpacked(kRows, (count + 3) & ~3, scratch + K_UNPACKED, strideOf(headDimK), count);
  }
}

/** Unpacks V, if it is not: who sees nothing of a block doesn't need it. */
function bringValues(count: i32): void {
  if (!isPacked) return;
  isPacked = false;
  if (typeV == TYPE_F32) return;
  unpackRows(typeV, vRows, count, headDimV, scratch + V_UNPACKED, strideOf(headDimV), 1);
  listUnpacked(vRows, count, scratch + V_UNPACKED, strideOf(headDimV), count);
}

/** Overwrites a list with the addresses of unpacked rows; behind the last it is named again. */
function listUnpacked(list: usize, length: i32, first: usize, stride: usize, count: i32): void {
  for (let i = 0; i < length; i++) {
    store<u32>(list + (<usize>i << 2), <u32>(first + <usize>min(i, count - 1) * stride));
  }
}

@inline
function recordOf(row: u32): usize {
  return partials + <usize>row * (8 + (<usize>headDimV << 2));
}

@inline
function sees(row: u32, position: u32): bool {
  const bound = bounds + (<usize>row << 3);
  return position < load<u32>(bound, 4) && (position >= load<u32>(bound) || position < sinks);
}

/** 2: the row sees all of the block's tokens; 0: none of them; 1: some. */
function sight(row: u32, count: i32): i32 {
  const bound = bounds + (<usize>row << 3);
  if (isContiguous && firstPosition >= load<u32>(bound) && lastPosition < load<u32>(bound, 4)) return 2;
  let seen = 0;
  for (let t = 0; t < count; t++) seen += sees(row, load<u32>(positions + (<usize>t << 2))) ? 1 : 0;
  return seen == count ? 2 : seen == 0 ? 0 : 1;
}

/** Copies a tile's queries, times what K lacks, padded with zeros (the last row repeated). */
function prepareQueries(row: u32, rows: u32, tileRows: u32): void {
  if (prepared == row) return;
  prepared = row;
  for (let q: u32 = 0; q < tileRows; q++) {
    const source = queries + <usize>((row + min(q, rows - 1)) * headDimK) * 4;
    const target = scratch + QUERIES + <usize>q * QUERY_STRIDE;
    for (let d: u32 = 0; d < ((headDimK + 3) & ~3); d++) {
      store<f32>(target + (<usize>d << 2), d < headDimK ? load<f32>(source + (<usize>d << 2)) * foldQ : 0);
    }
  }
}

/**
 * `bytes` of dot products to logits, in place. Returns the largest of each lane and of `before`, which are wrong if a logit is
 * not finite; `areFinite` then is false.
 */
function finishLogits(bytes: usize, before: v128): v128 {
  const s = f32x4.splat(scale), cap = f32x4.splat(softCap);
  const end = scratch + LOGITS + bytes;
  let top = before, finite = f32x4.splat(0);
  for (let at = scratch + LOGITS; at < end; at += 16) {
    let l = f32x4.mul(v128.load(at), s);
    if (softCap > 0) l = f32x4.mul(hyperbolicTangent(f32x4.div(l, cap)), cap);
    v128.store(at, l);
    top = f32x4.pmax(top, l);
    // Stays zero unless a logit is NaN or infinite.
    finite = f32x4.add(finite, f32x4.mul(l, f32x4.splat(0)));
  }
  // A row that is NaN already stays so.
  areFinite = i32x4.all_true(f32x4.eq(f32x4.add(finite, f32x4.sub(top, top)), f32x4.splat(0)));
  return top;
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
  blockDots4(scratch + QUERIES, kRows, count, headDimK, scratch + LOGITS);
  const logits = scratch + LOGITS;
  const end = logits + (<usize>count << 4);
  const lanes = scratch + LANES;
  for (let q: u32 = 0; q < 4; q++) {
    store<f32>(lanes + (<usize>q << 2), load<f32>(recordOf(row + min(q, rows - 1))));
  }
  const before = v128.load(lanes);
  const top = finishLogits(<usize>count << 4, before);
  if (!all || !areFinite) {
    for (let q: u32 = 0; q < rows; q++) rowByRow(row + q, count, logits + (<usize>q << 2), 16);
    return;
  }
  const factors = exponential(f32x4.sub(before, top));
  const fold = f32x4.splat(foldV);
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
  bringValues(count);
  addValues4(vRows, count, headDimV, scratch + LOGITS, scratch + FACTORS, w0, w1, w2, w3);
}

/** One row alone; its logits lie one after another. */
function tile1(row: u32, count: i32): void {
  const seen = sight(row, count);
  if (seen == 0) return;
  prepareQueries(row, 1, 1);
  blockDots1(scratch + QUERIES, kRows, count, headDimK, scratch + LOGITS);
  const logits = scratch + LOGITS;
  const padded = <usize>((count + 3) & ~3) << 2;
  const record = recordOf(row);
  // What the padding holds repeats the last token: it changes neither the largest nor whether all are finite.
  const tops = finishLogits(padded, f32x4.splat(load<f32>(record)));
  if (seen != 2 || !areFinite) {
    rowByRow(row, count, logits, 4);
    return;
  }
  const top = max(
    max(f32x4.extract_lane(tops, 0), f32x4.extract_lane(tops, 1)),
    max(f32x4.extract_lane(tops, 2), f32x4.extract_lane(tops, 3)),
  );
  for (let at = logits + (<usize>count << 2); at < logits + padded; at += 4) store<f32>(at, MINUS_INFINITY);
  const fold = f32x4.splat(foldV);
  let sum = f32x4.splat(0);
  for (let at = logits; at < logits + padded; at += 16) {
    const weight = exponential(f32x4.sub(v128.load(at), f32x4.splat(top)));
    sum = f32x4.add(sum, weight);
    v128.store(at, f32x4.mul(weight, fold));
  }
  const factor = exponentialOf(load<f32>(record) - top);
  store<f32>(record, top);
  store<f32>(record, load<f32>(record, 4) * factor + sumLanes(sum), 4);
  bringValues(count);
  addValues1(vRows, count, headDimV, logits, factor, record + 8);
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
    if (!sees(row, load<u32>(positions + (<usize>t << 2)))) store<f32>(at, MINUS_INFINITY);
    const l = load<f32>(at);
    if (!(l < Infinity)) top = NaN;
    top = max(top, l);
  }
  if (top != top) store<f32>(record, NaN);
  if (top != top || top == MINUS_INFINITY) return;
  let factor = exponentialOf(before - top);
  let sum = load<f32>(record, 4) * factor;
  bringValues(count);
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
      store<f32>(weights + (<usize>length << 2), weight * foldV);
    }
    if (length > 0) {
      addValues1(vRows + (<usize>t << 2), length, headDimV, weights, factor, record + 8);
      factor = 1;
    }
    t += max(length, 1);
  }
  store<f32>(record, top);
  store<f32>(record, sum, 4);
}
