import type { ErrorCode } from '../../spec/errors.ts';
import type { Clock } from '../base/clock.ts';
import type { CommandCounters } from './command-counters.ts';

/** What is counted of a command that ends. */
interface EndedCommand {
  readonly counterIndex: number;
  readonly startedAtNs: number;
}

/**
 * When commands arrive, and how long they took. Those that come in one piece arrive together, and of those that end before
 * others have a turn as many as are alike are counted together, so that one look at the clock does for all.
 */
export class ArrivalBatch {
  readonly #clock: Clock;
  readonly #counters: CommandCounters;
  #isOpen = false;
  #arrivalNs = 0;
  /** Successes one after another of one opcode that are not counted yet. */
  #uncountedCount = 0;
  #counterIndex = 0;
  #startedAtNs = 0;

  constructor(modules: { readonly clock: Clock; readonly counters: CommandCounters }) {
    this.#clock = modules.clock;
    this.#counters = modules.counters;
  }

  /** Commands until `end` arrive now. */
  begin(): void {
    this.#isOpen = true;
    this.#arrivalNs = this.#clock.nowNs();
  }

  end(): void {
    this.#isOpen = false;
    this.#settle();
  }

  /** Of a command that comes now. */
  get arrivalNs(): number {
    return this.#isOpen ? this.#arrivalNs : this.#clock.nowNs();
  }

  /** `code` undefined: success. */
  count({ counterIndex, startedAtNs }: EndedCommand, code: ErrorCode | undefined): void {
    const isAlike = counterIndex === this.#counterIndex && startedAtNs === this.#startedAtNs;
    if (!isAlike && this.#uncountedCount > 0) this.#settle();
    if (!this.#isOpen || code !== undefined) {
      this.#counters.count(counterIndex, code, this.#clock.nowNs() - startedAtNs);
      return;
    }
    this.#counterIndex = counterIndex;
    this.#startedAtNs = startedAtNs;
    this.#uncountedCount++;
  }

  #settle(): void {
    const count = this.#uncountedCount;
    if (count === 0) return;
    this.#uncountedCount = 0;
    this.#counters.count(this.#counterIndex, undefined, this.#clock.nowNs() - this.#startedAtNs, count);
  }
}
