// The K phase over quantised rows by integer dot products, 16 tokens at a time. The logit's part of a group is
// scale * (query's scale) * sum(q * query) + minimum * sum(query). K is multiplied by bytes: an element of a query is
// 128 * high + low, or high alone.
#pragma once
#include "dot-products.h"
#include "packed-keys.h"

namespace attndrive {
namespace {

struct IntegerKeys {
  // For tiles of 4, 2 and 1 rows: dot products with a block's keys, in the lanes of dot-products.h.
  void (*dotProducts[3])(const IntegerQuery* queries, const Block& block, int dim, RowPrefetch next, float* dots);
};

#if defined(__AVX512VNNI__)

// Scale and minimum of 16 rows, of two groups that follow each other.
struct GroupLanes {
  vf scale[2], minimum[2];
};

ALWAYS_INLINE GroupLanes loadGroups(const uint8_t* const* rows, int g) {
  __m128i pairs[8];
  UNROLL for (int i = 0; i < 8; i++) {
    const __m128i low = _mm_loadl_epi64((const __m128i*)(rows[2 * i] + 4 * g));
    pairs[i] = (__m128i)_mm_loadh_pd((__m128d)low, (const double*)(rows[2 * i + 1] + 4 * g));
  }
  __m512i wide[2];
  UNROLL for (int i = 0; i < 2; i++) {
    wide[i] = _mm512_castsi128_si512(pairs[4 * i]);
    wide[i] = _mm512_inserti32x4(wide[i], pairs[4 * i + 1], 1);
    wide[i] = _mm512_inserti32x4(wide[i], pairs[4 * i + 2], 2);
    wide[i] = _mm512_inserti32x4(wide[i], pairs[4 * i + 3], 3);
  }
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  GroupLanes lanes;
  UNROLL for (int i = 0; i < 2; i++) {
    const __m512i both = _mm512_permutex2var_epi32(wide[0], i == 0 ? even : odd, wide[1]);
    lanes.scale[i] = (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(both));
    lanes.minimum[i] = (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
  }
  return lanes;
}

// Lane t of z[c] becomes lane c of z[t].
ALWAYS_INLINE void transpose(__m512i (&z)[16]) {
  __m512i a[16];
  UNROLL for (int i = 0; i < 16; i += 4) {
    const __m512i x0 = _mm512_unpacklo_epi32(z[i], z[i + 1]), x1 = _mm512_unpackhi_epi32(z[i], z[i + 1]);
    const __m512i x2 = _mm512_unpacklo_epi32(z[i + 2], z[i + 3]), x3 = _mm512_unpackhi_epi32(z[i + 2], z[i + 3]);
    a[i] = _mm512_unpacklo_epi64(x0, x2), a[i + 1] = _mm512_unpackhi_epi64(x0, x2);
    a[i + 2] = _mm512_unpacklo_epi64(x1, x3), a[i + 3] = _mm512_unpackhi_epi64(x1, x3);
  }
  // a[4 i + j]: run L of four lanes is dword 4 L + j of rows 4 i to 4 i + 3.
  UNROLL for (int j = 0; j < 4; j++) {
    const __m512i y0 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x44), y1 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xee);
    const __m512i y2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x44), y3 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xee);
    z[j] = _mm512_shuffle_i32x4(y0, y2, 0x88), z[4 + j] = _mm512_shuffle_i32x4(y0, y2, 0xdd);
    z[8 + j] = _mm512_shuffle_i32x4(y1, y3, 0x88), z[12 + j] = _mm512_shuffle_i32x4(y1, y3, 0xdd);
  }
}

