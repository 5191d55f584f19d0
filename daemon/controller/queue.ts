import { encodeStatus, statusBits } from '../../spec/completion-entry.ts';
import { type ErrorCode, errorTable } from '../../spec/errors.ts';
import { KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { FABRICS_OPCODE } from '../../spec/opcodes.ts';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { CommandDefinition, CommandResult, Limits } from '../commands/contract.ts';
import { commandLabel } from '../../spec/device-trace.ts';
import type { ReusableJob } from '../timing/device-job.ts';
import type { CompletionHold } from './completion-hold.ts';
import { BROADCAST_NSID } from '../commands/namespace-ids.ts';
import type { RegisteredCommand } from '../commands/registry.ts';
import type { QueueAuthentication } from '../hosts/authentication.ts';
import { type CommandCounters, UNKNOWN_OPCODE } from './command-counters.ts';
import { CommandSlot, type SlotOwner } from './command-slot.ts';
import { QueueError, type QueueLink, type QueuePort } from './contract.ts';
import type { Controller } from './controller.ts';
import { ArrivalBatch } from './arrival-batch.ts';
import { answer, type FabricsAnswer } from './fabrics-answer.ts';
import { runFabricsCommand } from './fabrics-commands.ts';
import { InFlightCommands } from './in-flight-commands.ts';
import type { BudgetShare, TransferBudget } from './transfer-budget.ts';

/** A connection that has not sent Connect yet may send nothing else. */
const ENTRIES_BEFORE_CONNECT = 1;
const SQ_HEAD_UNUSED = 0xffff;
/** In the status of an error: the error log has more. */
const MORE = 1 << statusBits.more.shift;
const DWORD_MAX = 0xffff_ffff;
/**
 * Data of commands that waited and begin in one turn of the event loop, about: what lies in regions is read at once, and
 * others have their turn, too.
 */
const TURN_BYTES_MAX = 4 * 2 ** 20;

const statusOf = new Map<ErrorCode, number>(
  (Object.keys(errorTable) as ErrorCode[]).map((code) => {
    const { sct, sc, retry } = errorTable[code];
    return [code, encodeStatus(sct, sc, !retry)];
  }),
);

export interface QueueModules {
  readonly link: QueueLink;
  readonly subsystem: QueueHost;
  readonly budget: TransferBudget;
  readonly counters: CommandCounters;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Undefined: device time is not modelled. */
  readonly createJob: (() => ReusableJob) | undefined;
  /** Undefined: completions leave when they are ready. */
  readonly hold: CompletionHold | undefined;
}

/** What a queue needs of the subsystem it belongs to. */
export interface QueueHost {
  connect(queue: Queue, slot: CommandSlot): FabricsAnswer;
  /** The queue may be used: Connect succeeded, and the host has authenticated if it had to. */
  connected(queue: Queue): void;
  /** An error that is no answer to bad input. */
  reportFatal(error: unknown): void;
  commandStarted(isIo: boolean): void;
  commandSettled(isIo: boolean): void;
}

/** What Connect settles. */
export interface QueueIdentity {
  readonly controller: Controller;
  readonly queueId: number;
  readonly entryCount: number;
  readonly flowControl: boolean;
  readonly authentication: QueueAuthentication;
}

/**
 * One submission queue and its completions, on one connection. Commands run concurrently and complete in any order.
 */
export class Queue implements QueuePort, SlotOwner {
  readonly link: QueueLink;
  readonly #limits: Limits;
  readonly #modules: QueueModules;
  readonly #abort = new AbortController();
  readonly #share: BudgetShare = { dataBytes: 0 };
  readonly #inFlight: InFlightCommands<CommandSlot>;
  readonly #freeSlots: CommandSlot[] = [];
  /** Commands that wait for the budget, oldest first. At most the queue's depth. */
  readonly #waiting: CommandSlot[] = [];
  #identity: QueueIdentity | undefined;
  #isUsable = false;
  #entryCount = ENTRIES_BEFORE_CONNECT;
  #sqHead = 0;
  #commandCount = 0;
  #closed = false;
  readonly #batch: ArrivalBatch;
  readonly #wake = (): void => this.#runWaiting();
  /** Data of commands that had waited, and began in this turn of the event loop. */
  #turnBytes = 0;
  readonly #onTurn = (): void => {
    this.#turnBytes = 0;
    this.#runWaiting();
  };

  constructor(options: { limits: Limits }, modules: QueueModules) {
    this.link = modules.link;
    this.#limits = options.limits;
    this.#modules = modules;
    this.#inFlight = new InFlightCommands(options.limits.queueEntriesMax);
    this.#batch = new ArrivalBatch(modules);
  }

  get inFlightCount(): number {
    return this.#inFlight.size;
  }

  get commandCount(): number {
    return this.#commandCount;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  get controllerId(): number | undefined {
    return this.#identity?.controller.controllerId;
  }

  get queueId(): number | undefined {
    return this.#identity?.queueId;
  }

  get entryCount(): number {
    return this.#entryCount;
  }

  get identity(): QueueIdentity | undefined {
    return this.#identity;
  }

  get capsuleDataBytesMax(): number {
    const isIo = this.#identity !== undefined && this.#identity.queueId !== 0;
    return isIo ? this.#limits.inCapsuleBytesMax : this.#limits.adminInCapsuleBytesMax;
  }

  /** Connect succeeded. */
  establish(identity: QueueIdentity): void {
    assert(this.#identity === undefined, 'a queue connects once');
    this.#identity = identity;
    this.#share.account = identity.controller.account;
    this.#entryCount = identity.entryCount;
    // Connect itself was the first entry.
    this.#sqHead = 1 % identity.entryCount;
    if (identity.authentication.isDone) this.#begin();
    else this.link.authenticating();
  }

  #begin(): void {
    try {
      this.#takeQuota();
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      // Others of the host have authenticated since its Connect.
      this.end(error.message);
      return;
    }
    this.#isUsable = true;
    this.link.connected();
    this.#modules.subsystem.connected(this);
  }

  /** DriveError hostQuota. */
  #takeQuota(): void {
    const { controller, queueId } = this.#identity as QueueIdentity;
    if (queueId === 0) controller.account.check('associations', 1);
    controller.account.take('queues', 1);
    if (queueId === 0) controller.account.take('associations', 1);
  }

  #giveQuota(): void {
    if (!this.#isUsable || this.#identity === undefined) return;
    const { controller, queueId } = this.#identity;
    controller.account.give('queues', 1);
    if (queueId === 0) controller.account.give('associations', 1);
  }

  /** An authentication ended well. */
  authenticated(): void {
    if (!this.#isUsable && !this.#closed) this.#begin();
  }

  /** Whether it takes other commands than those of authentication. */
  get isUsable(): boolean {
    return this.#isUsable;
  }

  beginBatch(): void {
    this.#batch.begin();
  }

  endBatch(): void {
    this.#batch.end();
  }

  submit(entry: DataView, at: number, capsule: Uint8Array, isIntact: boolean): void {
    if (this.#closed) return;
    if (this.#inFlight.size >= this.#entryCount) {
      throw new QueueError(`command beyond the queue's ${this.#entryCount} entries`);
    }
    this.#sqHead = this.#sqHead + 1 === this.#entryCount ? 0 : this.#sqHead + 1;
    this.#commandCount++;
    this.#identity?.controller.touch();
    const slot = this.#freeSlots.pop() ?? this.#newSlot();
    slot.load(entry, at, capsule);
    slot.startedAtNs = this.#batch.arrivalNs;
    if (this.#inFlight.get(slot.commandId) !== undefined) {
      slot.counterIndex = this.#modules.counters.indexOf('admin', UNKNOWN_OPCODE);
      this.#answer(slot, 'commandIdConflict', this.#statusOf(slot, 'commandIdConflict'), 0, 0);
      this.#freeSlots.push(slot);
      return;
    }
    this.#inFlight.add(slot);
    slot.isIo = this.#identity !== undefined && this.#identity.queueId !== 0;
    this.#modules.subsystem.commandStarted(slot.isIo);
    slot.account = this.#share.account;
    slot.account?.addCommand();
    try {
      this.#start(slot, isIntact);
    } catch (error) {
      this.failed(slot, error);
    }
  }

  /** Ends a command that waits for its turn, or for an event. False: it runs, or there is none of this id. */
  abort(commandId: number): boolean {
    const slot = this.#inFlight.get(commandId);
    if (slot === undefined) return false;
    const place = this.#waiting.indexOf(slot);
    if (place < 0) return this.#identity?.queueId === 0 && this.#identity.controller.events.abort(commandId);
    this.#waiting.splice(place, 1);
    this.#modules.budget.letGo(this.#share, slot.heldBytes);
    slot.heldBytes = 0;
    this.#fail(slot, 'aborted');
    return true;
  }

  inputEnded(): void {
    if (this.#identity?.queueId === 0) this.#identity.controller.events.reset();
  }

  closed(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort();
    this.#modules.budget.stopWaiting(this.#wake);
    this.#giveQuota();
    const waiting = this.#waiting.splice(0);
    for (const slot of waiting) {
      this.#modules.budget.letGo(this.#share, slot.heldBytes);
      this.#settle(slot);
    }
    this.#modules.hold?.abandon(this);
    this.#identity?.controller.queueClosed(this.#identity.queueId);
  }

  /** Ends the connection from the drive's side. */
  end(reason: string): void {
    this.link.end(reason);
  }

  // --- from a command's arrival to its handler ---

  #newSlot(): CommandSlot {
    const { link, counters, createJob } = this.#modules;
    const { signal } = this.#abort;
    return new CommandSlot({ link, owner: this, signal, bytes: counters.hostBytes, createJob });
  }

  #start(slot: CommandSlot, isIntact: boolean): void {
    const { counters, subsystem } = this.#modules;
    if (slot.opcode === FABRICS_OPCODE) {
      slot.counterIndex = counters.indexOf('fabrics', slot.bytes[4] as number);
      const result = isIntact ? runFabricsCommand(this, slot, subsystem) : answer('transientTransport');
      if (!(result instanceof Promise)) this.#finishFabrics(slot, result);
      else result.then((late) => this.#finishFabrics(slot, late), slot.onFailed);
      return;
    }
    const identity = this.#identity;
    if (identity === undefined) {
      slot.counterIndex = counters.indexOf('admin', slot.opcode);
      this.#fail(slot, 'commandSequence');
      return;
    }
    const { commands } = identity.controller.kind;
    const set = identity.queueId === 0 ? commands.admin : commands.ofNamespace(slot.namespaceId);
    slot.counterIndex = counters.indexOf(set?.name ?? 'nvm', slot.opcode);
    if (!isIntact) this.#fail(slot, 'transientTransport');
    else if (!this.#isUsable) this.#fail(slot, 'authenticationRequired');
    else if (!identity.controller.takesCommands(identity.queueId)) this.#fail(slot, 'commandSequence');
    else if (set === undefined) this.#fail(slot, 'invalidNamespace');
    else {
      // This one is counted already.
      identity.controller.account.checkCommands();
      this.#prepare(slot, identity, set.definitions[slot.opcode]);
    }
  }

  #prepare(slot: CommandSlot, identity: QueueIdentity, definition: RegisteredCommand | undefined): void {
    if (definition === undefined) {
      this.#fail(slot, 'invalidOpcode');
      return;
    }
    slot.definition = definition;
    const problem =
      checkNamespace(slot, definition) ??
      slot.checkFormat() ??
      // Bits that mean nothing in this command.
      (slot.hasBits(definition.reservedBits) ? 'invalidField' : undefined) ??
      slot.locateData(identity.controller, this.#limits.transferBytesMax);
    if (problem !== undefined) {
      this.#fail(slot, problem);
      return;
    }
    if (identity.queueId !== 0 && this.#modules.createJob !== undefined) this.#beginJob(slot);
    if (slot.lengthBytes === 0) this.#run(slot);
    else if (this.#waiting.length === 0 && this.#modules.budget.tryAcquire(this.#share, slot.lengthBytes)) {
      slot.hasBudget = true;
      this.#run(slot);
    } else this.#wait(slot);
  }

  /** Jobs arrive one after another: no two commands at the same time, and none before what the last one set off. */
  #beginJob(slot: CommandSlot): void {
    slot.startedAtNs = this.#modules.clock.nowNs();
    const source = slot.namespaceId === KV_CACHE_NSID ? 'kv' : 'nvm';
    slot.beginJob(commandLabel(source, slot.opcode));
  }

  #wait(slot: CommandSlot): void {
    const { budget } = this.#modules;
    const capsuleBytes = slot.capsule.length;
    if (!budget.tryHold(this.#share, capsuleBytes)) {
      this.#fail(slot, 'commandInterrupted');
      return;
    }
    slot.heldBytes = capsuleBytes;
    slot.holdCapsule();
    this.#waiting.push(slot);
    budget.wait(this.#wake);
  }

  #runWaiting(): void {
    const { budget } = this.#modules;
    while (!this.#closed && this.#waiting.length > 0 && this.#turnBytes < TURN_BYTES_MAX) {
      const slot = this.#waiting[0] as CommandSlot;
      if (!budget.tryAcquire(this.#share, slot.lengthBytes)) {
        budget.wait(this.#wake);
        return;
      }
      this.#waiting.shift();
      budget.letGo(this.#share, slot.heldBytes);
      slot.heldBytes = 0;
      slot.hasBudget = true;
      if (this.#turnBytes === 0) setImmediate(this.#onTurn);
      this.#turnBytes += Math.max(1, slot.lengthBytes);
      this.#run(slot);
    }
  }

  #run(slot: CommandSlot): void {
    if (!slot.enterNamespaces()) {
      this.#fail(slot, 'formatInProgress');
      return;
    }
    try {
      const result = (slot.definition as RegisteredCommand).run(slot);
      if (result instanceof Promise) result.then(slot.onFinished, slot.onFailed);
      else this.finished(slot, result);
    } catch (error) {
      this.failed(slot, error);
    }
  }

  // --- SlotOwner: from the handler's result to the completion ---

  finished(slot: CommandSlot, result: CommandResult): void {
    this.#leave(slot, undefined, result.dw0, result.dw1);
  }

  failed(slot: CommandSlot, error: unknown): void {
    if (error instanceof DriveError) {
      this.#modules.logger.debug({ opcode: slot.opcode, cid: slot.commandId, error: error.message }, 'command failed');
      const { result } = error;
      this.#leave(slot, error.code, result % 0x1_0000_0000, Math.floor(result / 0x1_0000_0000));
      return;
    }
    this.#leave(slot, 'internal', 0, 0);
    this.#modules.subsystem.reportFatal(error);
  }

  released(slot: CommandSlot): void {
    const { code, dw0, dw1 } = slot.outcome;
    this.#complete(slot, code, dw0, dw1);
  }

  /** The handler is done: now, or when the device would have been. */
  #leave(slot: CommandSlot, code: ErrorCode | undefined, dw0: number, dw1: number): void {
    const latencyNs = slot.endJob();
    if (latencyNs === undefined) {
      this.#complete(slot, code, dw0, dw1);
      return;
    }
    const { counters, hold } = this.#modules;
    counters.countDevice(slot.counterIndex, latencyNs);
    const saysLatency = code === undefined && slot.definition?.row.deviceLatency === true;
    const outcome = slot.outcome;
    outcome.code = code;
    outcome.dw0 = dw0;
    outcome.dw1 = saysLatency ? Math.min(latencyNs, DWORD_MAX) : dw1;
    if (hold === undefined || this.#closed) {
      this.released(slot);
      return;
    }
    // What it took of the budget is free: the handler has given its buffers back.
    this.detachBudget(slot)();
    slot.dueNs = Math.floor(slot.startedAtNs) + latencyNs;
    hold.hold(slot);
  }

  detachBudget(slot: CommandSlot): () => void {
    if (!slot.hasBudget) return () => undefined;
    slot.hasBudget = false;
    const { lengthBytes } = slot;
    return () => this.#modules.budget.release(this.#share, lengthBytes);
  }

  #fail(slot: CommandSlot, code: ErrorCode): void {
    this.#complete(slot, code, 0, 0);
  }

  #finishFabrics(slot: CommandSlot, answer: FabricsAnswer): void {
    this.#complete(slot, answer.code, answer.dw0, answer.dw1);
    answer.after?.();
  }

  #complete(slot: CommandSlot, code: ErrorCode | undefined, dw0: number, dw1: number): void {
    const status = code === undefined ? 0 : this.#statusOf(slot, code);
    this.#settle(slot);
    this.#answer(slot, code, status, dw0, dw1);
    this.#freeSlots.push(slot);
  }

  /** Status field of an error, which goes to the controller's log. */
  #statusOf(slot: CommandSlot, code: ErrorCode): number {
    const status = statusOf.get(code) as number;
    if (this.#identity === undefined || this.#closed) return status;
    const { controller, queueId } = this.#identity;
    controller.errors.record(slot, queueId, status | MORE, code);
    return status | MORE;
  }

  /** The command is over; whatever it held is given back. */
  #settle(slot: CommandSlot): void {
    slot.endJob();
    this.#inFlight.remove(slot);
    slot.leaveNamespaces();
    this.#modules.subsystem.commandSettled(slot.isIo);
    slot.account?.giveCommand();
    slot.account = undefined;
    slot.unload();
    if (!slot.hasBudget) return;
    slot.hasBudget = false;
    this.#modules.budget.release(this.#share, slot.lengthBytes);
  }

  #answer(slot: CommandSlot, code: ErrorCode | undefined, status: number, dw0: number, dw1: number): void {
    this.#batch.count(slot, code);
    if (this.#closed) return;
    const sqHead = this.#identity?.flowControl === false ? SQ_HEAD_UNUSED : this.#sqHead;
    this.link.complete(dw0 >>> 0, dw1 >>> 0, sqHead, slot.commandId, status);
  }
}

function checkNamespace(slot: CommandSlot, definition: CommandDefinition): ErrorCode | undefined {
  switch (definition.namespace) {
    case 'any':
    case 'oneOrAll':
      return undefined;
    case 'none':
      return slot.namespaceId === 0 ? undefined : 'invalidNamespace';
    case 'one':
      return slot.namespaceId === BROADCAST_NSID ? 'invalidNamespace' : undefined;
  }
}
