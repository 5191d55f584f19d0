import type { HostAccount } from '../hosts/host-account.ts';
import type { Limits } from '../commands/contract.ts';

/** A connection with nothing running may start a command of this size whatever the others have taken. */
export const SMALL_COMMAND_BYTES = 65_536;

/** What one connection has taken of the budget. */
export interface BudgetShare {
  dataBytes: number;
  /** Of the host, over all its connections; undefined before Connect. */
  account?: HostAccount | undefined;
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
    const { account } = share;
    if (!isIdle && share.dataBytes + lengthBytes > connectionDataBytesMax) return false;
    const isSmall = isIdle && lengthBytes <= SMALL_COMMAND_BYTES;
    const fitsHost = account === undefined || account.fitsData(lengthBytes);
    if (!fitsHost && !isSmall) return false;
    const fitsTotal = this.#totalBytes + lengthBytes <= dataBytesTotalMax || this.#totalBytes === 0;
    if (!fitsTotal && !isSmall) return false;
    share.dataBytes += lengthBytes;
    account?.addData(lengthBytes);
    this.#totalBytes += lengthBytes;
    return true;
  }

  release(share: BudgetShare, lengthBytes: number): void {
    share.dataBytes -= lengthBytes;
    share.account?.giveData(lengthBytes);
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
  tryHold({ account }: BudgetShare, capsuleBytes: number): boolean {
    if (account?.fits('waitingBytes', capsuleBytes) === false) return false;
    if (this.#waitingCapsuleBytes + capsuleBytes > this.#limits.waitingCapsuleBytesTotalMax) return false;
    this.#waitingCapsuleBytes += capsuleBytes;
    account?.add('waitingBytes', capsuleBytes);
    return true;
  }

  letGo({ account }: BudgetShare, capsuleBytes: number): void {
    account?.give('waitingBytes', capsuleBytes);
    this.#waitingCapsuleBytes -= capsuleBytes;
  }
}
