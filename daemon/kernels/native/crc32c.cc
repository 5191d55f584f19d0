// CRC32C: carry-less multiplication of 512-bit words (VPCLMULQDQ), three interleaved streams of the SSE4.2 instruction, or
// slicing by 8, whichever is the first that the machine has.
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "kernel-set.h"

namespace attndrive {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;
constexpr size_t kLong = 4096;
constexpr size_t kShort = 256;

// Linear maps of a remainder, one table per byte of it.
struct Shift {
  uint32_t table[4][256];
  uint32_t operator()(uint32_t r) const {
    return table[0][r & 0xff] ^ table[1][r >> 8 & 0xff] ^ table[2][r >> 16 & 0xff] ^ table[3][r >> 24];
  }
};

struct Tables {
  uint32_t slice[8][256];
  Shift overLong, overShort;  // the effect of kLong and kShort zero bytes

  Tables() {
    for (uint32_t byte = 0; byte < 256; byte++) {
      uint32_t r = byte;
      for (int bit = 0; bit < 8; bit++) r = r & 1 ? r >> 1 ^ kPolynomial : r >> 1;
      slice[0][byte] = r;
    }
    for (int k = 1; k < 8; k++) {
      for (int byte = 0; byte < 256; byte++) {
        slice[k][byte] = slice[k - 1][byte] >> 8 ^ slice[0][slice[k - 1][byte] & 0xff];
      }
    }
    makeShift(overLong, kLong);
    makeShift(overShort, kShort);
  }

