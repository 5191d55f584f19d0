// One query row alone (multi-head attention): its arithmetic is far less than its memory traffic, so all depends on how
// memory is read. Where rows lie in long runs, K and V are read in turns, row by row. Where each page lies by itself, that
// would be two streams that begin anew all the time: there K is read for a page's worth of tokens, then V.
#pragma once
#include "block-stream.h"

namespace attndrive {
namespace {

// The K phase of `block` and the V phase of the block `before` it, row by row in turns: two streams of rows, each ascending
// without a pause. `before` may be shorter than `block`, or empty. The query and its weighted sums, C vectors each, stay in
// registers. `next` comes after `block`; while these two are worked on, its K rows and the V rows of `block` are read into
// the cache.
template <class E, int C>
void attendRows(const float* query, const Block& before, const Block& block, const Block& next,
                          const float* weights, float factor, float* weighted, float* dots) {
  constexpr int kRowBytes = C * W * E::kBytes;
  vf queries[C], sums[C];
  UNROLL for (int c = 0; c < C; c++) {
    queries[c] = loadFloats(query + c * W);
    sums[c] = loadFloats(weighted + c * W) * factor;
  }
  vf dotsOf[kBlockTokensMax];
  const uint8_t* const* aheadK = next.count >= block.count ? next.k : block.k;
  const uint8_t* const* aheadV = block.count >= before.count ? block.v : before.v;
  const auto dotRow = [&](int t) __attribute__((always_inline)) {
    const uint8_t* row = block.k[t];
    UNROLL for (int i = 0; i < kRowBytes; i += 64) prefetch(aheadK[t] + i, block.isReadOnce);
    vf even = queries[0] * E::load(row), odd = queries[1] * E::load(row + W * E::kBytes);
    UNROLL for (int c = 2; c < C; c += 2) {
      even += queries[c] * E::load(row + c * W * E::kBytes);
      odd += queries[c + 1] * E::load(row + (c + 1) * W * E::kBytes);
    }
    dotsOf[t] = even + odd;
  };
  const auto addRow = [&](int t) __attribute__((always_inline)) {
    const uint8_t* row = before.v[t];
    UNROLL for (int i = 0; i < kRowBytes; i += 64) prefetch(aheadV[t] + i, block.isReadOnce);
    const vf weight = splat(weights[t]);
    UNROLL for (int c = 0; c < C; c++) sums[c] += weight * E::load(row + c * W * E::kBytes);
  };
  const int both = block.count < before.count ? block.count : before.count;
  NO_UNROLL for (int t = 0; t < both; t++) {
    dotRow(t);
    addRow(t);
  }
  NO_UNROLL for (int t = both; t < block.count; t++) dotRow(t);
  NO_UNROLL for (int t = both; t < before.count; t++) addRow(t);
  UNROLL for (int c = 0; c < C; c++) storeFloats(weighted + c * W, sums[c]);
  for (int t = block.count; t % W != 0; t++) dotsOf[t] = dotsOf[block.count - 1];
  for (int t = 0; t < block.count; t += W) {
    vf some[W];
    UNROLL for (int i = 0; i < W; i++) some[i] = dotsOf[t + i];
    storeFloats(dots + t, sumEach(some));
  }
}

// Rows that the phases below read ahead.
constexpr int kRowsAhead = W;

// The row that comes kRowsAhead rows after row t of `count`; `then` is what follows them.
ALWAYS_INLINE const uint8_t* const* rowsAhead(const uint8_t* const* rows, int count, int t, const uint8_t* const* then) {
  return t + kRowsAhead < count ? rows + t + kRowsAhead : then;
}

// The K phase by itself. Of `rows` and `then` there are whole W's.
template <class E, int C>
void dotRows(const float* query, const uint8_t* const* rows, int count, const uint8_t* const* then, bool isReadOnce,
             float* dots) {
  constexpr int kRowBytes = C * W * E::kBytes;
  vf queries[C];
  UNROLL for (int c = 0; c < C; c++) queries[c] = loadFloats(query + c * W);
  for (int t = 0; t < count; t += W) {
    const uint8_t* const* ahead = rowsAhead(rows, count, t, then);
    vf sums[W];
    NO_UNROLL for (int j = 0; j < W; j++) {
      const uint8_t* row = rows[t + j];
      UNROLL for (int i = 0; i < kRowBytes; i += 64) prefetch(ahead[j] + i, isReadOnce);
      vf even = queries[0] * E::load(row), odd = queries[1] * E::load(row + W * E::kBytes);
      UNROLL for (int c = 2; c < C; c += 2) {
        even += queries[c] * E::load(row + c * W * E::kBytes);
        odd += queries[c + 1] * E::load(row + (c + 1) * W * E::kBytes);
      }
      sums[j] = even + odd;
    }
    storeFloats(dots + t, sumEach(sums));
  }
}

// The V phase by itself.
template <class E, int C>
void addRows(const uint8_t* const* rows, int count, const uint8_t* const* then, bool isReadOnce, const float* weights,
             float factor, float* weighted) {
  constexpr int kRowBytes = C * W * E::kBytes;
  vf sums[C];
  UNROLL for (int c = 0; c < C; c++) sums[c] = loadFloats(weighted + c * W) * factor;
  for (int first = 0; first < count; first += W) {
    const uint8_t* const* ahead = rowsAhead(rows, count, first, then);
    const int some = count - first < W ? count - first : W;
    NO_UNROLL for (int j = 0; j < some; j++) {
      const uint8_t* row = rows[first + j];
      UNROLL for (int i = 0; i < kRowBytes; i += 64) prefetch(ahead[j] + i, isReadOnce);
      const vf weight = splat(weights[first + j]);
      UNROLL for (int c = 0; c < C; c++) sums[c] += weight * E::load(row + c * W * E::kBytes);
    }
  }
  UNROLL for (int c = 0; c < C; c++) storeFloats(weighted + c * W, sums[c]);
}

struct OneRow {
  void (*attendRows)(const float* query, const Block& before, const Block& block, const Block& next, const float* weights,
                     float factor, float* weighted, float* dots);
  void (*dotRows)(const float* query, const uint8_t* const* rows, int count, const uint8_t* const* then, bool isReadOnce,
                  float* dots);
  void (*addRows)(const uint8_t* const* rows, int count, const uint8_t* const* then, bool isReadOnce, const float* weights,
                  float factor, float* weighted);
};

template <class E, int C>
constexpr OneRow oneRow = {attendRows<E, C>, dotRows<E, C>, addRows<E, C>};

// Null where it would not pay: for other dimensions, and with fewer registers than it takes.
template <class E>
const OneRow* oneRowOf(uint32_t headDim) {
  if constexpr (W == 16) {
    if (headDim == 8 * W) return &oneRow<E, 8>;
    if (headDim == 4 * W) return &oneRow<E, 4>;
  }
  return nullptr;
}

}  // namespace
}  // namespace attndrive
