/** Identify structures of the KV-cache command set (CSI 30h): CNS 05h for the namespace, CNS 06h for the controller. */
import { defineStruct, reserved, text, u8, u16, u32, uint64 } from './struct.ts';

/** CNS 05h, CSI 30h. 4096 bytes. */
export const kvNamespace = defineStruct('KV-cache Identify Namespace', 4096, {
  version: u16(0, '1'),
  state: u8(2, '1: ready'),
  reserved0: reserved(3, 1),
  pageSizeBytes: u32(4, 'flash page size: what a token group fills'),
  pageCount: uint64(8, 'pages that the namespace promises to hold'),
  freePageCount: uint64(16, 'of these, pages that hold nothing'),
  capacityBytes: uint64(24, 'pageCount * pageSizeBytes'),
  channelCount: u16(32, "channels that a stream's groups go around"),
  dieCountPerChannel: u16(34, 'dies of one channel'),
  headDimMin: u16(36, 'elements of a K or V row, at least'),
  headDimMax: u16(38, 'elements of a K or V row, at most'),
  layerCountMax: u16(40, 'layers of a sequence, at most'),
  kvHeadCountMax: u16(42, 'KV heads of a sequence, at most'),
  elementTypeMask: u32(44, 'bit n: element type code n can be stored and sent'),
  sequenceTokensMax: u32(48, 'tokens of one layer, at most'),
  sequenceCountMax: u32(52, 'sequences, at most'),
  sequenceCount: u32(56, 'sequences now'),
  labelBytesMax: u32(60, 'bytes of a label, at most'),
  groupTokensMin: u32(64, 'tokens per group that a sequence may ask for, at least'),
  groupRule: u8(68, '1: groupTokens times the wider of the K and V rows must fit a page; the rest of it is padding'),
  reserved1: reserved(69, 3),
  bufferBytes: uint64(72, 'tail buffer: room for tokens that fill no group'),
  bufferFreeBytes: uint64(80, 'of it, free'),
  uuid: text(88, 40, 'UUID of the namespace, as text'),
  reserved2: reserved(128, 3968),
});

/** CNS 06h, CSI 30h. 4096 bytes. */
export const kvController = defineStruct('KV-cache Identify Controller', 4096, {
  version: u16(0, '1'),
  descriptorVersion: u16(2, 'DESCRIPTOR_VERSION of create, attend and region descriptors'),
  attendModeMask: u32(4, 'bit n: attention mode n is supported'),
  attendFlagMask: u32(8, 'attendFlags that are supported'),
  attendEntryCountMax: u32(12, 'entries of one ATTN command'),
  queryRowCountMax: u32(16, 'query rows (tokens times heads) of one ATTN command'),
  queryTokenCountMax: u32(20, 'query tokens of one entry'),
  queryHeadsPerKvHeadMax: u32(24, 'query heads per KV head'),
  regionCountMax: u32(28, 'memory regions of one association'),
  regionBytesMax: uint64(32, 'size of one memory region'),
  regionBytesTotalMax: uint64(40, 'size of all memory regions of one association'),
  resultSlotCountMax: u32(48, 'result slots of one association'),
  resultSlotBytesTotalMax: u32(52, 'bytes in all result slots of one association'),
  transferBytesMax: u32(56, 'data of one command over a socket'),
  keyedBlockBytesMax: u32(60, 'data of one command that names a memory region'),
  reserved0: reserved(64, 4032),
});
