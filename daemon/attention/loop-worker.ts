import type { Clock } from '../base/clock.ts';
import { assert } from '../base/assert.ts';
import type { JobQueue, JobQueueWorker } from './job-queue.ts';
import { type JobRunner, runJob } from './job-runner.ts';

/** After so long everything else has its turn, whatever is due: timers are not kept more exactly than to a millisecond anyway. */
const TURN_NS = 1_000_000;
/** The same where it can't be told whether anything is due: some jobs, since a turn by itself costs 3 us. */
const BLIND_TURN_NS = 100_000;
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
  /** Whether the event loop would find something to do; undefined: that can't be told. */
  readonly hasPendingEvents: (() => boolean) | undefined;
}

/**
 * The event loop as one of the workers, where there are no more CPUs than workers. It begins in the turn in which a command came,
 * where another thread would first have to wake, and it sees what the others complete without being woken. After each job it
 * looks whether anything else is due, which then has its turn. Jobs that might wait for a disk it leaves to the others.
 */
export class LoopWorker {
  readonly #modules: LoopWorkerModules;
  #isActive = false;
  #hasEnded = false;
  #untilNs = 0;
  /** Something else was due: it has had its turn, and what it put off to the end of that comes before the next job. */
  #givesWay = false;
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
    this.#givesWay = false;
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
    if (this.#givesWay) this.#givesWay = false;
    else if (!this.#hasEnded) this.#runJobs();
    if (queue.isSignalled) advance();
    if (!this.#hasEnded && queue.outCount > 0 && clock.nowNs() < this.#untilNs) {
      clock.poll?.(this.#turn);
      return;
    }
    this.#isActive = false;
    if (queue.hasUntaken) queue.wakeAll();
    queue.stopPolling();
    if (queue.isSignalled) advance();
  };

  #runJobs(): void {
    const { clock, queue, worker, runner, hasPendingEvents } = this.#modules;
    // Where the worker ran when it was woken the event loop itself may run by now, and be the one that can't be moved.
    queue.separate();
    const startNs = clock.nowNs();
    const endNs = startNs + (hasPendingEvents === undefined ? BLIND_TURN_NS : TURN_NS);
    for (let nowNs = startNs; nowNs < endNs && !this.#givesWay; ) {
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
      // A command may be complete, or more jobs wanted.
      if (queue.isSignalled) return;
      this.#givesWay = hasPendingEvents?.() === true;
    }
  }

  readonly #isWarm = (job: number): boolean => this.#modules.runner.isWarm(job);
}