// From sums[q], lane t of which is token t, to the lanes of dot-products.h.
template <int Q>
ALWAYS_INLINE void storeTokenRuns(const vf (&sums)[Q], float* dots) {
  if constexpr (Q == 1) {
    storeFloats(dots, sums[0]);
  } else if constexpr (Q == 2) {
    storeFloats(dots, (vf)_mm512_shuffle_f32x4((__m512)sums[0], (__m512)sums[1], 0x44));
    storeFloats(dots + W, (vf)_mm512_shuffle_f32x4((__m512)sums[0], (__m512)sums[1], 0xee));
  } else {
    vf runs[4];
    transposeRuns(sums, runs);
    UNROLL for (int i = 0; i < 4; i++) storeFloats(dots + i * W, runs[i]);
  }
}

// What group g adds to the dot products of 16 rows, of `dot` their integers' and the query's.
ALWAYS_INLINE vf logitPart(const IntegerQuery& query, int g, __m512i dot, const GroupLanes& lanes) {
  const vf product = (vf)_mm512_cvtepi32_ps(dot) * query.scale[g] + query.residue[g];
  return product * lanes.scale[g % 2] + lanes.minimum[g % 2] * query.sum[g];
}

// Dot products of Q rows with a block's keys, in the lanes of dot-products.h.
template <class E, int Q>
void integerDots(const IntegerQuery* queries, const Block& block, int dim, RowPrefetch next, float* dots) {
  // Few rows would have to wait for each of their sums.
  constexpr int kWays = Q == 4 ? 1 : 2;
  const int groups = dim / kGroup;
  const int offset = 4 * groups;
  for (int t = 0; t < block.count; t += W) {
    const uint8_t* const* rows = block.k + t;
    vf sums[Q];
    UNROLL for (int q = 0; q < Q; q++) sums[q] = splat(0);
    GroupLanes lanes;
    for (int g = 0; g < groups; g++) {
      __m512i z[16];
      UNROLL for (int i = 0; i < 16; i++) z[i] = E::load(rows[i] + offset, g, groups);
      if (g % 2 == 0) lanes = loadGroups(rows, g);
      transpose(z);
      __m512i high[kWays][Q], low[kWays][Q];
      UNROLL for (int way = 0; way < kWays; way++) {
        UNROLL for (int q = 0; q < Q; q++) high[way][q] = low[way][q] = _mm512_setzero_si512();
      }
      UNROLL for (int c = 0; c < 16; c++) {
        if (groups == 1 || (groups == 2 ? c % 2 == 1 : c % 4 == 3)) next.advance();
        UNROLL for (int q = 0; q < Q; q++) {
          addByteProducts(high[c % kWays][q], z[c], queries[q].high + g * kGroup + 4 * c);
          if constexpr (E::kHasLow) addByteProducts(low[c % kWays][q], z[c], queries[q].low + g * kGroup + 4 * c);
        }
      }
      UNROLL for (int q = 0; q < Q; q++) {
        if constexpr (kWays == 2) {
          high[0][q] = _mm512_add_epi32(high[0][q], high[1][q]);
          low[0][q] = _mm512_add_epi32(low[0][q], low[1][q]);
        }
        const __m512i dot = E::kHasLow ? _mm512_add_epi32(_mm512_slli_epi32(high[0][q], 7), low[0][q]) : high[0][q];
        sums[q] += logitPart(queries[q], g, dot, lanes);
      }
    }
    storeTokenRuns<Q>(sums, dots + t * Q);
  }
}

template <class E>
constexpr IntegerKeys integerKeysOf = {{integerDots<E, 4>, integerDots<E, 2>, integerDots<E, 1>}};
constexpr IntegerKeys packedKeys = {{packedDots<4>, packedDots<2>, packedDots<1>}};

inline const IntegerKeys* integerKeys(uint32_t type, bool isFast, int dim) {
  if (!hasIntegerLayout(type, dim)) return nullptr;
  if (type == kInt4) return dim == kGroup ? &integerKeysOf<Int4> : &packedKeys;
  return isFast ? &integerKeysOf<Int8ByBytes> : &integerKeysOf<Int8>;
}

#else

inline const IntegerKeys* integerKeys(uint32_t, bool, int) { return nullptr; }

#endif

}  // namespace
}  // namespace attndrive
