import type { Clock, Timer } from '../base/clock.ts';
import { Quantiles } from './quantiles.ts';

/** A completion that is ready before the device would have had it. */
export interface HeldCompletion {
  /** On the clock of the hold. */
  readonly dueNs: number;
  /** Whoever it belongs to. */
  readonly owner: object;
  release(): void;
}

export interface HoldSnapshot {
  readonly waitingCount: number;
  /** Completions that were there in time, and held. */
  readonly heldCount: number;
  /** Completions that came later than the device would have had them: real work took longer. */
  readonly lateCount: number;
  /** How much after their time held completions left, in nanoseconds. */
  readonly errorNsP50: number;
  readonly errorNsP99: number;
  /** How much after their time late completions came, in nanoseconds. */
  readonly latenessNsP50: number;
  readonly latenessNsP99: number;
}

/** Timers come up to about 1 ms late, so the last stretch is polled. */
const POLLED_NS = 2e6;
const NS_PER_MS = 1e6;

/**
 * Holds completions until the time at which a device would have had them. A timer waits for the bulk of the time, then
 * it looks at every turn of the event loop; with nothing held there is neither.
 */
export class CompletionHold {
  readonly #clock: Clock;
  /** A binary heap, the earliest first. */
  readonly #heap: HeldCompletion[] = [];
  readonly #errors = new Quantiles();
  readonly #lateness = new Quantiles();
  #waiting: Timer | undefined;
  /** Due time that `#waiting` was set for. */
  #waitingForNs = Number.POSITIVE_INFINITY;

  constructor(modules: { readonly clock: Clock }) {
    this.#clock = modules.clock;
  }

  /** Releases it at its time, or now if that is past. */
  hold(completion: HeldCompletion): void {
    const lateNs = this.#clock.nowNs() - completion.dueNs;
    if (lateNs >= 0) {
      this.#lateness.add(lateNs);
      completion.release();
      return;
    }
    this.#push(completion);
    this.#wait();
  }

  /** Releases everything of one owner at once: it is gone. */
  abandon(owner: object): void {
    const mine = this.#heap.filter((completion) => completion.owner === owner);
    if (mine.length === 0) return;
    const others = this.#heap.filter((completion) => completion.owner !== owner);
    this.#heap.length = 0;
    for (const completion of others) this.#push(completion);
    if (others.length === 0) this.#stopWaiting();
    for (const completion of mine) completion.release();
  }

  snapshot(): HoldSnapshot {
    return {
      waitingCount: this.#heap.length,
      heldCount: this.#errors.count,
      lateCount: this.#lateness.count,
      errorNsP50: this.#errors.at(0.5),
      errorNsP99: this.#errors.at(0.99),
      latenessNsP50: this.#lateness.at(0.5),
      latenessNsP99: this.#lateness.at(0.99),
    };
  }

  #wait(): void {
    const next = this.#heap[0];
    if (next === undefined) {
      this.#stopWaiting();
      return;
    }
    if (this.#waiting !== undefined && this.#waitingForNs <= next.dueNs) return;
    this.#stopWaiting();
    this.#waitingForNs = next.dueNs;
    const { poll } = this.#clock;
    const leftNs = next.dueNs - this.#clock.nowNs();
    const wake = (): void => this.#wake();
    if (poll !== undefined && leftNs <= POLLED_NS) this.#waiting = poll(wake);
    else this.#waiting = this.#clock.setTimer((leftNs - (poll === undefined ? 0 : POLLED_NS)) / NS_PER_MS, wake);
  }

  #stopWaiting(): void {
    this.#waiting?.cancel();
    this.#waiting = undefined;
    this.#waitingForNs = Number.POSITIVE_INFINITY;
  }

  #wake(): void {
    this.#waiting = undefined;
    this.#waitingForNs = Number.POSITIVE_INFINITY;
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined) break;
      const errorNs = this.#clock.nowNs() - next.dueNs;
      if (errorNs < 0) break;
      this.#pop();
      this.#errors.add(errorNs);
      next.release();
    }
    this.#wait();
  }

  #push(completion: HeldCompletion): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(completion);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.dueNs <= completion.dueNs) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = completion;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.dueNs < heap[child]!.dueNs) child++;
      if (heap[child]!.dueNs >= last.dueNs) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}
