// Quantised rows by integer dot products (VNNI), 16 tokens or 64 columns at a time, for head dimensions that are whole groups.
//
// Queries and weights become integers, the largest of a group of 64 (of a block of tokens) 16256 and 32767: much less is lost
// than K and V have lost by being quantised, and where K has 4 bits, 127 are enough for a query. The logit's part of a group is
// scale * (query's scale) * sum(q * query) + minimum * sum(query). What the query's integers lack is made up for as if q were
// half of its largest everywhere, which takes two thirds of the error away. K is multiplied by bytes (an element of a query is
// 128 * high + low, or high alone), V by 16-bit words.
#pragma once
#include "dot-products.h"
#include "quantise.h"
#include "weighted-sums.h"

namespace attndrive {
namespace {

constexpr int kGroup = kQuantisationGroup;
constexpr int kGroupsMax = kHeadDimMax / kGroup;
constexpr int kTileRowsMax = 4;
constexpr int kQueryLargestInt8 = 127 * 128;
constexpr int kQueryLargestByte = 127;
constexpr int kWeightLargest = 32767;

// One query row, a byte or two of them an element.
struct IntegerQuery {
  int8_t high[kHeadDimMax];
  int8_t low[kHeadDimMax];
  float scale[kGroupsMax];
  float sum[kGroupsMax];
  // What its integers lack, summed up, times half of the largest q.
  float residue[kGroupsMax];
};

// Reads `left` rows of a block to come into the cache, K and V by turns.
struct RowPrefetch {
  const uint8_t* const* rows;
  const uint8_t* const* others;
  int bytes, otherBytes, left;
  bool isReadOnce;

  ALWAYS_INLINE void advance() {
    if (--left < 0) return;
    const uint8_t* row = *rows++;
    const uint8_t* const* const k = rows;
    const int kBytes = bytes;
    for (int i = 0; i < bytes; i += 64) prefetch(row + i, isReadOnce);
    rows = others, others = k;
    bytes = otherBytes, otherBytes = kBytes;
  }
};

// The K phase and the V phase of quantised rows, for tiles of 4, 2 and 1 rows.
struct IntegerKeys {
  void (*dotProducts[3])(const IntegerQuery* queries, const Block& block, int dim, RowPrefetch next, float* dots);
};
struct IntegerValues {
  bool (*addValues[3])(const uint8_t* const* v, int count, int dim, const float* weights, const vf* factors, float* weighted,
                       int stride, RowPrefetch next);
};

#if defined(__AVX512VNNI__)

// A byte of int4 holds elements that are half a row apart: that must be whole groups, or one group.
inline bool hasIntegerLayout(uint32_t type, int dim) { return type == kInt8 || dim == kGroup || dim % (2 * kGroup) == 0; }

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
    result.residue[g] = sumLanes(residue) * 0.5f * (type == kInt8 ? kLargestInt8 : kLargestInt4);
  }
  return true;
}

// The 64 integers of group g, a byte each. `integers` is where a row's begin.
struct Int8 {
  static constexpr bool kHasLow = true;
  static ALWAYS_INLINE __m512i load(const uint8_t* integers, int g, int) {
    return _mm512_loadu_si512(integers + g * kGroup);
  }
};

struct Int8ByBytes : Int8 {
  static constexpr bool kHasLow = false;
};

struct Int4 {
  static constexpr bool kHasLow = false;
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

// Four vectors as a matrix of runs of four lanes, transposed.
ALWAYS_INLINE void transposeRuns(const vf (&a)[4], vf (&b)[4]) {
  const __m512 x0 = _mm512_shuffle_f32x4((__m512)a[0], (__m512)a[1], 0x44);
  const __m512 x1 = _mm512_shuffle_f32x4((__m512)a[0], (__m512)a[1], 0xee);
  const __m512 x2 = _mm512_shuffle_f32x4((__m512)a[2], (__m512)a[3], 0x44);
  const __m512 x3 = _mm512_shuffle_f32x4((__m512)a[2], (__m512)a[3], 0xee);
  b[0] = (vf)_mm512_shuffle_f32x4(x0, x2, 0x88), b[1] = (vf)_mm512_shuffle_f32x4(x0, x2, 0xdd);
  b[2] = (vf)_mm512_shuffle_f32x4(x1, x3, 0x88), b[3] = (vf)_mm512_shuffle_f32x4(x1, x3, 0xdd);
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

ALWAYS_INLINE int32_t word(const void* p) {
  int32_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

// As instructions, since compilers copy the sums of the intrinsics around.
ALWAYS_INLINE void addByteProducts(__m512i& sums, __m512i unsignedBytes, const int8_t* four) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(unsignedBytes), "m"(*(const int32_t*)four));
}
ALWAYS_INLINE void addWordProducts(__m512i& sums, __m512i a, __m512i b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
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
        const vf product = (vf)_mm512_cvtepi32_ps(dot) * queries[q].scale[g] + queries[q].residue[g];
        sums[q] += product * lanes.scale[g % 2] + lanes.minimum[g % 2] * queries[q].sum[g];
      }
    }
    storeTokenRuns<Q>(sums, dots + t * Q);
  }
}

