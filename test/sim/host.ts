/** A host in the same process: it speaks to the controller's queues without PDUs. Every transfer takes time. */
import assert from 'node:assert/strict';
import { statusCodeOf } from '../../spec/completion-entry.ts';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { subsystemNqn } from '../../spec/fabrics.ts';
import { limits } from '../../spec/limits.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { QueueLink, QueuePort } from '../../daemon/controller/contract.ts';
import type { Subsystem } from '../../daemon/controller/subsystem.ts';
import { CC_ENABLED, PROPERTY_CC, SERIAL } from '../controller/rig.ts';
import {
  type CommandFields,
  connectBody,
  connectEntry,
  entryBytes,
  propertySetEntry,
} from '../controller/submissions.ts';
import { saysLatency } from './device-times.ts';
import type { EventLoop } from './event-loop.ts';
import type { Prng } from './prng.ts';
import type { Trace } from './trace.ts';

export interface Completion {
  readonly dw0: number;
  readonly dw1: number;
  /** undefined: success. 'lost': the connection ended first, and nobody knows what became of the command. */
  readonly error: ErrorCode | 'lost' | undefined;
  /** Data that the drive sent. */
  readonly data: Uint8Array;
}

const codeOfStatus = new Map<number, ErrorCode>(
  (Object.keys(errorTable) as ErrorCode[]).map((code) => [(errorTable[code].sct << 8) | errorTable[code].sc, code]),
);

interface InFlight {
  readonly opcode: number;
  readonly saysLatency: boolean;
  readonly submittedNs: number;
  readonly data: Uint8Array;
  received: Uint8Array;
  /** Data of it is on its way to the host. */
  isSending: boolean;
  /** Once it is complete. */
  deliver: (() => void) | undefined;
  readonly resolve: (completion: Completion) => void;
}

export interface HostModules {
  readonly loop: EventLoop;
  readonly random: Prng;
  readonly trace: Trace;
  /** The drive keeps completions back until their device time. */
  readonly isHeld: boolean;
}

const NO_DATA = new Uint8Array(0);
const FABRICS: CommandFields = { opcode: 0x7f };
/** Longest data that the link takes at once. */
const PLACED_BYTES_MAX = 16_384;
/** Of one transfer over the link. */
const TRANSFER_NS = 5000;

/** One queue of a controller, and the connection that carries it. */
export class HostQueue implements QueueLink {
  readonly peer = 'simulation';
  readonly local = undefined;
  readonly #modules: HostModules;
  readonly #port: QueuePort;
  readonly #inFlight = new Map<number, InFlight>();
  #nextCommandId = 1;
  #placed: { readonly command: InFlight; readonly bytes: Uint8Array } | undefined;
  isOpen = true;

  constructor(subsystem: Subsystem, modules: HostModules) {
    this.#modules = modules;
    this.#port = subsystem.attach(this);
  }

  get inFlightCount(): number {
    return this.#inFlight.size;
  }

