import { setTimeout as sleep } from 'node:timers/promises';
import { gateWords } from '../../daemon/attention/job-gate.ts';

/** Holds workers before their next job. */
export class Gate {
  readonly memory = new SharedArrayBuffer(8);
  readonly #words = new Int32Array(this.memory);

  close(): void {
    Atomics.store(this.#words, gateWords.closed, 1);
  }

  open(): void {
    Atomics.store(this.#words, gateWords.closed, 0);
    Atomics.notify(this.#words, gateWords.closed);
  }

  /** Workers that came to the closed gate so far. */
  get arrivalCount(): number {
    return Atomics.load(this.#words, gateWords.arrivals);
  }

  /** Resolves when `count` workers have come to it in all. */
  async arrivals(count: number): Promise<void> {
    while (this.arrivalCount < count) await sleep(1);
  }
}
