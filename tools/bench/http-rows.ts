/** Reads a layer back over HTTP, as a host would that knows the drive's control plane only. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unpack } from 'msgpackr';
import { Client } from 'undici';
import { CliError } from '../cli/cli-error.ts';
import { type BenchShape, layerBytes } from './shapes.ts';

/** Of one answer. */
const PIECE_BYTES = 2 ** 20;
const PIECES_IN_FLIGHT = 4;
const F16_BYTES = 2;
const READY_TIMEOUT_MS = 30_000;
const parts = ['keys', 'values'] as const;

export class HttpRows {
  readonly #child: ChildProcess;
  readonly #clients: readonly Client[];

  /** `folder`: for the socket of the gateway, which ends with this process. */
  static async open(address: string, sequenceId: bigint, folder: string): Promise<HttpRows> {
    const program = fileURLToPath(new URL('./http-gateway.js', import.meta.url));
    const path = join(folder, 'rows.sock');
    const args = [program, address, String(sequenceId), path];
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const signal = AbortSignal.timeout(READY_TIMEOUT_MS);
    const ended = once(child, 'exit', { signal }).then(() => {
      throw new CliError('the HTTP gateway ended before it was ready');
    });
    await Promise.race([once(child.stdout, 'data', { signal }), ended]);
    ended.catch(() => undefined);
    return new HttpRows(child, path);
  }

  private constructor(child: ChildProcess, socketPath: string) {
    this.#child = child;
    this.#clients = Array.from(
      { length: PIECES_IN_FLIGHT },
      () => new Client('http://localhost', { socketPath, keepAliveTimeout: 600_000 }),
    );
  }

  /** K as [kvHead][token][headDim], then V, into `target`. */
  async read(layer: number, shape: BenchShape, target: Uint8Array): Promise<void> {
    const { kvHeadCount, tokenCount, headDim } = shape;
    const rowBytes = headDim * F16_BYTES;
    const pieceTokens = Math.min(tokenCount, PIECE_BYTES / rowBytes);
    const pieces: { readonly path: string; readonly offset: number }[] = [];
    for (const [part, name] of parts.entries()) {
      for (let head = 0; head < kvHeadCount; head++) {
        for (let start = 0; start < tokenCount; start += pieceTokens) {
          const end = Math.min(tokenCount, start + pieceTokens);
          const offset = (part * layerBytes(shape)) / 2 + (head * tokenCount + start) * rowBytes;
          pieces.push({ path: `/rows/${name}/${layer}/${head}/${start}/${end}`, offset });
        }
      }
    }
    let next = 0;
    await Promise.all(
      this.#clients.map(async (client) => {
        for (let piece = pieces[next++]; piece !== undefined; piece = pieces[next++]) {
          const { statusCode, body } = await client.request({ method: 'GET', path: piece.path });
          const bytes = new Uint8Array(await body.arrayBuffer());
          if (statusCode !== 200) throw new CliError(`${piece.path}: HTTP status ${statusCode}`);
          target.set((unpack(bytes) as { rows: Uint8Array }).rows, piece.offset);
        }
      }),
    );
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await Promise.all(this.#clients.map((client) => client.destroy()));
  }
}
