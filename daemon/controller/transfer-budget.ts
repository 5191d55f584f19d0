import type { Limits } from '../commands/contract.ts';

/** A connection with nothing running may start a command of this size whatever the others have taken. */
export const SMALL_COMMAND_BYTES = 65_536;

/** What one connection has taken of the budget. */
export interface BudgetShare {
  dataBytes: number;
}

/**
 * Bounds the data of commands that run at once, per connection and in total, and with it the buffers that handlers take
 * from the arena. Commands that don't fit wait in their queue, whose depth bounds them; their in-capsule data is
 * counted too.
 */
export class TransferBudget {
  readonly #limits: Limits;
  readonly #waiters = new Set<() => void>();
  #totalBytes = 0;
  #waitingCapsuleBytes = 0;

  constructor(options: { limits: Limits }) {
    this.#limits = options.limits;
  }

  get runningBytes(): number {
    return this.#totalBytes;
  }

  get waitingCapsuleBytes(): number {
    return this.#waitingCapsuleBytes;
  }

  /** Takes `lengthBytes`, or returns false: try again when a waiter is called. */
  tryAcquire(share: BudgetShare, lengthBytes: number): boolean {
    const isIdle = share.dataBytes === 0;
    const { connectionDataBytesMax, dataBytesTotalMax } = this.#limits;
    if (!isIdle && share.dataBytes + lengthBytes > connectionDataBytesMax) return false;
    const fitsTotal = this.#totalBytes + lengthBytes <= dataBytesTotalMax || this.#totalBytes === 0;
    if (!fitsTotal && !(isIdle && lengthBytes <= SMALL_COMMAND_BYTES)) return false;
    share.dataBytes += lengthBytes;
    this.#totalBytes += lengthBytes;
    return true;
  }

  release(share: BudgetShare, lengthBytes: number): void {
    share.dataBytes -= lengthBytes;
    this.#totalBytes -= lengthBytes;
    if (this.#waiters.size === 0) return;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }

  /** Calls `wake` once, after the next release. */
  wait(wake: () => void): void {
    this.#waiters.add(wake);
  }

  stopWaiting(wake: () => void): void {
    this.#waiters.delete(wake);
  }

  /** Room for a waiting command's in-capsule data; false: refuse the command. */
  tryHold(capsuleBytes: number): boolean {
    if (this.#waitingCapsuleBytes + capsuleBytes > this.#limits.waitingCapsuleBytesTotalMax) return false;
    this.#waitingCapsuleBytes += capsuleBytes;
    return true;
  }

  letGo(capsuleBytes: number): void {
    this.#waitingCapsuleBytes -= capsuleBytes;
  }
}
