/**
 * The staging log: `staging/NNNNNNNN.log`, segments in ascending order. A segment is a header, then records back to
 * back, each a stagingRecord followed by its payload, padded to 8 bytes. Reading stops at the first record that is not
 * whole. The metadata transaction names the first segment that counts.
 */
import { bytes, defineStruct, reserved, u8, u32, uint64 } from '../struct.ts';

export const STAGING_MAGIC = 0x474c5453;
export const STAGING_RECORD_MAGIC = 0x43455253;
export const stagingKinds = {
  /** Payload: blockStagedSlot, then 4096 bytes. */
  block: 1,
  /** Payload: a record of `kv-records.ts`. */
  kv: 2,
  /** Payload: blockDeallocation. */
  deallocate: 3,
} as const;

export const stagingSegmentHeader = defineStruct('staging segment header', 64, {
  magic: u32(0, 'STAGING_MAGIC'),
  segment: u32(4, 'number of the segment, as in its name'),
  uuid: bytes(8, 16, 'of the drive'),
  reserved0: reserved(24, 36),
  crc32c: u32(60, 'of the bytes before'),
});

export const stagingRecord = defineStruct('staging record', 32, {
  magic: u32(0, 'STAGING_RECORD_MAGIC'),
  kind: u8(4, 'stagingKinds'),
  reserved0: reserved(5, 3),
  operation: uint64(8, 'operation number'),
  payloadBytes: u32(16, 'size of the payload'),
  payloadCrc32c: u32(20, 'of the payload'),
  reserved1: reserved(24, 4),
  crc32c: u32(28, 'of the bytes before'),
});

export const blockStagedSlot = defineStruct('staged block', 8, {
  lba: u32(0, 'LBA'),
  reserved0: reserved(4, 4),
});

export const blockDeallocation = defineStruct('deallocation', 16, {
  lba: u32(0, 'first LBA'),
  lbaCount: u32(4, 'LBAs'),
  reserved0: reserved(8, 8),
});
