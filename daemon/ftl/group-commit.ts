/**
 * Runs one piece of work at a time. A call that comes while one is running, or before the next has begun, is answered by
 * the next: it begins after the call, so it covers everything that was done before the call.
 */
export class GroupCommit {
  readonly #work: () => Promise<void>;
  #tail: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  /** The shared work. */
  request(): Promise<void> {
    this.#next ??= this.run(() => {
      this.#next = undefined;
      return this.#work();
    });
    return this.#next;
  }

  /** Other work, in turn with the shared one. */
  run(work: () => Promise<void>): Promise<void> {
    const run = this.#tail.then(work);
    this.#tail = run.catch(() => undefined);
    return run;
  }
}
