/**
 * The out-of-band area of a flash page, in `oob.bin`: one entry per 4 KiB slot of the page. A KV page uses its first
 * entry only. An entry counts if its checksum is right and its epoch and tag are those of its superblock's header.
 */
import { defineStruct, reserved, u8, u16, u32, u64, uint64 } from '../struct.ts';

export const SLOT_BYTES = 4096;
export const oobKinds = { padding: 0, block: 1, kv: 2 } as const;
export const oobFlags = {
  /** Programmed by garbage collection. Recovery passes over it: what it was copied from is there still. */
  copy: 1,
} as const;

export const oobEntry = defineStruct('out-of-band entry', 64, {
  kind: u8(0, 'oobKinds'),
  flags: u8(1, 'oobFlags'),
  part: u8(2, 'KV: 0 K, 1 V'),
  reserved0: reserved(3, 1),
  epoch: u32(4, 'of the superblock header'),
  openTag: u32(8, 'of the superblock header'),
  dataCrc32c: u32(12, 'block: of the slot; KV: of the whole page'),
  operation: uint64(16, 'operation number: of the write (block), of the first program (KV); a copy keeps it'),
  logical: u32(24, 'LBA, or logical page of the KV namespace'),
  group: u32(28, 'KV: group within the stream'),
  sequenceId: u64(32, 'KV: sequence that the page was programmed for'),
  generation: u32(40, 'KV: generation of the layer'),
  layer: u16(44, 'KV: layer'),
  head: u16(46, 'KV: KV head'),
  reserved1: reserved(48, 12),
  crc32c: u32(60, 'of the bytes before'),
});

export const superblockPools = { none: 0, block: 1, kv: 2 } as const;

/** `blocks.bin`, one per superblock, written when it is opened: to open is to erase. */
export const superblockHeader = defineStruct('superblock header', 64, {
  magic: u32(0, 'SUPERBLOCK_MAGIC'),
  pool: u8(4, 'superblockPools'),
  reserved0: reserved(5, 3),
  epoch: u32(8, 'how often it was opened'),
  openTag: u32(12, 'random: tells pages of this opening from those of one that a power cut undid'),
  operation: uint64(16, 'operation number of the opening'),
  reserved1: reserved(24, 36),
  crc32c: u32(60, 'of the bytes before'),
});
export const SUPERBLOCK_MAGIC = 0x4b4c4253;
