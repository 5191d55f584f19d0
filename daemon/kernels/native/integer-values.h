// The V phase over quantised rows by integer dot products, 64 columns at a time: int8 by 16-bit words, int4 by bytes.
#pragma once
#include "integer-rows.h"
#include "weighted-sums.h"

namespace attndrive {
namespace {

struct IntegerValues {
  // For tiles of 4, 2 and 1 rows: adds weights[t][q] * V[t] to Q rows' weighted sums, each first multiplied by its factor.
  // False, and nothing done, if a group is not finite.
  bool (*addValues[3])(const uint8_t* const* v, int count, int dim, const float* weights, const vf* factors, float* weighted,
                       int stride, RowPrefetch next);
};

#if defined(__AVX512VNNI__)

ALWAYS_INLINE int32_t word(const void* p) {
  int32_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

ALWAYS_INLINE void addWordProducts(__m512i& sums, __m512i a, __m512i b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
}

// Tokens that one product takes: four bytes, or two words.
template <class E>
constexpr int kStepTokens = 4 / sizeof(typename E::Weight);

// What a tile's weights are for one group: integers as steps of the products take them, [step][q][token of the step]. Steps take
// tokens W / Q apart from each other: the first of `kStepTokens` * W / Q tokens, the second ones, and so on.
template <class E, int Q>
struct IntegerWeights {
  alignas(64) typename E::Weight integers[kBlockTokensMax * Q];
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

// Integers of which each has its part of a lane for itself, W / Q tokens in each vector.
template <class E>
ALWAYS_INLINE __m512i packSteps(const __m512i* integers) {
  constexpr int bits = 8 * sizeof(typename E::Weight);
  __m512i packed = _mm512_or_si512(integers[0], _mm512_slli_epi32(integers[1], bits));
  if constexpr (kStepTokens<E> == 4) {
    const __m512i third = _mm512_slli_epi32(integers[2], 2 * bits), last = _mm512_slli_epi32(integers[3], 3 * bits);
    packed = _mm512_ternarylogic_epi32(packed, third, last, 0xfe);
  }
  return packed;
}

// Integer weights of groups g and g + 1, or of g alone if there are no more. Weights are [t][q]; `count` is in whole steps. False
// if a scale or minimum is not finite.
template <class E, int Q>
ALWAYS_INLINE bool weighGroups(const uint8_t* const* rows, int count, int g, bool isLast, const float* weights,
                               IntegerWeights<E, Q> (&result)[2]) {
  constexpr int T = W / Q, S = kStepTokens<E>;
  vf heads[kBlockTokensMax / 4];
  vf top[2][2], base[2][2], finite = splat(0);
  UNROLL for (int i = 0; i < 4; i++) top[i / 2][i % 2] = base[i / 2][i % 2] = splat(0);
  for (int t = 0; t < count; t += 2 * T) {
    // Two chains of sums: none waits for the other.
    UNROLL for (int n = 0; n < 2; n++) {
      vf* const some = heads + (t + n * T) / 4;
      UNROLL for (int i = 0; i < T / 4; i++) {
        some[i] = loadHeads(rows + t + n * T + 4 * i, g);
        if (isLast) some[i] = (vf)_mm512_permute_ps((__m512)some[i], 0x44);
        finite += some[i] * 0.0f;
      }
      const vf weight = loadFloats(weights + (t + n * T) * Q);
      UNROLL for (int i = 0; i < 2; i++) {
        top[i][n] = maximum(weight * forTokens<Q>(some, 2 * i, Lanes{}), top[i][n]);
        base[i][n] += weight * forTokens<Q>(some, 2 * i + 1, Lanes{});
      }
    }
  }
  if (anyLane(finite != finite)) return false;
  UNROLL for (int i = 0; i < 2; i++) {
    const vf largest = combineRows<Q>(maximum(top[i][0], top[i][1]), [](vf a, vf b) { return maximum(a, b); });
    const vf step = largest * (1.0f / E::kWeightLargest);
    // What is that small is nothing.
    const vf factor = (vf)((vi)(E::kWeightLargest / largest) & (vi)(largest > 1e-30f));
    vf residue[2] = {splat(0), splat(0)};
    for (int t = 0; t < count; t += S * T) {
      __m512i integers[S];
      UNROLL for (int n = 0; n < S; n++) {
        const vf product = loadFloats(weights + (t + n * T) * Q) * forTokens<Q>(heads + (t + n * T) / 4, 2 * i, Lanes{});
        integers[n] = _mm512_cvtps_epi32((__m512)(product * factor));
        if constexpr (S == 4) residue[n % 2] += product - (vf)_mm512_cvtepi32_ps(integers[n]) * step;
      }
      _mm512_store_si512(result[i].integers + t * Q, packSteps<E>(integers));
    }
    result[i].step = step;
    const vf lacking = (residue[0] + residue[1]) * (0.5f * E::kLargest);
    result[i].base = combineRows<Q>(base[i][0] + base[i][1] + lacking, [](vf a, vf b) { return a + b; });
  }
  return true;
}

// Adds 64 columns, group g, to the tile's weighted sums.
template <class E, int Q, class Step>
ALWAYS_INLINE void addGroup(const uint8_t* const* rows, int count, int g, int groups, const IntegerWeights<E, Q>& weights,
                            const vf* factors, float* weighted, int stride, Step&& step) {
  // One row alone would have to wait for each of its sums.
  constexpr int kWays = Q == 1 ? 2 : 1;
  constexpr int T = W / Q, S = kStepTokens<E>;
  const int offset = 4 * groups;
  const __m512i zero = _mm512_setzero_si512();
  __m512i sums[kWays][Q][4];
  UNROLL for (int way = 0; way < kWays; way++) {
    UNROLL for (int q = 0; q < Q; q++) {
      UNROLL for (int i = 0; i < 4; i++) sums[way][q][i] = zero;
    }
  }
  const typename E::Weight* integers = weights.integers;
  for (int first = 0; first < count; first += S * T) {
    NO_UNROLL for (int t = first; t < first + T; t += kWays) {
      UNROLL for (int way = 0; way < kWays; way++, integers += S * Q) {
        __m512i row[S];
        UNROLL for (int i = 0; i < S; i++) row[i] = E::load(rows[t + way + i * T] + offset, g, groups);
        UNROLL for (int i = 0; i < S; i += 2) step();
        // Dword j of run L of columns[i] is the tokens' column 16 L + 4 i + j, bytes or words.
        __m512i columns[4];
        const __m512i low = _mm512_unpacklo_epi8(row[0], row[1]), high = _mm512_unpackhi_epi8(row[0], row[1]);
        if constexpr (S == 4) {
          const __m512i low2 = _mm512_unpacklo_epi8(row[2], row[3]), high2 = _mm512_unpackhi_epi8(row[2], row[3]);
          columns[0] = _mm512_unpacklo_epi16(low, low2), columns[1] = _mm512_unpackhi_epi16(low, low2);
          columns[2] = _mm512_unpacklo_epi16(high, high2), columns[3] = _mm512_unpackhi_epi16(high, high2);
        } else {
          columns[0] = _mm512_unpacklo_epi8(low, zero), columns[1] = _mm512_unpackhi_epi8(low, zero);
          columns[2] = _mm512_unpacklo_epi8(high, zero), columns[3] = _mm512_unpackhi_epi8(high, zero);
        }
        UNROLL for (int q = 0; q < Q; q++) {
          const __m512i weight = _mm512_set1_epi32(word(integers + S * q));
          UNROLL for (int i = 0; i < 4; i++) {
            // Weights are the ones without a sign.
            if constexpr (S == 4) addByteProducts(sums[way][q][i], weight, columns[i]);
            else addWordProducts(sums[way][q][i], columns[i], weight);
          }
        }
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
  constexpr int kWhole = kStepTokens<E> * W / Q > W ? kStepTokens<E> * W / Q : W;
  const uint8_t* rows[kBlockTokensMax];
  alignas(64) float some[kBlockTokensMax * Q];
  if (count % kWhole != 0) {
    const int whole = (count + kWhole - 1) / kWhole * kWhole;
    for (int t = 0; t < whole; t++) rows[t] = v[t < count ? t : count - 1];
    memcpy(some, weights, count * Q * sizeof(float));
    memset(some + count * Q, 0, (whole - count) * Q * sizeof(float));
    v = rows, weights = some, count = whole;
  }
  const int groups = dim / kGroup;
  IntegerWeights<E, Q> integers[kGroupsMax / 2][2];
  for (int g = 0; g < groups; g += 2) {
    if (!weighGroups<E, Q>(v, count, g, g + 1 == groups, weights, integers[g / 2])) return false;
  }
  const auto step = [&]() __attribute__((always_inline)) { next.advance(); };
  for (int g = 0; g < groups; g++) {
    addGroup<E, Q>(v, count, g, groups, integers[g / 2][g % 2], factors, weighted, stride, step);
  }
  return true;
}

template <class E>
constexpr IntegerValues integerValuesOf = {{integerValues<E, 4>, integerValues<E, 2>, integerValues<E, 1>}};

inline const IntegerValues* integerValues(uint32_t type, int dim) {
  if (!hasIntegerLayout(type, dim)) return nullptr;
  return type == kInt8 ? &integerValuesOf<Int8> : &integerValuesOf<Int4>;
}

#else

inline const IntegerValues* integerValues(uint32_t, int) { return nullptr; }

#endif

}  // namespace
}  // namespace attndrive
