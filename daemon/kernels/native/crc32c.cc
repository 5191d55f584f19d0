// CRC32C: three interleaved streams of the SSE4.2 instruction where there is one, slicing by 8 otherwise.
#include <cstring>
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
#endif

}  // namespace

uint32_t crc32c(uint32_t crc, const uint8_t* bytes, size_t sizeBytes) {
#if defined(__x86_64__)
  if (hasInstruction) return ~byInstruction(~crc, bytes, sizeBytes);
#endif
  return ~bySlices(~crc, bytes, sizeBytes);
}

}  // namespace attndrive
