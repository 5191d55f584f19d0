/** What the controller room wants of the connection that carries a queue, and what it gives it. */

import type { NetworkAddress } from '../commands/contract.ts';

/** One transport connection, as its queue sees it. */
export interface QueueLink {
  /** Where the host is, for people: `unix` or `ADDRESS:PORT`. */
  readonly peer: string;
  /** Where the connection ends on our side; undefined: on a Unix socket. */
  readonly local: NetworkAddress | undefined;
  /**
   * Asks the host for `target.length` bytes of a command's data and resolves when `target` holds them. One request per
   * command at a time. DriveError aborted if the connection ends first.
   */
  receive(commandId: number, offset: number, target: Uint8Array): Promise<void>;
  /** Sends all of a command's data. `source` may be changed when it returns or resolves. DriveError aborted. */
  send(commandId: number, source: Uint8Array): Promise<void> | void;
  /**
   * Where a command's data go on their way to the host, if they can be there at once; undefined: give them to `send`. They
   * are sent by `placed`, before anything else is asked of the link; without it nothing is.
   */
  place(commandId: number, lengthBytes: number): Uint8Array | undefined;
  placed(): void;
  /** Sends a completion. `status` is the status field of the completion entry. */
  complete(dw0: number, dw1: number, sqHead: number, commandId: number, status: number): void;
  /** The host has to authenticate before the queue may be used. */
  authenticating(): void;
  /** The queue is part of an association now, and may be used. */
  connected(): void;
  /** Sends what is pending and ends the connection. */
  end(reason: string): void;
}

/** A host broke a rule of queues that no completion can answer: the connection has to end. */
export class QueueError extends Error {
  override readonly name = 'QueueError';
}

/** The queue's side of a connection. */
export interface QueuePort {
  /** Most bytes of in-capsule data of the next command. */
  readonly capsuleDataBytesMax: number;
  /** Commands that are submitted before `endBatch`, in the same turn of the event loop, arrived together. */
  beginBatch(): void;
  endBatch(): void;
  /**
   * Takes one command. Its entry, 64 bytes from byte `at` of `entry` on, is copied; `capsule` is the capsule's data and is valid
   * until the event loop turns. `isIntact`: its data digest fits, or there is none. Throws QueueError.
   */
  submit(entry: DataView, at: number, capsule: Uint8Array, isIntact: boolean): void;
  /** The host sends nothing more: requests that wait for an event are ended. */
  inputEnded(): void;
  /** The connection is gone. */
  closed(): void;
  readonly inFlightCount: number;
  /** Entries of the queue; 1 before Connect. */
  readonly entryCount: number;
  /** Commands taken since it connected. */
  readonly commandCount: number;
  /** Once the queue is part of an association. */
  readonly controllerId: number | undefined;
  readonly queueId: number | undefined;
}

export interface ConnectionSnapshot {
  readonly peer: string;
  readonly transport: 'unix' | 'tcp';
  readonly state: string;
  readonly controllerId: number | undefined;
  readonly queueId: number | undefined;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly pendingBytes: number;
  readonly entryCount: number;
  readonly inFlightCount: number;
  readonly commandCount: number;
  readonly connectedAtMs: number;
}
