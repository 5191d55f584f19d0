// Quantised rows to float and back, as spec/quantised-row.ts says. Every step is one binary32 operation, so that all kernel
// sets get the same bytes.
#pragma once
#include "block-stream.h"

namespace attndrive {
namespace {

typedef uint8_t vb __attribute__((vector_size(W)));

struct QuantisedGroup {
  uint16_t scale, minimum;
};
static_assert(sizeof(QuantisedGroup) == 4, "group layout");

constexpr int kLargestInt8 = 255;
constexpr int kLargestInt4 = 15;

inline float floatFromHalf(uint16_t half) {
#if defined(__F16C__)
  return _cvtsh_ss(half);
#else
  return loadSome<F16>(reinterpret_cast<const uint8_t*>(&half), 1)[0];
#endif
}

// Bits of the largest binary16 that is not above x >= 0.
inline uint16_t halfBelow(float x) {
  if (x >= 65504.0f) return x == __builtin_inff() ? 0x7c00 : 0x7bff;
  if (x < 0x1p-14f) return static_cast<uint16_t>(x * 0x1p24f);
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits >> 13) - (112 << 10));
}

// Bits of the smallest binary16 that is not below x >= 0.
inline uint16_t halfAbove(float x) {
  const uint16_t below = halfBelow(x);
  return floatFromHalf(below) < x ? below + 1 : below;
}

// Of `count` elements, whole vectors.
inline QuantisedGroup groupOf(const float* elements, int count, int largest) {
  constexpr QuantisedGroup kNan = {0x7e00, 0x7e00};
  vf low = loadFloats(elements), high = low, finite = splat(0);
  for (int i = 0; i < count; i += W) {
    const vf x = loadFloats(elements + i);
    low = select(x < low, x, low);
    high = select(x > high, x, high);
    finite = x * 0.0f + finite;
  }
  if (anyLane(finite != finite)) return kNan;
  float bottom = low[0], top = high[0];
  for (int i = 1; i < W; i++) {
    if (low[i] < bottom) bottom = low[i];
    if (high[i] > top) top = high[i];
  }
  // A negative zero becomes positive.
  const uint16_t minimum = bottom < 0 ? 0x8000 | halfAbove(-bottom) : halfBelow(bottom + 0.0f);
  const float range = top - floatFromHalf(minimum);
  const uint16_t scale = halfAbove(range / static_cast<float>(largest));
  return (minimum & 0x7fff) >= 0x7c00 || scale >= 0x7c00 ? kNan : QuantisedGroup{scale, minimum};
}

// `row` has room for another W elements.
inline void quantiseRow(uint32_t type, float* row, uint8_t* target, int elements) {
  const int largest = type == kInt8 ? kLargestInt8 : kLargestInt4;
  uint8_t integers[kHeadDimMax + W] = {};
  for (int i = 0; i < W; i++) row[elements + i] = row[elements - 1];
  for (int first = 0; first < elements; first += kQuantisationGroup) {
    const int left = elements - first;
    const int count = left < static_cast<int>(kQuantisationGroup) ? left : kQuantisationGroup;
    const QuantisedGroup group = groupOf(row + first, (count + W - 1) / W * W, largest);
    memcpy(target + first / kQuantisationGroup * sizeof group, &group, sizeof group);
    const float scale = floatFromHalf(group.scale);
    if (!(scale > 0)) continue;
    const vf minimum = splat(floatFromHalf(group.minimum));
    for (int i = 0; i < count; i += W) {
      // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits, to even.
      const vf shifted = (loadFloats(row + first + i) - minimum) / splat(scale) + 12582912.0f;
      vi q = (vi)shifted - 0x4b400000;
      q = q > largest ? largest - (vi){} : q;
      const vb bytes = __builtin_convertvector(q, vb);
      memcpy(integers + first + i, &bytes, sizeof bytes);
    }
  }
  const uint32_t offset = integersOffset(elements);
  const uint64_t sizeBytes = rowBytes(type, elements);
  if (type == kInt8) {
    memset(target + sizeBytes - 4, 0, 4);
    memcpy(target + offset, integers, elements);
    return;
  }
  const int half = (elements + 1) / 2;
  integers[elements] = 0;
  memset(target + sizeBytes - 4, 0, 4);
  for (int i = 0; i < half; i++) target[offset + i] = integers[i] | integers[half + i] << 4;
}

// Bytes to floats, 0 to 255 each. Writes whole vectors, reads `count` bytes.
ALWAYS_INLINE void widenBytes(const uint8_t* source, int count, int shift, int mask, float* target) {
  for (int i = 0; i < count; i += W) {
    vb bytes = {};
    if (count - i >= W) memcpy(&bytes, source + i, sizeof bytes);
    else memcpy(&bytes, source + i, count - i);
#if defined(__AVX512F__)
    const vi wide = (vi)_mm512_cvtepu8_epi32((__m128i)bytes);
#elif defined(__AVX2__)
    const vi wide = (vi)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)bytes));
#else
    const vi wide = __builtin_convertvector(bytes, vi);
#endif
    storeFloats(target + i, __builtin_convertvector(wide >> shift & mask, vf));
  }
}

// Writes whole vectors: `row` has room for another W elements.
inline void dequantiseRow(uint32_t type, const uint8_t* source, float* row, int elements) {
  const uint8_t* integers = source + integersOffset(elements);
  if (type == kInt8) {
    widenBytes(integers, elements, 0, 255, row);
  } else {
    const int half = (elements + 1) / 2;
    widenBytes(integers, half, 0, 15, row);
    widenBytes(integers, elements - half, 4, 15, row + half);
  }
  for (int first = 0; first < elements; first += kQuantisationGroup) {
    QuantisedGroup group;
    memcpy(&group, source + first / kQuantisationGroup * sizeof group, sizeof group);
    const vf scale = splat(floatFromHalf(group.scale)), minimum = splat(floatFromHalf(group.minimum));
    const int end = elements - first < static_cast<int>(kQuantisationGroup) ? elements : first + kQuantisationGroup;
    // The product is exact.
    for (int d = first; d < end; d += W) storeFloats(row + d, minimum + scale * loadFloats(row + d));
  }
}

}  // namespace
}  // namespace attndrive
