// The K phase over int4 by integer dot products, for head dimensions of whole pairs of groups: a byte has an element of each.
//
// Four keys at a time are transposed in runs of four lanes only, which costs half as much as a whole transposition, and four rows
// of queries share it. A query's bytes are the same in all lanes of a run; runs are summed up once for a group.
#pragma once
#include "integer-rows.h"

namespace attndrive {
namespace {

#if defined(__AVX512VNNI__)

// As an instruction: compilers load again for each of two that use it.
ALWAYS_INLINE __m512i loadRow(const uint8_t* p) {
  __m512i bytes;
  asm("vmovdqu8 %1, %0" : "=v"(bytes) : "m"(*(const __m512i_u*)p));
  return bytes;
}

// Four keys' 64 bytes, transposed in each run of four lanes: lane 4 L + t of z[i] becomes lane 4 L + i of z[t].
ALWAYS_INLINE void transposeInRuns(__m512i* z) {
  const __m512i x0 = _mm512_unpacklo_epi32(z[0], z[1]), x1 = _mm512_unpackhi_epi32(z[0], z[1]);
  const __m512i x2 = _mm512_unpacklo_epi32(z[2], z[3]), x3 = _mm512_unpackhi_epi32(z[2], z[3]);
  z[0] = _mm512_unpacklo_epi64(x0, x2), z[1] = _mm512_unpackhi_epi64(x0, x2);
  z[2] = _mm512_unpacklo_epi64(x1, x3), z[3] = _mm512_unpackhi_epi64(x1, x3);
}

// Run i of the result is the sum of a[i]'s runs.
ALWAYS_INLINE __m512i sumRuns(const __m512i (&a)[4]) {
  const __m512i x0 = _mm512_add_epi32(_mm512_shuffle_i32x4(a[0], a[1], 0x88), _mm512_shuffle_i32x4(a[0], a[1], 0xdd));
  const __m512i x1 = _mm512_add_epi32(_mm512_shuffle_i32x4(a[2], a[3], 0x88), _mm512_shuffle_i32x4(a[2], a[3], 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(x0, x1, 0x88), _mm512_shuffle_i32x4(x0, x1, 0xdd));
}

// Lane q * W / Q + i is values[q * stride].
template <int Q, int... I>
ALWAYS_INLINE vf ofEachRow(const float* values, int stride, std::integer_sequence<int, I...>) {
  return vf{values[I * Q / W * stride]...};
}

// What a tile's rows have of a group, in all lanes of a row.
template <int Q>
struct QueryLanes {
  vf scale, sum, residue;
  void load(const IntegerQuery* queries, int g) {
    constexpr int stride = sizeof(IntegerQuery) / sizeof(float);
    scale = ofEachRow<Q>(queries->scale + g, stride, Lanes{});
    sum = ofEachRow<Q>(queries->sum + g, stride, Lanes{});
    residue = ofEachRow<Q>(queries->residue + g, stride, Lanes{});
  }
};

// Adds a group's part to the logits of W / Q tokens, whose heads, of this group first, these are.
template <int Q>
ALWAYS_INLINE void addPart(vf& sums, __m512i dots, const QueryLanes<Q>& query, const vf* heads, int which) {
  const vf product = (vf)_mm512_cvtepi32_ps(dots) * query.scale + query.residue;
  sums += product * forRows<Q>(heads, 2 * which, Lanes{});
  sums += forRows<Q>(heads, 2 * which + 1, Lanes{}) * query.sum;
}

// Tokens at a time: they share what is loaded of the queries.
template <int Q>
constexpr int kTokensAtOnce = Q == 4 ? 8 : W / Q;

// Adds the products of Q rows with N tokens' 64 bytes of a group, z as transposeInRuns leaves it. In sums, vectors are
// [token / 4][q].
template <int Q, int N, class Step>
ALWAYS_INLINE void addProducts(__m512i (&sums)[N / 4][Q], const __m512i (&z)[N], const IntegerQuery* queries, int g,
                               Step&& step) {
  UNROLL for (int i = 0; i < 4; i++) {
    step(i);
    UNROLL for (int q = 0; q < Q; q++) {
      const __m512i query = _mm512_load_si512(queries[q].spread[g][i]);
      UNROLL for (int four = 0; four < N / 4; four++) addByteProducts(sums[four][q], z[4 * four + i], query);
    }
  }
}

// Vector m of sums, in the lanes of dot-products.h.
template <int Q, int N>
ALWAYS_INLINE __m512i rowMajor(const __m512i (&sums)[N / 4][Q], int m) {
  constexpr int fours = 4 / Q;
  __m512i runs[4];
  UNROLL for (int q = 0; q < Q; q++) {
    UNROLL for (int i = 0; i < fours; i++) runs[q * fours + i] = sums[m * fours + i][q];
  }
  return sumRuns(runs);
}

template <int Q, int N>
ALWAYS_INLINE void clear(__m512i (&sums)[N / 4][Q]) {
  UNROLL for (int i = 0; i < N / 4; i++) {
    UNROLL for (int q = 0; q < Q; q++) sums[i][q] = _mm512_setzero_si512();
  }
}

// Walks a block's keys, N tokens at a time. `addUnit` adds pair u of `units` pairs of groups, of the N tokens from `rows` on.
template <int Q, class AddUnit>
ALWAYS_INLINE void walkKeys(const Block& block, int units, RowPrefetch next, float* dots, AddUnit&& addUnit) {
  constexpr int N = kTokensAtOnce<Q>, M = N * Q / W;
  for (int t = 0; t < block.count; t += N) {
    vf sums[M];
    UNROLL for (int m = 0; m < M; m++) sums[m] = splat(0);
    NO_UNROLL for (int u = 0; u < units; u++) {
      // Half as many rows are read ahead as there are rows here, of K and V each, the other half in the V phase.
      const bool reads = u < 2, readsMore = units == 1;
      const auto step = [&](int i) __attribute__((always_inline)) {
        if (i * N % 16 != 0) return;
        if (reads) next.advance(), next.advance();
        if (readsMore) next.advance(), next.advance();
      };
      addUnit(sums, block.k + t, u, step);
    }
    UNROLL for (int m = 0; m < M; m++) storeFloats(dots + t * Q + m * W, sums[m]);
  }
}

constexpr auto kNoStep = [](int) {};

// Dot products of Q rows with a block's keys, in the lanes of dot-products.h. A row's first half is in the low bits of its bytes,
// its second half in the high ones: sums of these are 16 times as much as they should be.
template <int Q>
void packedDots(const IntegerQuery* queries, const Block& block, int dim, RowPrefetch next, float* dots) {
  constexpr int N = kTokensAtOnce<Q>, M = N * Q / W;
  const __m512i lowBits = _mm512_set1_epi8(15), highBits = _mm512_set1_epi8(-16);
  const int groups = dim / kGroup, half = groups / 2;
  QueryLanes<Q> query[kGroupsMax];
  for (int g = 0; g < groups; g++) query[g].load(queries, g);
  const auto addUnit = [&](vf (&sums)[M], const uint8_t* const* rows, int g, auto step) __attribute__((always_inline)) {
    __m512i both[N], z[N], low[N / 4][Q], high[N / 4][Q];
    UNROLL for (int i = 0; i < N; i++) both[i] = loadRow(rows[i] + 4 * groups + g * kGroup);
    UNROLL for (int i = 0; i < N; i += 4) transposeInRuns(both + i);
    clear<Q, N>(low);
    UNROLL for (int i = 0; i < N; i++) z[i] = _mm512_and_si512(both[i], lowBits);
    addProducts<Q, N>(low, z, queries, g, step);
    clear<Q, N>(high);
    UNROLL for (int i = 0; i < N; i++) z[i] = _mm512_and_si512(both[i], highBits);
    addProducts<Q, N>(high, z, queries, g + half, kNoStep);
    vf heads[N / 4], headsHigh[N / 4];
    UNROLL for (int i = 0; i < N / 4; i++) {
      heads[i] = loadHeads(rows + 4 * i, g);
      headsHigh[i] = half == 1 ? heads[i] : loadHeads(rows + 4 * i, g + half);
    }
    UNROLL for (int m = 0; m < M; m++) {
      addPart<Q>(sums[m], rowMajor<Q, N>(low, m), query[g], heads + m * 4 / Q, 0);
      addPart<Q>(sums[m], _mm512_srai_epi32(rowMajor<Q, N>(high, m), 4), query[g + half], headsHigh + m * 4 / Q, half == 1);
    }
  };
  walkKeys<Q>(block, half, next, dots, addUnit);
}

#endif

}  // namespace
}  // namespace attndrive
