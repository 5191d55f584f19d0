import {
  type c2hData,
  commonHeader,
  PDU_COMMON_HEADER_BYTES,
  type PduType,
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
  /** The data of the last header, if it had any, has arrived. */
  dataEnd(): void;
}

const HEADER_BYTES_MAX = 128;
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

  constructor(sink: PduSink) {
    this.#sink = sink;
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
    if (known !== 'c2hTermReq' && (flags & 3) !== 0) {
      throw new DriveProtocolError(`${row.name} with digests, which were not negotiated`);
    }
    const hasData = plen > hlen;
    const start = hasData && pdo !== 0 ? pdo : hlen;
    if (plen < hlen || start < hlen || start > plen || plen - start > DATA_BYTES_MAX) {
      throw new DriveProtocolError(`${row.name} of ${plen} bytes with data at ${pdo}`);
    }
    if (hasData && known !== 'c2hData' && known !== 'c2hTermReq') {
      throw new DriveProtocolError(`${row.name} of ${plen} bytes has data`);
    }
    this.#type = known;
    this.#headerWanted = hlen;
    this.#paddingBytes = start - hlen;
    this.#dataBytes = plen - start;
  }

  #endHeader(): void {
    const type = this.#type as PduType;
    this.#target = this.#sink.header(type, this.#header.subarray(0, this.#headerWanted), this.#dataBytes);
    this.#headerBytes = 0;
    this.#headerWanted = PDU_COMMON_HEADER_BYTES;
    this.#received = 0;
    this.#inData = this.#paddingBytes + this.#dataBytes > 0;
    if (!this.#inData && type === 'c2hData') this.#sink.dataEnd();
  }

  #takeData(chunk: Uint8Array, from: number): number {
    if (this.#paddingBytes > 0) {
      const skipped = Math.min(this.#paddingBytes, chunk.length - from);
      this.#paddingBytes -= skipped;
      if (this.#paddingBytes > 0 || this.#dataBytes > 0) return from + skipped;
      this.#endData();
      return from + skipped;
    }
    const count = Math.min(this.#dataBytes - this.#received, chunk.length - from);
    this.#target?.set(chunk.subarray(from, from + count), this.#received);
    this.#received += count;
    if (this.#received === this.#dataBytes) this.#endData();
    return from + count;
  }

  #endData(): void {
    this.#inData = false;
    this.#target = undefined;
    if (this.#type === 'c2hData') this.#sink.dataEnd();
  }
}

/** Fields of a C2HData header. */
export type C2HDataHeader = ReturnType<typeof c2hData.decode>;
