// Attention of query rows over a stream of tokens: one pass, online softmax over blocks of tokens.
//
// For each block and each tile of up to four query rows: dot products with the keys (dot-products.h), their exponentials,
// then the weighted sum of V (weighted-sums.h). A tile shares what it loads of K and V; further tiles find it in the cache.
// One row alone goes its own way (one-row.h).
#pragma once
#include "bfloat-keys.h"
#include "dot-products.h"
#include "integer-keys.h"
#include "integer-values.h"
#include "one-row.h"
#include "quantise.h"
#include "weighted-sums.h"

namespace attndrive {
namespace {

// Rows that one pass over the tokens takes; a job with more walks its tokens again.
constexpr int kPassRows = 64;
constexpr float kInfinity = __builtin_inff();

// Bytes of K (and of V) that a block takes, about. The block that is worked on and those being read ahead must fit the
// first-level cache together with queries and sums (measured: larger blocks compute a tenth faster and arrive a fifth
// slower). Many tiles read queries and sums anew for each block, and are not held up by memory.
constexpr int kBlockBytes = 4096;
constexpr int kBlockBytesOfMany = 8192;
constexpr uint32_t kManyRows = 9;

// A row alone over pages that lie apart takes them page by page (of 16 KiB): in that order the processor's own reading ahead
// runs longest. Where more tokens than these lie together on average, turns of K and V are better.
constexpr int kBlockBytesOfApart = 16384;
constexpr uint64_t kTokensTogether = 128;

// Blocks that are being worked on and read ahead, at most.
constexpr int kRing = 4;

// Quantised rows become rows of floats first, which stay in the first-level cache for a few tokens at a time.
constexpr int kUnpackedBytes = 16384;

constexpr int kUnpackedTokens = kUnpackedBytes / (kHeadDimMax * sizeof(float));

// Integer dot products take more tokens at a time: each block has its weights made integers and its sums made floats.
constexpr int kIntegerBlockTokens = 64;

inline int blockTokensOf(const AttendJob& job, int bytes) {
  const int bytesOfRow = rowBytes(job.elementTypeK, job.headDimK);
  const int tokens = (bytes / bytesOfRow + 8) / 16 * 16;
  return tokens < 16 ? 16 : tokens > kBlockTokensMax ? kBlockTokensMax : tokens;
}

// A partial record.
struct Record {
  float maximum, sum;
  float weighted[1];
};

inline bool sees(const QueryBounds& bounds, uint32_t sinkCount, uint32_t position) {
  return position < bounds.end && (position >= bounds.start || position < sinkCount);
}

// From lane q * T + j to lane j * Q + q.
template <int Q, int... I>
ALWAYS_INLINE vf tokenMajor(vf a, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, a, (I % Q * (W / Q) + I / Q)...);
}

template <int T, int... I>
ALWAYS_INLINE vi tokenOfLane(std::integer_sequence<int, I...>) {
  return vi{(I % T)...};
}

// What an element type needs of its own.
struct ElementKernels {
  KeyPhase keys;
  ValuePhase values;
  const OneRow* (*oneRow)(uint32_t headDim);
};

template <class E>
constexpr ElementKernels kernelsOf = {keyPhaseOf<E>, valuePhaseOf<E>, oneRowOf<E>};

inline const ElementKernels& elementKernels(uint32_t type) {
  return type == kF16 ? kernelsOf<F16> : type == kBf16 ? kernelsOf<Bf16> : kernelsOf<F32>;
}

// Index of a tile's functions.
constexpr int tileIndex(int rows) { return rows == 4 ? 0 : rows == 2 ? 1 : 2; }

// Up to kPassRows rows of a job against all of its tokens.
class AttendPass {
 public:
  AttendPass(const Memory& memory, const AttendJob& job, bool isFast, uint32_t firstRow, int rowCount)
      : memory_(memory),
        job_(job),
        isBfloat_(isFast && kHasBfloatProducts && job.elementTypeK == kBf16 && rowCount > 1 &&
                 fitsBfloat(queriesOf(memory, job, firstRow), rowCount * job.headDimK)),
        keys_(isBfloat_ ? bfloatKeys : elementKernels(job.elementTypeK).keys),
        values_(elementKernels(job.elementTypeV).values),
        bounds_(reinterpret_cast<const QueryBounds*>(memory.arena + job.bounds) + firstRow),
        integerKeys_(isQuantised(job.elementTypeK) ? integerKeys(job.elementTypeK, isFast, job.headDimK) : nullptr),
        integerValues_(isQuantised(job.elementTypeV) ? integerValues(job.elementTypeV, job.headDimV) : nullptr),
        recordBytes_(sizeof(float) * (2 + job.headDimV)),
        partials_(memory.arena + job.partials + firstRow * recordBytes_),
        rowCount_(rowCount),
        strideK_((job.headDimK + W - 1) / W * W),
        strideV_((job.headDimV + W - 1) / W * W) {
    const float* source = queriesOf(memory, job, firstRow);
    for (int row = 0; row < rowCount; row++) {
      float* query = queries_ + row * strideK_;
      memcpy(query, source + row * job.headDimK, job.headDimK * sizeof(float));
      for (int d = job.headDimK; d < strideK_; d++) query[d] = 0;
      if (integerKeys_ != nullptr && !quantiseQuery(job.elementTypeK, isFast, query, job.headDimK, integerQueries_[row])) {
        integerKeys_ = nullptr;
      }
      if (isBfloat_) roundToBfloat(query, job.headDimK, strideK_);
      memset(weighted_ + row * strideV_, 0, strideV_ * sizeof(float));
      maximum_[row] = splat(-kInfinity);
      sum_[row] = splat(0);
      isPoisoned_[row] = false;
      const QueryBounds& bounds = bounds_[row];
      if (bounds.start < minStart_) minStart_ = bounds.start;
      if (bounds.start > maxStart_) maxStart_ = bounds.start;
      if (bounds.end < minEnd_) minEnd_ = bounds.end;
      if (bounds.end > maxEnd_) maxEnd_ = bounds.end;
    }
  }

