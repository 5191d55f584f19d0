/** The 16-byte completion queue entry (NVMe base specification, "Common Completion Queue Entry"), as NVMe-oF uses it. */
import { type BitValues, packBits, unpackBits } from './bits.ts';
import { defineStruct, u16, u32 } from './struct.ts';

export const completionEntry = defineStruct('completion entry', 16, {
  dw0: u32(0, 'command specific; low half of 64-bit results'),
  dw1: u32(4, 'command specific; high half of 64-bit results'),
  sqHead: u16(8, 'SQHD: how far the controller has consumed the submission queue'),
  sqId: u16(10, 'SQID; on fabrics a connection is a queue, so this is reserved and 0'),
  commandId: u16(12, 'CID of the command that is complete'),
  status: u16(14, 'statusBits'),
});

/** Bytes 14 and 15. */
export const statusBits = {
  phase: { shift: 0, width: 1, meaning: 'phase tag; 0 on fabrics' },
  sc: { shift: 1, width: 8, meaning: 'status code' },
  sct: { shift: 9, width: 3, meaning: 'status code type' },
  crd: { shift: 12, width: 2, meaning: 'command retry delay; 0: at once' },
  more: { shift: 14, width: 1, meaning: 'more in the error information log' },
  dnr: { shift: 15, width: 1, meaning: 'do not retry' },
} as const;

export type StatusField = BitValues<typeof statusBits>;

/** The status field of a completion on fabrics: (sct << 8 | sc) << 1 | dnr << 15. Success is 0. */
export const encodeStatus = (sct: number, sc: number, doNotRetry = false): number =>
  packBits(statusBits, { sct, sc, dnr: doNotRetry ? 1 : 0 });

export const decodeStatus = (status: number): StatusField => unpackBits(statusBits, status);

/** Status code type and code alone, as nvme-cli prints them: 0 is success. */
export const statusCodeOf = (status: number): number => (status >>> 1) & 0x7ff;
