/**
 * The KV-cache command set (CSI 30h, NSID 2): what each command's dwords and data mean.
 *
 * Every command carries its sequence id in CDW10 (low) and CDW11 (high), so that all of them can be sent by Linux
 * passthrough, which sets CDW2, CDW3 and CDW10 to CDW15 only. Opcodes stand in `opcodes.ts`, statuses in `status.ts`.
 */
import { defineStruct, f32, reserved, text, u8, u16, u32, u64, uint64 } from './struct.ts';

export const KV_CACHE_CSI = 0x30;
export const KV_CACHE_NSID = 2;
export const BLOCK_NSID = 1;

export const DESCRIPTOR_VERSION = 1;
/** In truncate's layer field: every layer. */
export const ALL_LAYERS = 0xffff;
/** In token fields: up to the length as it stands when the command is accepted. */
export const ALL_TOKENS = 0xffff_ffff;

/**
 * Data of *create*, and of *fork*, where the shape fields (layerCount to groupTokens) are inherited and must be zero.
 * 256 bytes. The completion's DW0 and DW1 are the new sequence's id.
 */
export const createDescriptor = defineStruct('create descriptor', 256, {
  version: u16(0, 'DESCRIPTOR_VERSION'),
  layerCount: u16(2, '1 to limits.layerCountMax'),
  kvHeadCount: u16(4, '1 to limits.kvHeadCountMax'),
  headDimK: u16(6, 'elements of one K row, 8 to 256'),
  headDimV: u16(8, 'elements of one V row, 8 to 256'),
  elementTypeK: u8(10, 'element type code K is stored in'),
  elementTypeV: u8(11, 'element type code V is stored in'),
  groupTokens: u32(12, 'tokens per group; 0: as many as fill a flash page with the wider of the K and V rows'),
  sequenceId: u64(16, 'id to give the sequence; 0: the drive chooses the next free one'),
  leaseSeconds: u32(24, 'reclaimed after this long without a command naming it; 0: kept until reclaimed'),
  reserved0: reserved(28, 36),
  label: text(64, 128, 'for people; UTF-8, zero-padded'),
  reserved1: reserved(192, 64),
});

/** CDW12 of *append* and *read back*. */
export const kvTransferBits = {
  layer: { shift: 0, width: 16, meaning: 'layer' },
  elementType: { shift: 16, width: 8, meaning: 'element type of the data; 0: as stored' },
  headMajor: { shift: 24, width: 1, meaning: '0: rows are [token][head], 1: [head][token]' },
  part: { shift: 25, width: 2, meaning: 'read back only: 1 K, 2 V, 3 K then V' },
  fua: { shift: 30, width: 1, meaning: 'append only: complete once the tokens are durable' },
} as const;

/** Selector in CDW12 of *query*. */
export const querySelectors = {
  /** sequenceInfo, then one u32 length per layer. */
  sequence: 0,
  /** Sequence ids above CDW10-11, ascending, u64 each, zero-terminated if they don't fill the data. */
  list: 1,
} as const;

/** What *query* returns of a sequence, followed by `layerCount` u32 lengths in tokens. 256 bytes. */
export const sequenceInfo = defineStruct('sequence info', 256, {
  version: u16(0, 'DESCRIPTOR_VERSION'),
  layerCount: u16(2, 'layers'),
  kvHeadCount: u16(4, 'KV heads'),
  headDimK: u16(6, 'elements of one K row'),
  headDimV: u16(8, 'elements of one V row'),
  elementTypeK: u8(10, 'element type code of K'),
  elementTypeV: u8(11, 'element type code of V'),
  groupTokens: u32(12, 'tokens per group'),
  sequenceId: u64(16, 'id'),
  leaseSeconds: u32(24, 'lease; 0: none'),
  state: u8(28, '1 live'),
  reserved0: reserved(29, 3),
  parentSequenceId: u64(32, 'the sequence it was forked from; 0: none'),
  pageCount: uint64(40, 'flash pages that hold its groups, shared ones included'),
  sharedPageCount: uint64(48, 'of these, pages that another sequence holds too'),
  paddingBytesPerPageK: u32(56, 'bytes of a K page that hold no token'),
  label: text(60, 128, 'label'),
  paddingBytesPerPageV: u32(188, 'bytes of a V page that hold no token'),
  owner: u64(192, 'hash of the host NQN that created it'),
  bufferedTokenCount: uint64(200, 'tokens, over all layers, in the tail buffer and in no flash page'),
  reserved1: reserved(208, 48),
});

export const attendModes = { dense: 0 } as const;

