// A query row as integers, for the integer dot products of integer-rows.h.
#pragma once
#include "quantise.h"

namespace attndrive {
namespace {

constexpr int kGroup = kQuantisationGroup;
constexpr int kGroupsMax = kHeadDimMax / kGroup;
constexpr int kQueryLargestInt8 = 127 * 128;
constexpr int kQueryLargestByte = 127;

// One query row, a byte or two of them an element.
struct IntegerQuery {
  int8_t high[kHeadDimMax];
  int8_t low[kHeadDimMax];
  // The same as `high`, for packedDots: vector i of a group has elements 16 * L + 4 * i on in all four lanes of run L.
  alignas(64) int8_t spread[kGroupsMax][4][64];
  float scale[kGroupsMax];
  float sum[kGroupsMax];
  // What its integers lack, summed up, times half of the largest q.
  float residue[kGroupsMax];
};

#if defined(__AVX512VNNI__)

// False if its elements are not finite, or of a magnitude that integers would lose. In a hurry, int8 has a byte for each, too.
inline bool quantiseQuery(uint32_t type, bool isFast, const float* query, int dim, IntegerQuery& result) {
  const bool hasLow = type == kInt8 && !isFast;
  const int levels = hasLow ? kQueryLargestInt8 : kQueryLargestByte;
  const int shift = hasLow ? 7 : 0;
  for (int g = 0; g < dim / kGroup; g++) {
    const float* elements = query + g * kGroup;
    vf largest = splat(0), sums = splat(0);
    for (int i = 0; i < kGroup; i += W) {
      const vf x = loadFloats(elements + i);
      largest = maximum(absolute(x), largest);
      sums += x;
    }
    const float top = maximumLane(largest);
    if (top != 0 && !(top > 1e-30f && top < 1e30f)) return false;
    if (anyLane(sums != sums)) return false;
    result.scale[g] = top / levels;
    result.sum[g] = sumLanes(sums);
    const vf factor = splat(top == 0 ? 0 : levels / top), step = splat(result.scale[g]);
    vf residue = splat(0);
    for (int i = 0; i < kGroup; i += W) {
      const vf x = loadFloats(elements + i);
      const __m512i q = _mm512_cvtps_epi32((__m512)(x * factor));
      residue += x - (vf)_mm512_cvtepi32_ps(q) * step;
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(1 << shift >> 1)), shift);
      const __m512i low = _mm512_sub_epi32(q, _mm512_slli_epi32(high, shift));
      _mm_storeu_si128((__m128i*)(result.high + g * kGroup + i), _mm512_cvtepi32_epi8(high));
      _mm_storeu_si128((__m128i*)(result.low + g * kGroup + i), _mm512_cvtepi32_epi8(low));
    }
    const __m512i all = _mm512_loadu_si512(result.high + g * kGroup);
    _mm512_store_si512(result.spread[g][0], _mm512_shuffle_epi32(all, (_MM_PERM_ENUM)0x00));
    _mm512_store_si512(result.spread[g][1], _mm512_shuffle_epi32(all, (_MM_PERM_ENUM)0x55));
    _mm512_store_si512(result.spread[g][2], _mm512_shuffle_epi32(all, (_MM_PERM_ENUM)0xaa));
    _mm512_store_si512(result.spread[g][3], _mm512_shuffle_epi32(all, (_MM_PERM_ENUM)0xff));
    result.residue[g] = sumLanes(residue) * 0.5f * (type == kInt8 ? kLargestInt8 : kLargestInt4);
  }
  return true;
}

#else

inline bool quantiseQuery(uint32_t, bool, const float*, int, IntegerQuery&) { return false; }

#endif

}  // namespace
}  // namespace attndrive
