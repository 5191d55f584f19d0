/**
 * Runs the changes of one sequence one after another, in the order asked for. An idle queue starts a task at once and
 * synchronously. Its length is bounded by the commands in flight, each of which waits for at most one task.
 */
export class MutationQueue {
  #last: Promise<void> | undefined;
  #depth = 0;

  /** Tasks running or waiting. */
  get depth(): number {
    return this.#depth;
  }

  run<T>(task: () => Promise<T>): Promise<T> {
    this.#depth++;
    const result = this.#last === undefined ? task() : this.#last.then(task);
    const finished: Promise<void> = result.then(
      () => this.#finish(finished),
      () => this.#finish(finished),
    );
    this.#last = finished;
    return result;
  }

  #finish(finished: Promise<void>): void {
    this.#depth--;
    if (this.#last === finished) this.#last = undefined;
  }
}
