import type { Clock } from '../base/clock.ts';

/**
 * Keeps the event loop awake for a moment after it has answered a host: the next command often follows at once, and to wake
 * a thread that sleeps takes longer than to answer it. It looks at its sockets at every turn meanwhile, and at everything else
 * that is due. While commands are under way elsewhere it sleeps: the processor is theirs.
 */
export class BusyPoll {
  readonly #windowNs: number;
  readonly #clock: Clock;
  readonly #isIdle: () => boolean;
  #untilNs = 0;
  #isPolling = false;

  /** `windowNs`: how long; 0: not at all. A clock that can't poll has none. `isIdle`: no command is under way. */
  constructor(
    options: { readonly windowNs: number },
    modules: { readonly clock: Clock; readonly isIdle: () => boolean },
  ) {
    this.#windowNs = options.windowNs;
    this.#clock = modules.clock;
    this.#isIdle = modules.isIdle;
  }

  /** A host was answered. */
  touch(): void {
    const { poll } = this.#clock;
    if (this.#windowNs === 0 || poll === undefined) return;
    this.#untilNs = this.#clock.nowNs() + this.#windowNs;
    if (this.#isPolling) return;
    this.#isPolling = true;
    poll(this.#turn);
  }

  readonly #turn = (): void => {
    this.#isPolling = this.#isIdle() && this.#clock.nowNs() < this.#untilNs;
    if (this.#isPolling) this.#clock.poll?.(this.#turn);
  };
}
