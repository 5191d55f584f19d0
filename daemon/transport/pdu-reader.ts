import { PDU_COMMON_HEADER_BYTES, type PduType, pduFlags, pduTypeOf, pduTypes } from '../../spec/pdu.ts';
import { PduError } from './pdu-error.ts';

/**
 * Takes whole PDUs. `header` is valid during the call only: it may lie in the socket's chunk or in the reader's buffer.
 */
export interface PduReceiver {
  /** Most bytes of data that a PDU of this type may carry now. */
  dataBytesMax(type: PduType): number;
  /**
   * The header is complete and fits its type. Returns where its data goes, exactly `dataBytes` long; undefined: the
   * reader gives a buffer of its own. Throws PduError.
   */
  beginPdu(type: PduType, header: Uint8Array, dataBytes: number): Uint8Array | undefined;
  /** Data that was put into what `beginPdu` gave comes back as the same object. */
  endPdu(type: PduType, header: Uint8Array, data: Uint8Array): void;
}

const HEADER_BYTES_MAX = 128;
const NO_DATA = new Uint8Array(0);
/** Offsets in the common header: where a fatal error points. */
const TYPE_AT = 0;
const FLAGS_AT = 1;
const HLEN_AT = 2;
const PDO_AT = 3;
const PLEN_AT = 4;

/** Flags that a host may set; digests are not negotiated. */
const allowedFlags: Partial<Record<PduType, number>> = { h2cData: pduFlags.last };

/**
 * Cuts a stream of chunks into PDUs. Data goes straight from a chunk to its place (an R2T's target) or, for capsules,
 * is handed on as a view of the chunk where it lies in one chunk; nothing is ever copied twice or searched again.
 * Lengths are checked as soon as the common header is there, before anything is allocated.
 */
export class PduReader {
  readonly #receiver: PduReceiver;
  readonly #stored = new Uint8Array(HEADER_BYTES_MAX);
  #storedBytes = 0;
  #type: PduType | undefined;
  /** Padding between header and data still to skip. */
  #padBytes = 0;
  #data: Uint8Array = NO_DATA;
  #dataBytes = 0;
  #filledBytes = 0;
  #inData = false;
  #pduCount = 0;

  constructor(receiver: PduReceiver) {
    this.#receiver = receiver;
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
    let at = 0;
    while (at < chunk.length) at = this.#inData ? this.#takeData(chunk, at) : this.#takeHeader(chunk, at);
  }

