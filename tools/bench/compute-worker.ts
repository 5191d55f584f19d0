/** A thread of the benchmarks: reads memory or runs attention jobs on its part of the work, as told. */
import { parentPort, workerData } from 'node:worker_threads';
import type { KernelName } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { createReadSum } from './read-probe.ts';

export interface WorkerSetup {
  readonly memory: WebAssembly.Memory;
  readonly kernels: KernelName;
}

export type WorkerTask =
  | { readonly kind: 'read'; readonly offset: number; readonly sizeBytes: number }
  /** Attend jobs, then merge jobs. */
  | { readonly kind: 'attend'; readonly attend: readonly number[]; readonly merge: readonly number[] };

const { memory, kernels: kernelName } = workerData as WorkerSetup;
const port = parentPort;
if (port === null) throw new Error('compute-worker.ts runs as a worker thread only');
const readSum = createReadSum(memory);
const kernels = loadKernels(kernelName, { memory });

port.on('message', (task: WorkerTask) => {
  if (task.kind === 'read') {
    port.postMessage(readSum(task.offset, task.sizeBytes));
    return;
  }
  for (const job of task.attend) kernels.attend(job);
  for (const job of task.merge) kernels.merge(job);
  port.postMessage(0n);
});
