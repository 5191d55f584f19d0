/**
 * Virtual time. Whatever takes time (a read, a sync, a host that thinks, a timer of the drive) is an event at a moment of
 * it. An event happens only when nothing is left to do of the one before, so the clock moves only while the world is idle,
 * and the order of everything follows from the moments alone.
 */
import type { Clock, Timer } from '../../daemon/base/clock.ts';

interface Event extends Timer {
  readonly atNs: number;
  readonly order: number;
  callback: (() => void) | undefined;
}

/** 2026-01-01: where wall clocks begin. */
const WALL_BEGIN_MS = 1_767_225_600_000;

/** Time that a simulated machine has; it goes on when the machine starts again. */
export class MachineTime {
  nowNs = 0;
  /** People, and their time servers, set wall clocks. */
  wallOffsetMs = 0;
}

export class EventLoop implements Clock {
  readonly #time: MachineTime;
  /** A binary heap, the next event first. */
  readonly #heap: Event[] = [];
  #order = 0;
  #isStopped = false;
  #end: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  eventCount = 0;

  constructor(time: MachineTime) {
    this.#time = time;
  }

  nowNs(): number {
    return this.#time.nowNs;
  }

  wallMs(): number {
    return Math.floor(WALL_BEGIN_MS + this.#time.nowNs / 1e6 + this.#time.wallOffsetMs);
  }

  /** Somebody sets it. */
  shiftWallClock(byMs: number): void {
    this.#time.wallOffsetMs += byMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.after(Math.max(0, delayMs) * 1e6, callback);
  }

  after(delayNs: number, callback: () => void): Timer {
    const event: Event = {
      atNs: this.#time.nowNs + delayNs,
      order: this.#order++,
      callback,
      cancel: () => (event.callback = undefined),
    };
    this.#push(event);
    return event;
  }

  /** Resolves after so much time; never, if the loop is stopped before. */
  wait(delayNs: number): Promise<void> {
    return new Promise((resolve) => void this.after(delayNs, resolve));
  }

  /** No event happens any more. */
  stop(): void {
    this.#isStopped = true;
  }

  fail(error: unknown): void {
    this.#end?.reject(error);
    this.stop();
  }

  /**
   * Lets events happen until somebody stops it. Resolves when what they caused has been done too. Rejects with what an
   * event throws, or if no event is left while nobody has stopped it.
   */
  run(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#end = { resolve, reject };
      this.#turns();
    });
  }

  #turns(): void {
    // One event a turn of Node's loop: what the drive itself puts off by a turn must not wait for hours of virtual time.
    setImmediate(() => {
      this.#turn();
      if (!this.#isStopped) this.#turns();
      else setImmediate(() => this.#end?.resolve());
    });
  }

  #turn(): void {
    if (this.#isStopped) return;
    const event = this.#pop();
    if (event === undefined) {
      this.fail(new Error('nothing is left to happen, and something still waits'));
      return;
    }
    this.#time.nowNs = event.atNs;
    this.eventCount++;
    try {
      event.callback?.();
    } catch (error) {
      this.fail(error);
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.push(event) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    for (;;) {
      const first = heap[0];
      const last = heap.pop();
      if (first === undefined || last === undefined) return undefined;
      if (first !== last) this.#sink(last);
      if (first.callback !== undefined) return first;
    }
  }

  #sink(event: Event): void {
    const heap = this.#heap;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, event)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = event;
  }
}

const isBefore = (a: Event, b: Event): boolean => a.atNs < b.atNs || (a.atNs === b.atNs && a.order < b.order);
