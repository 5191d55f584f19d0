// Reading ahead of quantised rows.
#pragma once
#include "block-stream.h"

namespace attndrive {
namespace {

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

}  // namespace
}  // namespace attndrive
