/**
 * Keeps the event loop awake while an answer is due: to wake a thread that sleeps can take longer than the answer did. It
 * costs a processor for as long as it waits, so it gives up after a while, and is off unless it is asked for.
 */
export class BusyPoll {
  readonly #longestMs: number;
  readonly #isWaiting: () => boolean;
  #untilMs = 0;
  #isPolling = false;
  readonly #turn = (): void => {
    this.#isPolling = this.#isWaiting() && performance.now() < this.#untilMs;
    if (this.#isPolling) setImmediate(this.#turn);
  };

  /** `longestMs`: after the last command that was sent; 0: not at all. `isWaiting`: whether an answer is due. */
  constructor(options: { readonly longestMs: number }, modules: { readonly isWaiting: () => boolean }) {
    this.#longestMs = options.longestMs;
    this.#isWaiting = modules.isWaiting;
  }

  /** A command was sent. */
  touch(): void {
    if (this.#longestMs === 0) return;
    this.#untilMs = performance.now() + this.#longestMs;
    if (this.#isPolling) return;
    this.#isPolling = true;
    setImmediate(this.#turn);
  }
}