  // False if a frame lies outside its arena.
  bool run() {
    if (!walk()) return false;
    writeRecords();
    return true;
  }

 private:
  static const float* queriesOf(const Memory& memory, const AttendJob& job, uint32_t firstRow) {
    return reinterpret_cast<const float*>(memory.arena + job.queries) + uint64_t{firstRow} * job.headDimK;
  }

  bool walk() {
    if (unpacksK() || unpacksV()) return walkUnpacked();
    const bool isFloats = !isQuantised(job_.elementTypeK) && !isQuantised(job_.elementTypeV);
    if (isFloats && rowCount_ == 1 && job_.headDimK == job_.headDimV && job_.elementTypeK == job_.elementTypeV) {
      const OneRow* oneRow = elementKernels(job_.elementTypeK).oneRow(job_.headDimK);
      if (oneRow != nullptr) return liesApart() ? walkOneRowByPhases(*oneRow) : walkOneRow(*oneRow);
    }
    return walkTiles();
  }

  // Frames outside their arena are refused later.
  bool liesApart() const {
    const Frame* frames = reinterpret_cast<const Frame*>(memory_.arena + job_.frames);
    uint64_t tokenCount = 0;
    for (uint32_t i = 0; i < job_.frameCount; i++) tokenCount += frames[i].tokenCount;
    return tokenCount < job_.frameCount * kTokensTogether;
  }

  bool unpacksK() const { return isQuantised(job_.elementTypeK) && integerKeys_ == nullptr; }
  bool unpacksV() const { return isQuantised(job_.elementTypeV) && integerValues_ == nullptr; }

  int blockTokens() const {
    if (unpacksK() || unpacksV()) return job_.headDimK > 128 || job_.headDimV > 128 ? kUnpackedTokens : 2 * kUnpackedTokens;
    if (integerKeys_ != nullptr || integerValues_ != nullptr) return kIntegerBlockTokens;
    return blockTokensOf(job_, job_.queryCount >= kManyRows ? kBlockBytesOfMany : kBlockBytes);
  }

