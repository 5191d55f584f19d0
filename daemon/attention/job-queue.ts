/**
 * The shared memory between the event loop and the compute workers: jobs go out through two rings that all workers take
 * from, one for each lane, and come back through one ring per worker. Everything is a 32-bit word, and every access that
 * another thread can see is an Atomics operation (sequentially consistent), so what was written to the arena before a `push`
 * or a `complete` is visible to whoever takes it.
 *
 *   lane's ring    head (workers, compare-and-swap) ... tail (event loop)
 *   worker's ring  head (event loop, private)       ... tail (that worker)
 *
 * No ring can overflow: at most `capacity` jobs of each lane are out at once. Positions are 32-bit and wrap.
 */
import { assert } from '../base/assert.ts';

/** One cache line, so that words written by different threads don't share one. */
const LINE = 16;

/** Which ring a job goes through: `express` for commands that walk little, which need not wait for those that walk much. */
export const lanes = { express: 0, bulk: 1 } as const;
export type Lane = (typeof lanes)[keyof typeof lanes];
const LANE_COUNT = 2;

const words = {
  /** Changes when sleeping workers should look again. */
  wake: 0,
  sleeperCount: LINE,
  stop: 2 * LINE,
  /** 1: the event loop was signalled and has not looked yet. */
  signalled: 3 * LINE,
  lanes: 4 * LINE,
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
const workerWords = { tail: 0, jobCount: 1, busy: 2, ring: LINE } as const;

export interface JobQueueShape {
  readonly workerCount: number;
  /** Most jobs of a lane out at once; a power of two. */
  readonly capacity: number;
}

/** Most express jobs that a worker takes in a row while bulk jobs wait. */
const EXPRESS_RUN_MAX = 4;

export function createJobQueueMemory({ workerCount, capacity }: JobQueueShape): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(capacity)), `capacity ${capacity} is a power of two`);
  return new SharedArrayBuffer(4 * blockStart({ workerCount, capacity }, workerCount));
}

const laneStart = ({ capacity }: JobQueueShape, lane: number): number =>
  words.lanes + lane * (laneWords.ring + Math.max(LINE, capacity));

/** Of a worker's block: its ring takes the jobs of all lanes. */
const blockStart = (shape: JobQueueShape, worker: number): number =>
  laneStart(shape, LANE_COUNT) + worker * (workerWords.ring + Math.max(LINE, LANE_COUNT * shape.capacity));

/** The event loop's end. */
export class JobQueue {
  readonly capacity: number;
  readonly #shape: JobQueueShape;
  readonly #memory: Int32Array;
  readonly #heads: Int32Array;
  readonly #workerMask: number;
  /** Jobs pushed and not drained, of all lanes: at least what is outstanding. */
  #out = 0;
  #pushed = 0;

