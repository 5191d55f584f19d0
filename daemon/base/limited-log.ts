import type { Clock } from './clock.ts';
import type { Logger } from './logger.ts';

const PERIOD_NS = 60e9;
const LINES_PER_PERIOD = 20;

/** Warnings that anybody on the network can cause: so many a minute, and how many more there were. */
export class LimitedLog {
  readonly #clock: Clock;
  readonly #logger: Logger;
  #periodAtNs = Number.NEGATIVE_INFINITY;
  #lineCount = 0;
  #leftOutCount = 0;

  constructor(modules: { clock: Clock; logger: Logger }) {
    this.#clock = modules.clock;
    this.#logger = modules.logger;
  }

  warn(fields: object, message: string): void {
    const nowNs = this.#clock.nowNs();
    if (nowNs - this.#periodAtNs >= PERIOD_NS) {
      if (this.#leftOutCount > 0) this.#logger.warn({ leftOutCount: this.#leftOutCount }, 'more warnings like these');
      this.#periodAtNs = nowNs;
      this.#lineCount = 0;
      this.#leftOutCount = 0;
    }
    if (this.#lineCount < LINES_PER_PERIOD) {
      this.#lineCount++;
      this.#logger.warn(fields, message);
    } else this.#leftOutCount++;
  }
}
