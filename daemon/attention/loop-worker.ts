import type { Clock } from '../base/clock.ts';
import { assert } from '../base/assert.ts';
import type { JobQueue, JobQueueWorker } from './job-queue.ts';
import { type JobRunner, runJob } from './job-runner.ts';

/** Of the event loop's time, before everything else that is due gets its turn: some jobs, since a turn by itself costs 3 us. */
const TURN_NS = 100_000;
/** The same while others are served, too: one job. */
const SHARED_TURN_NS = 20_000;
/** Between two turns with nothing else to do lies less. */
const IDLE_GAP_NS = 10_000;
/** Who was served just now comes again soon. */
const SHARING_NS = 2_000_000;
/** No job computes so long, and none waits so long for a CPU: this one had pages come from the disk. */
const HELD_UP_NS = 8_000_000;
/** For so long the jobs are left to the workers then, which may wait. */
const REST_NS = 1_000_000_000;
/** Without a job of its own it looks so long for those that come back, before it has itself woken: longer than jobs take. */
const WINDOW_NS = 200_000;

export interface LoopWorkerModules {
  readonly queue: JobQueue;
  /** The event loop's end as one of those that take jobs. */
  readonly worker: JobQueueWorker;
  readonly runner: JobRunner;
  readonly clock: Clock;
  /** Jobs have come back. */
  readonly advance: () => void;
}

/**
 * The event loop as one of the workers, where there are no more CPUs than workers. It begins in the turn in which a command came,
 * where another thread would first have to wake, and it sees what the others complete without being woken. Between jobs
 * everything else that is due has its turn. Jobs that might wait for a disk it leaves to the others.
 */
export class LoopWorker {
  readonly #modules: LoopWorkerModules;
  #isActive = false;
  #hasEnded = false;
  #untilNs = 0;
  #turnEndNs = 0;
  #sharedUntilNs = 0;
  #restUntilNs = 0;

  constructor(modules: LoopWorkerModules) {
    assert(modules.clock.poll !== undefined, 'the clock can poll');
    this.#modules = modules;
  }

  /** Jobs are out: takes part until none is. */
  begin(): void {
    const { clock, queue } = this.#modules;
    if (this.#isActive || this.#hasEnded) return;
    this.#isActive = true;
    // What is left of this turn is no sign of others.
    this.#turnEndNs = Number.POSITIVE_INFINITY;
    this.#untilNs = clock.nowNs() + WINDOW_NS;
    queue.startPolling();
    clock.poll?.(this.#turn);
  }

  /** Takes no job any more. */
  end(): void {
    this.#hasEnded = true;
  }

  readonly #turn = (): void => {
    const { clock, queue, advance } = this.#modules;
    if (!this.#hasEnded) this.#runJobs();
    if (queue.isSignalled) advance();
    this.#turnEndNs = clock.nowNs();
    if (!this.#hasEnded && queue.outCount > 0 && this.#turnEndNs < this.#untilNs) {
      clock.poll?.(this.#turn);
      return;
    }
    this.#isActive = false;
    if (queue.hasUntaken) queue.wakeAll();
    queue.stopPolling();
    if (queue.isSignalled) advance();
  };

  #runJobs(): void {
    const { clock, queue, worker, runner } = this.#modules;
    const startNs = clock.nowNs();
    if (startNs - this.#turnEndNs > IDLE_GAP_NS) this.#sharedUntilNs = startNs + SHARING_NS;
    const endNs = startNs + (startNs < this.#sharedUntilNs ? SHARED_TURN_NS : TURN_NS);
    for (let nowNs = startNs; nowNs < endNs; ) {
      const job = startNs < this.#restUntilNs ? undefined : worker.tryTake(this.#isWarm);
      if (job === undefined) {
        if (queue.hasUntaken) queue.wakeAll();
        return;
      }
      // Who is to hear of it is here already.
      runJob(runner, worker, job);
      const beganNs = nowNs;
      nowNs = clock.nowNs();
      this.#untilNs = nowNs + WINDOW_NS;
      if (nowNs - beganNs > HELD_UP_NS) this.#restUntilNs = nowNs + REST_NS;
    }
  }

  readonly #isWarm = (job: number): boolean => this.#modules.runner.isWarm(job);
}
