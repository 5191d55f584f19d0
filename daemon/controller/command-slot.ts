import type { ErrorCode } from '../../spec/errors.ts';
import { limits } from '../../spec/limits.ts';
import { directionOf } from '../../spec/opcodes.ts';
import { SGL_FLAGS, sglTypes } from '../../spec/sgl.ts';
import { assert } from '../base/assert.ts';
import {
  type Association,
  type CommandContext,
  type CommandData,
  type CommandResult,
  type HeldRegion,
  type MemoryRegion,
  type SubmissionEntry,
} from '../commands/contract.ts';
import type { RegisteredCommand } from '../commands/registry.ts';
import type { HostByteCounters } from './command-counters.ts';
import { type DeviceJob, type ReusableJob, untimed } from '../timing/device-job.ts';
import type { HeldCompletion } from './completion-hold.ts';
import type { HostAccount } from '../hosts/host-account.ts';
import type { QueueLink } from './contract.ts';
import { EntryWords } from './entry-words.ts';
import type { InFlightCommand } from './in-flight-commands.ts';

type DataKind = 'none' | 'inCapsule' | 'transport' | 'keyed';

const NO_CAPSULE = new Uint8Array(0);
const NO_GATES: RegisteredCommand['gates'] = [];
const DIRECTION_IN = 2;
const DIRECTION_BOTH = 3;
const LOW_24_BITS = 0xff_ffff;

export interface SlotOwner {
  finished(slot: CommandSlot, result: CommandResult): void;
  failed(slot: CommandSlot, error: unknown): void;
  /** Its completion was held and may leave now. */
  released(slot: CommandSlot): void;
  /** What the command has taken of the budget is given back by calling this, not when the command completes. */
  detachBudget(slot: CommandSlot): () => void;
}

export interface SlotModules {
  readonly link: QueueLink;
  readonly owner: SlotOwner;
  readonly signal: AbortSignal;
  readonly bytes: HostByteCounters;
  /** For commands that have a device time. */
  readonly createJob: (() => ReusableJob) | undefined;
}

/** How a command ended, as its completion will say it. */
interface Outcome {
  code: ErrorCode | undefined;
  dw0: number;
  dw1: number;
}

/**
 * One command in flight: its submission entry, its data, and what its handler is given. A queue has as many as its
 * depth and uses them again and again, so that a command costs no garbage before its handler runs.
 */
export class CommandSlot extends EntryWords implements CommandContext, CommandData, HeldCompletion, InFlightCommand {
  readonly #link: QueueLink;
  readonly owner: SlotOwner;
  readonly #counters: HostByteCounters;
  readonly #createJob: (() => ReusableJob) | undefined;
  #timedJob: ReusableJob | undefined;
  readonly signal: AbortSignal;
  readonly entry: SubmissionEntry = this;
  readonly data: CommandData = this;
  readonly onFinished: (result: CommandResult) => void;
  readonly onFailed: (error: unknown) => void;

  nextInChain: InFlightCommand | undefined;
  lengthBytes = 0;
  definition: RegisteredCommand | undefined;
  startedAtNs = 0;
  /** It came on an I/O queue that was connected. */
  isIo = false;
  /** Index of the counters of this command. */
  counterIndex = 0;
  /** Whether it has taken its data's length of the budget, and whether its capsule is held while it waits. */
  hasBudget = false;
  /** Where it is counted while it is in flight. */
  account: HostAccount | undefined;
  heldBytes = 0;
  job: DeviceJob = untimed;
  readonly outcome: Outcome = { code: undefined, dw0: 0, dw1: 0 };
  dueNs = 0;
  #association: Association | undefined;
  #kind: DataKind = 'none';
  #capsule: Uint8Array = NO_CAPSULE;
  #offset = 0;
  #region: MemoryRegion | undefined;
  #written = false;
  #placedBytes = 0;
  #enteredCount = 0;

  constructor(modules: SlotModules) {
    super();
    this.#link = modules.link;
    this.owner = modules.owner;
    this.#createJob = modules.createJob;
    this.#counters = modules.bytes;
    this.signal = modules.signal;
    this.onFinished = (result) => modules.owner.finished(this, result);
    this.onFailed = (error) => modules.owner.failed(this, error);
  }

