import { assert } from '../base/assert.ts';

/** What the table keeps: the rest of its chain goes through it. */
export interface InFlightCommand {
  readonly commandId: number;
  /** Belongs to the table while it is in it. */
  nextInChain: InFlightCommand | undefined;
}

/**
 * The commands of a queue by command id. A hash table of fixed size whose chains go through the commands themselves: it is
 * filled and emptied with every batch, which a Map answers by shrinking and growing. Ids are what the host likes; of 65,536 at
 * most 65,536 / `bucketCount` share a chain.
 */
export class InFlightCommands<T extends InFlightCommand> {
  readonly #buckets: (T | undefined)[];
  readonly #mask: number;
  size = 0;

  /** Works best with as many buckets as commands; a power of two at least as large is taken. */
  constructor(bucketCount: number) {
    const count = 2 ** Math.ceil(Math.log2(bucketCount));
    this.#buckets = Array.from({ length: count }, () => undefined);
    this.#mask = count - 1;
  }

  get(commandId: number): T | undefined {
    let command = this.#buckets[commandId & this.#mask];
    while (command !== undefined && command.commandId !== commandId) command = command.nextInChain as T | undefined;
    return command;
  }

  /** Its id is not in the table. */
  add(command: T): void {
    const index = command.commandId & this.#mask;
    command.nextInChain = this.#buckets[index];
    this.#buckets[index] = command;
    this.size++;
  }

  remove(command: T): void {
    const index = command.commandId & this.#mask;
    const next = command.nextInChain as T | undefined;
    if (this.#buckets[index] === command) this.#buckets[index] = next;
    else {
      let before: InFlightCommand | undefined = this.#buckets[index];
      while (before !== undefined && before.nextInChain !== command) before = before.nextInChain;
      assert(before !== undefined, 'a command is removed once');
      before.nextInChain = next;
    }
    command.nextInChain = undefined;
    this.size--;
  }
}