export const attendFlags = {
  /** Query token i, at position queryPosition + i, sees tokens up to its own position only. */
  causal: 1,
  /** Behind each entry's output: running maximum and log-sum-exp, two f32 per query token and head. */
  statistics: 2,
  /** DW1 of the completion is the command's device latency in ns, at most FFFFFFFFh, and not the number of buffered tokens. */
  deviceTime: 4,
} as const;

/**
 * Data of *attend* and *attend exchange*: this header, `entryCount` entries, then whatever the entries refer to in the
 * command's data (queries, keys and values to append). 64 bytes.
 */
export const attendHeader = defineStruct('attend header', 64, {
  version: u16(0, 'DESCRIPTOR_VERSION'),
  mode: u8(2, 'attendModes'),
  flags: u8(3, 'attendFlags'),
  entryCount: u16(4, '1 to limits.attendEntryCountMax'),
  queryType: u8(6, 'element type code of the queries'),
  outputType: u8(7, 'element type code of the outputs'),
  scale: f32(8, 'logits are multiplied by it; 0: 1/sqrt(headDimK). Finite'),
  softCap: f32(12, 'logits become softCap * tanh(logit / softCap); 0: no cap. Finite, not negative'),
  slidingWindow: u32(16, 'a query at position p sees tokens above p - slidingWindow; 0: no window'),
  sinkCount: u32(20, 'tokens 0 to sinkCount - 1 stay visible to every query in spite of the window'),
  appendType: u8(24, 'element type code of carried K and V; 0: as stored'),
  reserved0: reserved(25, 39),
});

/** Where an entry's output goes. */
export const attendOutputs = {
  /** *attend exchange*: outOffset bytes into the data that the command returns. */
  exchange: 0,
  /** outKey names a memory region of this association; outOffset is in it. */
  region: 1,
  /** outKey names a result slot of this association; outOffset is in it. Read by *attend result*. */
  slot: 2,
} as const;

/**
 * One entry of *attend*: one sequence and layer, some query heads and query tokens. 96 bytes.
 *
 * Queries lie as [queryTokenCount][queryHeadCount][headDimK] of queryType. The output is
 * [queryTokenCount][queryHeadCount][headDimV] of outputType, then, if statistics are asked for and from the next
 * multiple of 4 bytes, [queryTokenCount][queryHeadCount] pairs {maximum, log-sum-exp} in f32.
 * Query head h attends with KV head floor(h / queryHeadsPerKvHead).
 */
export const attendEntry = defineStruct('attend entry', 96, {
  sequenceId: u64(0, 'sequence'),
  layer: u16(8, 'layer'),
  queryHeadsPerKvHead: u16(10, 'size of a grouped-query group: 1 is multi-head, all query heads is multi-query'),
  firstQueryHead: u16(12, 'first query head that the queries hold'),
  queryHeadCount: u16(14, 'query heads that the queries hold; 0: all, queryHeadsPerKvHead * kvHeadCount'),
  queryTokenCount: u16(16, 'query tokens, at consecutive positions'),
  appendTokenCount: u16(18, 'tokens to append first; 0: none'),
  queryPosition: u32(20, 'position of the first query token'),
  tokenStart: u32(24, 'first token of the range attended to'),
  tokenEnd: u32(28, 'one past the last; ALL_TOKENS: the length after all appends of the command'),
  appendPosition: u32(32, 'position of the first carried token'),
  reserved0: reserved(36, 4),
  queryKey: u32(40, 'memory region the queries lie in; 0: in the data of this command'),
  reserved1: reserved(44, 4),
  queryOffset: uint64(48, 'byte offset of the queries in the region or in the data'),
  appendKey: u32(56, 'memory region of carried K and V; 0: in the data of this command'),
  reserved2: reserved(60, 4),
  appendOffset: uint64(64, 'byte offset of the carried K rows, [token][head][headDimK], then V rows likewise'),
  outKind: u8(72, 'attendOutputs'),
  reserved3: reserved(73, 3),
  outKey: u32(76, 'region key or result slot number'),
  outOffset: uint64(80, 'byte offset of the output'),
  reserved4: reserved(88, 8),
});

/** Data returned by the admin command *memory region create*. 512 bytes. */
export const regionDescriptor = defineStruct('memory region descriptor', 512, {
  version: u16(0, 'DESCRIPTOR_VERSION'),
  reserved0: reserved(2, 2),
  key: u32(4, 'key for keyed SGL descriptors and attend entries; never 0'),
  sizeBytes: uint64(8, 'size of the region'),
  path: text(16, 480, "the file, on the drive's machine, that a client on that machine maps or reads and writes"),
  reserved1: reserved(496, 16),
});