  bool walkTiles() {
    BlockStream stream(memory_, job_, minStart_, maxEnd_, blockTokens());
    // A single tile of four rows gets through a block before memory has brought the next one.
    const bool isInteger = integerKeys_ != nullptr || integerValues_ != nullptr;
    const int ahead = rowCount_ == kTileRows && !isInteger && hasLargeFirstLevelCache() ? 2 : 1;
    Block blocks[kRing];
    for (int i = 0; i < ahead; i++) {
      if (!stream.next(blocks[i])) return false;
    }
    if (isInteger) {
      RowPrefetch first = {blocks[0].k, blocks[0].v, static_cast<int>(rowBytes(job_.elementTypeK, job_.headDimK)),
                           static_cast<int>(rowBytes(job_.elementTypeV, job_.headDimV)), 2 * blocks[0].count,
                           blocks[0].isReadOnce};
      while (first.left > 0) first.advance();
    }
    for (int i = 0; blocks[i % kRing].count > 0; i++) {
      const Block& block = blocks[i % kRing];
      Block& next = blocks[(i + ahead) % kRing];
      if (!stream.next(next)) return false;
      // Only a block that has a row for each of this one's is read ahead.
      step(block, next.count >= block.count ? next : block);
    }
    return true;
  }

  bool walkUnpacked() {
    BlockStream stream(memory_, job_, minStart_, maxEnd_, blockTokens());
    Block packed[2];
    Block block;
    if (!stream.next(packed[0])) return false;
    for (int i = 0; packed[i % 2].count > 0; i++) {
      Block& next = packed[(i + 1) % 2];
      if (!stream.next(next)) return false;
      block = packed[i % 2];
      if (unpacksK()) unpackRows(job_.elementTypeK, job_.headDimK, block, next, &Block::k, unpackedK_);
      if (unpacksV()) unpackRows(job_.elementTypeV, job_.headDimV, block, next, &Block::v, unpackedV_);
      step(block, block);
    }
    return true;
  }

  // Puts rows of floats in the place of quantised ones, and reads the next block's into the cache.
  void unpackRows(uint32_t type, int dim, Block& block, const Block& next,
                  const uint8_t* (Block::*rows)[kBlockTokensMax + kBlockSlack], float* target) {
    const int stride = (dim + W - 1) / W * W;
    const int bytes = static_cast<int>(rowBytes(type, dim));
    const uint8_t** list = block.*rows;
    for (int t = 0; t < block.count; t++, target += stride) {
      if (t < next.count) {
        for (int i = 0; i < bytes; i += 64) prefetch((next.*rows)[t] + i, next.isReadOnce);
      }
      dequantiseRow(type, list[t], target, dim);
      list[t] = reinterpret_cast<const uint8_t*>(target);
    }
    for (int t = block.count; t % W != 0; t++) list[t] = list[block.count - 1];
  }

  void step(const Block& block, const Block& next) {
    for (int row = 0; row < rowCount_;) {
      const int left = rowCount_ - row;
      const Block& ahead = row == 0 ? next : block;
      if (left >= 4) row = tile<4>(row, block, ahead);
      else if (left >= 2) row = tile<2>(row, block, ahead);
      else row = tile<1>(row, block, ahead);
    }
  }

  // Returns the next tile's first row.
  template <int Q>
  int tile(int row, const Block& block, const Block& next) {
    alignas(64) float logits[Q * (kBlockTokensMax + W)];
    const int half = block.count / 2;
    const RowPrefetch ahead = {next.k, next.v, static_cast<int>(rowBytes(job_.elementTypeK, job_.headDimK)),
                               static_cast<int>(rowBytes(job_.elementTypeV, job_.headDimV)), 2 * half, next.isReadOnce};
    if (integerKeys_ != nullptr) {
      integerKeys_->dotProducts[tileIndex(Q)](integerQueries_ + row, block, job_.headDimK, ahead, logits);
    } else {
      keys_.dotProducts[tileIndex(Q)](queries_ + row * strideK_, strideK_, block, next, job_.headDimK, logits);
    }
    vf factors[Q];
    if (!weigh<Q>(row, block, logits, factors)) {
      for (int q = 0; q < Q; q++) addRowAlone<Q>(row, q, block, logits);
      return row + Q;
    }
    addValues<Q>(row, block.v, block.count, logits, factors,
                 {ahead.rows + half, ahead.others + half, ahead.bytes, ahead.otherBytes, 2 * (block.count - half),
                  ahead.isReadOnce});
    return row + Q;
  }