// What a tile's weights are for one group: integers in the order in which two tokens at a time take them, [pair][q][2].
template <int Q>
struct IntegerWeights {
  int16_t words[kBlockTokensMax * Q];
  // Of one step of the integers, and the sum of weight times minimum; each for row q in all lanes l with l % Q == q.
  vf step, base;
};

// Combines all lanes that belong to the same row.
template <int Q, class F>
ALWAYS_INLINE vf combineRows(vf a, F combine) {
  if constexpr (Q <= 8) a = combine(a, exchanged<8>(a, Lanes{}));
  if constexpr (Q <= 4) a = combine(a, exchanged<4>(a, Lanes{}));
  if constexpr (Q <= 2) a = combine(a, exchanged<2>(a, Lanes{}));
  if constexpr (Q <= 1) a = combine(a, exchanged<1>(a, Lanes{}));
  return a;
}

// In each run of eight words, word 2 * (Q * k + q) + i of the result is word Q * (2 * k + i) + q.
template <int Q, int... B>
ALWAYS_INLINE __m256i byPairs(__m256i a, std::integer_sequence<int, B...>) {
  if constexpr (Q == 1) return a;
  const __m128i order = _mm_setr_epi8((2 * (Q * (2 * (B / 4 / Q) + B / 2 % 2) + B / 4 % Q) + B % 2)...);
  return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(order));
}

template <int Q, int... I>
ALWAYS_INLINE vf perToken(vf a, int first, std::integer_sequence<int, I...>) {
  const vi lanes = vi{(I / Q)...} + first;
  return (vf)_mm512_permutexvar_ps((__m512i)lanes, (__m512)a);
}

// Integer weights of groups g and g + 1. `weights` are [t][q]; rows go on to a multiple of 16. False if a scale or minimum is
// not finite.
template <int Q>
ALWAYS_INLINE bool weighGroups(const uint8_t* const* rows, int count, int g, const float* weights,
                               IntegerWeights<Q> (&result)[2]) {
  constexpr int T = W / Q;
  alignas(64) float products[2][(kBlockTokensMax + W) * Q];
  vf top[2] = {splat(0), splat(0)}, base[2] = {splat(0), splat(0)}, finite = splat(0);
  for (int t = 0; t < count; t += W) {
    const GroupLanes lanes = loadGroups(rows + t, g);
    UNROLL for (int i = 0; i < 2; i++) finite += (lanes.scale[i] + lanes.minimum[i]) * 0.0f;
    UNROLL for (int n = 0; n < Q; n++) {
      const int first = t + n * T;
      const int left = (count - first) * Q;
      const __mmask16 mask = left >= W ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
      const vf weight = (vf)_mm512_maskz_loadu_ps(mask, weights + first * Q);
      UNROLL for (int i = 0; i < 2; i++) {
        const vf product = weight * perToken<Q>(lanes.scale[i], n * T, Lanes{});
        storeFloats(products[i] + first * Q, product);
        top[i] = maximum(product, top[i]);
        base[i] += weight * perToken<Q>(lanes.minimum[i], n * T, Lanes{});
      }
    }
  }
  if (anyLane(finite != finite)) return false;
  UNROLL for (int i = 0; i < 2; i++) {
    top[i] = combineRows<Q>(top[i], [](vf a, vf b) { return maximum(a, b); });
    result[i].base = combineRows<Q>(base[i], [](vf a, vf b) { return a + b; });
    result[i].step = top[i] * (1.0f / kWeightLargest);
    // What is that small is nothing.
    const vf factor = (vf)((vi)(kWeightLargest / top[i]) & (vi)(top[i] > 1e-30f));
    for (int at = 0; at < count * Q; at += W) {
      const __m512i words = _mm512_cvtps_epi32((__m512)(loadFloats(products[i] + at) * factor));
      _mm256_storeu_si256((__m256i*)(result[i].words + at), byPairs<Q>(_mm512_cvtepi32_epi16(words), Lanes{}));
    }
  }
  return true;
}

