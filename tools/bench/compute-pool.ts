/** The client's side of the benchmarks: as many threads as the drive has, on memory that they share. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { WorkerSetup, WorkerTask } from './compute-worker.ts';

const READ_STEP_BYTES = 4096;

export class ComputePool {
  readonly #workers: readonly Worker[];

  constructor(threadCount: number, setup: WorkerSetup) {
    this.#workers = Array.from(
      { length: threadCount },
      () => new Worker(new URL('./compute-worker.js', import.meta.url), { workerData: setup }),
    );
  }

  get threadCount(): number {
    return this.#workers.length;
  }

  /** One task per thread; resolves when all are done. */
  async run(tasks: readonly WorkerTask[]): Promise<void> {
    await Promise.all(
      tasks.map(async (task, i) => {
        const worker = this.#workers[i];
        if (worker === undefined) throw new RangeError(`task ${i} of ${this.#workers.length} threads`);
        const answer = once(worker, 'message');
        worker.postMessage(task);
        await answer;
      }),
    );
  }

  /** Reads all of [offset, offset + sizeBytes) once, every thread its share. */
  async read(offset: number, sizeBytes: number): Promise<void> {
    const share = Math.floor(sizeBytes / this.threadCount / READ_STEP_BYTES) * READ_STEP_BYTES;
    await this.run(this.#workers.map((_, i) => ({ kind: 'read', offset: offset + i * share, sizeBytes: share })));
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}
