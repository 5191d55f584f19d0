/** Another client of a drive, on a thread and a connection of its own, that keeps it busy until it is told to stop. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export type LoadKind = 'attend' | 'blockRead';

export interface LoadSetup {
  readonly address: string;
  readonly kind: LoadKind;
  readonly queryHeadsPerKvHead: number;
  readonly blockCount: number;
  /** Becomes 1: end. */
  readonly stop: SharedArrayBuffer;
}

export interface LoadResult {
  readonly commandCount: number;
  readonly elapsedMs: number;
}

export class BackgroundLoad {
  readonly #worker: Worker;
  readonly #stop: Int32Array;
  readonly #result: Promise<LoadResult>;

  private constructor(worker: Worker, stop: Int32Array, result: Promise<LoadResult>) {
    this.#worker = worker;
    this.#stop = stop;
    this.#result = result;
  }

  /** Resolves when its first command was answered. */
  static async start(setup: Omit<LoadSetup, 'stop'>): Promise<BackgroundLoad> {
    const stop = new SharedArrayBuffer(4);
    const worker = new Worker(new URL('./background-load-worker.js', import.meta.url), {
      workerData: { ...setup, stop } satisfies LoadSetup,
    });
    await once(worker, 'message');
    const result = once(worker, 'message').then(([message]) => message as LoadResult);
    return new BackgroundLoad(worker, new Int32Array(stop), result);
  }

  /** Commands that it had answered since `start` resolved, and how long that was. */
  async stop(): Promise<LoadResult> {
    Atomics.store(this.#stop, 0, 1);
    const result = await this.#result;
    await this.#worker.terminate();
    return result;
  }
}
