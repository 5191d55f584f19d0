import type { Socket } from 'node:net';
import {
  c2hData,
  c2hTermReq,
  capsuleResp,
  DIGEST_BYTES,
  dataOffset,
  digestBits,
  icResp,
  pduFlags,
  pduTypes,
  r2t,
} from '../../spec/pdu.ts';
import { DriveError } from '../base/errors.ts';
import { type Checksum, type Digests, NO_DIGESTS } from './pdu-reader.ts';

const SLAB_BYTES = 65_536;
/**
 * After so many completions of one batch what there is leaves, though there may be more: the host wakes up and takes them while
 * the drive does the rest. Fewer, and it would wake for little.
 */
const EARLY_COMPLETIONS = 8;
/** Data up to this size is copied into the slab, next to its header; more is written from where it lies. */
const COPY_BYTES_MAX = 16_384;
const HEADER_BYTES = 24;
/** Header, digest and padding before data, at the largest alignment. */
const C2H_HEADER_BYTES_MAX = 128;

/**
 * Encodes PDUs into a slab and gives them to the socket once per turn of the event loop: one system call for all
 * completions of a turn, or two where there are many. Where the kernel takes all of it at once, as it nearly always does, the
 * slab is used again; else it is left to the garbage collector, since the socket still holds it.
 */
export class PduWriter {
  readonly #socket: Socket;
  readonly #checksum: Checksum;
  #digests = NO_DIGESTS;
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #view = viewOf(this.#slab);
  #start = 0;
  #end = 0;
  /** Where `place` has left room for data, and for how much. */
  #placedAt = 0;
  #placedBytes = 0;
  #corked = false;
  #scheduled = false;
  #closed = false;
  /** Encoded since the last flush. */
  #completionCount = 0;
  /** Host's alignment of PDU data (HPDA), 0 to 31. */
  hostDataAlignment = 0;
  /** Grows whenever the socket has taken a large transfer. */
  progress = 0;
  sentBytes = 0;
  readonly #flushNow: () => void;

  /** `onFlushed`: called when what came in its own time, and not with a chunk of the host's, was handed to the socket. */
  constructor(modules: { readonly socket: Socket; readonly checksum: Checksum; readonly onFlushed: () => void }) {
    this.#socket = modules.socket;
    this.#checksum = modules.checksum;
    this.#flushNow = () => {
      if (!this.#scheduled) return;
      this.flush();
      modules.onFlushed();
    };
  }

  /** Bytes that the socket has not taken yet. */
  get pendingBytes(): number {
    return this.#end - this.#start + this.#socket.writableLength;
  }