  void makeShift(Shift& shift, size_t zeros) const {
    uint32_t ofBit[32];
    for (int bit = 0; bit < 32; bit++) {
      uint32_t r = 1u << bit;
      for (size_t i = 0; i < zeros; i++) r = r >> 8 ^ slice[0][r & 0xff];
      ofBit[bit] = r;
    }
    for (int k = 0; k < 4; k++) {
      for (int byte = 0; byte < 256; byte++) {
        uint32_t r = 0;
        for (int bit = 0; bit < 8; bit++) r ^= byte >> bit & 1 ? ofBit[k * 8 + bit] : 0;
        shift.table[k][byte] = r;
      }
    }
  }
};

const Tables tables;

uint32_t bySlices(uint32_t r, const uint8_t* p, size_t n) {
  const auto& t = tables.slice;
  for (; n >= 8; n -= 8, p += 8) {
    const uint32_t low = r ^ (p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24);
    r = t[7][low & 0xff] ^ t[6][low >> 8 & 0xff] ^ t[5][low >> 16 & 0xff] ^ t[4][low >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^
        t[1][p[6]] ^ t[0][p[7]];
  }
  for (; n > 0; n--) r = r >> 8 ^ t[0][(r ^ *p++) & 0xff];
  return r;
}

#if defined(__x86_64__)
inline uint64_t word(const uint8_t* p) {
  uint64_t w;
  memcpy(&w, p, 8);
  return w;
}

// The instruction takes 3 cycles but one can start in each: three streams, joined by shifting over what follows.
template <size_t Bytes>
__attribute__((target("sse4.2"))) inline uint32_t threeStreams(uint32_t r, const uint8_t* p, const Shift& shift) {
  uint64_t a = r, b = 0, c = 0;
  for (size_t i = 0; i < Bytes; i += 8) {
    a = __builtin_ia32_crc32di(a, word(p + i));
    b = __builtin_ia32_crc32di(b, word(p + Bytes + i));
    c = __builtin_ia32_crc32di(c, word(p + 2 * Bytes + i));
  }
  return shift(shift(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^ static_cast<uint32_t>(c);
}

__attribute__((target("sse4.2"))) uint32_t byInstruction(uint32_t r, const uint8_t* p, size_t n) {
  for (; n >= 3 * kLong; n -= 3 * kLong, p += 3 * kLong) r = threeStreams<kLong>(r, p, tables.overLong);
  for (; n >= 3 * kShort; n -= 3 * kShort, p += 3 * kShort) r = threeStreams<kShort>(r, p, tables.overShort);
  for (; n >= 8; n -= 8, p += 8) r = static_cast<uint32_t>(__builtin_ia32_crc32di(r, word(p)));
  for (; n > 0; n--) r = __builtin_ia32_crc32qi(r, *p++);
  return r;
}

const bool hasInstruction = __builtin_cpu_supports("sse4.2");

// Folding. Bits are reflected: bit 0 of a word is its highest power of x. The carry-less product of two reflected 64-bit
// words is their product times x (1 bit to the right), so multiplying by x^n takes the constant x^(n - 1) mod P.
uint64_t powerOfX(size_t exponent) {
  uint32_t r = 0x80000000;
  for (size_t i = 1; i < exponent; i++) r = r & 1 ? r >> 1 ^ kPolynomial : r >> 1;
  return static_cast<uint64_t>(r) << 32;
}

// Moves a 128-bit word over the given number of bytes: its low half has 64 further bits to go.
struct Fold {
  uint64_t low, high;
  explicit Fold(size_t bytes) : low(powerOfX(bytes * 8 + 64)), high(powerOfX(bytes * 8)) {}
};

constexpr size_t kFoldStep = 256;
const Fold over256(256), over192(192), over128(128), over64(64), over48(48), over32(32), over16(16);

#define WIDE __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))

WIDE inline __m512i broadcast(const Fold& by) {
  return _mm512_broadcast_i32x4(_mm_set_epi64x(static_cast<int64_t>(by.high), static_cast<int64_t>(by.low)));
}

// a, moved, plus b.
WIDE inline __m512i fold(__m512i a, __m512i by, __m512i b) {
  const __m512i low = _mm512_clmulepi64_epi128(a, by, 0x00), high = _mm512_clmulepi64_epi128(a, by, 0x11);
  return _mm512_ternarylogic_epi64(low, high, b, 0x96);
}

WIDE inline __m128i foldLane(__m128i a, const Fold& by, __m128i b) {
  const __m128i k = _mm_set_epi64x(static_cast<int64_t>(by.high), static_cast<int64_t>(by.low));
  return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(a, k, 0x00), _mm_clmulepi64_si128(a, k, 0x11)), b);
}

// n is at least kFoldStep.
WIDE uint32_t byFolding(uint32_t r, const uint8_t* p, size_t n) {
  __m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(r))));
  __m512i b = _mm512_loadu_si512(p + 64), c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);
  const __m512i step = broadcast(over256);
  for (p += kFoldStep, n -= kFoldStep; n >= kFoldStep; p += kFoldStep, n -= kFoldStep) {
    a = fold(a, step, _mm512_loadu_si512(p));
    b = fold(b, step, _mm512_loadu_si512(p + 64));
    c = fold(c, step, _mm512_loadu_si512(p + 128));
    d = fold(d, step, _mm512_loadu_si512(p + 192));
  }
  d = fold(a, broadcast(over192), fold(b, broadcast(over128), fold(c, broadcast(over64), d)));
  __m128i lane = _mm512_extracti32x4_epi32(d, 3);
  lane = foldLane(_mm512_extracti32x4_epi32(d, 0), over48, lane);
  lane = foldLane(_mm512_extracti32x4_epi32(d, 1), over32, lane);
  lane = foldLane(_mm512_extracti32x4_epi32(d, 2), over16, lane);
  // What remains is a message of 16 bytes with the same remainder.
  const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(lane));
  const auto high = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(lane, lane)));
  r = static_cast<uint32_t>(__builtin_ia32_crc32di(__builtin_ia32_crc32di(0, low), high));
  return byInstruction(r, p, n);
}

const bool hasFolding = hasInstruction && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("pclmul") &&
                        __builtin_cpu_supports("vpclmulqdq");
#endif

}  // namespace

uint32_t crc32c(uint32_t crc, const uint8_t* bytes, size_t sizeBytes) {
#if defined(__x86_64__)
  if (hasInstruction) return ~byInstruction(~crc, bytes, sizeBytes);
#endif
  return ~bySlices(~crc, bytes, sizeBytes);
}

uint32_t crc32cWide(uint32_t crc, const uint8_t* bytes, size_t sizeBytes) {
#if defined(__x86_64__)
  if (hasFolding && sizeBytes >= kFoldStep) return ~byFolding(~crc, bytes, sizeBytes);
#endif
  return crc32c(crc, bytes, sizeBytes);
}

}  // namespace attndrive
