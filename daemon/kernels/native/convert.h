// Element conversion, and the merge of partials.
#pragma once
#include <cmath>
#include "attend.h"

namespace attndrive {
namespace {

inline uint32_t bitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

// Round to nearest even, overflow to infinity, NaN quiet with its upper payload bits, subnormals kept.
inline uint16_t halfFromBits(uint32_t bits) {
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >> 13) & 0x3ff);
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) return sign | (((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - (112 << 10));
  const uint32_t shift = 126 - (magnitude >> 23);
  if (shift > 24) return sign;
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t units = mantissa >> shift;
  const uint32_t rest = mantissa & ((1u << shift) - 1);
  const uint32_t half = 1u << (shift - 1);
  return sign | (units + (rest > half || (rest == half && (units & 1))));
}

inline uint16_t bfloatFromBits(uint32_t bits) {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

struct ToF32 {
  static constexpr int kBytes = 4;
  static ALWAYS_INLINE void store(uint8_t* p, vf v) { storeFloats(p, v); }
};

struct ToF16 {
  static constexpr int kBytes = 2;
  static ALWAYS_INLINE void store(uint8_t* p, vf v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
    uint32_t bits[W];
    memcpy(bits, &v, sizeof bits);
    uint16_t halves[W];
    for (int i = 0; i < W; i++) halves[i] = halfFromBits(bits[i]);
    memcpy(p, halves, sizeof halves);
#endif
  }
};

struct ToBf16 {
  static constexpr int kBytes = 2;
  static ALWAYS_INLINE void store(uint8_t* p, vf v) {
    const vu bits = (vu)v;
    const vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const vu quiet = (bits >> 16) | 0x40;
    const vu isNan = (vu)(v != v);
    const vh halves = __builtin_convertvector((quiet & isNan) | (rounded & ~isNan), vh);
    memcpy(p, &halves, sizeof halves);
  }
};

template <class From, class To>
void convertTyped(const uint8_t* source, uint8_t* target, uint64_t count) {
  uint64_t i = 0;
  for (; i + W <= count; i += W) To::store(target + i * To::kBytes, From::load(source + i * From::kBytes));
  if (i == count) return;
  uint8_t rest[W * 4];
  To::store(rest, loadSome<From>(source + i * From::kBytes, static_cast<int>(count - i)));
  memcpy(target + i * To::kBytes, rest, (count - i) * To::kBytes);
}

template <class From>
void convertFrom(uint32_t targetType, const uint8_t* source, uint8_t* target, uint64_t count) {
  switch (targetType) {
    case kF32: return convertTyped<From, ToF32>(source, target, count);
    case kF16: return convertTyped<From, ToF16>(source, target, count);
    default: return convertTyped<From, ToBf16>(source, target, count);
  }
}

void convertFloats(uint32_t sourceType, const uint8_t* source, uint32_t targetType, uint8_t* target, uint64_t count) {
  if (sourceType == targetType) {
    memmove(target, source, count * floatBytes(sourceType));
    return;
  }
  switch (sourceType) {
    case kF32: return convertFrom<F32>(targetType, source, target, count);
    case kF16: return convertFrom<F16>(targetType, source, target, count);
    default: return convertFrom<Bf16>(targetType, source, target, count);
  }
}

void convertRow(uint32_t sourceType, const uint8_t* source, uint32_t targetType, uint8_t* target, int elements) {
  alignas(64) float row[kHeadDimMax + W];
  uint8_t* bytes = reinterpret_cast<uint8_t*>(row);
  if (isQuantised(sourceType)) dequantiseRow(sourceType, source, row, elements);
  else convertFloats(sourceType, source, kF32, bytes, elements);
  if (isQuantised(targetType)) quantiseRow(targetType, row, target, elements);
  else convertFloats(kF32, bytes, targetType, target, elements);
}

const char* convert(const Memory& memory, uint64_t source, uint32_t sourceType, uint64_t target, uint32_t targetType,
                    uint64_t rowCount, uint64_t rowElements) {
  if (!isElementType(sourceType) || !isElementType(targetType)) return "convert: unknown element type";
  const bool isByRow = isQuantised(sourceType) || isQuantised(targetType);
  if (isByRow && (rowElements < 1 || rowElements > kHeadDimMax)) return "convert: rows of 1 to 256 elements";
  // Neither product overflows once both factors are below 2^32.
  if (rowCount > memory.arenaBytes || rowElements > memory.arenaBytes) return "convert: range outside the arena";
  const uint64_t count = rowCount * rowElements;
  const uint64_t sourceBytes = isByRow ? rowCount * rowBytes(sourceType, rowElements) : count * floatBytes(sourceType);
  const uint64_t targetBytes = isByRow ? rowCount * rowBytes(targetType, rowElements) : count * floatBytes(targetType);
  if (count > memory.arenaBytes || !inRange(source, sourceBytes, memory.arenaBytes) ||
      !inRange(target, targetBytes, memory.arenaBytes)) {
    return "convert: range outside the arena";
  }
  const uint8_t* from = memory.arena + source;
  uint8_t* to = memory.arena + target;
  if (!isByRow) {
    convertFloats(sourceType, from, targetType, to, count);
  } else if (sourceType == targetType) {
    memmove(to, from, sourceBytes);
  } else {
    for (uint64_t i = 0; i < rowCount; i++) {
      convertRow(sourceType, from + i * (sourceBytes / rowCount), targetType, to + i * (targetBytes / rowCount),
                 static_cast<int>(rowElements));
    }
  }
  return nullptr;
}

// Merges one row's chunks in their order into output[headDimV]. Writes {maximum, log-sum-exp}.
inline void mergeRow(const MergeJob& job, const uint8_t* first, float* output, float* statistics) {
  float maximum = -kInfinity;
  for (uint32_t chunk = 0; chunk < job.chunkCount; chunk++) {
    const Record& record = *reinterpret_cast<const Record*>(first + uint64_t{chunk} * job.chunkStrideBytes);
    if (!(record.maximum <= maximum)) maximum = record.maximum;
    if (maximum != maximum) break;
  }
  float sum = 0;
  memset(output, 0, job.headDimV * sizeof(float));
  if (maximum != -kInfinity) {
    for (uint32_t chunk = 0; chunk < job.chunkCount; chunk++) {
      const Record& record = *reinterpret_cast<const Record*>(first + uint64_t{chunk} * job.chunkStrideBytes);
      if (record.maximum == -kInfinity) continue;
      const float factor = record.maximum == maximum ? 1 : exponential(splat(record.maximum - maximum))[0];
      sum += record.sum * factor;
      for (uint32_t d = 0; d < job.headDimV; d++) output[d] += record.weighted[d] * factor;
    }
    for (uint32_t d = 0; d < job.headDimV; d++) output[d] /= sum;
  }
  statistics[0] = maximum;
  statistics[1] = maximum == -kInfinity ? maximum : static_cast<float>(maximum + std::log(static_cast<double>(sum)));
}

const char* merge(const Memory& memory, uint64_t at) {
  const uint64_t limit = memory.arenaBytes;
  if (at % 4 != 0 || !inRange(at, sizeof(MergeJob), limit)) return "merge: job outside the arena";
  MergeJob job;
  memcpy(&job, memory.arena + at, sizeof job);
  if (job.headDimV < 1 || job.headDimV > kHeadDimMax) return "merge: head dimension not 1 to 256";
  if (!isFloat(job.outputType)) return "merge: unknown element type";
  const uint64_t rows = job.queryCount, recordBytes = 4 * (2 + job.headDimV);
  const uint64_t chunksBytes = job.chunkCount == 0 ? 0 : uint64_t{job.chunkCount - 1} * job.chunkStrideBytes;
  if (job.chunkCount > 0 && !inRange(job.partials, chunksBytes + rows * recordBytes, limit)) {
    return "merge: partials outside the arena";
  }
  if (!inRange(job.outputRows, rows * 4, limit)) return "merge: row numbers outside the arena";
  if ((job.partials | job.chunkStrideBytes | job.outputRows | job.statistics) % 4 != 0) {
    return "merge: offsets are multiples of 4";
  }
  const uint64_t rowBytes = job.headDimV * floatBytes(job.outputType);
  const uint32_t* rowNumbers = reinterpret_cast<const uint32_t*>(memory.arena + job.outputRows);
  for (uint32_t i = 0; i < job.queryCount; i++) {
    const uint64_t row = rowNumbers[i];
    if (!inRange(job.output, (row + 1) * rowBytes, limit)) return "merge: output outside the arena";
    if (job.statistics != 0 && !inRange(job.statistics, (row + 1) * 8, limit)) return "merge: statistics outside the arena";
    alignas(64) float output[kHeadDimMax];
    float statistics[2];
    mergeRow(job, memory.arena + job.partials + i * recordBytes, output, statistics);
    convertFrom<F32>(job.outputType, reinterpret_cast<const uint8_t*>(output),
                     memory.arena + job.output + row * rowBytes, job.headDimV);
    if (job.statistics != 0) memcpy(memory.arena + job.statistics + row * 8, statistics, 8);
  }
  return nullptr;
}

uint64_t readSum(const uint8_t* bytes, uint64_t sizeBytes) {
  typedef uint64_t vq __attribute__((vector_size(W * 4)));
  constexpr int kWays = 8;
  constexpr uint64_t kStep = kWays * sizeof(vq);
  vq sums[kWays] = {};
  uint64_t at = 0;
  for (; at + kStep <= sizeBytes; at += kStep) {
    UNROLL for (int i = 0; i < kWays; i++) {
      if (i * sizeof(vq) % 64 == 0) __builtin_prefetch(bytes + at + i * sizeof(vq) + 8192, 0, 2);
      vq v;
      memcpy(&v, bytes + at + i * sizeof v, sizeof v);
      sums[i] += v;
    }
  }
  for (int i = 1; i < kWays; i++) sums[0] += sums[i];
  uint64_t sum = 0;
  for (int i = 0; i < W / 2; i++) sum += sums[0][i];
  for (; at + 8 <= sizeBytes; at += 8) {
    uint64_t word;
    memcpy(&word, bytes + at, 8);
    sum += word;
  }
  for (int shift = 0; at < sizeBytes; at++, shift += 8) sum += uint64_t{bytes[at]} << shift;
  return sum;
}

}  // namespace
}  // namespace attndrive
