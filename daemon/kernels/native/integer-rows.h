// Quantised rows as integer dot products (VNNI) take them, for head dimensions that are whole groups.
//
// Queries and weights become integers, the largest of a group of 64 (of a block of tokens) 16256 and 32767: much less is lost
// than K and V have lost by being quantised. Where these have 4 bits, 127 are enough for a query and 255 for a weight. What 7 or
// 8 bits lack is made up for as if q were half of its largest everywhere, which takes two thirds of the error away.
#pragma once
#include "integer-query.h"
#include "quantise.h"
#include "row-prefetch.h"

namespace attndrive {
namespace {

#if defined(__AVX512VNNI__)

// A byte of int4 holds elements that are half a row apart: that must be whole groups, or one group.
inline bool hasIntegerLayout(uint32_t type, int dim) {
  return isQuantised(type) && dim % kGroup == 0 && (type == kInt8 || dim == kGroup || dim % (2 * kGroup) == 0);
}

// The 64 integers of group g, a byte each. `integers` is where a row's begin.
struct Int8 {
  static constexpr bool kHasLow = true;
  static constexpr int kLargest = kLargestInt8;
  using Weight = int16_t;
  static constexpr int kWeightLargest = 32767;
  static ALWAYS_INLINE __m512i load(const uint8_t* integers, int g, int) {
    return _mm512_loadu_si512(integers + g * kGroup);
  }
};

struct Int8ByBytes : Int8 {
  static constexpr bool kHasLow = false;
};

struct Int4 {
  static constexpr bool kHasLow = false;
  static constexpr int kLargest = kLargestInt4;
  using Weight = uint8_t;
  static constexpr int kWeightLargest = 255;
  static ALWAYS_INLINE __m512i load(const uint8_t* integers, int g, int groups) {
    const __m512i mask = _mm512_set1_epi8(15);
    if (groups == 1) {
      const __m256i both = _mm256_loadu_si256((const __m256i*)integers);
      const __m512i apart = _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
      return _mm512_and_si512(apart, mask);
    }
    const bool isHigh = g >= groups / 2;
    const __m512i both = _mm512_loadu_si512(integers + (isHigh ? g - groups / 2 : g) * kGroup);
    return _mm512_and_si512(isHigh ? _mm512_srli_epi16(both, 4) : both, mask);
  }
};

// Of four rows, a run of lanes each: scale and minimum of group g, then of the one after it, which are other bytes of the row if
// there is none.
ALWAYS_INLINE vf loadHeads(const uint8_t* const* rows, int g) {
  __m128i pairs[2];
  UNROLL for (int i = 0; i < 2; i++) {
    const __m128i low = _mm_loadl_epi64((const __m128i*)(rows[2 * i] + 4 * g));
    pairs[i] = (__m128i)_mm_loadh_pd((__m128d)low, (const double*)(rows[2 * i + 1] + 4 * g));
  }
  return (vf)_mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(pairs[0]), pairs[1], 1));
}

// Value `which` of the heads of W / Q tokens, four in each vector. Lane i has that of the i % (W / Q)th token.
template <int Q, int... I>
ALWAYS_INLINE vf forRows(const vf* heads, int which, std::integer_sequence<int, I...>) {
  constexpr int T = W / Q;
  const __m512i lanes = (__m512i)(vi{(I % T % 8 * 4)...} + which);
  if constexpr (Q == 4) return (vf)_mm512_permutexvar_ps(lanes, (__m512)heads[0]);
  const __m512 eight = _mm512_permutex2var_ps((__m512)heads[0], lanes, (__m512)heads[1]);
  if constexpr (Q == 2) return (vf)eight;
  const __m512 others = _mm512_permutex2var_ps((__m512)heads[2], lanes, (__m512)heads[3]);
  return (vf)_mm512_mask_mov_ps(eight, 0xff00, others);
}

// The same of the i / Qth token.
template <int Q, int... I>
ALWAYS_INLINE vf forTokens(const vf* heads, int which, std::integer_sequence<int, I...>) {
  if constexpr (Q == 1) return forRows<1>(heads, which, Lanes{});
  if constexpr (Q == 4) {
    return (vf)(which == 0   ? _mm512_permute_ps((__m512)heads[0], 0x00)
                : which == 1 ? _mm512_permute_ps((__m512)heads[0], 0x55)
                : which == 2 ? _mm512_permute_ps((__m512)heads[0], 0xaa)
                             : _mm512_permute_ps((__m512)heads[0], 0xff));
  }
  const __m512i lanes = (__m512i)(vi{(I / Q * 4)...} + which);
  return (vf)_mm512_permutex2var_ps((__m512)heads[0], lanes, (__m512)heads[1]);
}

// Four vectors as a matrix of runs of four lanes, transposed.
ALWAYS_INLINE void transposeRuns(const vf (&a)[4], vf (&b)[4]) {
  const __m512 x0 = _mm512_shuffle_f32x4((__m512)a[0], (__m512)a[1], 0x44);
  const __m512 x1 = _mm512_shuffle_f32x4((__m512)a[0], (__m512)a[1], 0xee);
  const __m512 x2 = _mm512_shuffle_f32x4((__m512)a[2], (__m512)a[3], 0x44);
  const __m512 x3 = _mm512_shuffle_f32x4((__m512)a[2], (__m512)a[3], 0xee);
  b[0] = (vf)_mm512_shuffle_f32x4(x0, x2, 0x88), b[1] = (vf)_mm512_shuffle_f32x4(x0, x2, 0xdd);
  b[2] = (vf)_mm512_shuffle_f32x4(x1, x3, 0x88), b[3] = (vf)_mm512_shuffle_f32x4(x1, x3, 0xdd);
}

// As instructions, since compilers copy the sums of the intrinsics around.
ALWAYS_INLINE void addByteProducts(__m512i& sums, __m512i unsignedBytes, const int8_t* four) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(unsignedBytes), "m"(*(const int32_t*)four));
}
ALWAYS_INLINE void addByteProducts(__m512i& sums, __m512i unsignedBytes, __m512i bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsignedBytes), "v"(bytes));
}

#endif

}  // namespace
}  // namespace attndrive
