/**
 * The shared memory between the event loop and the compute workers: jobs go out through two rings that all workers take
 * from, one for each lane, and come back through one ring per worker; the event loop may be one of those that take.
 * Everything is a 32-bit word, and every access that another thread can see is an Atomics operation (sequentially
 * consistent), so what was written to the arena before a `push`
 * or a `complete` is visible to whoever takes it.
 *
 *   lane's ring    head (workers, compare-and-swap) ... tail (event loop)
 *   worker's ring  head (event loop, private)       ... tail (that worker)
 *
 * No ring can overflow: at most `capacity` jobs of each lane are out at once. Positions are 32-bit and wrap.
 */
import { assert } from '../base/assert.ts';
import type { ThreadPlacement } from '../kernels/native/thread-placement.ts';

/** One cache line, so that words written by different threads don't share one. */
const LINE = 16;

/** Which ring a job goes through: `express` for commands that walk little, which need not wait for those that walk much. */
export const lanes = { express: 0, bulk: 1 } as const;
export type Lane = (typeof lanes)[keyof typeof lanes];
const LANE_COUNT = 2;

const words = {
  stop: 0,
  /** 1: the event loop was signalled and has not looked yet. */
  signalled: LINE,
  /** 1: the event loop looks by itself, whether it was signalled. */
  polling: 2 * LINE,
  lanes: 3 * LINE,
} as const;

/** Words of a lane's block before its ring. */
const laneWords = {
  tail: 0,
  head: LINE,
  /** Jobs pushed and not completed. */
  outstanding: 2 * LINE,
  /** 1: the event loop has more jobs than fit, and wants to hear when few are left. */
  starving: 3 * LINE,
  ring: 4 * LINE,
} as const;

/** Words of a worker's block before its ring. */
const workerWords = {
  tail: 0,
  jobCount: 1,
  /** 0: it has no job; otherwise 2 + the CPU that it runs on. */
  busy: 2,
  /** Its id as the system knows it; 0: unknown. */
  thread: 3,
  /** 1: it sleeps, or is about to. */
  asleep: LINE,
  /** Changes when it should look again. */
  wake: LINE + 1,
  ring: 2 * LINE,
} as const;
const BUSY_SHIFT = 2;
const CPU_UNKNOWN = -1;

export interface JobQueueShape {
  /** Threads beside the event loop; it has a ring of its own behind theirs. */
  readonly workerCount: number;
  /** Most jobs of a lane out at once; a power of two. */
  readonly capacity: number;
}

/** Most express jobs that a worker takes in a row while bulk jobs wait. */
const EXPRESS_RUN_MAX = 4;

export function createJobQueueMemory({ workerCount, capacity }: JobQueueShape): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(capacity)), `capacity ${capacity} is a power of two`);
  return new SharedArrayBuffer(4 * blockStart({ workerCount, capacity }, workerCount + 1));
}

const laneStart = ({ capacity }: JobQueueShape, lane: number): number =>
  words.lanes + lane * (laneWords.ring + Math.max(LINE, capacity));

/** Of a worker's block: its ring takes the jobs of all lanes. */
const blockStart = (shape: JobQueueShape, worker: number): number =>
  laneStart(shape, LANE_COUNT) + worker * (workerWords.ring + Math.max(LINE, LANE_COUNT * shape.capacity));

export interface JobQueueOptions {
  /** Workers that are woken at most, so that CPUs are left for others; `wakeAll` goes beyond it. Default: all. */
  readonly awakeMax?: number;
  readonly placement?: ThreadPlacement | undefined;
}

/** The event loop's end. */
export class JobQueue {
  readonly capacity: number;
  readonly #shape: JobQueueShape;
  readonly #memory: Int32Array;
  readonly #heads: Int32Array;
  readonly #workerMask: number;
  readonly #awakeMax: number;
  readonly #placement: ThreadPlacement | undefined;
  readonly #takenCpus: Int32Array;
  /** Jobs pushed and not drained, of all lanes: at least what is outstanding. */
  #out = 0;
  #pushed = 0;

