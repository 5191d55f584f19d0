// What the addon asks of each instruction set: a table of functions over one arena and one media mapping.
// Layouts repeat daemon/kernels/contract.ts; every field is little-endian and 4-byte aligned.
#pragma once
#include <cstddef>
#include <cstdint>

namespace attndrive {

struct Memory {
  uint8_t* arena;
  uint64_t arenaBytes;
  const uint8_t* media;  // null: none mapped
  uint64_t mediaBytes;
};

struct Frame {
  uint64_t kOffset, vOffset;
  uint32_t firstToken, tokenCount, kArena, vArena;
};
static_assert(sizeof(Frame) == 32, "frame layout");

struct QueryBounds {
  uint32_t start, end;
};

struct AttendJob {
  uint32_t queryCount, headDimK, headDimV, elementTypeK, elementTypeV, frameCount;
  uint32_t frames, queries, bounds, sinkCount;
  float scale, softCap;
  uint32_t partials, isReadOnce, reserved[2];
};
static_assert(sizeof(AttendJob) == 64, "attend job layout");

struct MergeJob {
  uint32_t queryCount, headDimV, chunkCount, partials, chunkStrideBytes, outputType;
  uint32_t outputRows, output, statistics, reserved[7];
};
static_assert(sizeof(MergeJob) == 64, "merge job layout");

struct AssembleJob {
  uint64_t keys, values;
  uint32_t region, headCount, tokenCount, headMajor, rowBytesK, rowBytesV, groupTokens, groupCount;
  uint32_t firstToken, tailCount, tailKeys, tailValues, tailStrideBytes, pageBytes;
  uint32_t firstPage, pageCount, target, checksums, reserved[2];
};
static_assert(sizeof(AssembleJob) == 96, "assemble job layout");

enum ElementType : uint32_t { kF32 = 1, kF16 = 2, kBf16 = 3, kInt8 = 4, kInt4 = 5 };

constexpr uint32_t kHeadDimMax = 256;

inline bool isFloat(uint32_t type) { return type >= kF32 && type <= kBf16; }
inline bool isQuantised(uint32_t type) { return type == kInt8 || type == kInt4; }
inline bool isElementType(uint32_t type) { return type >= kF32 && type <= kInt4; }
inline uint32_t floatBytes(uint32_t type) { return type == kF32 ? 4 : 2; }

// Quantised rows are as spec/quantised-row.ts says.
constexpr uint32_t kQuantisationGroup = 64;
inline uint32_t integersOffset(uint32_t elements) { return (elements + kQuantisationGroup - 1) / kQuantisationGroup * 4; }

inline uint64_t rowBytes(uint32_t type, uint32_t elements) {
  if (!isQuantised(type)) return uint64_t{elements} * floatBytes(type);
  return (integersOffset(elements) + (type == kInt8 ? elements : (elements + 1) / 2) + 3) / 4 * 4;
}

// Each returns null, or what is wrong with the job. Nothing outside the arena and the mapping is ever read or written.
struct KernelSet {
  const char* isa;
  const char* (*attend)(const Memory& memory, uint64_t job);
  const char* (*merge)(const Memory& memory, uint64_t job);
  const char* (*convert)(const Memory& memory, uint64_t source, uint32_t sourceType, uint64_t target,
                         uint32_t targetType, uint64_t rowCount, uint64_t rowElements);
  // Adds up all 64-bit words: as fast as this machine reads memory.
  uint64_t (*readSum)(const uint8_t* bytes, uint64_t sizeBytes);
  // Continues `crc` over `sizeBytes` bytes.
  uint32_t (*crc32c)(uint32_t crc, const uint8_t* bytes, size_t sizeBytes);
};

extern const KernelSet portableKernels;
#if defined(__x86_64__)
extern const KernelSet avx2Kernels;
extern const KernelSet avx512Kernels;
// With integer dot products (VNNI).
extern const KernelSet avx512dpKernels;
// The same, with bf16 dot products too, and fewer bits for queries: for who would rather have it fast.
extern const KernelSet avx512fastKernels;
#endif

uint32_t crc32c(uint32_t crc, const uint8_t* bytes, size_t sizeBytes);
// Uses 512-bit vectors where the machine can multiply in them.
uint32_t crc32cWide(uint32_t crc, const uint8_t* bytes, size_t sizeBytes);

inline bool inRange(uint64_t offset, uint64_t sizeBytes, uint64_t limit) {
  return offset <= limit && sizeBytes <= limit - offset;
}

}  // namespace attndrive