  // Adds weights[t][q] * v[t] to the sums of Q rows from `row` on; meanwhile reads as many rows ahead.
  template <int Q>
  void addValues(int row, const uint8_t* const* v, int count, const float* weights, const vf* factors, RowPrefetch ahead) {
    float* weighted = weighted_ + row * strideV_;
    const auto add = values_.addValues[tileIndex(Q)];
    if (integerValues_ == nullptr) {
      add(v, count, job_.headDimV, weights, factors, weighted, strideV_,
          {ahead.rows, ahead.others, ahead.otherBytes, 0, ahead.isReadOnce});
      return;
    }
    if (integerValues_->addValues[tileIndex(Q)](v, count, job_.headDimV, weights, factors, weighted, strideV_, ahead)) {
      return;
    }
    // Some group is NaN: it must not reach other columns.
    vf ones[Q];
    for (int q = 0; q < Q; q++) ones[q] = splat(1);
    for (int t = 0; t < count; t += kUnpackedTokens) {
      const int some = count - t < kUnpackedTokens ? count - t : kUnpackedTokens;
      const uint8_t* rows[kUnpackedTokens];
      for (int i = 0; i < some; i++) {
        float* unpacked = unpackedV_ + i * strideV_;
        dequantiseRow(job_.elementTypeV, v[t + i], unpacked, job_.headDimV);
        rows[i] = reinterpret_cast<const uint8_t*>(unpacked);
      }
      add(rows, some, job_.headDimV, weights + t * Q, t == 0 ? factors : ones, weighted, strideV_, {v, v, INT32_MAX, 0, false});
    }
  }

  // One block's V phase is done together with the next one's K phase.
  bool walkOneRow(const OneRow& oneRow) {
    BlockStream stream(memory_, job_, minStart_, maxEnd_, blockTokensOf(job_, kBlockBytes));
    Block blocks[kRing];
    Block nothing;
    alignas(64) float weights[2][kBlockTokensMax + W];
    if (!stream.next(blocks[0])) return false;
    const Block* before = &nothing;
    vf factor = splat(1);
    for (int i = 0;; i++) {
      const Block& block = blocks[i % kRing];
      Block& next = blocks[(i + 1) % kRing];
      next.count = 0;
      if (block.count > 0 && !stream.next(next)) return false;
      float* logits = weights[i % 2];
      oneRow.attendRows(queries_, *before, block, next, weights[(i + 1) % 2], factor[0], weighted_, logits);
      if (block.count == 0) return true;
      before = &block;
      if (weigh<1>(0, block, logits, &factor)) continue;
      addRowAlone<1>(0, 0, block, logits);
      before = &nothing;
      factor = splat(1);
    }
  }

  // A block's K phase, then its V phase.
  bool walkOneRowByPhases(const OneRow& oneRow) {
    BlockStream stream(memory_, job_, minStart_, maxEnd_, blockTokensOf(job_, kBlockBytesOfApart));
    Block blocks[2];
    alignas(64) float weights[kBlockTokensMax + W];
    if (!stream.next(blocks[0])) return false;
    for (int i = 0; blocks[i % 2].count > 0; i++) {
      const Block& block = blocks[i % 2];
      Block& next = blocks[(i + 1) % 2];
      if (!stream.next(next)) return false;
      oneRow.dotRows(queries_, block.k, block.count, block.v, block.isReadOnce, weights);
      vf factor;
      if (weigh<1>(0, block, weights, &factor)) {
        const Block& then = next.count > 0 ? next : block;
        oneRow.addRows(block.v, block.count, then.k, block.isReadOnce, weights, factor[0], weighted_);
      } else {
        addRowAlone<1>(0, 0, block, weights);
      }
    }
    return true;
  }

