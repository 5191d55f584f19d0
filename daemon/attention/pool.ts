import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import type { KernelName } from '../kernels/contract.ts';
import { threadPlacement } from '../kernels/native/thread-placement.ts';
import { createJobQueueMemory, JobQueue, type JobQueueShape, JobQueueWorker } from './job-queue.ts';
import type { CellAccess } from '../nand/cell-reader.ts';
import type { WorkerStart } from './worker.ts';

/**
 * Jobs out per worker and lane. Enough work (25 to 50 us each) that no worker runs dry while the event loop is being woken and
 * prepares more, which takes some 100 us; few enough that the next command of the lane does not wait long for its first turn.
 */
const JOBS_PER_WORKER = 32;
/** Looks at the ring before sleeping: 20 to 50 us, about what waking a sleeping thread costs. */
const SPIN_COUNT = 3000;
/** CPUs that the event loop and a client need beside the workers. */
const OTHER_THREADS = 2;
/** A worker that has not returned after this long is stuck. */
const STOP_TIMEOUT_MS = 5000;

export interface PoolOptions {
  /** At least 1. */
  readonly workerCount: number;
  readonly kernels: KernelName;
  readonly isa: string;
  readonly media: CellAccess;
  readonly gate?: SharedArrayBuffer | undefined;
  /** Whether the event loop takes jobs, too, in the place of one of several workers. Default: where CPUs are scarce. */
  readonly loopComputes: boolean | undefined;
}

export interface PoolModules {
  readonly arena: Arena;
  readonly clock: Clock;
}

export interface PoolListener {
  /** Jobs may have been completed: drain. */
  signalled(): void;
  /** A worker died, all others have returned, nothing runs any more. Once. */
  died(cause: Error): void;
}

/** Compute workers and the queue that feeds them. */
export class Pool {
  readonly queue: JobQueue;
  /** The event loop's end as one more worker; undefined where it has other things to do. */
  readonly loopEnd: JobQueueWorker | undefined;
  readonly #workers: Worker[] = [];
  readonly #exits: Promise<void>[] = [];
  readonly #clock: Clock;
  readonly #listener: PoolListener;
  #isStopping = false;
  #isReferenced = true;
  #failure: Error | undefined;

  private constructor(
    queue: JobQueue,
    loopEnd: JobQueueWorker | undefined,
    modules: PoolModules,
    listener: PoolListener,
  ) {
    this.queue = queue;
    this.loopEnd = loopEnd;
    this.#clock = modules.clock;
    this.#listener = listener;
  }

  /** Resolves when every worker has loaded its kernels; rejects with what the first of them failed with. */
  static async start(options: PoolOptions, modules: PoolModules, listener: PoolListener): Promise<Pool> {
    assert(options.workerCount >= 1, `${options.workerCount} workers`);
    const shape: JobQueueShape = {
      workerCount: options.workerCount,
      capacity: 2 ** Math.ceil(Math.log2(options.workerCount * JOBS_PER_WORKER)),
    };
    const memory = createJobQueueMemory(shape);
    const isScarce = availableParallelism() < options.workerCount + OTHER_THREADS;
    // Where CPUs are scarce, a worker that looks out for the next command keeps event loop and client from sending it.
    const idleSpinCount = isScarce ? 0 : SPIN_COUNT;
    // There the event loop computes in the place of one of several workers; a gate holds workers, and would be passed by.
    const loopComputes = options.workerCount > 1 && (options.loopComputes ?? (isScarce && options.gate === undefined));
    // Elsewhere event loop and client leave their CPUs to the workers most of the time.
    const placement = loopComputes ? threadPlacement() : undefined;
    const awakeMax = loopComputes ? options.workerCount - 1 : options.workerCount;
    const loopOptions = { index: options.workerCount, spinCount: 0, idleSpinCount: 0, placement };
    const loopEnd = loopComputes ? new JobQueueWorker(shape, memory, loopOptions) : undefined;
    const pool = new Pool(new JobQueue(shape, memory, { awakeMax, placement }), loopEnd, modules, listener);
    const ready: Promise<void>[] = [];
    for (let index = 0; index < options.workerCount; index++) {
      ready.push(
        pool.#startWorker({
          memory: modules.arena.memory,
          queue: memory,
          shape,
          index,
          spinCount: SPIN_COUNT,
          idleSpinCount,
          kernels: options.kernels,
          isa: options.isa,
          media: options.media,
          gate: options.gate,
        }),
      );
    }
    try {
      await Promise.all(ready);
    } catch (error) {
      await pool.stop();
      throw error;
    }
    pool.setActive(false);
    return pool;
  }

  /** While active, and while they stop, the workers keep the process alive. */
  setActive(active: boolean): void {
    if (active === this.#isReferenced || this.#isStopping) return;
    this.#isReferenced = active;
    for (const worker of this.#workers) {
      if (active) worker.ref();
      else worker.unref();
    }
  }

  /** Lets the workers finish what they were given, then return. One that does not is terminated. */
  async stop(): Promise<void> {
    this.setActive(true);
    this.#isStopping = true;
    this.queue.stop();
    const timer = this.#clock.setTimer(STOP_TIMEOUT_MS, () => {
      for (const worker of this.#workers) void worker.terminate();
    });
    await Promise.all(this.#exits);
    timer.cancel();
  }

  #startWorker(start: WorkerStart): Promise<void> {
    const worker = new Worker(new URL('./worker.js', import.meta.url), {
      workerData: start,
      name: `attend-${start.index}`,
    });
    this.#workers.push(worker);
    const exit = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
    this.#exits.push(exit);
    let isReady = false;
    return new Promise((resolve, reject) => {
      let cause: Error | undefined;
      worker.on('message', () => {
        if (isReady) this.#listener.signalled();
        isReady = true;
        resolve();
      });
      worker.once('error', (error) => {
        cause = error;
        reject(error);
      });
      worker.once('exit', (code) => {
        const failure = cause ?? new Error(`compute worker ${start.index} ended with code ${code}`);
        reject(failure);
        if (isReady && !(this.#isStopping && cause === undefined)) this.#onDeath(failure);
      });
    });
  }

  #onDeath(cause: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = cause;
    void this.stop().then(() => this.#listener.died(cause));
  }
}
