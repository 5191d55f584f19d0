// Attention of a tile of query rows over a stream of tokens: one pass, online softmax over blocks of tokens.
//
// A block is a list of row pointers, gathered across frames, so that short frames (a tail, small pages) cost no more than
// long ones. For each block and each tile of up to four rows: logits of the block, then their exponentials, then the
// weighted sum of V. K and V come from memory once per block; further tiles of the same KV head find them in the cache.
// While one block is worked on, the next block's rows are prefetched into L2 along the page table.
#pragma once
#include "vector.h"

namespace attndrive {
namespace {

constexpr int kBlockTokens = 64;
constexpr int kTileRows = 4;
constexpr float kInfinity = __builtin_inff();

struct Block {
  int count;
  bool contiguous;  // positions are first, first + 1, ...
  uint32_t position[kBlockTokens];
  // Padded by repeating the last row, so that K can be read in whole groups of rows.
  const uint8_t* k[kBlockTokens + W];
  const uint8_t* v[kBlockTokens + W];
};

// One query row's running state is its partial record itself.
struct Record {
  float maximum, sum;
  float weighted[1];
};

inline bool sees(const QueryBounds& bounds, uint32_t sinkCount, uint32_t position) {
  return position < bounds.end && (position >= bounds.start || position < sinkCount);
}

// Walks the frames and fills blocks with the tokens that at least one row may see.
class BlockStream {
 public:
  BlockStream(const Memory& memory, const AttendJob& job, uint32_t minStart, uint32_t maxEnd)
      : memory_(memory), job_(job), minStart_(minStart), maxEnd_(maxEnd) {
    kBytes_ = job.headDimK * elementBytes(job.elementTypeK);
    vBytes_ = job.headDimV * elementBytes(job.elementTypeV);
  }

