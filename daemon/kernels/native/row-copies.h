// Rows on their way into pages: copies from the arena, or from a region mapping that may lose its file meanwhile.
#pragma once
#include "kernel-set.h"

namespace attndrive {

constexpr uint32_t kNoRegion = 0xffffffff;

// Rows of equal size, each a stride behind the one before.
struct Rows {
  uint64_t source, strideBytes, rowBytes, rowCount;
};

// Each returns null, or what is wrong with the job. `*copied` is false where the region's file has become shorter.
const char* gatherRows(const Memory& memory, const Rows& rows, uint64_t target, uint32_t region, bool* copied);
const char* assemblePages(const Memory& memory, const KernelSet& kernels, uint64_t job, bool* copied);

}  // namespace attndrive
