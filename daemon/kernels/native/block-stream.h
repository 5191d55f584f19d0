// Blocks of rows: where the K and V rows of the next tokens lie, gathered across frames.
#pragma once
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#include "vector.h"

namespace attndrive {
namespace {

constexpr int kBlockTokensMax = 64;
// Pointers are written eight at a time, and K is read in whole groups of up to W rows.
constexpr int kBlockSlack = 16;
static_assert(kBlockSlack >= W && kBlockSlack >= 8, "room behind a block's rows");

// Row pointers, so that short frames (a tail, small pages) cost no more than long ones.
struct Block {
  int count = 0;
  bool isContiguous = false;  // positions are first, first + 1, ...
  bool isReadOnce = false;
  uint32_t position[kBlockTokensMax + kBlockSlack];
  // To a multiple of W the last row is repeated.
  const uint8_t* k[kBlockTokensMax + kBlockSlack];
  const uint8_t* v[kBlockTokensMax + kBlockSlack];
};

// Walks the frames and fills blocks with the tokens that at least one row may see.
class BlockStream {
 public:
  BlockStream(const Memory& memory, const AttendJob& job, uint32_t minStart, uint32_t maxEnd, int blockTokens)
      : memory_(memory),
        job_(job),
        minStart_(minStart),
        maxEnd_(maxEnd),
        blockTokens_(blockTokens),
        kBytes_(rowBytes(job.elementTypeK, job.headDimK)),
        vBytes_(rowBytes(job.elementTypeV, job.headDimV)) {}

  // Fills `block`; its count is 0 at the end. False if a frame lies outside its arena.
  bool next(Block& block) {
    int n = 0;
    while (n < blockTokens_) {
      if (token_ >= frame_.tokenCount) {
        if (index_ >= job_.frameCount) break;
        if (!enterFrame()) return false;
        continue;
      }
      const uint32_t position = frame_.firstToken + token_;
      if (position >= maxEnd_) {
        token_ = frame_.tokenCount;
        continue;
      }
      if (position < minStart_ && position >= job_.sinkCount) {
        const uint32_t skip = minStart_ - position;
        const uint32_t left = frame_.tokenCount - token_;
        token_ += skip < left ? skip : left;
        continue;
      }
      n = take(block, n, position);
    }
    block.count = n;
    block.isReadOnce = job_.isReadOnce != 0;
    if (n == 0) return true;
    block.isContiguous = block.position[n - 1] - block.position[0] == static_cast<uint32_t>(n - 1);
    for (int i = n; i % W != 0; i++) {
      block.k[i] = block.k[n - 1];
      block.v[i] = block.v[n - 1];
    }
    return true;
  }

 private:
  bool enterFrame() {
    memcpy(&frame_, memory_.arena + job_.frames + uint64_t{index_++} * sizeof(Frame), sizeof(Frame));
    token_ = 0;
    k_ = locate(frame_.kArena, frame_.kOffset, kBytes_);
    v_ = locate(frame_.vArena, frame_.vOffset, vBytes_);
    return k_ != nullptr && v_ != nullptr && frame_.tokenCount <= UINT32_MAX - frame_.firstToken;
  }

  const uint8_t* locate(uint32_t arena, uint64_t offset, uint64_t bytesOfRow) const {
    const uint8_t* base = arena == 0 ? memory_.arena : arena == 1 ? memory_.media : nullptr;
    const uint64_t limit = arena == 0 ? memory_.arenaBytes : memory_.mediaBytes;
    return base != nullptr && inRange(offset, bytesOfRow * frame_.tokenCount, limit) ? base + offset : nullptr;
  }

  // Takes as many tokens of the frame as the block, the end and a gap between sinks and window allow.
  int take(Block& block, int n, uint32_t position) {
    uint32_t run = frame_.tokenCount - token_;
    if (run > maxEnd_ - position) run = maxEnd_ - position;
    if (position < minStart_ && run > job_.sinkCount - position) run = job_.sinkCount - position;
    if (run > static_cast<uint32_t>(blockTokens_ - n)) run = blockTokens_ - n;
    typedef uint64_t Pointers __attribute__((vector_size(64)));
    typedef uint32_t Positions __attribute__((vector_size(32)));
    const Pointers steps = {0, 1, 2, 3, 4, 5, 6, 7};
    Pointers k = steps * kBytes_ + reinterpret_cast<uint64_t>(k_ + token_ * kBytes_);
    Pointers v = steps * vBytes_ + reinterpret_cast<uint64_t>(v_ + token_ * vBytes_);
    Positions positions = Positions{0, 1, 2, 3, 4, 5, 6, 7} + position;
    // What lands behind the run is written again, or is slack.
    NO_UNROLL for (uint32_t i = 0; i < run; i += 8) {
      memcpy(block.k + n + i, &k, sizeof k);
      memcpy(block.v + n + i, &v, sizeof v);
      memcpy(block.position + n + i, &positions, sizeof positions);
      k += 8 * kBytes_;
      v += 8 * vBytes_;
      positions += 8;
    }
    token_ += run;
    return n + run;
  }

  const Memory& memory_;
  const AttendJob& job_;
  const uint32_t minStart_, maxEnd_;
  const int blockTokens_;
  const uint64_t kBytes_, vBytes_;
  Frame frame_{};
  const uint8_t* k_ = nullptr;
  const uint8_t* v_ = nullptr;
  uint32_t index_ = 0, token_ = 0;
};

inline bool hasLargeFirstLevelCache() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  static const bool isLarge = sysconf(_SC_LEVEL1_DCACHE_SIZE) >= 48 * 1024;
  return isLarge;
#else
  return false;
#endif
}

// Into the first-level cache. (Hints for the second level only were slower everywhere.) What is read once need not stay in
// those behind it, where it would take the place of everything else that runs here.
ALWAYS_INLINE void prefetch(const uint8_t* p, bool isReadOnce) {
  if (isReadOnce) __builtin_prefetch(p, 0, 0);
  else __builtin_prefetch(p, 0, 3);
}

}  // namespace
}  // namespace attndrive