  constructor(shape: JobQueueShape, memory: SharedArrayBuffer) {
    this.#shape = shape;
    this.capacity = shape.capacity;
    this.#memory = new Int32Array(memory);
    this.#heads = new Int32Array(shape.workerCount);
    this.#workerMask = LANE_COUNT * shape.capacity - 1;
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

  /** Wakes as many sleeping workers as jobs were pushed since the last call. */
  wakeWorkers(): void {
    if (this.#pushed > 0 && Atomics.load(this.#memory, words.sleeperCount) > 0) {
      Atomics.add(this.#memory, words.wake, 1);
      Atomics.notify(this.#memory, words.wake, this.#pushed);
    }
    this.#pushed = 0;
  }

  /** Whether the event loop wants to hear when at most half of a lane's capacity is outstanding. */
  setStarving(lane: Lane, starving: boolean): void {
    Atomics.store(this.#memory, laneStart(this.#shape, lane) + laneWords.starving, starving ? 1 : 0);
  }

  /** Calls back with every job completed since the last call; returns how many. From now on a signal is a new one. */
  drain(completed: (job: number) => void): number {
    Atomics.store(this.#memory, words.signalled, 0);
    let count = 0;
    for (let worker = 0; worker < this.#shape.workerCount; worker++) {
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

  /** Tells the workers to return once they have nothing to take. */
  stop(): void {
    Atomics.store(this.#memory, words.stop, 1);
    Atomics.add(this.#memory, words.wake, 1);
    Atomics.notify(this.#memory, words.wake);
  }

  /** Jobs that each worker has run. */
  jobCounts(): number[] {
    return this.#each(workerWords.jobCount);
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

/** What `take` gives when the workers should stop. */
export const STOPPED = -1;

/** How often a worker looks at the ring before it sleeps. */
export interface Patience {
  /** While jobs are outstanding, with this worker or others: more may come any moment. */
  readonly spinCount: number;
  /** While none is. */
  readonly idleSpinCount: number;
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
  /** Start of the lane that the latest job was taken from. */
  #lane = 0;
  /** Express jobs taken since the latest bulk job. */
  #expressRun = 0;

  constructor(shape: JobQueueShape, memory: SharedArrayBuffer, options: Patience & { readonly index: number }) {
    this.#memory = new Int32Array(memory);
    this.#mask = shape.capacity - 1;
    this.#workerMask = LANE_COUNT * shape.capacity - 1;
    this.#express = laneStart(shape, lanes.express);
    this.#bulk = laneStart(shape, lanes.bulk);
    this.#block = blockStart(shape, options.index);
    this.#lowWater = shape.capacity >>> 1;
    this.#patience = options;
  }

  /** Next job, or STOPPED. Blocks. */
  take(): number {
    const memory = this.#memory;
    const { spinCount, idleSpinCount } = this.#patience;
    for (;;) {
      for (let i = 0; i < spinCount; i++) {
        if (i >= idleSpinCount && !this.#isOutstanding()) break;
        const job = this.tryTake();
        if (job !== undefined) {
          Atomics.store(memory, this.#block + workerWords.busy, 1);
          return job;
        }
      }
      if (Atomics.load(memory, words.stop) !== 0) return STOPPED;
      // Counted before it looks for the last time: a push after that look sees a sleeper and changes `wake`.
      Atomics.add(memory, words.sleeperCount, 1);
      const wake = Atomics.load(memory, words.wake);
      if (!this.#hasWork()) Atomics.wait(memory, words.wake, wake);
      Atomics.sub(memory, words.sleeperCount, 1);
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

  /** Whether the caller must signal the event loop; false if it was signalled and has not drained since. */
  claimSignal(): boolean {
    return Atomics.exchange(this.#memory, words.signalled, 1) === 0;
  }

  #hasWork(): boolean {
    return this.#isFilled(this.#express) || this.#isFilled(this.#bulk) || Atomics.load(this.#memory, words.stop) !== 0;
  }

  #isFilled(lane: number): boolean {
    return Atomics.load(this.#memory, lane + laneWords.head) !== Atomics.load(this.#memory, lane + laneWords.tail);
  }

  #isOutstanding(): boolean {
    return (
      Atomics.load(this.#memory, this.#express + laneWords.outstanding) !== 0 ||
      Atomics.load(this.#memory, this.#bulk + laneWords.outstanding) !== 0
    );
  }

  /** Next job, or undefined if there is none, or another worker took it: an express one, but now and then a bulk one. */
  tryTake(): number | undefined {
    if (this.#expressRun < EXPRESS_RUN_MAX) {
      const job = this.#takeFrom(this.#express);
      if (job !== undefined) {
        this.#expressRun++;
        return job;
      }
    }
    const job = this.#takeFrom(this.#bulk);
    if (job !== undefined) this.#expressRun = 0;
    return job ?? this.#takeFrom(this.#express);
  }

  #takeFrom(lane: number): number | undefined {
    const memory = this.#memory;
    const head = Atomics.load(memory, lane + laneWords.head);
    if (head === Atomics.load(memory, lane + laneWords.tail)) return undefined;
    // Read before the claim: the slot is not written again before the head has passed it.
    const job = Atomics.load(memory, lane + laneWords.ring + (head & this.#mask)) >>> 0;
    if (Atomics.compareExchange(memory, lane + laneWords.head, head, (head + 1) | 0) !== head) return undefined;
    this.#lane = lane;
    return job;
  }
}
