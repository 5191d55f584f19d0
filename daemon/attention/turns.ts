import type { Command } from './command.ts';
import type { Lane } from './job-queue.ts';

/** Commands of one lane that have jobs to prepare, and what they hold. */
export class Turns {
  readonly lane: Lane;
  readonly scratchBytesMax: number;
  /** The next one first. */
  readonly runnable: Command[] = [];
  /** Jobs whose pages have come while the queue was full: slots. */
  readonly ready: number[] = [];
  /** Jobs that are with the workers. */
  outCount = 0;
  scratchBytes = 0;
  /** Waits for a scratch block; until it has one, no other command of the lane begins a unit. */
  scratchWaiter: Command | undefined;

  constructor(lane: Lane, scratchBytesMax: number) {
    this.lane = lane;
    this.scratchBytesMax = scratchBytesMax;
  }

  get isWaiting(): boolean {
    return this.runnable.length > 0 || this.ready.length > 0;
  }

  leave(command: Command): void {
    if (this.scratchWaiter === command) this.scratchWaiter = undefined;
    const at = this.runnable.indexOf(command);
    if (at >= 0) this.runnable.splice(at, 1);
  }
}
