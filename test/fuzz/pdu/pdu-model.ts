/**
 * What a stream of PDUs means, read whole and with the tables of spec/ only: what a host sent, and where the stream is
 * wrong. For each PDU all faults are found that it has; a reader may report any of them, and must report one.
 */
import {
  commonHeader,
  DIGEST_BYTES,
  fatalErrors,
  pduFlags,
  pduTypeOf,
  type PduType,
  pduTypes,
} from '../../../spec/pdu.ts';
import { crc32c } from '../../../spec/crc32c.ts';

export interface ModelDigests {
  readonly header: boolean;
  readonly data: boolean;
}

export interface ModelPdu {
  readonly type: PduType;
  readonly header: Uint8Array;
  readonly data: Uint8Array;
  readonly isIntact: boolean;
}

export interface Fault {
  readonly fes: number;
  /** Fatal error information; undefined: any. */
  readonly fei: number | undefined;
}

export interface ModelStream {
  readonly pdus: readonly ModelPdu[];
  /** Of the PDU behind `pdus`; empty: there is none, or it has not come whole. */
  readonly faults: readonly Fault[];
  /** The stream ends in the middle of a PDU. */
  readonly isCut: boolean;
}

const { offsetOf: at, sizeBytes: COMMON_BYTES } = commonHeader;
const isPlain = (type: PduType): boolean => type === 'icReq' || type === 'h2cTermReq';
const wrong = (fei: number): Fault => ({ fes: fatalErrors.invalidHeaderField, fei });

/** `dataBytesMax`: what a PDU of a type may carry. */
export function readStream(
  stream: Uint8Array,
  digests: ModelDigests,
  dataBytesMax: (type: PduType) => number,
): ModelStream {
  const pdus: ModelPdu[] = [];
  for (let start = 0; start < stream.length; ) {
    const rest = stream.subarray(start);
    if (rest.length < COMMON_BYTES) return { pdus, faults: [], isCut: true };
    const header = commonHeader.decode(rest);
    const type = pduTypeOf(header.type);
    if (type === undefined || pduTypes[type].from !== 'host') return { pdus, faults: [wrong(at.type)], isCut: false };
    const { hlen } = pduTypes[type];
    const headerDigest = digests.header && !isPlain(type) ? DIGEST_BYTES : 0;
    if (headerDigest > 0) {
      if (header.hlen !== hlen) return { pdus, faults: [wrong(at.hlen)], isCut: false };
      if (rest.length < hlen + headerDigest) return { pdus, faults: [], isCut: true };
      const received = new DataView(rest.buffer, rest.byteOffset + hlen).getUint32(0, true);
      if (received !== crc32c(rest.subarray(0, hlen))) {
        return { pdus, faults: [{ fes: fatalErrors.headerDigest, fei: received }], isCut: false };
      }
    }
    const faults = headerFaults(type, header, digests, dataBytesMax(type));
    if (faults.length > 0) return { pdus, faults, isCut: false };
    if (rest.length < header.plen) return { pdus, faults: [], isCut: true };
    pdus.push(cut(type, rest.subarray(0, header.plen), digests));
    start += header.plen;
  }
  return { pdus, faults: [], isCut: false };
}

function headerFaults(
  type: PduType,
  { flags, hlen, pdo, plen }: ReturnType<typeof commonHeader.decode>,
  digests: ModelDigests,
  dataBytesMax: number,
): Fault[] {
  const faults: Fault[] = [];
  const headerBytes = pduTypes[type].hlen + (digests.header && !isPlain(type) ? DIGEST_BYTES : 0);
  const dataDigest = digests.data && !isPlain(type) ? DIGEST_BYTES : 0;
  const hasData = plen > headerBytes;
  const wanted =
    (headerBytes > pduTypes[type].hlen ? pduFlags.hdgst : 0) | (dataDigest > 0 && hasData ? pduFlags.ddgst : 0);
  const free = type === 'h2cData' ? pduFlags.last : 0;
  if ((flags & ~free) !== wanted) faults.push(wrong(at.flags));
  if (hlen !== pduTypes[type].hlen) faults.push(wrong(at.hlen));
  if (plen < headerBytes) faults.push(wrong(at.plen));
  if (!hasData) {
    if (pdo !== 0 && pdo !== headerBytes) faults.push(wrong(at.pdo));
    return faults;
  }
  if (type === 'icReq') faults.push(wrong(at.plen));
  const dataAt = type === 'h2cTermReq' ? pduTypes[type].hlen : pdo;
  if (dataAt < headerBytes || dataAt % 4 !== 0 || dataAt + dataDigest > plen) faults.push(wrong(at.pdo));
  else if (plen - dataAt - dataDigest > dataBytesMax) {
    const fes = type === 'h2cData' ? fatalErrors.limitExceeded : fatalErrors.invalidHeaderField;
    faults.push({ fes, fei: at.plen });
  }
  return faults;
}

/** A PDU without faults. */
function cut(type: PduType, pdu: Uint8Array, digests: ModelDigests): ModelPdu {
  const { hlen } = pduTypes[type];
  const header = pdu.subarray(0, hlen);
  const dataDigest = digests.data && !isPlain(type) ? DIGEST_BYTES : 0;
  const headerBytes = hlen + (digests.header && !isPlain(type) ? DIGEST_BYTES : 0);
  if (pdu.length === headerBytes) return { type, header, data: new Uint8Array(0), isIntact: true };
  const dataAt = type === 'h2cTermReq' ? hlen : pdu[at.pdo]!;
  const end = pdu.length - dataDigest;
  const data = pdu.subarray(dataAt, end);
  const isIntact =
    dataDigest === 0 || new DataView(pdu.buffer, pdu.byteOffset + end).getUint32(0, true) === crc32c(data);
  return { type, header, data, isIntact };
}
