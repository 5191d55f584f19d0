// The V phase: adds weights[t][q] * V[t] to the weighted sums of a tile of Q query rows.
#pragma once
#include "block-stream.h"

namespace attndrive {
namespace {

// Where the V phase stands in reading the second half of a block to come, K and V by turns.
struct PrefetchCursor {
  const uint8_t* const* k;
  const uint8_t* const* v;
  int rowBytes;
  int offset;
  bool isReadOnce;

  template <int Lines>
  ALWAYS_INLINE void advance() {
    UNROLL for (int i = 0; i < Lines; i++) {
      prefetch(*k + offset + i * 64, isReadOnce);
      prefetch(*v + offset + i * 64, isReadOnce);
    }
    offset += Lines * 64;
    const bool isRowDone = offset >= rowBytes;
    offset = isRowDone ? 0 : offset;
    k += isRowDone;
    v += isRowDone;
  }
};

// N vectors of columns from `d` on; they stay in registers over all tokens. Each row's sums so far are first multiplied
// by its factor. Tail: the columns are the last `rest`, less than a vector.
template <class E, int Q, int N, bool Tail>
ALWAYS_INLINE void addColumns(const uint8_t* const* v, int count, const float* weights, const vf* factors,
                              float* weighted, int stride, int d, int rest, PrefetchCursor& cursor) {
  vf sums[Q][N];
  UNROLL for (int q = 0; q < Q; q++) {
    UNROLL for (int n = 0; n < N; n++) sums[q][n] = loadFloats(weighted + q * stride + d + n * W) * factors[q];
  }
  constexpr int kStepBytes = N * W * E::kBytes;
  constexpr int kLines = kStepBytes >= 128 ? kStepBytes / 128 : 1;
  constexpr int kTokensPerLine = kStepBytes >= 128 ? 1 : 128 / kStepBytes;
  const auto addToken = [&](int t) __attribute__((always_inline)) {
    const uint8_t* row = v[t] + d * E::kBytes;
    if (kTokensPerLine == 1 || t % kTokensPerLine == 0) cursor.advance<kLines>();
    vf values[N];
    if constexpr (Tail) {
      values[0] = loadSome<E>(row, rest);
    } else {
      UNROLL for (int n = 0; n < N; n++) values[n] = E::load(row + n * W * E::kBytes);
    }
    UNROLL for (int q = 0; q < Q; q++) {
      const vf weight = splat(weights[t * Q + q]);
      UNROLL for (int n = 0; n < N; n++) sums[q][n] += weight * values[n];
    }
  };
  // By twos and no more: each load instruction then walks through memory in small equal steps, which a processor foresees.
  int t = 0;
  NO_UNROLL for (; t + 2 <= count; t += 2) {
    addToken(t);
    addToken(t + 1);
  }
  if (t < count) addToken(t);
  UNROLL for (int q = 0; q < Q; q++) {
    UNROLL for (int n = 0; n < N; n++) storeFloats(weighted + q * stride + d + n * W, sums[q][n]);
  }
}

// `weighted` has Q rows, `stride` floats apart, each with room for whole vectors.
template <class E, int Q>
void addValues(const uint8_t* const* v, int count, int dim, const float* weights, const vf* factors,
                         float* weighted, int stride, PrefetchCursor cursor) {
  constexpr int N = kAccumulators / Q < 8 ? kAccumulators / Q : 8;
  int d = 0;
  for (; d + N * W <= dim; d += N * W) {
    addColumns<E, Q, N, false>(v, count, weights, factors, weighted, stride, d, 0, cursor);
  }
  if constexpr (N > 4) {
    if (d + 4 * W <= dim) {
      addColumns<E, Q, 4, false>(v, count, weights, factors, weighted, stride, d, 0, cursor);
      d += 4 * W;
    }
  }
  if constexpr (N > 2) {
    if (d + 2 * W <= dim) {
      addColumns<E, Q, 2, false>(v, count, weights, factors, weighted, stride, d, 0, cursor);
      d += 2 * W;
    }
  }
  if (d + W <= dim) {
    addColumns<E, Q, 1, false>(v, count, weights, factors, weighted, stride, d, 0, cursor);
    d += W;
  }
  if (d < dim) addColumns<E, Q, 1, true>(v, count, weights, factors, weighted, stride, d, dim - d, cursor);
}

// The V phase of an element type, for tiles of 4, 2 and 1 rows.
struct ValuePhase {
  void (*addValues[3])(const uint8_t* const* v, int count, int dim, const float* weights, const vf* factors,
                       float* weighted, int stride, PrefetchCursor cursor);
};

template <class E>
constexpr ValuePhase valuePhaseOf = {{addValues<E, 4>, addValues<E, 2>, addValues<E, 1>}};

}  // namespace
}  // namespace attndrive
