/** The other side of the bare baselines: a process with nothing but a socket, and what talks to it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CliError } from '../cli/cli-error.ts';
import { peerHello } from './socket-traffic.ts';

export type SocketKind = 'unix' | 'tcp';

const RECEIVE_BYTES = 2 ** 20;
const READY_TIMEOUT_MS = 10_000;

export interface BarePeer {
  readonly connectOptions: NetConnectOpts;
  stop(): void;
}

export async function startBarePeer(kind: SocketKind): Promise<BarePeer> {
  const program = fileURLToPath(new URL('./socket-peer.js', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-peer-'));
  const place = kind === 'unix' ? [join(folder, 'peer.sock')] : [];
  // It ends with its standard input: it can't outlive this process.
  const child = spawn(process.execPath, [program, ...place], { stdio: ['pipe', 'pipe', 'inherit'] });
  const stop = (): void => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const where = await readyPlace(child);
    const connectOptions =
      kind === 'unix' ? { path: where } : { host: '127.0.0.1', port: Number(where), noDelay: true };
    return { connectOptions, stop };
  } catch (error) {
    stop();
    throw error;
  }
}

async function readyPlace(child: ChildProcess): Promise<string> {
  const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
  const [line] = (await once(child.stdout!, 'data', { signal })) as [Buffer];
  const match = /^ready (.+)\n$/.exec(line.toString());
  if (match === null) throw new CliError(`the bare peer said ${line.toString()}`);
  return match[1]!;
}

/** Requests of one length and their replies over one socket, so many at a time. Bytes alone count. */
export class BareLoad {
  readonly #socket: Socket;
  readonly #requests: Buffer;
  readonly #requestBytes: number;
  readonly #replyBytes: number;
  readonly #target: Uint8Array | undefined;
  #receivedBytes = 0;
  /** Requests that are still to be sent, and replies to come. */
  #unsentCount = 0;
  #openCount = 0;
  #done: () => void = () => undefined;

  /**
   * At most `depth` at a time. `target`: where replies are copied to, one over the other, as whoever wants them would do;
   * else they are dropped.
   */
  static async connect(
    peer: BarePeer,
    size: { readonly requestBytes: number; readonly replyBytes: number; readonly depth: number },
    target?: Uint8Array,
  ): Promise<BareLoad> {
    const load = new BareLoad(peer, size, target);
    await once(load.#socket, 'connect');
    load.#socket.write(peerHello.encode(size));
    return load;
  }

  private constructor(
    { connectOptions }: BarePeer,
    size: { readonly requestBytes: number; readonly replyBytes: number; readonly depth: number },
    target: Uint8Array | undefined,
  ) {
    this.#requestBytes = size.requestBytes;
    this.#replyBytes = size.replyBytes;
    this.#target = target;
    this.#requests = Buffer.alloc(size.requestBytes * size.depth, 1);
    const callback = (count: number, buffer: Uint8Array): boolean => {
      this.#take(count, buffer);
      return true;
    };
    this.#socket = connect({ ...connectOptions, onread: { buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES), callback } });
  }

  /** Resolves when so many requests have their replies. */
  run(count: number): Promise<void> {
    const depth = this.#requests.length / this.#requestBytes;
    return new Promise((resolve) => {
      this.#done = resolve;
      this.#openCount = count;
      this.#unsentCount = count;
      this.#send(depth);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #send(most: number): void {
    const count = Math.min(most, this.#unsentCount);
    if (count === 0) return;
    this.#unsentCount -= count;
    this.#socket.write(this.#requests.subarray(0, count * this.#requestBytes));
  }

  #take(count: number, buffer: Uint8Array): void {
    if (this.#target !== undefined) this.#copy(this.#target, buffer.subarray(0, count));
    this.#receivedBytes += count;
    const replies = Math.floor(this.#receivedBytes / this.#replyBytes);
    this.#receivedBytes -= replies * this.#replyBytes;
    this.#openCount -= replies;
    this.#send(replies);
    if (this.#openCount === 0) this.#done();
  }

  #copy(target: Uint8Array, bytes: Uint8Array): void {
    const at = this.#receivedBytes % target.length;
    const first = Math.min(bytes.length, target.length - at);
    target.set(bytes.subarray(0, first), at);
    if (first < bytes.length) target.set(bytes.subarray(first), 0);
  }
}
