import { DIGEST_BYTES, PDU_COMMON_HEADER_BYTES, type PduType, pduFlags, pduTypes } from '../../spec/pdu.ts';
import { PduError } from './pdu-error.ts';

/**
 * Takes whole PDUs. A header begins at byte `at` of `bytes` and is valid during the call only: it may lie in the socket's
 * chunk or in the reader's buffer. A view, since that reads words of any alignment at once.
 */
export interface PduReceiver {
  /** Most bytes of data that a PDU of this type may carry now. */
  dataBytesMax(type: PduType): number;
  /**
   * The header is complete and fits its type. Returns where its data goes, exactly `dataBytes` long; undefined: the
   * reader gives a buffer of its own. Throws PduError.
   */
  beginPdu(type: PduType, bytes: DataView, at: number, dataBytes: number): Uint8Array | undefined;
  /**
   * Data that was put into what `beginPdu` gave comes back as the same object. `isIntact`: no data digest was agreed on,
   * or it fits.
   */
  endPdu(type: PduType, bytes: DataView, at: number, data: Uint8Array, isIntact: boolean): void;
}

/** CRC32C, continuing from `seed`. */
export type Checksum = (bytes: Uint8Array, seed?: number) => number;

/** What ICReq and ICResp agreed on. */
export interface Digests {
  readonly header: boolean;
  readonly data: boolean;
}
export const NO_DIGESTS: Digests = { header: false, data: false };

const HEADER_BYTES_MAX = 128;
const NO_DATA = new Uint8Array(0);
/** Offsets in the common header: where a fatal error points. */
const TYPE_AT = 0;
const FLAGS_AT = 1;
const HLEN_AT = 2;
const PDO_AT = 3;
const PLEN_AT = 4;

/** A type of PDU that hosts send. */
interface HostPdu {
  readonly type: PduType;
  readonly hlen: number;
  readonly name: string;
  /** Flags that a host may set, besides those of digests. */
  readonly flags: number;
  /** Not of those that come before digests are agreed on, or when nothing can be relied on any more. */
  readonly takesDigests: boolean;
}

/** By type code. */
const hostPdus: readonly (HostPdu | undefined)[] = Object.entries(pduTypes).reduce<(HostPdu | undefined)[]>(
  (byCode, [key, { type: code, hlen, name, from }]) => {
    const type = key as PduType;
    const flags = type === 'h2cData' ? pduFlags.last : 0;
    const takesDigests = type !== 'icReq' && type !== 'h2cTermReq';
    if (from === 'host') byCode[code] = { type, hlen, name, flags, takesDigests };
    return byCode;
  },
  Array.from({ length: 256 }),
);

/**
 * Cuts a stream of chunks into PDUs. Data goes straight from a chunk to its place (an R2T's target) or, for capsules,
 * is handed on as a view of the chunk where it lies in one chunk; nothing is ever copied twice or searched again.
 * Lengths are checked as soon as they can be trusted (with the common header, or the header digest), and before anything
 * is allocated.
 */
export class PduReader {
  readonly #receiver: PduReceiver;
  readonly #checksum: Checksum;
  /** Header and header digest, or a data digest, that did not come in one piece. */
  readonly #stored = new Uint8Array(HEADER_BYTES_MAX + DIGEST_BYTES);
  readonly #storedView = new DataView(this.#stored.buffer);
  #storedBytes = 0;
  #pdu: HostPdu | undefined;
  #digests = NO_DIGESTS;
  /** Padding between header and data still to skip. */
  #padBytes = 0;
  #data: Uint8Array = NO_DATA;
  #dataBytes = 0;
  #filledBytes = 0;
  /** Of the data so far. */
  #sum = 0;
  /** Data digest, of which `#digestFilledBytes` are there. */
  readonly #digest = new Uint8Array(DIGEST_BYTES);
  #digestFilledBytes = 0;
  #inData = false;
  #pduCount = 0;

  constructor(receiver: PduReceiver, checksum: Checksum) {
    this.#receiver = receiver;
    this.#checksum = checksum;
  }

  /** For the PDUs from the next one on. */
  useDigests(digests: Digests): void {
    this.#digests = digests;
  }

  /** PDUs received whole. */
  get pduCount(): number {
    return this.#pduCount;
  }

  /** Whether the stream stands inside a PDU. */
  get midPdu(): boolean {
    return this.#inData || this.#storedBytes > 0;
  }

  /** Throws PduError; the reader is then of no further use. */
  push(chunk: Uint8Array): void {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    let at = 0;
    while (at < chunk.length) at = this.#inData ? this.#takeData(chunk, at) : this.#takeHeader(chunk, view, at);
  }