  #takeHeader(chunk: Uint8Array, start: number): number {
    let at = start;
    if (this.#storedBytes === 0 && chunk.length - at >= PDU_COMMON_HEADER_BYTES) {
      // The usual case: the whole header lies in the chunk and is read in place.
      const type = this.#checkCommon(chunk, at);
      const { hlen } = pduTypes[type];
      if (chunk.length - at >= hlen) {
        this.#type = type;
        const header = chunk.subarray(at, at + hlen);
        return this.#beginData(chunk, at + hlen, header);
      }
    }
    if (this.#storedBytes < PDU_COMMON_HEADER_BYTES) {
      at = this.#store(chunk, at, PDU_COMMON_HEADER_BYTES);
      if (this.#storedBytes < PDU_COMMON_HEADER_BYTES) return at;
      this.#type = this.#checkCommon(this.#stored, 0);
    }
    const type = this.#type as PduType;
    const { hlen } = pduTypes[type];
    at = this.#store(chunk, at, hlen);
    if (this.#storedBytes < hlen) return at;
    this.#storedBytes = 0;
    return this.#beginData(chunk, at, this.#stored.subarray(0, hlen));
  }

  #store(chunk: Uint8Array, at: number, wanted: number): number {
    const count = Math.min(wanted - this.#storedBytes, chunk.length - at);
    this.#stored.set(chunk.subarray(at, at + count), this.#storedBytes);
    this.#storedBytes += count;
    return at + count;
  }

  /** Checks the eight bytes that every PDU begins with. */
  #checkCommon(bytes: Uint8Array, at: number): PduType {
    const refuse = (
      detail: string,
      info: number,
      kind: 'invalidHeaderField' | 'limitExceeded' = 'invalidHeaderField',
    ) => new PduError(kind, detail, info, bytes.slice(at, at + PDU_COMMON_HEADER_BYTES));
    const code = bytes[at + TYPE_AT] as number;
    const type = pduTypeOf(code);
    if (type === undefined || pduTypes[type].from !== 'host') {
      throw refuse(`PDU type ${code}, not one that a host sends`, TYPE_AT);
    }
    const flags = bytes[at + FLAGS_AT] as number;
    if ((flags & ~(allowedFlags[type] ?? 0)) !== 0) throw refuse(`flags ${flags} in ${pduTypes[type].name}`, FLAGS_AT);
    const hlen = bytes[at + HLEN_AT] as number;
    if (hlen !== pduTypes[type].hlen) {
      throw refuse(`HLEN ${hlen} in ${pduTypes[type].name}, must be ${pduTypes[type].hlen}`, HLEN_AT);
    }
    const pdo = bytes[at + PDO_AT] as number;
    const plen = readU32(bytes, at + PLEN_AT);
    if (plen < hlen) throw refuse(`PLEN ${plen} below HLEN ${hlen}`, PLEN_AT);
    if (plen === hlen) {
      if (pdo !== 0 && pdo !== hlen) throw refuse(`PDO ${pdo} in a PDU without data`, PDO_AT);
      return type;
    }
    if (type === 'icReq') throw refuse(`PLEN ${plen} in ICReq, must be ${hlen}`, PLEN_AT);
    // A termination request carries the bad header right behind its own, without a data offset.
    const dataAt = type === 'h2cTermReq' ? hlen : pdo;
    if (dataAt < hlen || dataAt % 4 !== 0) throw refuse(`PDO ${pdo} in ${pduTypes[type].name}`, PDO_AT);
    if (dataAt > plen) throw refuse(`PDO ${pdo} beyond PLEN ${plen}`, PDO_AT);
    const dataBytesMax = this.#receiver.dataBytesMax(type);
    if (plen - dataAt > dataBytesMax) {
      const kind = type === 'h2cData' ? 'limitExceeded' : 'invalidHeaderField';
      throw refuse(`PLEN ${plen} in ${pduTypes[type].name}: at most ${dataBytesMax} bytes of data`, PLEN_AT, kind);
    }
    return type;
  }

  #beginData(chunk: Uint8Array, at: number, header: Uint8Array): number {
    const type = this.#type as PduType;
    const plen = readU32(header, PLEN_AT);
    const dataAt = plen === header.length || type === 'h2cTermReq' ? header.length : (header[PDO_AT] as number);
    const dataBytes = plen - dataAt;
    const target = this.#receiver.beginPdu(type, header, dataBytes);
    if (dataBytes === 0 && dataAt === header.length) {
      this.#pduCount++;
      this.#receiver.endPdu(type, header, NO_DATA);
      return at;
    }
    const padBytes = dataAt - header.length;
    if (target === undefined && chunk.length - at >= padBytes + dataBytes) {
      this.#pduCount++;
      const data = chunk.subarray(at + padBytes, at + padBytes + dataBytes);
      this.#receiver.endPdu(type, header, data);
      return at + padBytes + dataBytes;
    }
    if (header.buffer !== this.#stored.buffer) this.#stored.set(header);
    this.#inData = true;
    this.#padBytes = padBytes;
    this.#dataBytes = dataBytes;
    this.#filledBytes = 0;
    this.#data = target ?? new Uint8Array(dataBytes);
    return at;
  }

  #takeData(chunk: Uint8Array, start: number): number {
    const skipped = Math.min(this.#padBytes, chunk.length - start);
    this.#padBytes -= skipped;
    const at = start + skipped;
    const count = Math.min(this.#dataBytes - this.#filledBytes, chunk.length - at);
    if (count > 0) {
      this.#data.set(count === chunk.length ? chunk : chunk.subarray(at, at + count), this.#filledBytes);
      this.#filledBytes += count;
    }
    if (this.#padBytes === 0 && this.#filledBytes === this.#dataBytes) {
      const data = this.#data;
      const type = this.#type as PduType;
      this.#inData = false;
      this.#data = NO_DATA;
      this.#pduCount++;
      this.#receiver.endPdu(type, this.#stored.subarray(0, pduTypes[type].hlen), data);
    }
    return at + count;
  }
}

const readU32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)) >>>
  0;
