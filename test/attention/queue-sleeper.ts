/** A worker of a queue that keeps what it takes until the queue is stopped. */
import { workerData } from 'node:worker_threads';
import { type JobQueueShape, JobQueueWorker } from '../../daemon/attention/job-queue.ts';

interface Setup {
  readonly shape: JobQueueShape;
  readonly memory: SharedArrayBuffer;
  readonly index: number;
}

const { shape, memory, index } = workerData as Setup;
const placement = { threadId: () => 100 + index, currentCpu: () => 20 + index, keepOff: () => undefined };
const queue = new JobQueueWorker(shape, memory, { index, spinCount: 1, idleSpinCount: 0, placement });
queue.take();
// Jobs that others left are taken after `stop`; this one is never handed back.
while (!queue.isStopped) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
