// The K phase over bf16 by the dot products that the machine has for it (AVX512_BF16), for who would rather have it fast: queries
// are rounded to bf16, two products are added up at a time, subnormals are zero.
#pragma once
#include "dot-products.h"

namespace attndrive {
namespace {

#if defined(__AVX512VNNI__)

// Elements of a vector.
constexpr int kBfloatWidth = 2 * W;

// As an instruction: compilers know it only in files that may use it everywhere.
ALWAYS_INLINE void addBfloatProducts(vf& sums, __m512i a, __m512i b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
}

ALWAYS_INLINE uint32_t bfloatOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// Whether all elements are finite as bf16.
inline bool fitsBfloat(const float* row, int dim) {
  for (int d = 0; d < dim; d++) {
    if (!(__builtin_fabsf(row[d]) < 0x1.ffp127f)) return false;
  }
  return true;
}

// Rounds a row to bf16, to nearest even, where it lies; the room of its floats is filled up with zeros.
inline void roundToBfloat(float* row, int dim, int stride) {
  uint16_t* rounded = reinterpret_cast<uint16_t*>(row);
  for (int d = 0; d < dim; d++) rounded[d] = bfloatOf(row[d]);
  memset(rounded + dim, 0, stride * sizeof(float) - dim * sizeof(uint16_t));
}

// `dotProducts` of dot-products.h for queries that roundToBfloat has rounded.
template <int Q>
NO_INLINE void bfloatDotProducts(const float* queries, int stride, const Block& block, const Block& next, int dim, float* dots) {
  constexpr int T = W / Q;
  constexpr int kLines = T / 2 > 0 ? T / 2 : 1;
  for (int t = 0; t < block.count; t += T) {
    const uint8_t* const* k = block.k + t;
    const uint8_t* nextK = next.k[t / 2];
    const uint8_t* nextV = next.v[t / 2];
    vf sums[W];
    UNROLL for (int i = 0; i < W; i++) sums[i] = splat(0);
    const auto addStep = [&](int d, __mmask32 mask) __attribute__((always_inline)) {
      __m512i keys[T];
      UNROLL for (int j = 0; j < T; j++) keys[j] = _mm512_maskz_loadu_epi16(mask, k[j] + d * 2);
      UNROLL for (int q = 0; q < Q; q++) {
        const __m512i query = _mm512_loadu_si512(reinterpret_cast<const uint8_t*>(queries + q * stride) + d * 2);
        UNROLL for (int j = 0; j < T; j++) addBfloatProducts(sums[q * T + j], keys[j], query);
      }
    };
    int d = 0;
    for (; d + kBfloatWidth <= dim; d += kBfloatWidth) {
      UNROLL for (int i = 0; i < kLines; i++) {
        prefetch(nextK + i * 64, next.isReadOnce);
        prefetch(nextV + i * 64, next.isReadOnce);
      }
      nextK += kLines * 64;
      nextV += kLines * 64;
      addStep(d, ~0u);
    }
    if (d < dim) addStep(d, (1u << (dim - d)) - 1);
    storeFloats(dots + t * Q, sumEach(sums));
  }
}

constexpr KeyPhase bfloatKeys = {{bfloatDotProducts<4>, bfloatDotProducts<2>, bfloatDotProducts<1>}};
constexpr bool kHasBfloatProducts = true;

#else

inline bool fitsBfloat(const float*, int) { return false; }
inline void roundToBfloat(float*, int, int) {}
constexpr KeyPhase bfloatKeys = {};
constexpr bool kHasBfloatProducts = false;

#endif

}  // namespace
}  // namespace attndrive
