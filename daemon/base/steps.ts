import type { Clock } from './clock.ts';

/** One step of starting up, and what undoes it. */
export interface Step {
  readonly name: string;
  start(): Promise<void> | void;
  /** Undoes `start`. Called only if `start` succeeded. */
  stop?(): Promise<void> | void;
}

/** Told how each step went; `durationNs` is wall time. */
export type StepListener = (name: string, phase: 'started' | 'stopped' | 'stop failed', durationNs: number) => void;

/**
 * Runs steps in order; if one fails, undoes the finished ones backwards and throws what it threw. `stop` undoes all of
 * them backwards, goes on past a failing one, and throws the first failure at the end.
 */
export class Steps {
  readonly #steps: readonly Step[];
  readonly #clock: Clock;
  readonly #listen: StepListener;
  readonly #finished: Step[] = [];

  constructor(steps: readonly Step[], modules: { clock: Clock; listen: StepListener }) {
    this.#steps = steps;
    this.#clock = modules.clock;
    this.#listen = modules.listen;
  }

  async start(): Promise<void> {
    for (const step of this.#steps) {
      const beginNs = this.#clock.nowNs();
      try {
        await step.start();
      } catch (error) {
        await this.stop().catch(() => undefined);
        throw error;
      }
      this.#finished.push(step);
      this.#listen(step.name, 'started', this.#clock.nowNs() - beginNs);
    }
  }

  async stop(): Promise<void> {
    const failures: unknown[] = [];
    for (let step = this.#finished.pop(); step !== undefined; step = this.#finished.pop()) {
      const beginNs = this.#clock.nowNs();
      try {
        await step.stop?.();
        this.#listen(step.name, 'stopped', this.#clock.nowNs() - beginNs);
      } catch (error) {
        failures.push(error);
        this.#listen(step.name, 'stop failed', this.#clock.nowNs() - beginNs);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