  // Turns dot products into weights [t][q] relative to the rows' new maxima, and updates maxima and sums. The factors are
  // for what was summed before. If a row doesn't see all of the block, or a logit is not finite, it leaves logits instead
  // and returns false.
  template <int Q>
  ALWAYS_INLINE bool weigh(int row, const Block& block, float* logits, vf* factors) {
    constexpr int T = W / Q;
    vf top = maximum_[row], finite = splat(0);
    for (int t = 0; t < block.count; t += T) {
      vf logit = loadFloats(logits + t * Q) * job_.scale;
      if (job_.softCap > 0) logit = hyperbolicTangent(logit / splat(job_.softCap)) * job_.softCap;
      storeFloats(logits + t * Q, logit);
      top = maximum(logit, top);
      // Stays zero unless a logit is NaN or infinite.
      finite = logit * 0.0f + finite;
    }
    const bool isSeen =
        block.isContiguous && block.position[0] >= maxStart_ && block.position[block.count - 1] < minEnd_;
    if (!isSeen || isPoisoned_[row] || anyLane(finite != finite)) return false;
    top = maximumOfRuns<T>(top);
    const vf factor = exponential(maximum_[row] - top);
    vf sum = sum_[row] * factor;
    for (int t = 0; t < block.count; t += T) {
      vf weight = exponential(loadFloats(logits + t * Q) - top);
      if (t + T > block.count) weight = (vf)((vi)weight & (tokenOfLane<T>(Lanes{}) < block.count - t));
      sum += weight;
      storeFloats(logits + t * Q, tokenMajor<Q>(weight, Lanes{}));
    }
    maximum_[row] = top;
    sum_[row] = sum;
    UNROLL for (int q = 0; q < Q; q++) factors[q] = splat(factor[q * T]);
    return true;
  }

  // Adds a block to row q of the tile at `row` from its logits. Each run of tokens that weigh is added by itself, so that
  // what is not seen is not even multiplied by zero (it may be NaN).
  template <int Q>
  NO_INLINE void addRowAlone(int row, int q, const Block& block, const float* logits) {
    constexpr int T = W / Q;
    float weights[kBlockTokensMax];
    const float before = maximum_[row][q * T];
    float top = before;
    bool isPoisoned = before != before;
    for (int t = 0; t < block.count; t++) {
      const bool isSeen = sees(bounds_[row + q], job_.sinkCount, block.position[t]);
      weights[t] = isSeen ? logits[t / T * W + q * T + t % T] : -kInfinity;
      if (!(weights[t] < kInfinity)) isPoisoned = true;
      if (weights[t] > top) top = weights[t];
    }
    if (isPoisoned) {
      isPoisoned_[row] = true;
      top = __builtin_nanf("");
    }
    for (int j = 0; j < T; j++) maximum_[row][q * T + j] = top;
    if (isPoisoned || top == -kInfinity) return;
    vf factor = exponential(splat(before - top));
    float sum = 0;
    for (int j = 0; j < T; j++) sum += sum_[row][q * T + j] * factor[0];
    for (int t = 0; t < block.count; t++) {
      int end = t;
      for (; end < block.count && weights[end] != -kInfinity; end++) {
        weights[end] = exponential(splat(weights[end] - top))[0];
        sum += weights[end];
      }
      if (end == t) continue;
      addValues<1>(row + q, block.v + t, end - t, weights + t, &factor, {block.k, block.v, INT32_MAX, INT32_MAX, 0, false});
      factor = splat(1);
      t = end;
    }
    for (int j = 0; j < T; j++) sum_[row][q * T + j] = j == 0 ? sum : 0;
  }

