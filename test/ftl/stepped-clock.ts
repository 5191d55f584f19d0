import type { Clock, Timer } from '../../daemon/base/clock.ts';

/** A clock that stands still until it is told to go on to the next timer. */
export class SteppedClock implements Clock {
  #nowNs = 0;
  readonly #timers = new Map<() => void, number>();

  nowNs(): number {
    return this.#nowNs;
  }

  wallMs(): number {
    return 0;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const own = (): void => callback();
    this.#timers.set(own, this.#nowNs + delayMs * 1e6);
    return { cancel: () => void this.#timers.delete(own) };
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  /** Goes to the earliest timer and calls it; then lets what it began go on. Returns by how many milliseconds. */
  async next(): Promise<number> {
    const [first] = [...this.#timers].sort(([, a], [, b]) => a - b);
    if (first === undefined) return 0;
    const [callback, dueNs] = first;
    const elapsedMs = (dueNs - this.#nowNs) / 1e6;
    this.#nowNs = dueNs;
    this.#timers.delete(callback);
    callback();
    for (let i = 0; i < 20; i++) await Promise.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    return elapsedMs;
  }
}
