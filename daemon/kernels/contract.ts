/**
 * What a kernel set does. Three sets satisfy this contract: native (C++), wasm (AssemblyScript) and reference
 * (TypeScript, normative). All of them work on offsets in the arena; native ones also on the media mapping.
 *
 * Numerics. Logits, softmax statistics and accumulation are float32 (or wider); K, V and queries are read exactly.
 *   logit(i, t) = scale * dot(q_i, k_t), then softCap * tanh(logit / softCap) if softCap > 0
 *   output(i)   = sum_t exp(logit(i, t) - max_i) * v_t / sum_t exp(logit(i, t) - max_i)
 * over the tokens t that query i sees: t < end_i and (t >= start_i or t < sinkCount).
 * A query that sees no token gets zeros, maximum -Infinity and log-sum-exp -Infinity.
 * NaN and infinity follow IEEE 754 within what a query sees: a NaN in any key, value or logit it sees makes its output
 * NaN (a NaN in one V column only that column), a logit of +Infinity too; a logit of -Infinity weighs nothing, and if
 * all are -Infinity the query counts as seeing no token. What a query does not see never touches its result.
 */
import { defineStruct, f32, reserved, u32, uint64 } from '../../spec/struct.ts';

/** Arena of a frame's K or V rows. `media`: the mapping of the media file, or the slab that stands in its place. */
export const frameArenas = { memory: 0, media: 1 } as const;

/** A run of consecutive tokens of one KV head whose K rows lie together and whose V rows lie together. 32 bytes. */
export const frameStruct = defineStruct('frame', 32, {
  kOffset: uint64(0, 'byte offset of the first K row in its arena; rows follow one another'),
  vOffset: uint64(8, 'byte offset of the first V row in its arena; rows follow one another'),
  firstToken: u32(16, 'position of the first token'),
  tokenCount: u32(20, 'tokens; at least 1'),
  kArena: u32(24, 'frameArenas'),
  vArena: u32(28, 'frameArenas'),
});

/** What one query row sees. 8 bytes. */
export const boundsStruct = defineStruct('query bounds', 8, {
  start: u32(0, 'first token seen (besides sinks)'),
  end: u32(4, 'one past the last token seen'),
});

/**
 * One job: all query rows of one KV head against one chunk of tokens. Writes one partial per query row. 64 bytes.
 * All offsets are byte offsets in the arena, 4-byte aligned.
 */
export const attendJob = defineStruct('attend job', 64, {
  queryCount: u32(0, 'query rows'),
  headDimK: u32(4, 'elements of a K row and of a query row'),
  headDimV: u32(8, 'elements of a V row'),
  elementTypeK: u32(12, 'element type code'),
  elementTypeV: u32(16, 'element type code'),
  frameCount: u32(20, 'frames, in ascending token order'),
  frames: u32(24, 'offset of the frames'),
  queries: u32(28, 'offset of the queries: f32 [queryCount][headDimK]'),
  bounds: u32(32, 'offset of the query bounds, [queryCount]'),
  sinkCount: u32(36, 'tokens below it are seen by every query that they precede'),
  scale: f32(40, 'factor of the logits'),
  softCap: f32(44, 'logit soft-cap; 0: none'),
  partials: u32(48, 'offset of the result: [queryCount] partial records of 2 + headDimV f32'),
  isReadOnce: u32(52, 'not 0: its rows are not read again soon, and need not stay in caches'),
  reserved0: reserved(56, 8),
});

/**
 * A partial record is f32 {maximum, sum, weighted[headDimV]}: sum and weighted are relative to maximum
 * (FlashAttention's split-KV partials). The neutral record is {-Infinity, 0, 0...}.
 */
export const partialSizeBytes = (headDimV: number): number => 4 * (2 + headDimV);

/**
 * Merges the partials of the chunks of one job group, in chunk order, and writes the outputs. 64 bytes.
 */
export const mergeJob = defineStruct('merge job', 64, {
  queryCount: u32(0, 'query rows'),
  headDimV: u32(4, 'elements of an output row'),
  chunkCount: u32(8, 'partials per query row; may be 0'),
  partials: u32(12, "offset of chunk 0's partials, [queryCount] records"),
  chunkStrideBytes: u32(16, "from one chunk's partials to the next"),
  outputType: u32(20, 'element type code'),
  outputRows: u32(24, 'offset of u32 [queryCount]: row number of each query row in the output'),
  output: u32(28, 'offset of the output rows, headDimV elements of outputType each'),
  statistics: u32(32, 'offset of f32 [rows][2] {maximum, log-sum-exp}, by the same row numbers; 0: not wanted'),
  reserved0: reserved(36, 28),
});

/** In place of a region mapping: rows lie in the arena. */
export const NO_REGION = 0xffff_ffff;

/**
 * Pages of an append, made from its rows. They are numbered as they are programmed, all groups of one stream before the next:
 * page i is group i mod groupCount of stream floor(i / groupCount), and stream s is part s mod 2 (K, V) of head floor(s / 2).
 * The rows of the first group follow `tailCount` ones that lie in a tail slab. 96 bytes.
 */