  get association(): Association {
    assert(this.#association !== undefined, 'a command runs within an association');
    return this.#association;
  }

  /** The entry begins at byte `from` of `source`. */
  load(source: DataView, from: number, capsule: Uint8Array): void {
    this.loadEntry(source, from);
    this.#capsule = capsule;
    this.#kind = 'none';
    this.lengthBytes = 0;
    this.definition = undefined;
    this.#association = undefined;
    this.#region = undefined;
    this.#written = false;
    this.job = untimed;
  }

  /** From here on its device time counts. */
  beginJob(label: number): void {
    assert(this.#createJob !== undefined, 'device time is modelled');
    this.#timedJob ??= this.#createJob();
    this.#timedJob.begin(label, this.startedAtNs);
    this.job = this.#timedJob;
  }

  /** Returns its device latency; undefined: it has none. */
  endJob(): number | undefined {
    const job = this.#timedJob;
    if (job === undefined || job === untimed || this.job !== job) return undefined;
    job.end();
    this.job = untimed;
    return job.latencyNs;
  }

  release(): void {
    this.owner.released(this);
  }

  unload(): void {
    this.#capsule = NO_CAPSULE;
    this.#association = undefined;
    this.#region = undefined;
    this.definition = undefined;
  }

  /** Before its handler runs. False: one of its namespaces is being formatted. */
  enterNamespaces(): boolean {
    const gates = this.definition?.gates ?? NO_GATES;
    while (this.#enteredCount < gates.length && gates[this.#enteredCount]!.enter()) this.#enteredCount++;
    return this.#enteredCount === gates.length;
  }

  /** Those that it entered. */
  leaveNamespaces(): void {
    while (this.#enteredCount > 0) this.definition!.gates[--this.#enteredCount]!.leave();
  }

  get capsule(): Uint8Array {
    return this.#capsule;
  }

  /** Keeps the capsule's data beyond this turn of the event loop. */
  holdCapsule(): void {
    this.#capsule = this.#capsule.slice();
  }

  /** FUSE, PSDT and metadata pointer: the parts of the entry that no command of ours uses. */
  checkFormat(): ErrorCode | undefined {
    return this.flags !== SGL_FLAGS || this.hasMetadataPointer ? 'invalidField' : undefined;
  }

  /** Reads the SGL. Same results as `parseSgl`, without its objects. */
  #readSgl(): ErrorCode | undefined {
    const low = this.sglWord(2);
    const high = this.sglWord(3);
    const type = high >>> 24;
    if (type === 0) return (this.sglWord(0) | this.sglWord(1) | low | high) === 0 ? undefined : 'sglType';
    if (type === sglTypes.keyed) return this.#readKeyed(low & LOW_24_BITS, (low >>> 24) | ((high & LOW_24_BITS) << 8));
    if (type !== sglTypes.inCapsule && type !== sglTypes.transport) return 'sglType';
    if ((high & LOW_24_BITS) !== 0) return 'sglInvalid';
    if (low === 0) return undefined;
    this.#kind = type === sglTypes.inCapsule ? 'inCapsule' : 'transport';
    this.#offset = this.#sglOffset();
    this.lengthBytes = low;
    return undefined;
  }

  #readKeyed(lengthBytes: number, signedKey: number): ErrorCode | undefined {
    if (lengthBytes === 0) return undefined;
    const key = signedKey >>> 0;
    if (key === 0) return 'sglDataBlock';
    this.#kind = 'keyed';
    this.#offset = this.#sglOffset();
    this.lengthBytes = lengthBytes;
    this.#region = this.association.region(key);
    this.#region.check(this.#offset, lengthBytes);
    return undefined;
  }

  #sglOffset(): number {
    return this.sglWord(1) * 0x1_0000_0000 + this.sglWord(0);
  }

  /** Finds the command's data and checks it against its opcode's direction. Throws DriveError sglDataBlock. */
  locateData(association: Association, transferBytesMax: number): ErrorCode | undefined {
    this.#association = association;
    const problem = this.#readSgl();
    if (problem !== undefined) return problem;
    const direction = directionOf(this.opcode);
    const capsuleBytes = this.#capsule.length;
    switch (this.#kind) {
      case 'none':
        return capsuleBytes === 0 ? undefined : 'sglInvalid';
      case 'inCapsule':
        if (direction === DIRECTION_IN) return 'sglType';
        if (this.#offset > capsuleBytes) return 'sglOffset';
        if (this.#offset + this.lengthBytes > capsuleBytes) return 'sglDataLength';
        break;
      case 'transport':
        if (capsuleBytes > 0) return 'sglInvalid';
        if (this.lengthBytes > transferBytesMax) return 'invalidField';
        break;
      case 'keyed':
        if (capsuleBytes > 0) return 'sglInvalid';
        break;
    }
    return direction === 0 ? 'sglDataLength' : undefined;
  }

  // --- CommandData ---

  read(target: Uint8Array, offset = 0): Promise<void> | void {
    assert((this.opcode & 1) === 1, () => `opcode ${this.opcode} takes no data from the host`);
    assert(offset + target.length <= this.lengthBytes, () => `read ${offset}+${target.length} of ${this.lengthBytes}`);
    if (target.length === 0) return;
    switch (this.#kind) {
      case 'inCapsule': {
        this.#counters.inCapsule += target.length;
        const start = this.#offset + offset;
        target.set(this.#capsule.subarray(start, start + target.length));
        return;
      }
      case 'transport':
        this.#counters.inPdu += target.length;
        return this.#link.receive(this.commandId, offset, target);
      case 'keyed':
        return (this.#region as MemoryRegion).read(this.#offset + offset, target);
      case 'none':
        return;
    }
  }

  hold(): { region: HeldRegion; offset: number } | undefined {
    if (this.#kind !== 'keyed' || this.lengthBytes > limits.regionReadNowBytesMax) return undefined;
    const offset = this.#offset;
    return { region: (this.#region as MemoryRegion).hold(offset, this.lengthBytes), offset };
  }

  inPlace(): Uint8Array | undefined {
    if (this.#kind !== 'inCapsule') return undefined;
    this.#counters.inCapsule += this.lengthBytes;
    const capsule = this.#capsule;
    if (this.#offset === 0 && capsule.length === this.lengthBytes) return capsule;
    return capsule.subarray(this.#offset, this.#offset + this.lengthBytes);
  }

  place(lengthBytes: number): Uint8Array | undefined {
    const direction = directionOf(this.opcode);
    assert(direction >= DIRECTION_IN, 'the command gives the host data');
    if (direction !== DIRECTION_BOTH && this.#kind !== 'transport') return undefined;
    this.#placedBytes = lengthBytes;
    return this.#link.place(this.commandId, lengthBytes);
  }

  placed(): void {
    assert(!this.#written, 'a command gives its data once');
    this.#written = true;
    this.#counters.outPdu += this.#placedBytes;
    this.#link.placed();
  }

  write(source: Uint8Array, onTaken?: () => void): Promise<void> | void {
    const direction = directionOf(this.opcode);
    assert(direction >= DIRECTION_IN, () => `opcode ${this.opcode} gives the host no data`);
    assert(!this.#written, 'a command gives its data once');
    this.#written = true;
    if (source.length === 0) return onTaken?.();
    const overSocket = direction === DIRECTION_BOTH || this.#kind === 'transport';
    assert(direction === DIRECTION_BOTH || source.length <= this.lengthBytes, 'more data than the host asked for');
    if (overSocket) return this.#send(source, onTaken);
    return this.#writeRegion(source, onTaken);
  }

  #writeRegion(source: Uint8Array, onTaken: (() => void) | undefined): Promise<void> | void {
    let written: Promise<void> | void;
    try {
      written = (this.#region as MemoryRegion).write(this.#offset, source);
    } catch (error) {
      onTaken?.();
      throw error;
    }
    if (written === undefined) return onTaken?.();
    return onTaken === undefined ? written : written.finally(onTaken);
  }

  /** The completion follows the data on the same socket, so it need not wait until the socket has taken the data. */
  #send(source: Uint8Array, onTaken: (() => void) | undefined): Promise<void> | void {
    this.#counters.outPdu += source.length;
    const sent = this.#link.send(this.commandId, source);
    if (sent === undefined) return onTaken?.();
    if (onTaken === undefined) return sent;
    const releaseBudget = this.owner.detachBudget(this);
    const taken = (): void => {
      onTaken();
      releaseBudget();
    };
    // If it fails the connection is gone, and the completion with it.
    sent.then(taken, taken);
  }
}
