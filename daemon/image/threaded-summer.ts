import { Worker } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import type { KernelName } from '../kernels/contract.ts';
import type { Geometry } from '../nand/geometry.ts';
import type { PageSummer, SumRequest, SumResult } from './page-summer.ts';
import type { SumThreadStart } from './sum-thread.ts';

/** Requests that wait in each thread while it works on one: enough that it never runs dry. */
const REQUESTS_PER_THREAD = 3;

interface Waiter {
  resolve(result: SumResult): void;
  reject(error: Error): void;
}

/** Sums on threads of its own, which read the cells file by themselves. */
export class ThreadedSummer implements PageSummer {
  readonly concurrency: number;
  readonly #threads: { readonly worker: Worker; readonly waiters: Waiter[] }[];

  constructor(
    options: { readonly threadCount: number; readonly kernels: KernelName },
    media: { readonly cellsDescriptor: number; readonly geometry: Geometry },
  ) {
    const { pageSizeBytes, slotsPerPage } = media.geometry;
    const { cellsDescriptor } = media;
    const start: SumThreadStart = { cellsDescriptor, pageSizeBytes, slotsPerPage, kernels: options.kernels };
    this.concurrency = options.threadCount * REQUESTS_PER_THREAD;
    this.#threads = Array.from({ length: options.threadCount }, (_, index) => {
      const worker = new Worker(new URL('./sum-thread.js', import.meta.url), {
        workerData: start,
        name: `sum-${index}`,
      });
      const waiters: Waiter[] = [];
      worker.on('message', (result: SumResult) => waiters.shift()?.resolve(result));
      worker.on('error', (error: Error) => waiters.splice(0).forEach((waiter) => waiter.reject(error)));
      return { worker, waiters };
    });
  }

  sum(request: SumRequest): Promise<SumResult> {
    const [first, ...others] = this.#threads;
    assert(first !== undefined, 'there is a thread');
    const idlest = others.reduce((best, one) => (one.waiters.length < best.waiters.length ? one : best), first);
    return new Promise((resolve, reject) => {
      idlest.waiters.push({ resolve, reject });
      idlest.worker.postMessage(request);
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }
}
