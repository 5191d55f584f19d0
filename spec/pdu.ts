/**
 * Protocol data units of NVMe/TCP (NVMe/TCP transport specification 1.0/1.1). Every PDU starts with the common header;
 * the tables below include it. `hlen` counts header bytes without digest, `plen` the whole PDU.
 */
import { completionEntry } from './completion-entry.ts';
import { bytes, defineStruct, reserved, u8, u16, u32 } from './struct.ts';
import { submissionEntry } from './submission-entry.ts';

export const PDU_COMMON_HEADER_BYTES = 8;

const commonFields = {
  type: u8(0, 'pduTypes'),
  flags: u8(1, 'pduFlags'),
  hlen: u8(2, 'header length in bytes'),
  pdo: u8(3, 'data offset from the start of the PDU; 0 where there is no data'),
  plen: u32(4, 'PDU length in bytes: header, digests, padding and data'),
} as const;

export const commonHeader = defineStruct('PDU common header', PDU_COMMON_HEADER_BYTES, commonFields);

/** `hlen` is what the specification fixes for the type; `from` says who may send it. */
export const pduTypes = {
  icReq: { type: 0x00, hlen: 128, from: 'host', name: 'ICReq' },
  icResp: { type: 0x01, hlen: 128, from: 'controller', name: 'ICResp' },
  h2cTermReq: { type: 0x02, hlen: 24, from: 'host', name: 'H2CTermReq' },
  c2hTermReq: { type: 0x03, hlen: 24, from: 'controller', name: 'C2HTermReq' },
  capsuleCmd: { type: 0x04, hlen: 72, from: 'host', name: 'CapsuleCmd' },
  capsuleResp: { type: 0x05, hlen: 24, from: 'controller', name: 'CapsuleResp' },
  h2cData: { type: 0x06, hlen: 24, from: 'host', name: 'H2CData' },
  c2hData: { type: 0x07, hlen: 24, from: 'controller', name: 'C2HData' },
  r2t: { type: 0x09, hlen: 24, from: 'controller', name: 'R2T' },
} as const;

export type PduType = keyof typeof pduTypes;

const byType = new Map<number, PduType>(Object.entries(pduTypes).map(([key, row]) => [row.type, key as PduType]));
export const pduTypeOf = (type: number): PduType | undefined => byType.get(type);

export const pduFlags = {
  /** A header digest follows the header. */
  hdgst: 1,
  /** A data digest follows the data. */
  ddgst: 2,
  /** H2CData and C2HData: last PDU of this transfer. */
  last: 4,
  /** C2HData with `last`: the command succeeded and no CapsuleResp follows. */
  success: 8,
} as const;

/** Bits of the `dgst` field of ICReq and ICResp. */
export const digestBits = { header: 1, data: 2 } as const;
/** CRC32C of the header, or of the data; little-endian. */
export const DIGEST_BYTES = 4;

/** Fatal error status of a termination request. */
export const fatalErrors = {
  /** FEI: byte offset of the field in the header. */
  invalidHeaderField: 1,
  sequence: 2,
  /** FEI: the digest that was received. */
  headerDigest: 3,
  dataOutOfRange: 4,
  /** From the host: R2T limit exceeded. From the controller: data transfer limit exceeded. */
  limitExceeded: 5,
  /** FEI: byte offset of the field in the header. */
  unsupportedParameter: 6,
} as const;

export const PDU_FORMAT_VERSION = 0;

export const icReq = defineStruct('ICReq', 128, {
  ...commonFields,
  pfv: u16(8, 'PDU format version, 0'),
  hpda: u8(10, 'alignment that the host wants for PDU data: (hpda + 1) * 4 bytes'),
  dgst: u8(11, 'digestBits that the host asks for'),
  maxr2t: u32(12, 'outstanding R2Ts per command that the host takes, minus 1'),
  reserved0: reserved(16, 112),
});

export const icResp = defineStruct('ICResp', 128, {
  ...commonFields,
  pfv: u16(8, 'PDU format version, 0'),
  cpda: u8(10, 'alignment that the controller wants for PDU data: (cpda + 1) * 4 bytes'),
  dgst: u8(11, 'digestBits that will be used'),
  maxh2cdata: u32(12, 'most data bytes of one H2CData PDU; at least 4096'),
  reserved0: reserved(16, 112),
});

const termFields = {
  ...commonFields,
  fes: u16(8, 'fatalErrors'),
  fei: u32(10, 'fatal error information'),
  reserved0: reserved(14, 10),
} as const;
/** Followed by up to TERM_DATA_BYTES_MAX bytes of the PDU header that was wrong. */
export const h2cTermReq = defineStruct('H2CTermReq', 24, termFields);
export const c2hTermReq = defineStruct('C2HTermReq', 24, termFields);
export const TERM_DATA_BYTES_MAX = 128;

export const capsuleCmd = defineStruct('CapsuleCmd', 72, {
  ...commonFields,
  entry: bytes(8, submissionEntry.sizeBytes, 'submission entry'),
});

export const capsuleResp = defineStruct('CapsuleResp', 24, {
  ...commonFields,
  entry: bytes(8, completionEntry.sizeBytes, 'completion entry'),
});

export const h2cData = defineStruct('H2CData', 24, {
  ...commonFields,
  cccid: u16(8, 'command id of the command'),
  ttag: u16(10, 'transfer tag of the R2T that this answers'),
  datao: u32(12, "offset of this data from the start of the command's data"),
  datal: u32(16, 'bytes of data in this PDU'),
  reserved0: reserved(20, 4),
});

export const c2hData = defineStruct('C2HData', 24, {
  ...commonFields,
  cccid: u16(8, 'command id of the command'),
  reserved0: reserved(10, 2),
  datao: u32(12, "offset of this data from the start of the command's data"),
  datal: u32(16, 'bytes of data in this PDU'),
  reserved1: reserved(20, 4),
});

export const r2t = defineStruct('R2T', 24, {
  ...commonFields,
  cccid: u16(8, 'command id of the command'),
  ttag: u16(10, 'transfer tag, for the H2CData PDUs that answer'),
  r2to: u32(12, "offset of the requested data from the start of the command's data"),
  r2tl: u32(16, 'bytes requested'),
  reserved0: reserved(20, 4),
});

/** Offset of the data in a PDU: the header (and header digest), rounded up to the negotiated alignment. */
export const dataOffset = (hlen: number, headerDigest: boolean, pda: number): number => {
  const alignment = (pda + 1) * 4;
  return Math.ceil((hlen + (headerDigest ? DIGEST_BYTES : 0)) / alignment) * alignment;
};