  void writeRecords() {
    for (int row = 0; row < rowCount_;) {
      const int left = rowCount_ - row;
      const int tileRows = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      for (int q = 0; q < tileRows; q++) writeRecord(row, q, W / tileRows);
      row += tileRows;
    }
  }

  void writeRecord(int row, int q, int lanes) {
    Record& record = *reinterpret_cast<Record*>(partials_ + (row + q) * recordBytes_);
    record.maximum = maximum_[row][q * lanes];
    record.sum = 0;
    for (int j = 0; j < lanes; j++) record.sum += sum_[row][q * lanes + j];
    memcpy(record.weighted, weighted_ + (row + q) * strideV_, job_.headDimV * sizeof(float));
    if (record.maximum == record.maximum) return;
    record.sum = __builtin_nanf("");
    for (uint32_t d = 0; d < job_.headDimV; d++) record.weighted[d] = __builtin_nanf("");
  }

  static constexpr int kTileRows = 4;

  const Memory& memory_;
  const AttendJob& job_;
  // Queries are bf16.
  const bool isBfloat_;
  const KeyPhase& keys_;
  const ValuePhase& values_;
  const QueryBounds* bounds_;
  // Null where rows are floats, or are made floats.
  const IntegerKeys* integerKeys_;
  const IntegerValues* integerValues_;
  const uint64_t recordBytes_;
  uint8_t* partials_;
  const int rowCount_, strideK_, strideV_;
  uint32_t minStart_ = UINT32_MAX, maxStart_ = 0, minEnd_ = UINT32_MAX, maxEnd_ = 0;
  // Of a tile, at its first row, in the lanes of dot-products.h: maxima are the same in all lanes of a row, sums are to be
  // added up over them; whether any of its rows is NaN.
  vf maximum_[kPassRows], sum_[kPassRows];
  bool isPoisoned_[kPassRows];
  alignas(64) float queries_[kPassRows * kHeadDimMax];
  alignas(64) float weighted_[kPassRows * kHeadDimMax];
  IntegerQuery integerQueries_[kPassRows];
  alignas(64) float unpackedK_[kUnpackedBytes / sizeof(float) + W];
  alignas(64) float unpackedV_[kUnpackedBytes / sizeof(float) + W];
};

const char* attendJob(const Memory& memory, uint64_t at, bool isFast) {
  if (at % 4 != 0 || !inRange(at, sizeof(AttendJob), memory.arenaBytes)) return "attend: job outside the arena";
  AttendJob job;
  memcpy(&job, memory.arena + at, sizeof job);
  if (job.headDimK < 1 || job.headDimK > kHeadDimMax || job.headDimV < 1 || job.headDimV > kHeadDimMax) {
    return "attend: head dimension not 1 to 256";
  }
  if (!isElementType(job.elementTypeK) || !isElementType(job.elementTypeV)) return "attend: unknown element type";
  // Another pass would read it again.
  if (job.queryCount > kPassRows) job.isReadOnce = 0;
  const uint64_t rows = job.queryCount;
  const uint64_t limit = memory.arenaBytes;
  if (!inRange(job.frames, uint64_t{job.frameCount} * sizeof(Frame), limit)) return "attend: frames outside the arena";
  if (!inRange(job.queries, rows * job.headDimK * 4, limit)) return "attend: queries outside the arena";
  if (!inRange(job.bounds, rows * sizeof(QueryBounds), limit)) return "attend: bounds outside the arena";
  if (!inRange(job.partials, rows * (2 + job.headDimV) * 4, limit)) return "attend: partials outside the arena";
  if ((job.queries | job.bounds | job.partials) % 4 != 0) return "attend: offsets are multiples of 4";
  for (uint32_t row = 0; row < job.queryCount; row += kPassRows) {
    const uint32_t left = job.queryCount - row;
    AttendPass pass(memory, job, isFast, row, left < kPassRows ? left : kPassRows);
    if (!pass.run()) return "attend: a frame lies outside its arena";
  }
  return nullptr;
}

const char* attend(const Memory& memory, uint64_t at) { return attendJob(memory, at, false); }

}  // namespace
}  // namespace attndrive
