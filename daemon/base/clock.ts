import { performance } from 'node:perf_hooks';

/** The only source of time. Injected, so that a simulated drive runs on virtual time. */
export interface Clock {
  /** Monotonic nanoseconds from an arbitrary origin. */
  nowNs(): number;
  /** Wall-clock time in milliseconds since 1970, for people and log lines only. */
  wallMs(): number;
  /** Calls back once, no earlier than `delayMs` from now. Does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): Timer;
  /**
   * Calls back once, when everything else had its turn: for who waits for less than a timer can tell. A clock whose
   * timers are exact has none.
   */
  readonly poll?: (callback: () => void) => Timer;
}

export interface Timer {
  cancel(): void;
}

export const systemClock: Clock = {
  nowNs: () => performance.now() * 1e6,
  wallMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const handle = setTimeout(callback, delayMs);
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  poll(callback) {
    const handle = setImmediate(callback);
    return { cancel: () => clearImmediate(handle) };
  },
};