  constructor(shape: JobQueueShape, memory: SharedArrayBuffer, options: JobQueueOptions = {}) {
    this.#shape = shape;
    this.capacity = shape.capacity;
    this.#memory = new Int32Array(memory);
    this.#heads = new Int32Array(shape.workerCount + 1);
    this.#workerMask = LANE_COUNT * shape.capacity - 1;
    this.#awakeMax = options.awakeMax ?? shape.workerCount;
    this.#placement = options.placement;
    this.#takenCpus = new Int32Array(shape.workerCount + 1);
  }

  get workerCount(): number {
    return this.#shape.workerCount;
  }

  /** Jobs pushed and not drained. */
  get outCount(): number {
    return this.#out;
  }

  /**
   * Hands a job over; workers see it at once, but sleeping ones only after `wakeWorkers`. The caller sees to it that no more
   * than `capacity` jobs of a lane are pushed and not drained.
   */
  push(job: number, lane: Lane): void {
    assert(this.#out < LANE_COUNT * this.capacity, 'there is room for a job');
    const at = laneStart(this.#shape, lane);
    const tail = this.#memory[at + laneWords.tail]!;
    Atomics.store(this.#memory, at + laneWords.ring + (tail & (this.capacity - 1)), job | 0);
    Atomics.add(this.#memory, at + laneWords.outstanding, 1);
    Atomics.store(this.#memory, at + laneWords.tail, (tail + 1) | 0);
    this.#out++;
    this.#pushed++;
  }

  /** Wakes as many sleeping workers as jobs were pushed since the last call, within `awakeMax`. */
  wakeWorkers(): void {
    if (this.#pushed > 0) this.#wake(this.#pushed, this.#awakeMax, true);
    this.#pushed = 0;
  }

  /** Wakes whoever sleeps. */
  wakeAll(): void {
    this.#wake(this.workerCount, this.workerCount, false);
  }

  #wake(count: number, awakeMax: number, keepsOff: boolean): void {
    let left = Math.min(count, awakeMax - this.workerCount + this.sleeperCount);
    for (let worker = 0; worker < this.workerCount && left > 0; worker++) {
      const start = blockStart(this.#shape, worker);
      if (Atomics.exchange(this.#memory, start + workerWords.asleep, 0) === 0) continue;
      this.#place(start, keepsOff);
      Atomics.add(this.#memory, start + workerWords.wake, 1);
      Atomics.notify(this.#memory, start + workerWords.wake);
      left--;
    }
  }

  /** The event loop computes now, on this CPU: a worker that has come to run here goes elsewhere. */
  separate(): void {
    const cpu = this.#placement?.currentCpu();
    if (cpu === undefined) return;
    for (let worker = 0; worker < this.workerCount; worker++) {
      const start = blockStart(this.#shape, worker);
      if (Atomics.load(this.#memory, start + workerWords.busy) === BUSY_SHIFT + cpu) this.#place(start, true);
    }
  }

  /**
   * Who wakes gets a CPU where nobody else computes, if there is one. The system does not always find it: on a busy machine it
   * wakes a thread where that ran before, even if another of ours runs there. If all wake, no CPU is left out.
   */
  #place(start: number, keepsOff: boolean): void {
    const placement = this.#placement;
    const thread = Atomics.load(this.#memory, start + workerWords.thread);
    if (placement === undefined || thread === 0) return;
    const cpus = this.#takenCpus;
    let count = 0;
    for (let worker = 0; keepsOff && worker < this.workerCount; worker++) {
      const busy = Atomics.load(this.#memory, blockStart(this.#shape, worker) + workerWords.busy);
      if (busy >= BUSY_SHIFT) cpus[count++] = busy - BUSY_SHIFT;
    }
    if (keepsOff) cpus[count++] = placement.currentCpu();
    placement.keepOff(thread, cpus, count);
  }

  /** Whether the event loop wants to hear when at most half of a lane's capacity is outstanding. */
  setStarving(lane: Lane, starving: boolean): void {
    Atomics.store(this.#memory, laneStart(this.#shape, lane) + laneWords.starving, starving ? 1 : 0);
  }

  /** Calls back with every job completed since the last call; returns how many. From now on a signal is a new one. */
  drain(completed: (job: number) => void): number {
    Atomics.store(this.#memory, words.signalled, 0);
    let count = 0;
    for (let worker = 0; worker <= this.#shape.workerCount; worker++) {
      const start = blockStart(this.#shape, worker);
      const tail = Atomics.load(this.#memory, start + workerWords.tail);
      while (this.#heads[worker] !== tail) {
        const head = this.#heads[worker]!;
        const job = this.#memory[start + workerWords.ring + (head & this.#workerMask)]! >>> 0;
        this.#heads[worker] = head + 1;
        this.#out--;
        count++;
        completed(job);
      }
    }
    return count;
  }

  /** From now on the event loop looks at `isSignalled` by itself; workers need not wake it. */
  startPolling(): void {
    Atomics.store(this.#memory, words.polling, 1);
  }

  /** Whoever finds something to say after this wakes the event loop again. What was said before, `isSignalled` tells. */
  stopPolling(): void {
    Atomics.store(this.#memory, words.polling, 0);
  }

  /** Workers that sleep, or are about to. */
  get sleeperCount(): number {
    return this.#each(workerWords.asleep).filter((asleep) => asleep !== 0).length;
  }

  get isSignalled(): boolean {
    return Atomics.load(this.#memory, words.signalled) !== 0;
  }

  /** Whether there are jobs that nobody has taken. */
  get hasUntaken(): boolean {
    const memory = this.#memory;
    return (
      isFilled(memory, laneStart(this.#shape, lanes.express)) || isFilled(memory, laneStart(this.#shape, lanes.bulk))
    );
  }

  /** Tells the workers to return once they have nothing to take. */
  stop(): void {
    Atomics.store(this.#memory, words.stop, 1);
    for (let worker = 0; worker < this.workerCount; worker++) {
      const wake = blockStart(this.#shape, worker) + workerWords.wake;
      Atomics.add(this.#memory, wake, 1);
      Atomics.notify(this.#memory, wake);
    }
  }

  /** Jobs that each worker has run. */
  jobCounts(): number[] {
    return this.#each(workerWords.jobCount);
  }

  /** Jobs that the event loop has run. */
  loopJobCount(): number {
    return Atomics.load(this.#memory, blockStart(this.#shape, this.workerCount) + workerWords.jobCount) >>> 0;
  }

  busyCount(): number {
    return this.#each(workerWords.busy).filter((busy) => busy !== 0).length;
  }

  #each(word: number): number[] {
    return Array.from(
      { length: this.#shape.workerCount },
      (_, worker) => Atomics.load(this.#memory, blockStart(this.#shape, worker) + word) >>> 0,
    );
  }
}

const isFilled = (memory: Int32Array, lane: number): boolean =>
  Atomics.load(memory, lane + laneWords.head) !== Atomics.load(memory, lane + laneWords.tail);

/** What `take` gives when the workers should stop. */
export const STOPPED = -1;

/** Says whether a worker takes a job, by its offset. The job waits, or another has just taken it. */
export type Choice = (job: number) => boolean;
const anyJob: Choice = () => true;

/** How often a worker looks at the ring before it sleeps. */
export interface Patience {
  /** While jobs are outstanding, with this worker or others: more may come any moment. */
  readonly spinCount: number;
  /** While none is. */
  readonly idleSpinCount: number;
}

export interface JobQueueWorkerOptions extends Patience {
  /** Its ring; `workerCount`: the event loop's. */
  readonly index: number;
  readonly placement?: ThreadPlacement | undefined;
}

/** A worker's end. */
export class JobQueueWorker {
  readonly #memory: Int32Array;
  readonly #mask: number;
  readonly #workerMask: number;
  readonly #express: number;
  readonly #bulk: number;
  readonly #block: number;
  readonly #lowWater: number;
  readonly #patience: Patience;
  readonly #placement: ThreadPlacement | undefined;
  /** Start of the lane that the latest job was taken from. */
  #lane = 0;
  /** Express jobs taken since the latest bulk job. */
  #expressRun = 0;

  constructor(shape: JobQueueShape, memory: SharedArrayBuffer, options: JobQueueWorkerOptions) {
    this.#memory = new Int32Array(memory);
    this.#mask = shape.capacity - 1;
    this.#workerMask = LANE_COUNT * shape.capacity - 1;
    this.#express = laneStart(shape, lanes.express);
    this.#bulk = laneStart(shape, lanes.bulk);
    this.#block = blockStart(shape, options.index);
    this.#lowWater = shape.capacity >>> 1;
    this.#patience = options;
    this.#placement = options.placement;
    Atomics.store(this.#memory, this.#block + workerWords.thread, this.#placement?.threadId() ?? 0);
  }

  /** Next job, or STOPPED. Blocks. */
  take(): number {
    const memory = this.#memory;
    const { spinCount, idleSpinCount } = this.#patience;
    for (;;) {
      for (let i = 0; i < spinCount; i++) {
        if (i >= idleSpinCount && !this.#isOutstanding()) break;
        const job = this.tryTake();
        if (job !== undefined) return job;
      }
      if (this.isStopped) return STOPPED;
      // Read before it counts as asleep, which it does before it looks for the last time: who pushes after that look finds
      // it asleep, and changes `wake`.
      const wake = Atomics.load(memory, this.#block + workerWords.wake);
      Atomics.store(memory, this.#block + workerWords.asleep, 1);
      if (!this.#hasWork()) Atomics.wait(memory, this.#block + workerWords.wake, wake);
      Atomics.store(memory, this.#block + workerWords.asleep, 0);
    }
  }

  /** Hands back the job taken last. Returns how many of its lane are left outstanding. */
  complete(job: number): number {
    const memory = this.#memory;
    const tail = memory[this.#block + workerWords.tail]!;
    Atomics.store(memory, this.#block + workerWords.ring + (tail & this.#workerMask), job | 0);
    Atomics.store(memory, this.#block + workerWords.busy, 0);
    Atomics.add(memory, this.#block + workerWords.jobCount, 1);
    Atomics.store(memory, this.#block + workerWords.tail, (tail + 1) | 0);
    return Atomics.sub(memory, this.#lane + laneWords.outstanding, 1) - 1;
  }

  /**
   * Whether the event loop wants to hear of a completion that left `outstanding` jobs of the lane. Ask after `complete`: who sets
   * the flag drains afterwards, so it sees the job, or we see the flag.
   */
  isWanted(outstanding: number): boolean {
    return outstanding <= this.#lowWater && Atomics.load(this.#memory, this.#lane + laneWords.starving) !== 0;
  }

  /** Whether the caller must wake the event loop: not if it was signalled and has not drained since, nor if it is polling. */
  claimSignal(): boolean {
    const isFirst = Atomics.exchange(this.#memory, words.signalled, 1) === 0;
    return isFirst && Atomics.load(this.#memory, words.polling) === 0;
  }

  get isStopped(): boolean {
    return Atomics.load(this.#memory, words.stop) !== 0;
  }

  #hasWork(): boolean {
    return isFilled(this.#memory, this.#express) || isFilled(this.#memory, this.#bulk) || this.isStopped;
  }

  #isOutstanding(): boolean {
    return (
      Atomics.load(this.#memory, this.#express + laneWords.outstanding) !== 0 ||
      Atomics.load(this.#memory, this.#bulk + laneWords.outstanding) !== 0
    );
  }

  /**
   * Next job, or undefined if there is none, another worker took it, or `accepts` refuses it: an express one, but now and then a
   * bulk one.
   */
  tryTake(accepts = anyJob): number | undefined {
    const memory = this.#memory;
    let job = this.#expressRun < EXPRESS_RUN_MAX ? this.#takeFrom(this.#express, accepts) : undefined;
    if (job !== undefined) this.#expressRun++;
    else {
      job = this.#takeFrom(this.#bulk, accepts);
      if (job !== undefined) this.#expressRun = 0;
      else job = this.#takeFrom(this.#express, accepts);
    }
    if (job === undefined) return undefined;
    const cpu = this.#placement?.currentCpu() ?? CPU_UNKNOWN;
    Atomics.store(memory, this.#block + workerWords.busy, BUSY_SHIFT + cpu);
    return job;
  }

  #takeFrom(lane: number, accepts: Choice): number | undefined {
    const memory = this.#memory;
    const head = Atomics.load(memory, lane + laneWords.head);
    if (head === Atomics.load(memory, lane + laneWords.tail)) return undefined;
    // Read before the claim: the slot is not written again before the head has passed it.
    const job = Atomics.load(memory, lane + laneWords.ring + (head & this.#mask)) >>> 0;
    if (!accepts(job)) return undefined;
    if (Atomics.compareExchange(memory, lane + laneWords.head, head, (head + 1) | 0) !== head) return undefined;
    this.#lane = lane;
    return job;
  }
}