  /** The last PDU without digests. */
  icResp(maxH2cDataBytes: number, digests: Digests): void {
    const at = this.#room(icResp.sizeBytes);
    const { type, hlen } = pduTypes.icResp;
    const dgst = (digests.header ? digestBits.header : 0) | (digests.data ? digestBits.data : 0);
    icResp.encode({ type, hlen, plen: hlen, dgst, maxh2cdata: maxH2cDataBytes }, this.#slab, at);
    this.#end = at + hlen;
    this.#digests = digests;
    this.#schedule();
  }

  capsuleResp(dw0: number, dw1: number, sqHead: number, commandId: number, status: number): void {
    const at = this.#header(pduTypes.capsuleResp.type, 0, 0, capsuleResp.sizeBytes + this.#headerDigestBytes);
    const view = this.#view;
    view.setUint32(at + 8, dw0, true);
    view.setUint32(at + 12, dw1, true);
    view.setUint32(at + 16, sqHead, true);
    view.setUint16(at + 20, commandId, true);
    view.setUint16(at + 22, status, true);
    this.#endHeader(at);
    this.#completionCount++;
    if (this.#completionCount === EARLY_COMPLETIONS) this.#writeSlab();
    else this.#schedule();
  }

  r2t(commandId: number, tag: number, offset: number, lengthBytes: number): void {
    const at = this.#header(pduTypes.r2t.type, 0, 0, r2t.sizeBytes + this.#headerDigestBytes);
    const view = this.#view;
    view.setUint16(at + 8, commandId, true);
    view.setUint16(at + 10, tag, true);
    view.setUint32(at + 12, offset, true);
    view.setUint32(at + 16, lengthBytes, true);
    view.setUint32(at + 20, 0, true);
    this.#endHeader(at);
    this.#schedule();
  }

  /**
   * One C2HData PDU with all of a command's data. Returns nothing where `source` was copied; otherwise resolves when
   * the socket has taken it. DriveError aborted if the connection ends first.
   */
  c2hData(commandId: number, source: Uint8Array): Promise<void> | void {
    const place = this.place(commandId, source.length);
    if (place !== undefined) {
      place.set(source);
      this.placed();
      return;
    }
    this.#c2hHeader(commandId, source.length);
    this.#schedule();
    // Before the data is handed on: afterwards the command may use its buffer again.
    const sum = this.#digests.data ? this.#checksum(source) : 0;
    const taken = this.#writeLarge(source);
    this.#dataDigest(sum);
    return taken;
  }

  /**
   * Where a command's data go that are copied here anyway, right behind their header; undefined: there are too many. They
   * count with `placed`, which comes before anything else is encoded; without it there never was anything.
   */
  place(commandId: number, lengthBytes: number): Uint8Array | undefined {
    if (lengthBytes > COPY_BYTES_MAX) return undefined;
    const start = this.#room(C2H_HEADER_BYTES_MAX + lengthBytes + DIGEST_BYTES);
    this.#c2hHeader(commandId, lengthBytes);
    this.#placedAt = this.#end;
    this.#placedBytes = lengthBytes;
    this.#end = start;
    // Not `subarray`: that of a Buffer costs more.
    return new Uint8Array(this.#slab.buffer, this.#placedAt, lengthBytes);
  }

  placed(): void {
    const end = this.#placedAt + this.#placedBytes;
    this.#end = end;
    if (this.#digests.data) this.#dataDigest(this.#checksum(this.#slab.subarray(this.#placedAt, end)));
    this.#schedule();
  }

  /** Header of the one C2HData PDU of a command, and the padding before its data. */
  #c2hHeader(commandId: number, lengthBytes: number): void {
    this.#room(C2H_HEADER_BYTES_MAX);
    const pdo = dataOffset(c2hData.sizeBytes, this.#digests.header, this.hostDataAlignment);
    const digestBytes = this.#digests.data ? DIGEST_BYTES : 0;
    const flags = pduFlags.last | (this.#digests.data ? pduFlags.ddgst : 0);
    const at = this.#header(pduTypes.c2hData.type, flags, pdo, pdo + lengthBytes + digestBytes);
    const view = this.#view;
    view.setUint16(at + 8, commandId, true);
    view.setUint16(at + 10, 0, true);
    view.setUint32(at + 12, 0, true);
    view.setUint32(at + 16, lengthBytes, true);
    view.setUint32(at + 20, 0, true);
    if (pdo > HEADER_BYTES) this.#slab.fill(0, at + HEADER_BYTES, at + pdo);
    this.#endHeader(at);
    this.#end = at + pdo;
  }

  c2hTermReq(fes: number, info: number, header: Uint8Array): void {
    const { type, hlen } = pduTypes.c2hTermReq;
    const plen = hlen + header.length;
    const at = this.#room(plen);
    c2hTermReq.encode({ type, hlen, plen, fes, fei: info }, this.#slab, at);
    this.#slab.set(header, at + hlen);
    this.#end = at + plen;
    this.#schedule();
  }

  /** What is encoded until `flush`, in the same turn of the event loop, waits for that. */
  beginBatch(): void {
    this.#scheduled = true;
  }

  /** Hands everything encoded to the socket. */
  flush(): void {
    this.#scheduled = false;
    this.#completionCount = 0;
    if (this.#closed) return;
    this.#writeSlab();
    if (this.#corked) {
      this.#corked = false;
      this.#socket.uncork();
    }
  }

  close(): void {
    this.#closed = true;
  }

  #writeSlab(): void {
    if (this.#start === this.#end) return;
    this.sentBytes += this.#end - this.#start;
    this.#socket.write(this.#slab.subarray(this.#start, this.#end));
    if (this.#socket.writableLength === 0) this.#end = 0;
    this.#start = this.#end;
  }

  #writeLarge(source: Uint8Array): Promise<void> {
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
    }
    this.#writeSlab();
    this.sentBytes += source.length;
    return new Promise((resolve, reject) => {
      this.#socket.write(source, (error) => {
        this.progress++;
        if (error) reject(new DriveError('aborted', 'the connection ended while data was sent', { cause: error }));
        else resolve();
      });
    });
  }

  /** Makes sure that the slab has room for `sizeBytes` at its end, and says where that is. */
  #room(sizeBytes: number): number {
    if (this.#end + sizeBytes > SLAB_BYTES) {
      this.#writeSlab();
      if (this.#end > 0) this.#newSlab();
    }
    return this.#end;
  }

  #newSlab(): void {
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.#view = viewOf(this.#slab);
    this.#start = 0;
    this.#end = 0;
  }

  get #headerDigestBytes(): number {
    return this.#digests.header ? DIGEST_BYTES : 0;
  }

  /** Behind what is written of a PDU's header at `at`. */
  #endHeader(at: number): void {
    if (!this.#digests.header) return;
    const sum = this.#checksum(this.#slab.subarray(at, at + HEADER_BYTES));
    this.#view.setUint32(at + HEADER_BYTES, sum, true);
    this.#end = at + HEADER_BYTES + DIGEST_BYTES;
  }

  #dataDigest(sum: number): void {
    if (!this.#digests.data) return;
    const at = this.#room(DIGEST_BYTES);
    this.#view.setUint32(at, sum, true);
    this.#end = at + DIGEST_BYTES;
  }

  #header(type: number, flags: number, pdo: number, plen: number): number {
    const at = this.#room(HEADER_BYTES + DIGEST_BYTES);
    const slab = this.#slab;
    slab[at] = type;
    slab[at + 1] = flags | (this.#digests.header ? pduFlags.hdgst : 0);
    slab[at + 2] = HEADER_BYTES;
    slab[at + 3] = pdo;
    this.#view.setUint32(at + 4, plen, true);
    this.#end = at + HEADER_BYTES;
    return at;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flushNow);
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
