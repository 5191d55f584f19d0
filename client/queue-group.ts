import type { Command, CommandOptions, Completion } from './command.ts';
import { DriveLimitError, DriveTimeoutError } from './errors.ts';
import type { CommandEnd } from './in-flight.ts';
import type { ConnectionEnd, Queue } from './queue.ts';

/** Commands that may wait for a place in a queue; one more is refused. */
const WAITING_MAX = 65_536;

interface Waiting {
  readonly command: Command;
  readonly run: Run;
}

/** One command from the call to its end. */
class Run implements CommandEnd {
  readonly #resolve: (completion: Completion) => void;
  readonly #reject: (error: unknown) => void;
  readonly #onSettled: (() => void) | undefined;
  readonly #queues: QueueGroup;
  /** Takes away the timer and the abort listener. */
  cleanUp: (() => void) | undefined;

  constructor(
    resolve: (completion: Completion) => void,
    reject: (error: unknown) => void,
    onSettled: (() => void) | undefined,
    queues: QueueGroup,
  ) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#onSettled = onSettled;
    this.#queues = queues;
  }

  succeed(dw0: number, dw1: number): void {
    this.#resolve({ dw0, dw1 });
    this.#settle();
  }

  fail(error: Error): void {
    this.#reject(error);
    this.#settle();
  }

  /** The caller gave up; the command itself goes on. */
  giveUp(reason: unknown): void {
    this.#reject(reason);
    this.cleanUp?.();
  }

  #settle(): void {
    this.cleanUp?.();
    this.#onSettled?.();
    this.#queues.sendWaiting();
  }
}

/** Queues of one kind: a command goes to the one with most credits, or waits in line until there is one. */
export class QueueGroup {
  readonly #queues: readonly Queue[];
  readonly #waiting: Waiting[] = [];
  #firstWaiting = 0;
  #end: ConnectionEnd | undefined;

  constructor(queues: readonly Queue[]) {
    this.#queues = queues;
  }

  get queueCount(): number {
    return this.#queues.length;
  }

  get inFlightCount(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.inFlightCount, 0);
  }

  get waitingCount(): number {
    return this.#waiting.length - this.#firstWaiting;
  }

  /**
   * Sends a command and resolves with its completion. `onSettled` is called when the drive is done with the command
   * (after an abort that is later than the promise's rejection): only then may its buffers be used again.
   */
  execute(command: Command, options: CommandOptions = {}, onSettled?: () => void): Promise<Completion> {
    const completed = this.#execute(command, options, onSettled);
    const { onDeviceLatency } = options;
    if (onDeviceLatency === undefined || command.deviceLatency !== true) return completed;
    return completed.then((completion) => {
      onDeviceLatency(completion.dw1, command.opcodeName);
      return completion;
    });
  }

  #execute(command: Command, options: CommandOptions, onSettled: (() => void) | undefined): Promise<Completion> {
    return new Promise((resolve, reject) => {
      const run = new Run(resolve, reject, onSettled, this);
      if (this.#end !== undefined) run.fail(this.#end);
      else if (options.signal?.aborted) run.fail(options.signal.reason as Error);
      else this.#start(command, run, options);
    });
  }

  sendWaiting(): void {
    while (this.#firstWaiting < this.#waiting.length) {
      const queue = this.#bestQueue();
      if (queue === undefined) return;
      const next = this.#waiting[this.#firstWaiting++];
      if (this.#firstWaiting === this.#waiting.length || this.#firstWaiting === 1024) {
        this.#waiting.splice(0, this.#firstWaiting);
        this.#firstWaiting = 0;
      }
      if (next !== undefined) queue.submit(next.command, next.run);
    }
  }

  /** The association is over: everything that waits fails, and so does everything that comes. */
  fail(error: ConnectionEnd): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    const waiting = this.#waiting.splice(0).slice(this.#firstWaiting);
    this.#firstWaiting = 0;
    for (const { run } of waiting) run.fail(error);
  }

  close(): void {
    for (const queue of this.#queues) queue.close();
  }

  #start(command: Command, run: Run, options: CommandOptions): void {
    if (options.signal !== undefined || options.timeoutMs !== undefined) this.#watch(command, run, options);
    const queue = this.waitingCount === 0 ? this.#bestQueue() : undefined;
    if (queue !== undefined) queue.submit(command, run);
    else if (this.waitingCount < WAITING_MAX) this.#waiting.push({ command, run });
    else run.fail(new DriveLimitError(`${WAITING_MAX} commands wait for a place in a queue`));
  }

  #watch(command: Command, run: Run, { signal, timeoutMs }: CommandOptions): void {
    const stop = (reason: unknown): void => {
      const place = this.#waiting.findIndex((waiting, index) => index >= this.#firstWaiting && waiting.run === run);
      if (place >= 0) {
        this.#waiting.splice(place, 1);
        run.fail(reason as Error);
        return;
      }
      for (const queue of this.#queues) queue.abandon(command);
      run.giveUp(reason);
    };
    const onAbort = (): void => stop(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            stop(new DriveTimeoutError(`${command.opcodeName} (${command.subject()}): no answer in ${timeoutMs} ms`));
          }, timeoutMs);
    run.cleanUp = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
  }

  #bestQueue(): Queue | undefined {
    let best: Queue | undefined;
    let most = 0;
    for (const queue of this.#queues) {
      const { creditCount } = queue;
      if (creditCount > most) {
        best = queue;
        most = creditCount;
      }
    }
    return best;
  }
}