  /** In the capsule if it fits and chance will have it so. Resolves when the command is complete, or its connection gone. */
  run(fields: CommandFields, data: Uint8Array = NO_DATA, replyBytes = 0): Promise<Completion> {
    const inCapsule = data.length > 0 && data.length <= limits.inCapsuleBytesMax && this.#modules.random.chance(0.5);
    const length = data.length + replyBytes;
    const sgl = inCapsule
      ? ({ kind: 'inCapsule', offset: 0, length } as const)
      : length > 0
        ? ({ kind: 'transport', length } as const)
        : ({ kind: 'none' } as const);
    return this.#submit(fields, data, inCapsule ? data : NO_DATA, (commandId) =>
      entryBytes({ sgl, ...fields }, commandId),
    );
  }

  connect(fields: Parameters<typeof connectEntry>[0], cntlid?: number): Promise<Completion> {
    const body = connectBody({ subnqn: subsystemNqn(SERIAL), ...(cntlid !== undefined && { cntlid }) });
    return this.#submit(FABRICS, body, body, (commandId) => connectEntry(fields, commandId));
  }

  enable(): Promise<Completion> {
    return this.#submit(FABRICS, NO_DATA, NO_DATA, (commandId) =>
      propertySetEntry(PROPERTY_CC, CC_ENABLED, 0, commandId),
    );
  }

  #submit(
    { opcode, nsid }: CommandFields,
    data: Uint8Array,
    capsule: Uint8Array,
    entry: (commandId: number) => Uint8Array,
  ): Promise<Completion> {
    if (!this.isOpen) return Promise.resolve({ dw0: 0, dw1: 0, error: 'lost', data: NO_DATA });
    const commandId = this.#nextCommandId;
    this.#nextCommandId = (commandId % 0xfffe) + 1;
    return new Promise((resolve) => {
      const idle = { received: NO_DATA, isSending: false, deliver: undefined };
      const submittedNs = this.#modules.loop.nowNs();
      const timed = saysLatency(nsid, opcode);
      this.#inFlight.set(commandId, { opcode, saysLatency: timed, submittedNs, data, ...idle, resolve });
      this.#modules.trace.note('submit', opcode, commandId);
      // The drive may look at the capsule in this turn only: what it did not copy is gone.
      const capsuleCopy = capsule.slice();
      const { buffer, byteOffset } = entry(commandId);
      this.#port.submit(new DataView(buffer, byteOffset), 0, capsuleCopy, true);
      this.#modules.loop.after(0, () => void capsuleCopy.fill(0xee));
    });
  }

  /** Fails if a command takes longer than anything can take. */
  checkProgress(longestNs: number): void {
    for (const [commandId, { opcode, submittedNs }] of this.#inFlight) {
      const tookNs = this.#modules.loop.nowNs() - submittedNs;
      assert.ok(tookNs < longestNs, `command ${commandId}, opcode ${opcode}, has not ended after ${tookNs / 1e9} s`);
    }
  }

  /** The host goes away. Its commands may have been done or not. */
  disconnect(): void {
    if (!this.isOpen) return;
    this.#modules.trace.note('disconnect');
    this.isOpen = false;
    this.#port.closed();
    for (const command of this.#inFlight.values()) command.resolve({ dw0: 0, dw1: 0, error: 'lost', data: NO_DATA });
    this.#inFlight.clear();
  }

  // --- QueueLink: the drive's side ---

  async receive(commandId: number, offset: number, target: Uint8Array): Promise<void> {
    await this.#transfer();
    const command = this.#inFlight.get(commandId);
    if (command === undefined) throw new DriveError('aborted', 'the connection is gone');
    target.set(command.data.subarray(offset, offset + target.length));
  }

  async send(commandId: number, source: Uint8Array): Promise<void> {
    const command = this.#inFlight.get(commandId);
    if (command !== undefined) command.isSending = true;
    await this.#transfer();
    if (command === undefined || !this.isOpen) throw new DriveError('aborted', 'the connection is gone');
    // As late as the drive allows: what it changes before shows.
    command.received = source.slice();
    command.isSending = false;
    command.deliver?.();
  }

  place(commandId: number, lengthBytes: number): Uint8Array | undefined {
    const command = this.#inFlight.get(commandId);
    if (command === undefined || lengthBytes > PLACED_BYTES_MAX) return undefined;
    this.#placed = { command, bytes: new Uint8Array(lengthBytes).fill(0xdd) };
    return this.#placed.bytes;
  }

  placed(): void {
    assert.ok(this.#placed, 'what was placed has a place');
    this.#placed.command.received = this.#placed.bytes.slice();
    this.#placed.bytes.fill(0xee);
    this.#placed = undefined;
  }

  #transfer(): Promise<void> {
    const { loop, random } = this.#modules;
    return loop.wait(TRANSFER_NS * (random.chance(0.02) ? 1000 : 1) * (1 + random.below(4)));
  }

  /** A completion follows its data on the link. */
  complete(dw0: number, dw1: number, _sqHead: number, commandId: number, status: number): void {
    const command = this.#inFlight.get(commandId);
    if (command === undefined) return;
    const { loop, random, trace, isHeld } = this.#modules;
    const code = statusCodeOf(status);
    const error = code === 0 ? undefined : codeOfStatus.get(code);
    trace.note('complete', commandId, code);
    if (isHeld && command.saysLatency && code === 0) {
      const tookNs = loop.nowNs() - Math.floor(command.submittedNs);
      assert.ok(tookNs >= dw1, `opcode ${command.opcode} took ${tookNs} ns, a device ${dw1} ns`);
    }
    const delayNs = random.below(2000);
    command.deliver = () =>
      void loop.after(delayNs, () => {
        if (this.#inFlight.delete(commandId)) command.resolve({ dw0, dw1, error, data: command.received });
      });
    if (!command.isSending) command.deliver();
  }

  authenticating(): void {}

  connected(): void {}

  end(): void {
    this.disconnect();
  }
}

/** An association: an admin queue and an I/O queue. */
export class Host {
  readonly admin: HostQueue;
  readonly io: HostQueue;

  private constructor(admin: HostQueue, io: HostQueue) {
    this.admin = admin;
    this.io = io;
  }

  static async connect(subsystem: Subsystem, modules: HostModules): Promise<Host> {
    const admin = new HostQueue(subsystem, modules);
    const { error, dw0: cntlid } = await admin.connect({});
    if (error !== undefined) throw new Error(`connect: ${error}`);
    await admin.enable();
    const io = new HostQueue(subsystem, modules);
    const second = await io.connect({ qid: 1, sqsize: 127 }, cntlid);
    if (second.error !== undefined) throw new Error(`connect of the I/O queue: ${second.error}`);
    return new Host(admin, io);
  }

  get isOpen(): boolean {
    return this.admin.isOpen && this.io.isOpen;
  }

  checkProgress(longestNs: number): void {
    this.io.checkProgress(longestNs);
    this.admin.checkProgress(longestNs);
  }

  disconnect(): void {
    this.io.disconnect();
    this.admin.disconnect();
  }
}