// Adds 64 columns, group g, to the tile's weighted sums.
template <class E, int Q, class Step>
ALWAYS_INLINE void addGroup(const uint8_t* const* rows, int count, int g, int groups, const IntegerWeights<Q>& weights,
                            const vf* factors, float* weighted, int stride, Step&& step) {
  // One row alone would have to wait for each of its sums. (Rows go on to a multiple of 16.)
  constexpr int kWays = Q == 1 ? 2 : 1;
  const int offset = 4 * groups;
  const __m512i zero = _mm512_setzero_si512();
  __m512i sums[kWays][Q][4];
  UNROLL for (int way = 0; way < kWays; way++) {
    UNROLL for (int q = 0; q < Q; q++) {
      UNROLL for (int i = 0; i < 4; i++) sums[way][q][i] = zero;
    }
  }
  NO_UNROLL for (int first = 0; first < count; first += 2 * kWays) {
    UNROLL for (int way = 0; way < kWays; way++) {
      const int t = first + 2 * way;
      const __m512i a = E::load(rows[t] + offset, g, groups), b = E::load(rows[t + 1] + offset, g, groups);
      step();
      const __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
      // Dword j of run L of pairs[i] are the two tokens' words of column 16 L + 4 i + j.
      const __m512i pairs[4] = {_mm512_unpacklo_epi8(low, zero), _mm512_unpackhi_epi8(low, zero),
                                _mm512_unpacklo_epi8(high, zero), _mm512_unpackhi_epi8(high, zero)};
      UNROLL for (int q = 0; q < Q; q++) {
        const __m512i weight = _mm512_set1_epi32(word(weights.words + t * Q + 2 * q));
        UNROLL for (int i = 0; i < 4; i++) addWordProducts(sums[way][q][i], pairs[i], weight);
      }
    }
  }
  UNROLL for (int q = 0; q < Q; q++) {
    vf runs[4], columns[4];
    UNROLL for (int i = 0; i < 4; i++) {
      if constexpr (kWays == 2) sums[0][q][i] = _mm512_add_epi32(sums[0][q][i], sums[1][q][i]);
      runs[i] = (vf)_mm512_cvtepi32_ps(sums[0][q][i]);
    }
    transposeRuns(runs, columns);
    float* target = weighted + q * stride + g * kGroup;
    const vf unit = splat(weights.step[q]), base = splat(weights.base[q]);
    UNROLL for (int i = 0; i < 4; i++) {
      storeFloats(target + i * W, loadFloats(target + i * W) * factors[q] + (columns[i] * unit + base));
    }
  }
}

// Adds weights[t][q] * V[t] to Q rows' weighted sums, each first multiplied by its factor. False, and nothing done, if a
// group is not finite.
template <class E, int Q>
bool integerValues(const uint8_t* const* v, int count, int dim, const float* weights, const vf* factors, float* weighted,
                   int stride, RowPrefetch next) {
  const uint8_t* padded[kBlockTokensMax + W];
  if (count % W != 0) {
    for (int t = 0; t < (count + W - 1) / W * W; t++) padded[t] = v[t < count ? t : count - 1];
    v = padded;
  }
  const int groups = dim / kGroup;
  IntegerWeights<Q> integers[kGroupsMax / 2][2];
  for (int g = 0; g < groups; g += 2) {
    if (!weighGroups<Q>(v, count, g, weights, integers[g / 2])) return false;
  }
  const auto step = [&]() __attribute__((always_inline)) { next.advance(); };
  for (int g = 0; g < groups; g++) {
    addGroup<E, Q>(v, count, g, groups, integers[g / 2][g % 2], factors, weighted, stride, step);
  }
  return true;
}

template <class E>
constexpr IntegerKeys integerKeysOf = {{integerDots<E, 4>, integerDots<E, 2>, integerDots<E, 1>}};
template <class E>
constexpr IntegerValues integerValuesOf = {{integerValues<E, 4>, integerValues<E, 2>, integerValues<E, 1>}};

inline const IntegerKeys* integerKeys(uint32_t type, bool isFast, int dim) {
  if (dim % kGroup != 0 || !hasIntegerLayout(type, dim)) return nullptr;
  if (type == kInt4) return &integerKeysOf<Int4>;
  if (type != kInt8) return nullptr;
  return isFast ? &integerKeysOf<Int8ByBytes> : &integerKeysOf<Int8>;
}

inline const IntegerValues* integerValues(uint32_t type, int dim) {
  if (dim % kGroup != 0 || !hasIntegerLayout(type, dim)) return nullptr;
  return type == kInt8 ? &integerValuesOf<Int8> : type == kInt4 ? &integerValuesOf<Int4> : nullptr;
}

#else

inline bool quantiseQuery(uint32_t, bool, const float*, int, IntegerQuery&) { return false; }
inline const IntegerKeys* integerKeys(uint32_t, bool, int) { return nullptr; }
inline const IntegerValues* integerValues(uint32_t, int) { return nullptr; }

#endif

}  // namespace
}  // namespace attndrive
