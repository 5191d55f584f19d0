// The K phase: dot products of a tile of Q query rows with a block's keys.
//
// Results come in vectors of T = W / Q tokens: lane q * T + j of vector t / T is row q with token t + j. Behind the last
// token they repeat it.
//
// Meanwhile `next`, a block to come, is read into the cache: half of its rows here, the other half in the V phase, always
// K and V by turns. So memory is kept busy evenly whatever the phase is, by two streams of lines in ascending order, which
// the processor's own prefetchers run ahead of. (Reading K ahead in one phase and V in the other was a quarter slower.)
#pragma once
#include "block-stream.h"

namespace attndrive {
namespace {

template <class E, int Q, bool Tail>
NO_INLINE void dotProducts(const float* queries, int stride, const Block& block, const Block& next, int dim,
                           float* dots) {
  constexpr int T = W / Q;
  constexpr int kStepBytes = T * W * E::kBytes;  // of T rows in one step of d
  for (int t = 0; t < block.count; t += T) {
    const uint8_t* const* k = block.k + t;
    const uint8_t* nextK = next.k[t / 2];
    const uint8_t* nextV = next.v[t / 2];
    vf sums[W];
    UNROLL for (int i = 0; i < W; i++) sums[i] = splat(0);
    int d = 0;
    for (; d + W <= dim; d += W) {
      vf keys[T];
      UNROLL for (int j = 0; j < T; j++) keys[j] = E::load(k[j] + d * E::kBytes);
      if (kStepBytes >= 128 || d * (kStepBytes / W) % 128 == 0) {
        UNROLL for (int i = 0; i < (kStepBytes + 127) / 128; i++) {
          prefetch(nextK + i * 64, next.isReadOnce);
          prefetch(nextV + i * 64, next.isReadOnce);
        }
      }
      nextK += kStepBytes / 2;
      nextV += kStepBytes / 2;
      UNROLL for (int q = 0; q < Q; q++) {
        const vf query = loadFloats(queries + q * stride + d);
        UNROLL for (int j = 0; j < T; j++) sums[q * T + j] += query * keys[j];
      }
    }
    if constexpr (Tail) {
      UNROLL for (int j = 0; j < T; j++) {
        const vf key = loadSome<E>(k[j] + d * E::kBytes, dim - d);
        UNROLL for (int q = 0; q < Q; q++) sums[q * T + j] += loadFloats(queries + q * stride + d) * key;
      }
    }
    storeFloats(dots + t * Q, sumEach(sums));
  }
}

// One query row alone: no key vector is used twice, so rows are read one after the other, as they lie.
template <class E, bool Tail>
NO_INLINE void dotProductsOfOne(const float* query, const Block& block, const Block& next, int dim, float* dots) {
  for (int t = 0; t < block.count; t += W) {
    vf sums[W];
    NO_UNROLL for (int j = 0; j < W; j++) {
      const uint8_t* key = block.k[t + j];
      const uint8_t* ahead = (j % 2 == 0 ? next.k : next.v)[(t + j) / 2];
      vf even = splat(0), odd = splat(0);
      int d = 0;
      NO_UNROLL for (; d + 2 * W <= dim; d += 2 * W) {
        UNROLL for (int i = 0; i < 2 * W * E::kBytes; i += 64) prefetch(ahead + d * E::kBytes + i, next.isReadOnce);
        even += loadFloats(query + d) * E::load(key + d * E::kBytes);
        odd += loadFloats(query + d + W) * E::load(key + (d + W) * E::kBytes);
      }
      if (d + W <= dim) {
        even += loadFloats(query + d) * E::load(key + d * E::kBytes);
        d += W;
      }
      if constexpr (Tail) odd += loadFloats(query + d) * loadSome<E>(key + d * E::kBytes, dim - d);
      sums[j] = even + odd;
    }
    storeFloats(dots + t, sumEach(sums));
  }
}

// Queries are `stride` floats apart, with zeros to whole vectors.
template <class E, int Q>
void dotProductsOf(const float* queries, int stride, const Block& block, const Block& next, int dim, float* dots) {
  const bool hasTail = dim % W != 0;
  if constexpr (Q == 1) {
    hasTail ? dotProductsOfOne<E, true>(queries, block, next, dim, dots)
            : dotProductsOfOne<E, false>(queries, block, next, dim, dots);
  } else {
    hasTail ? dotProducts<E, Q, true>(queries, stride, block, next, dim, dots)
            : dotProducts<E, Q, false>(queries, stride, block, next, dim, dots);
  }
}

// The K phase of an element type, for tiles of 4, 2 and 1 rows.
struct KeyPhase {
  void (*dotProducts[3])(const float* queries, int stride, const Block& block, const Block& next, int dim, float* dots);
};

template <class E>
constexpr KeyPhase keyPhaseOf = {{dotProductsOf<E, 4>, dotProductsOf<E, 2>, dotProductsOf<E, 1>}};

}  // namespace
}  // namespace attndrive
