/** The 64-byte submission queue entry (NVMe base specification 2.x, "Common Command Format"), as NVMe-oF uses it. */
import { bytes, defineStruct, u8, u16, u32 } from './struct.ts';

export const submissionEntry = defineStruct('submission entry', 64, {
  opcode: u8(0, 'OPC'),
  flags: u8(1, 'FUSE in bits 1:0 (0), PSDT in bits 7:6 (01b: SGL)'),
  commandId: u16(2, 'CID'),
  namespaceId: u32(4, 'NSID'),
  cdw2: u32(8, 'command dword 2'),
  cdw3: u32(12, 'command dword 3'),
  metadataPointer: bytes(16, 8, 'MPTR; not used, zero'),
  sgl: bytes(24, 16, 'SGL1: one SGL descriptor'),
  cdw10: u32(40, 'command dword 10'),
  cdw11: u32(44, 'command dword 11'),
  cdw12: u32(48, 'command dword 12'),
  cdw13: u32(52, 'command dword 13'),
  cdw14: u32(56, 'command dword 14'),
  cdw15: u32(60, 'command dword 15'),
});
