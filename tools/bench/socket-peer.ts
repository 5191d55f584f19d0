/**
 * A process with a socket and no drive in it: what Node and its sockets cost by themselves. A connection begins with
 * `peerHello`; then every request of that length is answered at once by a reply of the other length.
 *
 * Arguments: the path of a Unix socket, or nothing to listen on a TCP port of its own. Says `ready PATH` or `ready PORT`.
 */
import { createServer, type Socket } from 'node:net';
import { COMMAND_ID_AT, peerHello, repliesTo } from './socket-traffic.ts';

/** Replies that one write carries at most. */
const BATCH_MAX = 128;
const BATCH_BYTES_MAX = 2 ** 20;
/** What large replies are taken from in turn: more than caches hold, as data is that has not just been used. */
const SPAN_BYTES = 256 * 2 ** 20;
const LARGE_REPLY_BYTES = 2 ** 20;

class Peer {
  readonly #socket: Socket;
  readonly #requestBytes: number;
  readonly #replyBytes: number;
  readonly #idOffsets: readonly number[];
  readonly #batchMax: number;
  /** Of the request that arrives. */
  #filledBytes = 0;
  #id = 0;
  /** Of the next reply in the span. */
  #at = 0;
  readonly #ids: number[] = [];
  /** Replies, ready but for their command ids; written from again and again while the kernel takes all at once. */
  readonly #replies: Buffer;

  constructor(socket: Socket, hello: Uint8Array) {
    this.#socket = socket;
    const { requestBytes, replyBytes, isPdus } = peerHello.decode(hello);
    const { bytes, idOffsets } = repliesTo(replyBytes, isPdus !== 0);
    this.#requestBytes = requestBytes;
    this.#replyBytes = replyBytes;
    this.#idOffsets = idOffsets;
    this.#batchMax = Math.max(1, Math.min(BATCH_MAX, Math.floor(BATCH_BYTES_MAX / replyBytes)));
    const spanBytes = replyBytes < LARGE_REPLY_BYTES ? this.#batchMax * replyBytes : SPAN_BYTES;
    this.#replies = Buffer.allocUnsafeSlow(Math.max(1, Math.floor(spanBytes / replyBytes)) * replyBytes);
    for (let at = 0; at < this.#replies.length; at += replyBytes) this.#replies.set(bytes, at);
  }

  take(chunk: Uint8Array): void {
    const requestBytes = this.#requestBytes;
    for (let at = 0; at < chunk.length; ) {
      const filled = this.#filledBytes;
      const count = Math.min(requestBytes - filled, chunk.length - at);
      for (const place of [COMMAND_ID_AT, COMMAND_ID_AT + 1]) {
        if (place < filled || place >= filled + count) continue;
        this.#id |= chunk[at + place - filled]! << (8 * (place - COMMAND_ID_AT));
      }
      at += count;
      this.#filledBytes += count;
      if (this.#filledBytes < requestBytes) break;
      this.#ids.push(this.#id);
      this.#filledBytes = 0;
      this.#id = 0;
      if (this.#ids.length === this.#batchMax) this.#reply();
    }
    if (this.#ids.length > 0) this.#reply();
  }

  #reply(): void {
    const ids = this.#ids;
    const sizeBytes = ids.length * this.#replyBytes;
    if (this.#at + sizeBytes > this.#replies.length) this.#at = 0;
    const own = this.#replies.subarray(this.#at, this.#at + sizeBytes);
    if (this.#replyBytes >= LARGE_REPLY_BYTES) this.#at += sizeBytes;
    const isReused = this.#idOffsets.length > 0 && this.#socket.writableLength > 0;
    const replies = isReused ? Buffer.from(own) : own;
    for (const [i, id] of ids.entries()) {
      for (const offset of this.#idOffsets) replies.writeUInt16LE(id, i * this.#replyBytes + offset);
    }
    ids.length = 0;
    this.#socket.write(replies);
  }
}

const server = createServer({ noDelay: true }, (socket) => {
  let peer: Peer | undefined;
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    if (peer !== undefined) {
      peer.take(chunk);
      return;
    }
    // One side has just connected and waits: its greeting comes in one piece.
    peer = new Peer(socket, chunk.subarray(0, peerHello.sizeBytes));
    if (chunk.length > peerHello.sizeBytes) peer.take(chunk.subarray(peerHello.sizeBytes));
  });
});

const path = process.argv[2];
const ready = (): void => {
  const address = server.address();
  process.stdout.write(`ready ${typeof address === 'string' ? address : address?.port}\n`);
};
if (path === undefined) server.listen(0, '127.0.0.1', ready);
else server.listen(path, ready);
// Whoever started it is gone.
process.stdin.on('end', () => process.exit(0)).resume();
