import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';

/** Commands of a namespace go in and out; whoever closes it has the namespace alone. */
export class NamespaceGate {
  readonly #namespaceId: number;
  #insideCount = 0;
  #isClosed = false;
  #onEmpty: () => void = () => undefined;

  constructor(namespaceId: number) {
    this.#namespaceId = namespaceId;
  }

  /** False: it is closed. */
  enter(): boolean {
    if (this.#isClosed) return false;
    this.#insideCount++;
    return true;
  }

  leave(): void {
    assert(this.#insideCount > 0, 'who leaves has entered');
    if (--this.#insideCount === 0) this.#onEmpty();
  }

  /** Lets nobody in any more; resolves when all are out. DriveError formatInProgress: somebody else has closed it. */
  async close(): Promise<void> {
    if (this.#isClosed) throw new DriveError('formatInProgress', `namespace ${this.#namespaceId}`);
    this.#isClosed = true;
    if (this.#insideCount > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
    this.#onEmpty = () => undefined;
  }

  open(): void {
    this.#isClosed = false;
  }
}
