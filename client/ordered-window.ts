import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Completion } from './command.ts';
import type { Submitted } from './transfers.ts';

/**
 * Commands that must take effect in the order in which they are submitted, a few of them in flight: while the drive works on
 * one, the data of the next is copied. One is in flight until a completion says that those behind one that fails will fail,
 * too. The first that fails ends the work, once all that were submitted behind it have ended.
 */
export class OrderedWindow {
  readonly #inFlightMax: number;
  readonly #inFlight: Promise<Completion>[] = [];
  #isOpen = false;
  #last: Completion | undefined;

  constructor(inFlightMax: number) {
    this.#inFlightMax = inFlightMax;
  }

  /** Whether more than one may be in flight. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Resolves when the command is submitted, and while the window is not open, when it has ended. Rejects as it does, or as
   * one before it. `opens`: whether its completion opens the window.
   */
  async add(submit: () => Promise<Submitted> | Submitted, opens: (completion: Completion) => boolean): Promise<void> {
    while (this.#inFlight.length >= this.#inFlightMax) await this.#settleOldest();
    // What was submitted leaves with this turn of the event loop, before more is copied.
    if (this.#inFlight.length > 0) await nextTurn();
    let submitted: Submitted;
    try {
      submitted = await submit();
    } catch (error) {
      await Promise.allSettled(this.#inFlight);
      throw error;
    }
    submitted.completion.catch(() => undefined);
    this.#inFlight.push(submitted.completion);
    if (this.#isOpen) return;
    await this.#settleOldest();
    this.#isOpen = this.#last !== undefined && opens(this.#last);
  }

  /** Completion of the last command, once all have succeeded; undefined: there was none. */
  async end(): Promise<Completion | undefined> {
    while (this.#inFlight.length > 0) await this.#settleOldest();
    return this.#last;
  }

  async #settleOldest(): Promise<void> {
    try {
      this.#last = await this.#inFlight.shift();
    } catch (error) {
      await Promise.allSettled(this.#inFlight.splice(0));
      throw error;
    }
  }
}
