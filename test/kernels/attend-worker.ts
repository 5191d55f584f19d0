/** Runs jobs over and over on a shared arena and counts the results that differ from what they are when run alone. */
import { parentPort, workerData } from 'node:worker_threads';
import type { KernelName } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';

export interface Work {
  readonly name: KernelName;
  readonly memory: WebAssembly.Memory;
  readonly jobs: readonly { readonly job: number; readonly partials: number; readonly expected: Uint8Array }[];
  readonly rounds: number;
  /** Counts the threads that are ready; all start when it reaches `threadCount`. */
  readonly ready: Int32Array;
  readonly threadCount: number;
}

const { name, memory, jobs, rounds, ready, threadCount } = workerData as Work;
const kernels = loadKernels(name, { memory });
const bytes = Buffer.from(memory.buffer as ArrayBuffer);
Atomics.add(ready, 0, 1);
Atomics.notify(ready, 0);
for (let seen = Atomics.load(ready, 0); seen < threadCount; seen = Atomics.load(ready, 0)) Atomics.wait(ready, 0, seen);
let wrong = 0;
for (let round = 0; round < rounds; round++) {
  for (const { job, partials, expected } of jobs) {
    kernels.attend(job);
    if (!bytes.subarray(partials, partials + expected.length).equals(expected)) wrong++;
  }
}
parentPort?.postMessage({ name: kernels.name, wrong });
