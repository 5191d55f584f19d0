/**
 * A compute worker: takes jobs from shared memory until it is told to stop. It allocates nothing, owns nothing and
 * writes only what the records of job-layout.ts give it. An exception here is a bug of ours: it ends the worker, and
 * with it the drive.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import type { KernelName } from '../kernels/contract.ts';
import { loadKernels } from '../kernels/loader.ts';
import { threadPlacement } from '../kernels/native/thread-placement.ts';
import { passGate } from './job-gate.ts';
import { type JobQueueShape, JobQueueWorker, type Patience, STOPPED } from './job-queue.ts';
import { JobRunner, runJob } from './job-runner.ts';
import { type CellAccess, CellReader, kernelMedia } from '../nand/cell-reader.ts';

/** What a worker is started with. */
export interface WorkerStart extends Patience {
  readonly memory: WebAssembly.Memory;
  readonly queue: SharedArrayBuffer;
  readonly shape: JobQueueShape;
  readonly index: number;
  readonly kernels: KernelName;
  /** Instruction set of native ones: everybody's are the same. */
  readonly isa: string;
  readonly media: CellAccess;
  /** Tests: job-gate.ts. */
  readonly gate: SharedArrayBuffer | undefined;
}

const port = parentPort;
assert(port !== null, 'worker.ts runs as a worker thread');
run(workerData as WorkerStart, () => port.postMessage(undefined));

function run(start: WorkerStart, signal: () => void): void {
  const { memory, media, isa } = start;
  const kernels = loadKernels(start.kernels, { memory, isa, ...kernelMedia(media) });
  const runner = new JobRunner({ memory, kernels, reader: new CellReader(media) });
  const queue = new JobQueueWorker(start.shape, start.queue, { ...start, placement: threadPlacement() });
  const gate = start.gate && new Int32Array(start.gate);
  signal();
  for (let job = queue.take(); job !== STOPPED; job = queue.take()) {
    if (gate) passGate(gate);
    if (runJob(runner, queue, job)) signal();
  }
}
