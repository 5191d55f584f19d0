import {
  type c2hData,
  commonHeader,
  crc32c,
  DIGEST_BYTES,
  PDU_COMMON_HEADER_BYTES,
  type PduType,
  pduFlags,
  pduTypeOf,
  pduTypes,
} from '../spec/index.ts';
import { DriveProtocolError } from './errors.ts';

/** What a connection does with the PDUs that arrive. `header` is valid during the call only. */
export interface PduSink {
  /**
   * A whole header. `dataBytes` bytes of data follow: they are copied into what is returned (exactly that long), or
   * dropped if nothing is.
   */
  header(type: PduType, header: Uint8Array, dataBytes: number): Uint8Array | undefined;
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

/**
 * Cuts the byte stream from a controller into PDUs. Data goes straight from the receive buffer to its target: nothing
 * is buffered here but one header. Throws DriveProtocolError; the connection is then of no use.
 */
export class PduParser {
  readonly #sink: PduSink;
  readonly #header = new Uint8Array(HEADER_BYTES_MAX);
  #headerBytes = 0;
  #headerWanted = PDU_COMMON_HEADER_BYTES;
  #type: PduType | undefined;
  #paddingBytes = 0;
  #dataBytes = 0;
  #target: Uint8Array | undefined;
  #received = 0;
  #inData = false;
  #digests = NO_DIGESTS;
  /** Bytes of this PDU's header digest and data digest. */
  #headerDigestBytes = 0;
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
    const count = Math.min(this.#headerWanted - this.#headerBytes, chunk.length - from);
    for (let i = 0; i < count; i++) this.#header[this.#headerBytes + i] = chunk[from + i] ?? 0;
    this.#headerBytes += count;
    if (this.#headerBytes < this.#headerWanted) return from + count;
    if (this.#headerWanted === PDU_COMMON_HEADER_BYTES) this.#beginHeader();
    else this.#endHeader();
    return from + count;
  }

  #beginHeader(): void {
    const { type, flags, hlen, pdo, plen } = commonHeader.decode(this.#header);
    const known = pduTypeOf(type);
    if (known === undefined || pduTypes[known].from !== 'controller') {
      throw new DriveProtocolError(`PDU type ${type} from the drive`);
    }
    const row = pduTypes[known];
    if (hlen !== row.hlen) throw new DriveProtocolError(`${row.name} with a header of ${hlen} bytes`);
    const hasDigests = known !== 'c2hTermReq' && known !== 'icResp';
    const headerBytes = hlen + (hasDigests && this.#digests.header ? DIGEST_BYTES : 0);
    const hasData = plen > headerBytes;
    const digestFlags =
      (hasDigests && this.#digests.header ? pduFlags.hdgst : 0) |
      (hasDigests && this.#digests.data && hasData ? pduFlags.ddgst : 0);
    if (known !== 'c2hTermReq' && (flags & (pduFlags.hdgst | pduFlags.ddgst)) !== digestFlags) {
      throw new DriveProtocolError(`${row.name} with digests other than those that were agreed on`);
    }
    const start = hasData && pdo !== 0 ? pdo : headerBytes;
    const dataDigestBytes = (digestFlags & pduFlags.ddgst) === 0 ? 0 : DIGEST_BYTES;
    const dataBytes = plen - start - dataDigestBytes;
    if (plen < headerBytes || start < headerBytes || dataBytes < 0 || dataBytes > DATA_BYTES_MAX) {
      throw new DriveProtocolError(`${row.name} of ${plen} bytes with data at ${pdo}`);
    }
    if (hasData && known !== 'c2hData' && known !== 'c2hTermReq') {
      throw new DriveProtocolError(`${row.name} of ${plen} bytes has data`);
    }
    this.#type = known;
    this.#headerWanted = headerBytes;
    this.#headerDigestBytes = headerBytes - hlen;
    this.#dataDigestBytes = dataDigestBytes;
    this.#paddingBytes = start - headerBytes;
    this.#dataBytes = dataBytes;
  }

  #endHeader(): void {
    const type = this.#type as PduType;
    const header = this.#header.subarray(0, this.#headerWanted - this.#headerDigestBytes);
    if (this.#headerDigestBytes > 0 && readU32(this.#header, header.length) !== crc32c(header)) {
      throw new DriveProtocolError(`${pduTypes[type].name} does not fit its header digest`);
    }
    this.#target = this.#sink.header(type, header, this.#dataBytes);
    this.#headerBytes = 0;
    this.#headerWanted = PDU_COMMON_HEADER_BYTES;
    this.#received = 0;
    this.#sum = 0;
    this.#dataDigestReceived = 0;
    this.#inData = this.#paddingBytes + this.#dataBytes + this.#dataDigestBytes > 0;
    if (!this.#inData && type === 'c2hData') this.#sink.dataEnd(true);
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
    if (this.#type === 'c2hData') this.#sink.dataEnd(isIntact);
  }
}

const readU32 = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset + at, DIGEST_BYTES).getUint32(0, true);

/** Fields of a C2HData header. */
export type C2HDataHeader = ReturnType<typeof c2hData.decode>;
