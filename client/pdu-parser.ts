import { crc32c, DIGEST_BYTES, PDU_COMMON_HEADER_BYTES, type PduType, pduFlags, pduTypes } from '../spec/index.ts';
import { DriveProtocolError } from './errors.ts';

/** What a connection does with the PDUs that arrive. */
export interface PduSink {
  /**
   * A whole header, which begins at `bytes[at]` and is valid during the call only. `dataBytes` bytes of data follow: they are
   * copied into what is returned (exactly that long), or dropped if nothing is.
   */
  header(type: PduType, bytes: Uint8Array, at: number, dataBytes: number): Uint8Array | undefined;
  /** The data of the last header, if it had any, has arrived. `isIntact`: it fits its digest, or has none. */
  dataEnd(isIntact: boolean): void;
}

/** Which digests ICReq asked for and ICResp granted. */
export interface Digests {
  readonly header: boolean;
  readonly data: boolean;
}
export const NO_DIGESTS: Digests = { header: false, data: false };

const HEADER_BYTES_MAX = 128 + DIGEST_BYTES;
/** A C2HData PDU carries at most what one command transfers. */
const DATA_BYTES_MAX = 0x100_0000;
/** Of the common header. */
const FLAGS_AT = 1;
const HLEN_AT = 2;
const PDO_AT = 3;
const PLEN_AT = 4;

/** A type of PDU that drives send. */
interface DrivePdu {
  readonly type: PduType;
  readonly hlen: number;
  readonly name: string;
  readonly mayHaveData: boolean;
  readonly takesDigests: boolean;
}

/** By type code. */
const drivePdus: (DrivePdu | undefined)[] = Array.from({ length: 256 });
for (const [key, { type: code, hlen, name, from }] of Object.entries(pduTypes)) {
  const type = key as PduType;
  const mayHaveData = type === 'c2hData' || type === 'c2hTermReq';
  const takesDigests = type !== 'c2hTermReq' && type !== 'icResp';
  if (from === 'controller') drivePdus[code] = { type, hlen, name, mayHaveData, takesDigests };
}

/**
 * Cuts the byte stream from a controller into PDUs. Data goes straight from the receive buffer to its target: nothing
 * is buffered here but one header. Throws DriveProtocolError; the connection is then of no use.
 */
export class PduParser {
  readonly #sink: PduSink;
  /** A header, with its digest, that did not come in one piece. */
  readonly #stored = new Uint8Array(HEADER_BYTES_MAX);
  #storedBytes = 0;
  #storedWanted = PDU_COMMON_HEADER_BYTES;
  #pdu: DrivePdu | undefined;
  #paddingBytes = 0;
  #dataBytes = 0;
  #target: Uint8Array | undefined;
  #received = 0;
  #inData = false;
  #isC2HData = false;
  #digests = NO_DIGESTS;
  #dataDigestBytes = 0;
  readonly #dataDigest = new Uint8Array(DIGEST_BYTES);
  #dataDigestReceived = 0;
  #sum = 0;

  constructor(sink: PduSink) {
    this.#sink = sink;
  }

  /** For the PDUs from the next one on. */
  useDigests(digests: Digests): void {
    this.#digests = digests;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) at = this.#inData ? this.#takeData(chunk, at) : this.#takeHeader(chunk, at);
  }

  #takeHeader(chunk: Uint8Array, from: number): number {
    if (this.#storedBytes === 0 && chunk.length - from >= PDU_COMMON_HEADER_BYTES) {
      // The usual case: the whole header lies in the chunk and is read in place.
      const pdu = this.#checkCommon(chunk, from);
      const headerBytes = pdu.hlen + this.#headerDigestBytes(pdu);
      if (chunk.length - from >= headerBytes) {
        this.#begin(pdu, chunk, from, headerBytes);
        return from + headerBytes;
      }
    }
    const count = Math.min(this.#storedWanted - this.#storedBytes, chunk.length - from);
    for (let i = 0; i < count; i++) this.#stored[this.#storedBytes + i] = chunk[from + i]!;
    this.#storedBytes += count;
    if (this.#storedBytes < this.#storedWanted) return from + count;
    if (this.#pdu === undefined) {
      this.#pdu = this.#checkCommon(this.#stored, 0);
      this.#storedWanted = this.#pdu.hlen + this.#headerDigestBytes(this.#pdu);
    } else {
      const pdu = this.#pdu;
      const headerBytes = this.#storedWanted;
      this.#pdu = undefined;
      this.#storedBytes = 0;
      this.#storedWanted = PDU_COMMON_HEADER_BYTES;
      this.#begin(pdu, this.#stored, 0, headerBytes);
    }
    return from + count;
  }

  #headerDigestBytes(pdu: DrivePdu): number {
    return this.#digests.header && pdu.takesDigests ? DIGEST_BYTES : 0;
  }