export const assembleJob = defineStruct('assemble job', 96, {
  keys: uint64(0, 'offset of the first K row'),
  values: uint64(8, 'offset of the first V row'),
  region: u32(16, 'region mapping that the rows lie in; FFFFFFFFh: the arena'),
  headCount: u32(20, 'heads'),
  tokenCount: u32(24, 'tokens that there are rows of'),
  headMajor: u32(28, '0: rows lie as [token][head]; 1: as [head][token]'),
  rowBytesK: u32(32, 'bytes of a K row'),
  rowBytesV: u32(36, 'bytes of a V row'),
  groupTokens: u32(40, 'tokens of a group'),
  groupCount: u32(44, 'groups'),
  firstToken: u32(48, 'the first token of the rows that is in the pages'),
  tailCount: u32(52, "rows of the first group that are in the slab; less than the group's"),
  tailKeys: u32(56, "arena offset of the slab's first K row"),
  tailValues: u32(60, "arena offset of the slab's first V row"),
  tailStrideBytes: u32(64, "from one head's rows in the slab to the next head's"),
  pageBytes: u32(68, 'bytes of a page; behind the rows it is zero'),
  firstPage: u32(72, 'the first page to make'),
  pageCount: u32(76, 'pages to make'),
  target: u32(80, 'arena offset of the pages, one behind the other'),
  checksums: u32(84, 'arena offset of u32 [pageCount]: CRC32C of each page'),
  reserved0: reserved(88, 8),
});

export type KernelName = 'native' | 'wasm' | 'reference';
export const kernelNames: readonly KernelName[] = ['native', 'wasm', 'reference'];

/**
 * How far native kernels may be from float32 arithmetic. exact: not at all. close: quantised rows are multiplied as the integers
 * that they are, which moves outputs by a tenth of what quantising did, or less. fast: with queries of 8 bits, and for bf16
 * keys queries rounded to bf16, which moves them about as far as that. error-budget.ts has the bounds. Kernels that know no
 * other way are exact.
 */
export const kernelPrecisions = ['exact', 'close', 'fast'] as const;
export type KernelPrecision = (typeof kernelPrecisions)[number];

export interface Kernels {
  readonly name: KernelName;
  /** Instruction set in use, for people: "avx512", "simd128", "scalar". */
  readonly isa: string;
  /** Whether frames may name the media arena. */
  readonly canMapMedia: boolean;
  /** Whether rows may lie in a region mapping (native/region-mapping.ts). */
  readonly canReadRegions: boolean;
  /** CRC32C (Castagnoli, reflected 82F63B78h) of arena bytes, continuing from `seed` (0 to start). */
  crc32c(offset: number, sizeBytes: number, seed?: number): number;
  /** The same of bytes that need not lie in the arena, at most 4 GiB. */
  crc32cOf(bytes: Uint8Array, seed?: number): number;
  /** CRC32C of bytes of the media arena; only if canMapMedia. */
  crc32cMedia(offset: number, sizeBytes: number): number;
  /**
   * Copies bytes of the media mapping, at most 1 MiB, to `target`, which need not lie in the arena, if none of them has to
   * come from the disk. False: some have, and nothing is copied. Only if canMapMedia.
   */
  copyResidentMedia(offset: number, target: Uint8Array): boolean;
  /**
   * Converts `rowCount` rows of `rowElements` each; source and target don't overlap. To f16 and bf16 it rounds to nearest
   * even, overflow to infinity, NaN to a quiet NaN; subnormals are kept. To quantised rows as spec/quantised-row.ts says.
   * Between other types than f32 it goes through f32. Codes as in spec/element-type.ts; rowElements is 1 to 256 for
   * quantised types.
   */
  convert(
    source: number,
    sourceType: number,
    target: number,
    targetType: number,
    rowCount: number,
    rowElements: number,
  ): void;
  /**
   * Copies `rowCount` rows of `rowBytes` bytes, of which each begins `strideBytes` after the one before, to `target`, one
   * behind the other. They lie in the arena and don't overlap with where they go, or in a region mapping. False: the region's
   * file has become shorter, and `target` has anything.
   */
  gather(
    source: number,
    strideBytes: number,
    rowBytes: number,
    rowCount: number,
    target: number,
    region?: number,
  ): boolean;
  /** Runs the assembleJob at `job`. False as `gather`. Sums are of what it has made, whatever happens to the rows meanwhile. */
  assemble(job: number): boolean;
  /** Runs the attendJob at `job`. */
  attend(job: number): void;
  /** Runs the mergeJob at `job`. */
  merge(job: number): void;
}

/** What a thread gives to make its kernel set. */
export interface KernelResources {
  /** The arena's memory. */
  readonly memory: WebAssembly.Memory;
  /** Media cells file to map read-only, for native kernels: an open descriptor and the bytes from its start. */
  readonly media?: { readonly fileDescriptor: number; readonly sizeBytes: number };
  /** Number of a slab (native/direct-io.ts) that is the media arena instead of a mapping, for native kernels. */
  readonly slab?: number;
  /** Instruction set of native kernels, if not the one that ATTNDRIVE_ISA names or the best there is for the precision. */
  readonly isa?: string;
  /** Default: close. */
  readonly precision?: KernelPrecision;
}
