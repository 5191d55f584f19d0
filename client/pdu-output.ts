import type { Socket } from 'node:net';
import { crc32c, DIGEST_BYTES, dataOffset, PDU_COMMON_HEADER_BYTES, pduFlags, pduTypes } from '../spec/index.ts';
import { type Digests, NO_DIGESTS } from './pdu-parser.ts';

const SLAB_BYTES = 65_536;
/** Data up to this size is copied next to its header; more is handed to the kernel from where it lies. */
const COPIED_BYTES_MAX = 16_384;
const CAPSULE_HEADER_BYTES = pduTypes.capsuleCmd.hlen;
const DATA_HEADER_BYTES = pduTypes.h2cData.hlen;
/** Header, digest, and padding before data at the largest alignment. */
const DATA_START_MAX = 256;

/** Data that one H2CData PDU carries. */
export interface DataPlace {
  readonly commandId: number;
  /** Transfer tag of the R2T that it answers. */
  readonly tag: number;
  /** Offset in the command's data. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** The last PDU of the R2T. */
  readonly isLast: boolean;
}

/**
 * Encodes PDUs into a slab, and hands those of one turn of the event loop to the socket together: commands that are sent
 * at once are one system call. Where the kernel takes all of it at once, as it nearly always does, the slab is used again.
 */
export class PduOutput {
  readonly #socket: Socket;
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #start = 0;
  #end = 0;
  #isScheduled = false;
  /** CPDA: alignment of data in the PDUs. */
  #alignment = 0;
  #digests = NO_DIGESTS;
  readonly #flushNow = (): void => this.flush();

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** What ICReq and ICResp agreed on. */
  agree(alignment: number, digests: Digests): void {
    this.#alignment = alignment;
    this.#digests = digests;
  }

  /** A command: its 64 bytes, and `dataBytes` bytes of data in parts. */
  capsule(entry: Uint8Array, parts: readonly Uint8Array[], dataBytes: number): void {
    const at = this.#header(pduTypes.capsuleCmd.type, 0, CAPSULE_HEADER_BYTES, dataBytes);
    const slab = this.#slab;
    // For so few bytes a loop is faster than a call.
    for (let i = 0; i < entry.length; i++) slab[at + PDU_COMMON_HEADER_BYTES + i] = entry[i]!;
    this.#body(at, CAPSULE_HEADER_BYTES, parts, dataBytes);
  }

  h2cData({ commandId, tag, offset, lengthBytes, isLast }: DataPlace, parts: Iterable<Uint8Array>): void {
    const flags = isLast ? pduFlags.last : 0;
    const at = this.#header(pduTypes.h2cData.type, flags, DATA_HEADER_BYTES, lengthBytes);
    const slab = this.#slab;
    slab.writeUInt16LE(commandId, at + 8);
    slab.writeUInt16LE(tag, at + 10);
    slab.writeUInt32LE(offset, at + 12);
    slab.writeUInt32LE(lengthBytes, at + 16);
    slab.writeUInt32LE(0, at + 20);
    this.#body(at, DATA_HEADER_BYTES, parts, lengthBytes);
  }

  /** Hands everything encoded to the socket. */
  flush(): void {
    this.#isScheduled = false;
    if (this.#start === this.#end) return;
    if (!this.#socket.destroyed) this.#socket.write(this.#slab.subarray(this.#start, this.#end));
    if (this.#socket.writableLength === 0) this.#end = 0;
    this.#start = this.#end;
  }

  /** The common header, in a place with room for the whole PDU, or for all but data that is not copied. */
  #header(type: number, flags: number, hlen: number, dataBytes: number): number {
    const copiedBytes = dataBytes <= COPIED_BYTES_MAX ? dataBytes : 0;
    const at = this.#room(DATA_START_MAX + copiedBytes + DIGEST_BYTES);
    const { header, data } = this.#digests;
    const start = this.#dataStart(hlen, dataBytes);
    const slab = this.#slab;
    slab[at] = type;
    slab[at + 1] = flags | (header ? pduFlags.hdgst : 0) | (data && dataBytes > 0 ? pduFlags.ddgst : 0);
    slab[at + 2] = hlen;
    slab[at + 3] = dataBytes > 0 ? start : 0;
    slab.writeUInt32LE(start + dataBytes + this.#dataDigestBytes(dataBytes), at + 4);
    return at;
  }

  /** Seals the header at `at`, and puts its data behind it. */
  #body(at: number, hlen: number, parts: Iterable<Uint8Array>, dataBytes: number): void {
    const start = this.#dataStart(hlen, dataBytes);
    const slab = this.#slab;
    if (start > hlen) slab.fill(0, at + hlen, at + start);
    if (this.#digests.header) slab.writeUInt32LE(crc32c(slab.subarray(at, at + hlen)), at + hlen);
    this.#end = at + start;
    if (dataBytes > COPIED_BYTES_MAX) {
      this.#handOver(parts, dataBytes);
      return;
    }
    let end = at + start;
    if (dataBytes > 0) {
      for (const part of parts) {
        slab.set(part, end);
        end += part.byteLength;
      }
    }
    if (this.#dataDigestBytes(dataBytes) > 0) {
      slab.writeUInt32LE(crc32c(slab.subarray(at + start, end)), end);
      end += DIGEST_BYTES;
    }
    this.#end = end;
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // Behind the promises of this turn: whoever sends its next command because one has ended is part of it.
    process.nextTick(this.#flushNow);
  }

  #handOver(parts: Iterable<Uint8Array>, dataBytes: number): void {
    const socket = this.#socket;
    socket.cork();
    this.flush();
    let sum = 0;
    const hasDigest = this.#dataDigestBytes(dataBytes) > 0;
    for (const part of parts) {
      if (hasDigest) sum = crc32c(part, sum);
      socket.write(part);
    }
    if (hasDigest) {
      const digest = Buffer.allocUnsafe(DIGEST_BYTES);
      digest.writeUInt32LE(sum);
      socket.write(digest);
    }
    socket.uncork();
  }

  #dataDigestBytes(dataBytes: number): number {
    return this.#digests.data && dataBytes > 0 ? DIGEST_BYTES : 0;
  }

  /** Where data begins; without data, where the PDU ends. */
  #dataStart(hlen: number, dataBytes: number): number {
    if (dataBytes > 0) return dataOffset(hlen, this.#digests.header, this.#alignment);
    return hlen + (this.#digests.header ? DIGEST_BYTES : 0);
  }

  /** Makes sure that there is room for `sizeBytes` at the slab's end, and says where that is. */
  #room(sizeBytes: number): number {
    if (this.#end + sizeBytes > SLAB_BYTES) {
      this.flush();
      if (this.#end > 0) this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#start = 0;
      this.#end = 0;
    }
    return this.#end;
  }
}