  /** By the common header: what is wrong is refused before anything more is waited for. */
  #checkCommon(bytes: Uint8Array, at: number): DrivePdu {
    const pdu = drivePdus[bytes[at]!];
    if (pdu === undefined) throw new DriveProtocolError(`PDU type ${bytes[at]} from the drive`);
    const { name, hlen } = pdu;
    if (bytes[at + HLEN_AT] !== hlen) {
      throw new DriveProtocolError(`${name} with a header of ${bytes[at + HLEN_AT]} bytes`);
    }
    const headerDigestBytes = this.#headerDigestBytes(pdu);
    const headerBytes = hlen + headerDigestBytes;
    const plen = readU32(bytes, at + PLEN_AT);
    const pdo = bytes[at + PDO_AT]!;
    const hasData = plen > headerBytes;
    const dataDigestBytes = this.#digests.data && pdu.takesDigests && hasData ? DIGEST_BYTES : 0;
    const digestFlags = (headerDigestBytes > 0 ? pduFlags.hdgst : 0) | (dataDigestBytes > 0 ? pduFlags.ddgst : 0);
    const flags = bytes[at + FLAGS_AT]! & (pduFlags.hdgst | pduFlags.ddgst);
    if (pdu.type !== 'c2hTermReq' && flags !== digestFlags) {
      throw new DriveProtocolError(`${name} with digests other than those that were agreed on`);
    }
    const start = hasData && pdo !== 0 ? pdo : headerBytes;
    const dataBytes = plen - start - dataDigestBytes;
    if (plen < headerBytes || start < headerBytes || dataBytes < 0 || dataBytes > DATA_BYTES_MAX) {
      throw new DriveProtocolError(`${name} of ${plen} bytes with data at ${pdo}`);
    }
    if (hasData && !pdu.mayHaveData) throw new DriveProtocolError(`${name} of ${plen} bytes has data`);
    this.#dataDigestBytes = dataDigestBytes;
    this.#paddingBytes = start - headerBytes;
    this.#dataBytes = dataBytes;
    return pdu;
  }

  /** A header is complete, with its digest, at `bytes[at]`. */
  #begin({ type, name, hlen }: DrivePdu, bytes: Uint8Array, at: number, headerBytes: number): void {
    if (headerBytes > hlen && readU32(bytes, at + hlen) !== crc32c(bytes.subarray(at, at + hlen))) {
      throw new DriveProtocolError(`${name} does not fit its header digest`);
    }
    this.#target = this.#sink.header(type, bytes, at, this.#dataBytes);
    this.#received = 0;
    this.#sum = 0;
    this.#dataDigestReceived = 0;
    this.#isC2HData = type === 'c2hData';
    this.#inData = this.#paddingBytes + this.#dataBytes + this.#dataDigestBytes > 0;
    if (!this.#inData && this.#isC2HData) this.#sink.dataEnd(true);
  }

  #takeData(chunk: Uint8Array, from: number): number {
    const skipped = Math.min(this.#paddingBytes, chunk.length - from);
    this.#paddingBytes -= skipped;
    let at = from + skipped;
    const count = Math.min(this.#dataBytes - this.#received, chunk.length - at);
    if (count > 0) {
      const piece = chunk.subarray(at, at + count);
      this.#target?.set(piece, this.#received);
      if (this.#dataDigestBytes > 0) this.#sum = crc32c(piece, this.#sum);
      this.#received += count;
      at += count;
    }
    if (this.#paddingBytes > 0 || this.#received < this.#dataBytes) return at;
    while (this.#dataDigestReceived < this.#dataDigestBytes && at < chunk.length) {
      this.#dataDigest[this.#dataDigestReceived++] = chunk[at++] as number;
    }
    if (this.#dataDigestReceived === this.#dataDigestBytes) this.#endData();
    return at;
  }

  #endData(): void {
    this.#inData = false;
    this.#target = undefined;
    const isIntact = this.#dataDigestBytes === 0 || this.#sum === readU32(this.#dataDigest, 0);
    if (this.#isC2HData) this.#sink.dataEnd(isIntact);
  }
}

const readU32 = (bytes: Uint8Array, at: number): number =>
  (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