  #headerDigestBytes(pdu: HostPdu): number {
    return this.#digests.header && pdu.takesDigests ? DIGEST_BYTES : 0;
  }

  #takeHeader(chunk: Uint8Array, view: DataView, start: number): number {
    let at = start;
    if (this.#storedBytes === 0 && chunk.length - at >= PDU_COMMON_HEADER_BYTES) {
      // The usual case: the whole header lies in the chunk and is read in place.
      const pdu = this.#checkCommon(view, at);
      const wanted = pdu.hlen + this.#headerDigestBytes(pdu);
      if (chunk.length - at >= wanted) return this.#beginData(pdu, chunk, at + wanted, view, at);
    }
    if (this.#storedBytes < PDU_COMMON_HEADER_BYTES) {
      at = this.#store(chunk, at, PDU_COMMON_HEADER_BYTES);
      if (this.#storedBytes < PDU_COMMON_HEADER_BYTES) return at;
      this.#pdu = this.#checkCommon(this.#storedView, 0);
    }
    const pdu = this.#pdu as HostPdu;
    const wanted = pdu.hlen + this.#headerDigestBytes(pdu);
    at = this.#store(chunk, at, wanted);
    if (this.#storedBytes < wanted) return at;
    this.#storedBytes = 0;
    return this.#beginData(pdu, chunk, at, this.#storedView, 0);
  }

  #store(chunk: Uint8Array, at: number, wanted: number): number {
    const count = Math.min(wanted - this.#storedBytes, chunk.length - at);
    this.#stored.set(chunk.subarray(at, at + count), this.#storedBytes);
    this.#storedBytes += count;
    return at + count;
  }

  /** Checks the eight bytes that every PDU begins with: all of them, or what tells where the header digest is. */
  #checkCommon(bytes: DataView, at: number): HostPdu {
    const code = bytes.getUint8(at + TYPE_AT);
    const pdu = hostPdus[code];
    if (pdu === undefined) throw refuse(bytes, at, `PDU type ${code}, not one that a host sends`, TYPE_AT);
    if (this.#headerDigestBytes(pdu) === 0) this.#checkFields(bytes, at, pdu);
    else if (bytes.getUint8(at + HLEN_AT) !== pdu.hlen) throw wrongHlen(bytes, at, pdu);
    return pdu;
  }

  #checkFields(bytes: DataView, at: number, pdu: HostPdu): void {
    const { type, hlen, name } = pdu;
    const flags = bytes.getUint8(at + FLAGS_AT);
    const headerBytes = hlen + this.#headerDigestBytes(pdu);
    const plen = bytes.getUint32(at + PLEN_AT, true);
    const hasData = plen > headerBytes;
    if ((flags & ~pdu.flags) !== this.#digestFlags(pdu, hasData)) {
      throw refuse(bytes, at, `flags ${flags} in ${name}`, FLAGS_AT);
    }
    if (bytes.getUint8(at + HLEN_AT) !== hlen) throw wrongHlen(bytes, at, pdu);
    const pdo = bytes.getUint8(at + PDO_AT);
    if (plen < headerBytes) throw refuse(bytes, at, `PLEN ${plen} below HLEN ${hlen} and its digest`, PLEN_AT);
    if (!hasData) {
      if (pdo !== 0 && pdo !== headerBytes) throw refuse(bytes, at, `PDO ${pdo} in a PDU without data`, PDO_AT);
      return;
    }
    if (type === 'icReq') throw refuse(bytes, at, `PLEN ${plen} in ICReq, must be ${hlen}`, PLEN_AT);
    // A termination request carries the bad header right behind its own, without a data offset.
    const dataAt = type === 'h2cTermReq' ? hlen : pdo;
    if (dataAt < headerBytes || dataAt % 4 !== 0) throw refuse(bytes, at, `PDO ${pdo} in ${name}`, PDO_AT);
    const dataBytes = plen - dataAt - this.#dataDigestBytes(pdu);
    if (dataAt > plen || dataBytes < 0) throw refuse(bytes, at, `PDO ${pdo} beyond PLEN ${plen}`, PDO_AT);
    const dataBytesMax = this.#receiver.dataBytesMax(type);
    if (dataBytes > dataBytesMax) {
      const kind = type === 'h2cData' ? 'limitExceeded' : 'invalidHeaderField';
      throw refuse(bytes, at, `PLEN ${plen} in ${name}: at most ${dataBytesMax} bytes of data`, PLEN_AT, kind);
    }
  }

  #digestFlags(pdu: HostPdu, hasData: boolean): number {
    if (!pdu.takesDigests) return 0;
    return (this.#digests.header ? pduFlags.hdgst : 0) | (this.#digests.data && hasData ? pduFlags.ddgst : 0);
  }

  #dataDigestBytes(pdu: HostPdu): number {
    return this.#digests.data && pdu.takesDigests ? DIGEST_BYTES : 0;
  }

  #checkHeaderDigest(pdu: HostPdu, bytes: DataView, at: number): void {
    const header = bytesAt(bytes, at, pdu.hlen);
    const received = bytes.getUint32(at + pdu.hlen, true);
    if (received !== this.#checksum(header)) {
      throw new PduError('headerDigest', `header digest of ${pdu.name}`, received, header.slice());
    }
    this.#checkFields(bytes, at, pdu);
  }

  /** A header is complete, with its digest, at byte `headerAt` of `bytes`; its data begins at `chunk[at]`. */
  #beginData(pdu: HostPdu, chunk: Uint8Array, at: number, bytes: DataView, headerAt: number): number {
    const { type, hlen } = pdu;
    const headerBytes = hlen + this.#headerDigestBytes(pdu);
    if (headerBytes > hlen) this.#checkHeaderDigest(pdu, bytes, headerAt);
    const plen = bytes.getUint32(headerAt + PLEN_AT, true);
    if (plen === headerBytes) {
      this.#receiver.beginPdu(type, bytes, headerAt, 0);
      this.#pduCount++;
      this.#receiver.endPdu(type, bytes, headerAt, NO_DATA, true);
      return at;
    }
    const padBytes = type === 'h2cTermReq' ? 0 : bytes.getUint8(headerAt + PDO_AT) - headerBytes;
    const digestBytes = this.#dataDigestBytes(pdu);
    const dataBytes = plen - headerBytes - padBytes - digestBytes;
    const target = this.#receiver.beginPdu(type, bytes, headerAt, dataBytes);
    const end = at + padBytes + dataBytes;
    if (target === undefined && chunk.length >= end + digestBytes) {
      this.#pduCount++;
      // Not `subarray`: that of a Buffer costs more than all else here.
      const data = new Uint8Array(chunk.buffer, chunk.byteOffset + at + padBytes, dataBytes);
      const isIntact = digestBytes === 0 || this.#checksum(data) === readU32(chunk, end);
      this.#receiver.endPdu(type, bytes, headerAt, data, isIntact);
      return end + digestBytes;
    }
    if (bytes !== this.#storedView) this.#stored.set(bytesAt(bytes, headerAt, hlen));
    this.#pdu = pdu;
    this.#inData = true;
    this.#padBytes = padBytes;
    this.#dataBytes = dataBytes;
    this.#filledBytes = 0;
    this.#sum = 0;
    this.#digestFilledBytes = DIGEST_BYTES - digestBytes;
    this.#data = target ?? new Uint8Array(dataBytes);
    return at;
  }

  #takeData(chunk: Uint8Array, start: number): number {
    const skipped = Math.min(this.#padBytes, chunk.length - start);
    this.#padBytes -= skipped;
    let at = start + skipped;
    const hasDigest = this.#dataDigestBytes(this.#pdu as HostPdu) > 0;
    const count = Math.min(this.#dataBytes - this.#filledBytes, chunk.length - at);
    if (count > 0) {
      const piece = count === chunk.length ? chunk : chunk.subarray(at, at + count);
      this.#data.set(piece, this.#filledBytes);
      if (hasDigest) this.#sum = this.#checksum(piece, this.#sum);
      this.#filledBytes += count;
      at += count;
    }
    if (this.#padBytes > 0 || this.#filledBytes < this.#dataBytes) return at;
    while (this.#digestFilledBytes < DIGEST_BYTES && at < chunk.length) {
      this.#digest[this.#digestFilledBytes++] = chunk[at++] as number;
    }
    if (this.#digestFilledBytes === DIGEST_BYTES) {
      this.#endData(!hasDigest || this.#sum === readU32(this.#digest, 0));
    }
    return at;
  }

  #endData(isIntact: boolean): void {
    const data = this.#data;
    const { type } = this.#pdu as HostPdu;
    this.#inData = false;
    this.#data = NO_DATA;
    this.#pduCount++;
    this.#receiver.endPdu(type, this.#storedView, 0, data, isIntact);
  }
}

/** A view of them. */
export const bytesAt = (bytes: DataView, at: number, count: number): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset + at, count);

function refuse(
  bytes: DataView,
  at: number,
  detail: string,
  info: number,
  kind: 'invalidHeaderField' | 'limitExceeded' = 'invalidHeaderField',
): PduError {
  return new PduError(kind, detail, info, bytesAt(bytes, at, PDU_COMMON_HEADER_BYTES).slice());
}

function wrongHlen(bytes: DataView, at: number, { hlen, name }: HostPdu): PduError {
  return refuse(bytes, at, `HLEN ${bytes.getUint8(at + HLEN_AT)} in ${name}, must be ${hlen}`, HLEN_AT);
}

const readU32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)) >>>
  0;
