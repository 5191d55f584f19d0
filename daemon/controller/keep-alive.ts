import type { Clock, Timer } from '../base/clock.ts';

/**
 * Traffic based keep alive: the association lives on if any of its queues took a command during a timeout period, so
 * a silent host is noticed one to two periods after its last command. A period in which the drive itself stood still does
 * not count: what the host has sent meanwhile has not been read yet.
 */
export class KeepAlive {
  readonly #clock: Clock;
  readonly #expired: () => void;
  #timer: Timer | undefined;
  #timeoutMs = 0;
  #active = false;

  constructor(modules: { clock: Clock; expired: () => void }) {
    this.#clock = modules.clock;
    this.#expired = modules.expired;
  }

  get timeoutMs(): number {
    return this.#timeoutMs;
  }

  /** 0: off. */
  start(timeoutMs: number): void {
    this.stop();
    this.#timeoutMs = timeoutMs;
    this.#active = false;
    if (timeoutMs > 0) this.#arm();
  }

  /** A command arrived. */
  touch(): void {
    this.#active = true;
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    const dueNs = this.#clock.nowNs() + this.#timeoutMs * 1e6;
    this.#timer = this.#clock.setTimer(this.#timeoutMs, () => {
      const stoodStill = this.#clock.nowNs() - dueNs > (this.#timeoutMs * 1e6) / 2;
      if (!this.#active && !stoodStill) {
        this.#expired();
        return;
      }
      this.#active = false;
      this.#arm();
    });
  }
}