  // Fills `block`; its count is 0 at the end. False if a frame lies outside its arena.
  bool next(Block& block) {
    int n = 0;
    while (n < kBlockTokens) {
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
    block.contiguous = n > 0 && block.position[n - 1] - block.position[0] == static_cast<uint32_t>(n - 1);
    if (n > 0) {
      for (int i = n; i < n + W; i++) {
        block.k[i] = block.k[n - 1];
        block.v[i] = block.v[n - 1];
      }
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

  const uint8_t* locate(uint32_t arena, uint64_t offset, uint64_t rowBytes) const {
    const uint8_t* base = arena == 0 ? memory_.arena : arena == 1 ? memory_.media : nullptr;
    const uint64_t limit = arena == 0 ? memory_.arenaBytes : memory_.mediaBytes;
    return base != nullptr && inRange(offset, rowBytes * frame_.tokenCount, limit) ? base + offset : nullptr;
  }

  // Takes as many tokens of the frame as the block, the end and a gap between sinks and window allow.
  int take(Block& block, int n, uint32_t position) {
    uint32_t run = frame_.tokenCount - token_;
    if (run > maxEnd_ - position) run = maxEnd_ - position;
    if (position < minStart_ && run > job_.sinkCount - position) run = job_.sinkCount - position;
    if (run > static_cast<uint32_t>(kBlockTokens - n)) run = kBlockTokens - n;
    const uint8_t* k = k_ + uint64_t{token_} * kBytes_;
    const uint8_t* v = v_ + uint64_t{token_} * vBytes_;
    for (uint32_t i = 0; i < run; i++) {
      block.position[n + i] = position + i;
      block.k[n + i] = k + i * kBytes_;
      block.v[n + i] = v + i * vBytes_;
    }
    token_ += run;
    return n + run;
  }

  const Memory& memory_;
  const AttendJob& job_;
  const uint32_t minStart_, maxEnd_;
  uint64_t kBytes_, vBytes_;
  Frame frame_{};
  const uint8_t* k_ = nullptr;
  const uint8_t* v_ = nullptr;
  uint32_t index_ = 0, token_ = 0;
};

ALWAYS_INLINE void prefetchRow(const uint8_t* row, int bytes) {
  for (int at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
}

// Dot products of Q query rows with T = W / Q keys; lane q * T + t of the result.
template <class E, int Q>
ALWAYS_INLINE vf dotProducts(const float* queries, int queryStride, const uint8_t* const* k, int dim) {
  constexpr int T = W / Q;
  vf sums[W] = {};
  int d = 0;
  for (; d + W <= dim; d += W) {
    vf keys[T];
    UNROLL for (int t = 0; t < T; t++) keys[t] = E::load(k[t] + d * E::kBytes);
    UNROLL for (int q = 0; q < Q; q++) {
      const vf query = loadFloats(queries + q * queryStride + d);
      UNROLL for (int t = 0; t < T; t++) sums[q * T + t] += query * keys[t];
    }
  }
  if (d < dim) {
    for (int t = 0; t < T; t++) {
      const vf key = loadSome<E>(k[t] + d * E::kBytes, dim - d);
      UNROLL for (int q = 0; q < Q; q++) sums[q * T + t] += loadFloats(queries + q * queryStride + d) * key;
    }
  }
  return sumEach(sums);
}

// Logits of a block for Q rows, before masking: logits[q][0..count padded to W).
template <class E, int Q>
void blockLogits(const AttendJob& job, const float* queries, int queryStride, const Block& block, const Block* ahead,
                 float (*logits)[kBlockTokens]) {
  constexpr int T = W / Q;
  const int dim = job.headDimK;
  const int rowBytes = dim * E::kBytes;
  const vf cap = splat(job.softCap);
  for (int t = 0; t < block.count; t += T) {
    if (ahead != nullptr) {
      for (int i = t; i < t + T; i++) prefetchRow(ahead->k[i], rowBytes);
    }
    vf l = dotProducts<E, Q>(queries, queryStride, block.k + t, dim) * job.scale;
    if (job.softCap > 0) l = hyperbolicTangent(l / cap) * cap;
    float lanes[W];
    storeFloats(lanes, l);
    UNROLL for (int q = 0; q < Q; q++) memcpy(&logits[q][t], lanes + q * T, T * sizeof(float));
  }
}

// Adds weights[q][t] * V[t] for t in [first, end) to Q rows' weighted sums, each first multiplied by its factor.
template <class E, int Q, int N, bool Prefetch>
ALWAYS_INLINE void addColumns(const uint8_t* const* v, const Block* ahead, int rowBytes, int first, int end,
                              const float (*weights)[kBlockTokens], const float* factors, float* const* weighted,
                              int d) {
  vf sums[Q][N];
  UNROLL for (int q = 0; q < Q; q++) {
    UNROLL for (int n = 0; n < N; n++) sums[q][n] = loadFloats(weighted[q] + d + n * W) * factors[q];
  }
  for (int t = first; t < end; t++) {
    if constexpr (Prefetch) prefetchRow(ahead->v[t], rowBytes);
    const uint8_t* row = v[t] + d * E::kBytes;
    vf values[N];
    UNROLL for (int n = 0; n < N; n++) values[n] = E::load(row + n * W * E::kBytes);
    UNROLL for (int q = 0; q < Q; q++) {
      const vf weight = splat(weights[q][t]);
      UNROLL for (int n = 0; n < N; n++) sums[q][n] += weight * values[n];
    }
  }
  UNROLL for (int q = 0; q < Q; q++) {
    UNROLL for (int n = 0; n < N; n++) storeFloats(weighted[q] + d + n * W, sums[q][n]);
  }
}

template <class E, int Q>
void addValues(int dim, const Block& block, const Block* ahead, int first, int end,
               const float (*weights)[kBlockTokens], const float* factors, float* const* weighted) {
  constexpr int N = kAccumulators / Q < 8 ? kAccumulators / Q : 8;
  const int rowBytes = dim * E::kBytes;
  int d = 0;
  if (ahead != nullptr && d + N * W <= dim) {
    addColumns<E, Q, N, true>(block.v, ahead, rowBytes, first, end, weights, factors, weighted, d);
    d += N * W;
  }
  for (; d + N * W <= dim; d += N * W) {
    addColumns<E, Q, N, false>(block.v, nullptr, 0, first, end, weights, factors, weighted, d);
  }
  for (; d + W <= dim; d += W) {
    addColumns<E, Q, 1, false>(block.v, nullptr, 0, first, end, weights, factors, weighted, d);
  }
  if (d == dim) return;
  const int rest = dim - d;
  vf sums[Q];
  UNROLL for (int q = 0; q < Q; q++) sums[q] = loadSome<F32>((const uint8_t*)(weighted[q] + d), rest) * factors[q];
  for (int t = first; t < end; t++) {
    const vf value = loadSome<E>(block.v[t] + d * E::kBytes, rest);
    UNROLL for (int q = 0; q < Q; q++) sums[q] += weights[q][t] * value;
  }
  UNROLL for (int q = 0; q < Q; q++) storeSome(weighted[q] + d, sums[q], rest);
}

// Turns a row's logits into weights relative to its new maximum and updates maximum and sum. Returns the factor for
// what was summed before. `whole` tells whether every token weighs (none is masked or -Infinity).
inline float softmaxStep(Record& record, float* logits, int count, bool& whole) {
  // The padding repeats a logit: it changes neither maximum nor flags.
  for (int t = count; t % W != 0; t++) logits[t] = logits[0];
  vf top = splat(record.maximum);
  vi strange{}, excluded{};
  for (int t = 0; t < count; t += W) {
    const vf l = loadFloats(logits + t);
    top = maximum(l, top);
    strange |= (l != l) | (l == kInfinity);
    excluded |= l == -kInfinity;
  }
  whole = !anyLane(excluded);
  if (anyLane(strange)) record.maximum = __builtin_nanf("");
  const float newMaximum = maximumLane(top);
  if (record.maximum != record.maximum || newMaximum == -kInfinity) {
    whole = false;
    for (int t = 0; t < count; t++) logits[t] = -kInfinity;
    return 1;
  }
  const float factor = record.maximum == newMaximum ? 1 : exponential(splat(record.maximum - newMaximum))[0];
  if (!whole) return record.maximum = newMaximum, factor;
  vf sum{};
  for (int t = 0; t < count; t += W) {
    const vf weight = exponential(loadFloats(logits + t) - newMaximum);
    storeFloats(logits + t, weight);
    if (t + W <= count) sum += weight;
  }
  float rest = 0;
  for (int t = count / W * W; t < count; t++) rest += logits[t];
  record.sum = record.sum * factor + sumLanes(sum) + rest;
  record.maximum = newMaximum;
  return factor;
}

// The same for a row with excluded tokens, whose maximum is already updated: each run of tokens that weigh is added by
// itself, so that what is excluded is not even multiplied by zero (it may be NaN).
template <class E>
void addRuns(int dim, Record& record, float factor, const Block& block, float (*logits)[kBlockTokens]) {
  float* weighted[1] = {record.weighted};
  float sum = 0;
  for (int t = 0; t < block.count;) {
    if (logits[0][t] == -kInfinity) {
      t++;
      continue;
    }
    int end = t;
    for (; end < block.count && logits[0][end] != -kInfinity; end++) {
      logits[0][end] = exponential(splat(logits[0][end] - record.maximum))[0];
      sum += logits[0][end];
    }
    record.sum *= factor;
    addValues<E, 1>(dim, block, nullptr, t, end, logits, &factor, weighted);
    factor = 1;
    t = end;
  }
  record.sum += sum;
}

template <class K, class V>
class AttendTask {
 public:
  AttendTask(const Memory& memory, const AttendJob& job)
      : job_(job),
        queries_(reinterpret_cast<const float*>(memory.arena + job.queries)),
        bounds_(reinterpret_cast<const QueryBounds*>(memory.arena + job.bounds)),
        partials_(memory.arena + job.partials),
        recordBytes_(4 * (2 + job.headDimV)) {}

  void step(const Block& block, const Block* ahead) {
    uint32_t row = 0;
    while (row < job_.queryCount) {
      const uint32_t left = job_.queryCount - row;
      const Block* prefetched = row == 0 ? ahead : nullptr;
      if (left >= 4) tile<4>(row, block, prefetched), row += 4;
      else if (left >= 2) tile<2>(row, block, prefetched), row += 2;
      else tile<1>(row, block, prefetched), row += 1;
    }
  }

  Record& record(uint32_t row) { return *reinterpret_cast<Record*>(partials_ + row * recordBytes_); }

 private:
  template <int Q>
  void tile(uint32_t row, const Block& block, const Block* ahead) {
    bool all[Q], none = true;
    for (int q = 0; q < Q; q++) {
      const QueryBounds& bounds = bounds_[row + q];
      all[q] = block.contiguous && sees(bounds, 0, block.position[0]) && sees(bounds, 0, block.position[block.count - 1]);
      for (int t = 0; t < block.count && none; t++) none = !sees(bounds, job_.sinkCount, block.position[t]);
    }
    if (none) return;
    alignas(64) float padded[Q * kHeadDimMax];
    int stride = job_.headDimK;
    const float* queries = padQueries<Q>(row, padded, stride);
    alignas(64) float logits[Q][kBlockTokens];
    blockLogits<K, Q>(job_, queries, stride, block, ahead, logits);
    float factors[Q];
    float* weighted[Q];
    bool whole[Q], wholeTile = true;
    for (int q = 0; q < Q; q++) {
      if (!all[q]) mask(bounds_[row + q], block, logits[q]);
      factors[q] = softmaxStep(record(row + q), logits[q], block.count, whole[q]);
      weighted[q] = record(row + q).weighted;
      wholeTile &= whole[q];
    }
    if (wholeTile) {
      addValues<V, Q>(job_.headDimV, block, ahead, 0, block.count, logits, factors, weighted);
      return;
    }
    for (int q = 0; q < Q; q++) {
      if (whole[q]) {
        addValues<V, 1>(job_.headDimV, block, nullptr, 0, block.count, logits + q, factors + q, weighted + q);
      } else {
        addRuns<V>(job_.headDimV, record(row + q), factors[q], block, logits + q);
      }
    }
  }

  // Query rows are read in whole vectors: where a row ends inside one, the rows are copied and padded with zeros.
  template <int Q>
  const float* padQueries(uint32_t row, float* padded, int& stride) const {
    const float* queries = queries_ + uint64_t{row} * job_.headDimK;
    if (job_.headDimK % W == 0) return queries;
    stride = (job_.headDimK + W - 1) / W * W;
    for (int q = 0; q < Q; q++) {
      memcpy(padded + q * stride, queries + q * job_.headDimK, job_.headDimK * sizeof(float));
      for (int d = job_.headDimK; d < stride; d++) padded[q * stride + d] = 0;
    }
    return padded;
  }

  void mask(const QueryBounds& bounds, const Block& block, float* logits) const {
    for (int t = 0; t < block.count; t++) {
      if (!sees(bounds, job_.sinkCount, block.position[t])) logits[t] = -kInfinity;
    }
  }

  const AttendJob& job_;
  const float* queries_;
  const QueryBounds* bounds_;
  uint8_t* partials_;
  const uint64_t recordBytes_;
};

template <class K, class V>
const char* attendTyped(const Memory& memory, const AttendJob& job) {
  AttendTask<K, V> task(memory, job);
  const QueryBounds* bounds = reinterpret_cast<const QueryBounds*>(memory.arena + job.bounds);
  uint32_t minStart = UINT32_MAX, maxEnd = 0;
  for (uint32_t row = 0; row < job.queryCount; row++) {
    Record& record = task.record(row);
    record.maximum = -kInfinity;
    record.sum = 0;
    memset(record.weighted, 0, job.headDimV * sizeof(float));
    if (bounds[row].start < minStart) minStart = bounds[row].start;
    if (bounds[row].end > maxEnd) maxEnd = bounds[row].end;
  }
  BlockStream stream(memory, job, minStart, maxEnd);
  Block blocks[2];
  bool valid = stream.next(blocks[0]);
  for (int i = 0; valid && blocks[i].count > 0; i ^= 1) {
    valid = stream.next(blocks[i ^ 1]);
    // Only a whole block ahead is prefetched: its pointers are then all there.
    const Block* ahead = valid && blocks[i ^ 1].count == kBlockTokens ? &blocks[i ^ 1] : nullptr;
    task.step(blocks[i], ahead);
  }
  if (!valid) return "attend: a frame lies outside its arena";
  for (uint32_t row = 0; row < job.queryCount; row++) {
    Record& record = task.record(row);
    if (record.maximum == record.maximum) continue;
    record.sum = __builtin_nanf("");
    for (uint32_t d = 0; d < job.headDimV; d++) record.weighted[d] = __builtin_nanf("");
  }
  return nullptr;
}

template <class K>
const char* attendWithKeys(const Memory& memory, const AttendJob& job) {
  switch (job.elementTypeV) {
    case kF32: return attendTyped<K, F32>(memory, job);
    case kF16: return attendTyped<K, F16>(memory, job);
    default: return attendTyped<K, Bf16>(memory, job);
  }
}

const char* attend(const Memory& memory, uint64_t at) {
  if (at % 4 != 0 || !inRange(at, sizeof(AttendJob), memory.arenaBytes)) return "attend: job outside the arena";
  AttendJob job;
  memcpy(&job, memory.arena + at, sizeof job);
  if (job.headDimK < 1 || job.headDimK > kHeadDimMax || job.headDimV < 1 || job.headDimV > kHeadDimMax) {
    return "attend: head dimension not 1 to 256";
  }
  if (!isElementType(job.elementTypeK) || !isElementType(job.elementTypeV)) return "attend: unknown element type";
  const uint64_t rows = job.queryCount;
  const uint64_t limit = memory.arenaBytes;
  if (!inRange(job.frames, uint64_t{job.frameCount} * sizeof(Frame), limit)) return "attend: frames outside the arena";
  if (!inRange(job.queries, rows * job.headDimK * 4, limit)) return "attend: queries outside the arena";
  if (!inRange(job.bounds, rows * sizeof(QueryBounds), limit)) return "attend: bounds outside the arena";
  if (!inRange(job.partials, rows * (2 + job.headDimV) * 4, limit)) return "attend: partials outside the arena";
  if ((job.queries | job.bounds | job.partials) % 4 != 0) return "attend: offsets are multiples of 4";
  switch (job.elementTypeK) {
    case kF32: return attendWithKeys<F32>(memory, job);
    case kF16: return attendWithKeys<F16>(memory, job);
    default: return attendWithKeys<Bf16>(memory, job);
  }
}

}  // namespace
}  // namespace attndrive
