#include "row-copies.h"
#include <cstring>
#include "region-mapping.h"

namespace attndrive {
namespace {

// A stride of rows is more than a processor reads ahead by itself.
constexpr uint64_t kRowsAhead = 16;
constexpr uint64_t kLineBytes = 64;

template <uint64_t kRowBytes>
void copyRowsOf(const uint8_t* source, uint64_t stride, uint64_t count, uint8_t* target) {
  for (uint64_t row = 0; row < count; row++, source += stride, target += kRowBytes) {
    for (uint64_t at = 0; at < kRowBytes; at += kLineBytes) __builtin_prefetch(source + kRowsAhead * stride + at);
    memcpy(target, source, kRowBytes);
  }
}

// Prefetches of addresses that are not there do nothing.
void copyRows(const uint8_t* source, uint64_t stride, uint64_t rowBytes, uint64_t count, uint8_t* target) {
  if (stride == rowBytes) {
    memcpy(target, source, count * rowBytes);
  } else if (rowBytes == 256) {
    copyRowsOf<256>(source, stride, count, target);
  } else if (rowBytes == 128) {
    copyRowsOf<128>(source, stride, count, target);
  } else if (rowBytes == 512) {
    copyRowsOf<512>(source, stride, count, target);
  } else {
    for (uint64_t row = 0; row < count; row++) memcpy(target + row * rowBytes, source + row * stride, rowBytes);
  }
}

// Where rows are read: the arena, or a region.
struct Source {
  const uint8_t* base;
  uint64_t bytes;
  bool isRegion;
  RegionMapping region;
};

bool findSource(const Memory& memory, uint32_t region, Source* source) {
  source->isRegion = region != kNoRegion;
  if (!source->isRegion) {
    source->base = memory.arena;
    source->bytes = memory.arenaBytes;
    return true;
  }
  if (!findRegion(region, &source->region)) return false;
  source->base = source->region.base;
  source->bytes = source->region.bytes;
  return true;
}

// Whether the region's file had everything up to `end`, which `work` may read.
template <typename Work>
bool readFrom(const Source& source, uint64_t end, const Work& work) {
  if (!source.isRegion) return work(), true;
  return guarded(source.region, work) && reachesTo(source.region, end);
}

// Products of two factors of 32 bits don't overflow; sums of a few of them neither, since each is checked first.
bool rowsFit(uint64_t offset, uint64_t rowCount, uint64_t rowBytes, uint64_t limit) {
  return rowCount <= UINT32_MAX && rowBytes <= UINT32_MAX && inRange(offset, rowCount * rowBytes, limit);
}

const char* problemOf(const AssembleJob& job, const Memory& memory, const Source& source) {
  const uint64_t heads = job.headCount, tokens = job.tokenCount, group = job.groupTokens, groups = job.groupCount;
  if (heads == 0 || group == 0 || groups == 0 || heads > 0xffff || group > 0xffff || groups > UINT32_MAX / group) {
    return "assemble: no such shape";
  }
  const uint64_t pages = uint64_t{job.firstPage} + job.pageCount;
  if (pages > groups * 2 * heads) return "assemble: more pages than rows";
  if (job.tailCount >= group || job.firstToken + groups * group - job.tailCount > tokens) {
    return "assemble: more rows than tokens";
  }
  if (group * job.rowBytesK > job.pageBytes || group * job.rowBytesV > job.pageBytes) return "assemble: small pages";
  if (!rowsFit(job.keys, tokens * heads, job.rowBytesK, source.bytes) ||
      !rowsFit(job.values, tokens * heads, job.rowBytesV, source.bytes)) {
    return "assemble: rows outside their memory";
  }
  const uint64_t slab = job.tailCount == 0 ? 0 : (heads - 1) * job.tailStrideBytes;
  if (!inRange(job.tailKeys, slab + uint64_t{job.tailCount} * job.rowBytesK, memory.arenaBytes) ||
      !inRange(job.tailValues, slab + uint64_t{job.tailCount} * job.rowBytesV, memory.arenaBytes) ||
      !rowsFit(job.target, job.pageCount, job.pageBytes, memory.arenaBytes) || (job.checksums & 3) != 0 ||
      !rowsFit(job.checksums, job.pageCount, 4, memory.arenaBytes)) {
    return "assemble: pages outside the arena";
  }
  return nullptr;
}

void assemblePage(const AssembleJob& job, const Memory& memory, const uint8_t* source, uint32_t index, uint8_t* page) {
  const uint64_t group = index % job.groupCount, stream = index / job.groupCount, head = stream >> 1;
  const bool isValues = (stream & 1) != 0;
  const uint64_t rowBytes = isValues ? job.rowBytesV : job.rowBytesK;
  const uint64_t tail = group == 0 ? job.tailCount : 0;
  uint8_t* target = page;
  if (tail > 0) {
    memcpy(target, memory.arena + (isValues ? job.tailValues : job.tailKeys) + head * job.tailStrideBytes,
           tail * rowBytes);
    target += tail * rowBytes;
  }
  const uint64_t token = job.firstToken + group * job.groupTokens - (group == 0 ? 0 : job.tailCount);
  const uint64_t row = job.headMajor != 0 ? head * job.tokenCount + token : token * job.headCount + head;
  const uint8_t* rows = source + (isValues ? job.values : job.keys) + row * rowBytes;
  const uint64_t stride = job.headMajor != 0 ? rowBytes : job.headCount * rowBytes;
  copyRows(rows, stride, rowBytes, job.groupTokens - tail, target);
  const uint64_t used = job.groupTokens * rowBytes;
  memset(page + used, 0, job.pageBytes - used);
}

}  // namespace

const char* gatherRows(const Memory& memory, const Rows& rows, uint64_t target, uint32_t region, bool* copied) {
  const auto [offset, stride, rowBytes, rowCount] = rows;
  Source source;
  *copied = true;
  if (!findSource(memory, region, &source)) return "gather: no such region";
  // So that no product of the sizes below can overflow.
  if (stride > source.bytes || rowBytes > stride || rowCount > source.bytes || stride > UINT32_MAX ||
      rowCount > UINT32_MAX) {
    return "gather: rows outside their memory";
  }
  if (rowCount == 0) return nullptr;
  const uint64_t extent = (rowCount - 1) * stride + rowBytes;
  if (!inRange(offset, extent, source.bytes) || !inRange(target, rowCount * rowBytes, memory.arenaBytes)) {
    return "gather: rows outside their memory";
  }
  *copied = readFrom(source, offset + extent,
                     [&] { copyRows(source.base + offset, stride, rowBytes, rowCount, memory.arena + target); });
  return nullptr;
}

const char* assemblePages(const Memory& memory, const KernelSet& kernels, uint64_t at, bool* copied) {
  AssembleJob job;
  if ((at & 3) != 0 || !inRange(at, sizeof job, memory.arenaBytes)) return "assemble: job outside the arena";
  memcpy(&job, memory.arena + at, sizeof job);
  Source source;
  *copied = true;
  if (!findSource(memory, job.region, &source)) return "assemble: no such region";
  const char* problem = problemOf(job, memory, source);
  if (problem != nullptr) return problem;
  const uint64_t rows = uint64_t{job.tokenCount} * job.headCount;
  const uint64_t keysEnd = job.keys + rows * job.rowBytesK, valuesEnd = job.values + rows * job.rowBytesV;
  uint32_t* const checksums = reinterpret_cast<uint32_t*>(memory.arena + job.checksums);
  *copied = readFrom(source, keysEnd > valuesEnd ? keysEnd : valuesEnd, [&] {
    for (uint32_t i = 0; i < job.pageCount; i++) {
      uint8_t* const page = memory.arena + job.target + uint64_t{i} * job.pageBytes;
      assemblePage(job, memory, source.base, job.firstPage + i, page);
      // While the page is in the nearest cache.
      checksums[i] = kernels.crc32c(0, page, job.pageBytes);
    }
  });
  return nullptr;
}

}  // namespace attndrive
