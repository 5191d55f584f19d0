/**
 * Records of the KV room in the staging log: rows that are in no flash page yet, and the operations that leave no page.
 * The first two bytes of every record are its version and its kind.
 *
 * A *generation* is the low 32 bits of the operation number of the record that began it: the create, fork or truncate.
 * It stands in the out-of-band area of every page too. Within one sequence, layer and generation tokens are only ever
 * added, so any two records or pages of the same generation agree wherever they overlap.
 */
import { ALL_LAYERS } from '../kv-commands.ts';
import { defineStruct, reserved, text, u8, u16, u32, u64 } from '../struct.ts';

export const KV_RECORD_VERSION = 1;
export const kvRecordKinds = { tail: 1, create: 2, fork: 3, truncate: 4, reclaim: 5, clear: 6 } as const;
/** In a truncate record's layer: every layer. */
export const KV_RECORD_ALL_LAYERS = ALL_LAYERS;

/** Followed by the rows of KV head 0 (tokenCount K rows, then tokenCount V rows), of KV head 1, and so on. 32 bytes. */
export const kvTailRecord = defineStruct('KV tail record', 32, {
  version: u8(0, 'KV_RECORD_VERSION'),
  kind: u8(1, 'kvRecordKinds.tail'),
  layer: u16(2, 'layer'),
  generation: u32(4, 'generation of the layer'),
  sequenceId: u64(8, 'sequence'),
  firstToken: u32(16, 'position of the first token'),
  tokenCount: u32(20, 'tokens'),
  rowBytesK: u16(24, 'bytes of a K row'),
  rowBytesV: u16(26, 'bytes of a V row'),
  kvHeadCount: u16(28, 'KV heads'),
  reserved0: reserved(30, 2),
});

/** 168 bytes. */
export const kvCreateRecord = defineStruct('KV create record', 168, {
  version: u8(0, 'KV_RECORD_VERSION'),
  kind: u8(1, 'kvRecordKinds.create'),
  layerCount: u16(2, 'layers'),
  kvHeadCount: u16(4, 'KV heads'),
  headDimK: u16(6, 'elements of a K row'),
  headDimV: u16(8, 'elements of a V row'),
  elementTypeK: u8(10, 'element type code'),
  elementTypeV: u8(11, 'element type code'),
  groupTokens: u32(12, 'tokens per group; never 0'),
  sequenceId: u64(16, 'the new sequence'),
  owner: u64(24, 'hash of the host NQN that created it'),
  leaseSeconds: u32(32, 'lease; 0: none'),
  reserved0: reserved(36, 4),
  label: text(40, 128, 'label'),
});

/** 168 bytes. */
export const kvForkRecord = defineStruct('KV fork record', 168, {
  version: u8(0, 'KV_RECORD_VERSION'),
  kind: u8(1, 'kvRecordKinds.fork'),
  reserved0: reserved(2, 2),
  tokenCount: u32(4, 'tokens of each layer that it shares, or fewer where the layer was shorter'),
  sequenceId: u64(8, 'the new sequence'),
  parentId: u64(16, 'the sequence it was forked from'),
  owner: u64(24, 'hash of the host NQN that forked it'),
  leaseSeconds: u32(32, 'lease; 0: none'),
  reserved1: reserved(36, 4),
  label: text(40, 128, 'label'),
});

/** 16 bytes. */
export const kvTruncateRecord = defineStruct('KV truncate record', 16, {
  version: u8(0, 'KV_RECORD_VERSION'),
  kind: u8(1, 'kvRecordKinds.truncate'),
  layer: u16(2, 'layer, or KV_RECORD_ALL_LAYERS'),
  length: u32(4, 'new length in tokens'),
  sequenceId: u64(8, 'sequence'),
});

/** 16 bytes. */
export const kvReclaimRecord = defineStruct('KV reclaim record', 16, {
  version: u8(0, 'KV_RECORD_VERSION'),
  kind: u8(1, 'kvRecordKinds.reclaim'),
  reserved0: reserved(2, 6),
  sequenceId: u64(8, 'sequence'),
});

/** Every sequence is reclaimed at once: Format NVM. 8 bytes. */
export const kvClearRecord = defineStruct('KV clear record', 8, {
  version: u8(0, 'KV_RECORD_VERSION'),
  kind: u8(1, 'kvRecordKinds.clear'),
  reserved0: reserved(2, 6),
});
