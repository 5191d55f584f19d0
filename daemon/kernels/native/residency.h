// Which parts of a mapped file are in memory, so that to read them does not wait for a disk.
#pragma once
#include <sys/mman.h>
#include <time.h>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace attndrive {

// To ask the kernel takes as long as to copy 8 KiB, so what it says of a window is believed for a moment. Pages that leave
// memory within that moment make a reader wait for the disk; those that were just used are the last to leave.
class Residency {
 public:
  bool covers(const uint8_t* media, uint64_t mediaBytes, uint64_t offset, uint64_t bytes) {
    const uint32_t now = tick();
    const uint64_t last = (offset + bytes - 1) / kWindowBytes;
    for (uint64_t window = offset / kWindowBytes; window <= last; window++) {
      if (isFresh(window, now)) continue;
      const uint64_t start = window * kWindowBytes;
      const uint64_t end = start + kWindowBytes < mediaBytes ? start + kWindowBytes : mediaBytes;
      if (inMemory(media, start, end)) {
        remember(window, now, mediaBytes);
        continue;
      }
      const uint64_t from = start > offset ? start : offset;
      if (!inMemory(media, from, end < offset + bytes ? end : offset + bytes)) return false;
    }
    return true;
  }

  // All zero is a residency that knows nothing.
  void release() { free(seenAt_); }

 private:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint64_t kWindowBytes = 64 * kPageBytes;
  // Of 2^24 ns.
  static constexpr uint32_t kFreshTicks = 6;

  uint32_t* seenAt_;

  // Never 0, which means never.
  static uint32_t tick() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<uint32_t>((static_cast<uint64_t>(now.tv_sec) * 1000000000 + now.tv_nsec) >> 24) | 1u << 31;
  }

  bool isFresh(uint64_t window, uint32_t now) const {
    return seenAt_ != nullptr && seenAt_[window] != 0 && now - seenAt_[window] <= kFreshTicks;
  }

  void remember(uint64_t window, uint32_t now, uint64_t mediaBytes) {
    // Pages of it that are not used take no memory.
    if (seenAt_ == nullptr) {
      seenAt_ = static_cast<uint32_t*>(calloc((mediaBytes + kWindowBytes - 1) / kWindowBytes, sizeof(uint32_t)));
    }
    if (seenAt_ != nullptr) seenAt_[window] = now;
  }

  static bool inMemory(const uint8_t* media, uint64_t start, uint64_t end) {
    unsigned char pages[kWindowBytes / kPageBytes];
    const uint64_t first = start / kPageBytes * kPageBytes;
    if (mincore(const_cast<uint8_t*>(media) + first, end - first, pages) != 0) return false;
    for (uint64_t page = 0; first + page * kPageBytes < end; page++) {
      if ((pages[page] & 1) == 0) return false;
    }
    return true;
  }
};

}  // namespace attndrive
