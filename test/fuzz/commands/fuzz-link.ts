/** A connection in the same process: the queue's side of it is real, PDUs there are none. */
import assert from 'node:assert/strict';
import { statusCodeOf } from '../../../spec/completion-entry.ts';
import { DriveError } from '../../../daemon/base/errors.ts';
import { type QueueLink, QueueError, type QueuePort } from '../../../daemon/controller/contract.ts';
import type { Subsystem } from '../../../daemon/controller/subsystem.ts';

export interface Completion {
  readonly dw0: number;
  readonly dw1: number;
  /** SCT << 8 | SC; 0: success. */
  readonly status: number;
  /** Data that the drive gave. */
  readonly data: Uint8Array;
}

/** How a host moves the data of a command. */
export interface Transfer {
  /** What it has to send. */
  readonly data: Uint8Array;
  /** Turns of the event loop that each transfer takes; 0: none, where that can be. */
  readonly turns: number;
  /** Of the data, wherever it comes: its digest fits. */
  readonly isIntact: boolean;
}

interface Pending {
  readonly commandId: number;
  readonly transfer: Transfer;
  readonly done: (completion: Completion) => void;
  received: Uint8Array;
  hasReceived: boolean;
}

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const gone = (): DriveError => new DriveError('aborted', 'the connection is gone');
const NO_DATA = new Uint8Array(0);
/** Longest data that the link takes at once. */
const PLACED_BYTES_MAX = 16_384;

export class FuzzLink implements QueueLink {
  readonly peer = 'fuzzer';
  readonly local: { readonly host: string; readonly port: number } | undefined;
  readonly #port: QueuePort;
  #pending: Pending[] = [];
  /** The command that is being handed over. */
  #current: Pending | undefined;
  #placed: { readonly pending: Pending; readonly bytes: Uint8Array } | undefined;
  isOpen = true;
  isConnected = false;
  isAuthenticating = false;
  /** Why the drive ended the connection. */
  endReason: string | undefined;

  /** `isTcp`: it comes from a network, where hosts have to prove who they are. */
  constructor(subsystem: Subsystem, isTcp = false) {
    this.local = isTcp ? { host: '127.0.0.1', port: 4420 } : undefined;
    this.#port = subsystem.attach(this);
  }

  get inFlightCount(): number {
    return this.#pending.length;
  }

  get capsuleDataBytesMax(): number {
    return this.#port.capsuleDataBytesMax;
  }

  has(commandId: number): boolean {
    return this.#pending.some((pending) => pending.commandId === commandId);
  }

  /** False: the queue has no room for it, which ends the connection. */
  submit(entry: Uint8Array, capsule: Uint8Array, transfer: Transfer, done: Pending['done']): boolean {
    const commandId = entry[2]! | (entry[3]! << 8);
    const pending = { commandId, transfer, done, received: NO_DATA, hasReceived: false };
    this.#pending.push(pending);
    this.#current = pending;
    // Both are the drive's during the call only, as a socket's memory is.
    const lent = [entry.slice(), capsule.slice()] as const;
    try {
      this.#port.submit(new DataView(lent[0].buffer), 0, lent[1], transfer.isIntact || capsule.length === 0);
    } catch (error) {
      if (!(error instanceof QueueError)) throw error;
      this.#pending = this.#pending.filter((one) => one !== pending);
      this.end(error.message);
      return false;
    } finally {
      this.#current = undefined;
    }
    queueMicrotask(() => setImmediate(() => lent.forEach((bytes) => bytes.fill(0xee))));
    return true;
  }

  /** The host goes away. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#pending = [];
    this.#port.closed();
  }

  // --- QueueLink

  place(commandId: number, lengthBytes: number): Uint8Array | undefined {
    const pending = this.#pending.find((one) => one.commandId === commandId);
    if (pending === undefined || lengthBytes > PLACED_BYTES_MAX) return undefined;
    this.#placed = { pending, bytes: new Uint8Array(lengthBytes).fill(0xdd) };
    return this.#placed.bytes;
  }

  placed(): void {
    assert.ok(this.#placed, 'what is placed has a place');
    const { pending, bytes } = this.#placed;
    this.#placed = undefined;
    assert.ok(!pending.hasReceived, `data of command ${pending.commandId} is given twice`);
    pending.hasReceived = true;
    pending.received = bytes.slice();
    bytes.fill(0xee);
  }

  async receive(commandId: number, offset: number, target: Uint8Array): Promise<void> {
    if (!this.isOpen) throw gone();
    const pending = this.#pending.find((one) => one.commandId === commandId);
    assert.ok(pending, `data is asked for of command ${commandId}, which is not in flight`);
    const { data, turns, isIntact } = pending.transfer;
    for (let i = 0; i < turns; i++) await turn();
    if (!this.isOpen) throw gone();
    // What the host has not got it fills up.
    target.fill(0);
    target.set(data.subarray(offset, offset + target.length));
    if (!isIntact) throw new DriveError('transientTransport', `data of command ${commandId}`);
  }

  send(commandId: number, source: Uint8Array): Promise<void> | void {
    if (!this.isOpen) return Promise.reject(gone());
    const pending = this.#pending.find((one) => one.commandId === commandId);
    assert.ok(pending, `data is given of command ${commandId}, which is not in flight`);
    assert.ok(!pending.hasReceived, `data of command ${commandId} is given twice`);
    pending.hasReceived = true;
    // What the drive does to it once it may would show: it is taken now only if it is taken at once.
    if (pending.transfer.turns === 0) {
      pending.received = source.slice();
      return;
    }
    pending.received = source;
    return this.#sendLate(pending, source);
  }

  async #sendLate(pending: Pending, source: Uint8Array): Promise<void> {
    for (let i = 0; i < pending.transfer.turns; i++) await turn();
    if (!this.isOpen) throw gone();
    pending.received = source.slice();
  }

  complete(dw0: number, dw1: number, _sqHead: number, commandId: number, status: number): void {
    if (!this.isOpen) return;
    // Of two commands with one id the second is refused, at once.
    const own = this.#current?.commandId === commandId ? this.#current : undefined;
    const pending = own ?? this.#pending.find((one) => one.commandId === commandId);
    assert.ok(pending, `a completion of command ${commandId}, which is not in flight`);
    this.#pending = this.#pending.filter((one) => one !== pending);
    const settle = (): void => pending.done({ dw0, dw1, status: statusCodeOf(status), data: pending.received });
    // The host sees a completion behind its data.
    if (pending.transfer.turns === 0 || !pending.hasReceived) settle();
    else void this.#settleLate(pending.transfer.turns, settle);
  }

  async #settleLate(turns: number, settle: () => void): Promise<void> {
    for (let i = 0; i <= turns; i++) await turn();
    settle();
  }

  authenticating(): void {
    this.isAuthenticating = true;
  }

  connected(): void {
    this.isConnected = true;
  }

  /** What is pending is not answered any more. */
  end(reason: string): void {
    this.endReason ??= reason;
    this.close();
  }
}
