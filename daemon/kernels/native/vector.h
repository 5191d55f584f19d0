// Vectors of W floats by the compiler's vector extensions: one source for every instruction set.
// Included once in each instruction set's translation unit, inside an anonymous namespace, so that no function compiled
// for one instruction set can be linked into another.
#include <cstring>
#include <utility>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif
#include "kernel-set.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NO_INLINE __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 32")
#define NO_UNROLL _Pragma("GCC unroll 1")

namespace attndrive {
namespace {

#if defined(__AVX512F__)
constexpr int W = 16;
constexpr int kAccumulators = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
constexpr int kAccumulators = 8;
#else
constexpr int W = 4;
constexpr int kAccumulators = 8;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));

ALWAYS_INLINE vf splat(float x) { return x - (vf){}; }
ALWAYS_INLINE vf loadFloats(const void* p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
ALWAYS_INLINE void storeFloats(void* p, vf v) { memcpy(p, &v, sizeof v); }
ALWAYS_INLINE vh loadHalves(const void* p) {
  vh v;
  memcpy(&v, p, sizeof v);
  return v;
}
ALWAYS_INLINE vf select(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
// b where either is NaN.
ALWAYS_INLINE vf maximum(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return select(a > b, a, b);
#endif
}
ALWAYS_INLINE vf absolute(vf a) { return (vf)((vi)a & 0x7fffffff); }

// Element types: `load` converts W elements exactly.
struct F32 {
  static constexpr int kBytes = 4;
  static ALWAYS_INLINE vf load(const uint8_t* p) { return loadFloats(p); }
};

struct Bf16 {
  static constexpr int kBytes = 2;
  static ALWAYS_INLINE vf load(const uint8_t* p) { return (vf)(__builtin_convertvector(loadHalves(p), vu) << 16); }
};

struct F16 {
  static constexpr int kBytes = 2;
  static ALWAYS_INLINE vf load(const uint8_t* p) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
    // The bits 13 places up are the value times 2^-112, subnormals included; exponent 31 becomes exponent 255.
    const vu bits = __builtin_convertvector(loadHalves(p), vu);
    const vu magnitude = (bits & 0x7fff) << 13;
    const vu special = (vu)(magnitude >= 0x0f800000u) & 0x7f800000u;
    const vf scaled = (vf)magnitude * 0x1p112f;
    return (vf)((vu)scaled | special | ((bits & 0x8000) << 16));
#endif
  }
};

// Loads the first `count` < W elements, the rest zero, reading nothing beyond them.
template <class E>
ALWAYS_INLINE vf loadSome(const uint8_t* p, int count) {
  uint8_t buffer[W * 4] = {};
  for (int i = 0; i < count * E::kBytes; i++) buffer[i] = p[i];
  return E::load(buffer);
}

ALWAYS_INLINE void storeSome(float* p, vf v, int count) {
  for (int i = 0; i < count; i++) p[i] = v[i];
}

// e^x for x <= 0: Cephes' polynomial, relative error below 2.4e-7; 0 below -87.33 (results are never subnormal);
// NaN stays NaN.
ALWAYS_INLINE vf exponential(vf x) {
#if defined(__AVX512F__)
  const vf n = (vf)_mm512_roundscale_ps((__m512)(x * 1.44269504088896341f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vf r = x - n * 0.693359375f;
#else
  const vi tiny = x < -87.33f;
  const vf clamped = select(tiny, splat(-87.0f), x);
  // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
  const vf shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const vf n = shifted - 12582912.0f;
  vf r = clamped - n * 0.693359375f;
#endif
  r = r - n * -2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
#if defined(__AVX512F__)
  // Not below -87.33: true for NaN too.
  const __mmask16 ordinary = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-87.33f), _CMP_NLT_UQ);
  return (vf)_mm512_maskz_scalef_ps(ordinary, (__m512)p, (__m512)n);
#else
  const vi power = ((vi)shifted << 23) + (127 << 23);
  return (vf)((vi)(p * (vf)power) & ~tiny);
#endif
}

// tanh by the exponential; absolute error below 2e-7.
ALWAYS_INLINE vf hyperbolicTangent(vf x) {
  const vf e = exponential(absolute(x) * -2.0f);
  const vf t = (1.0f - e) / (1.0f + e);
  return (vf)((vi)t | ((vi)x & (vi)splat(-0.0f)));
}

// Shuffles of two vectors a and b within each run of four lanes: the low or high pairs interleaved (unpacklo, unpackhi).
template <int Step, bool High>
constexpr int interleavedIndex(int lane) {
  const int within = lane % 4, run = lane - within;
  const int from = Step == 1 ? within / 2 + (High ? 2 : 0) : within % 2 + (High ? 2 : 0);
  const bool second = Step == 1 ? within % 2 != 0 : within >= 2;
  return (second ? W : 0) + run + from;
}

template <int Step, bool High, int... I>
ALWAYS_INLINE vf interleaved(vf a, vf b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, interleavedIndex<Step, High>(I)...);
}

// Every second run of four lanes of a, then of b.
template <bool Odd, int... I>
ALWAYS_INLINE vf everySecondRun(vf a, vf b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, ((I / 4 * 2 + (Odd ? 1 : 0)) * 4 + I % 4)...);
}

using Lanes = std::make_integer_sequence<int, W>;

template <int Step>
ALWAYS_INLINE vf foldPair(vf a, vf b) {
  return interleaved<Step, false>(a, b, Lanes{}) + interleaved<Step, true>(a, b, Lanes{});
}

// Lane i of the result is the sum of v[i]'s lanes.
ALWAYS_INLINE vf sumEach(const vf (&v)[W]) {
  vf fours[W / 4];
  UNROLL for (int i = 0; i < W / 4; i++) {
    fours[i] = foldPair<2>(foldPair<1>(v[4 * i], v[4 * i + 1]), foldPair<1>(v[4 * i + 2], v[4 * i + 3]));
  }
  UNROLL for (int n = W / 8; n > 0; n /= 2) {
    UNROLL for (int i = 0; i < n; i++) {
      fours[i] = everySecondRun<false>(fours[2 * i], fours[2 * i + 1], Lanes{}) +
                 everySecondRun<true>(fours[2 * i], fours[2 * i + 1], Lanes{});
    }
  }
  return fours[0];
}

template <int Distance, int... I>
ALWAYS_INLINE vf exchanged(vf a, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, a, (I ^ Distance)...);
}

// Every lane becomes the largest of its run of N lanes.
template <int N>
ALWAYS_INLINE vf maximumOfRuns(vf a) {
  if constexpr (N > 1) {
    a = maximumOfRuns<N / 2>(a);
    return maximum(a, exchanged<N / 2>(a, Lanes{}));
  }
  return a;
}

ALWAYS_INLINE float sumLanes(vf v) {
  float sum = 0;
  UNROLL for (int i = 0; i < W; i++) sum += v[i];
  return sum;
}

ALWAYS_INLINE float maximumLane(vf v) {
  float m = v[0];
  UNROLL for (int i = 1; i < W; i++) m = v[i] > m ? v[i] : m;
  return m;
}

ALWAYS_INLINE bool anyLane(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#endif
  int32_t any = 0;
  UNROLL for (int i = 0; i < W; i++) any |= mask[i];
  return any != 0;
}

}  // namespace
}  // namespace attndrive
