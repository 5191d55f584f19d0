/** Hands commands to the drive, and judges what becomes of them. */
import assert from 'node:assert/strict';
import { closeSync, readSync, writeSync } from 'node:fs';
import { commandStatuses } from '../../../spec/command-statuses.ts';
import { type ErrorCode, errorTable } from '../../../spec/errors.ts';
import { abortBits, adminOpcodes, discoveryOpcodes } from '../../../spec/opcodes.ts';
import type { Tally } from '../tally.ts';
import { adminRules } from './admin-rules.ts';
import { centralRules, discoveryRules } from './discovery-rules.ts';
import type { CommandInput } from './draw-command.ts';
import type { HostModel } from './drive-model.ts';
import type { FuzzDrive, FuzzQueue } from './fuzz-drive.ts';
import { type Completion, turn } from './fuzz-link.ts';
import { kvRules } from './kv-rules.ts';
import { nvmRules } from './nvm-rules.ts';
import { cellsOf, judge, setsOfNamespace } from './rules.ts';
import { readSubmission, type Submission, TRANSFER_BYTES_MAX } from './submission.ts';
import { Verdict } from './verdict.ts';

const tables = { admin: adminRules, nvm: nvmRules, kv: kvRules, discovery: discoveryRules, central: centralRules };

const codeOfStatus = new Map(
  (Object.keys(errorTable) as ErrorCode[]).map((code) => [(errorTable[code].sct << 8) | errorTable[code].sc, code]),
);
const statusesOf = new Map(
  commandStatuses.map(({ set, name, general, own }) => [`${set} ${name}`, new Set<ErrorCode>([...general, ...own])]),
);

/** A command takes at most so many turns of the event loop when nothing holds it up, and so long if a thread does. */
const TURNS_MAX = 3000;
const LATE_MS = 10_000;

interface Running {
  readonly queue: FuzzQueue;
  readonly submission: Submission;
  readonly verdict: Verdict;
}

export class CommandDesk {
  readonly #drive: FuzzDrive;
  readonly #tally: Tally;
  #running = new Set<Running>();
  /** The first thing that was wrong. Thrown where somebody waits for it, not into the drive. */
  #problem: Error | undefined;

  constructor(drive: FuzzDrive, tally: Tally) {
    this.#drive = drive;
    this.#tally = tally;
  }

  get running(): { readonly queue: FuzzQueue; readonly commandId: number }[] {
    return [...this.#running].map(({ queue, submission }) => ({ queue, commandId: submission.entry.commandId }));
  }

  /** Resolves when it is complete, unless it is to be joined by others or waits for an event. */
  async run(input: CommandInput): Promise<void> {
    const queue = this.#drive.queues[input.queue]!;
    if (!queue.link.isOpen) return;
    const capsule = input.capsule.subarray(0, queue.link.capsuleDataBytesMax);
    const submission = readSubmission(input.entry, capsule.length);
    // Data of an id that is taken may lie where its first command wants to find its own.
    if (!queue.link.has(submission.entry.commandId)) this.#fillRegion(queue.host, submission, input.data);
    const verdict = this.#judge(queue, submission, capsule, input);
    const running: Running = { queue, submission, verdict };
    this.#keepApart(running);
    this.#tally.count(verdict.isFramed);
    this.#running.add(running);
    const { data, turns, isIntact } = input;
    queue.link.submit(input.entry, capsule, { data, turns, isIntact }, (completion) =>
      this.#completed(running, completion),
    );
    if (!input.isJoined) await this.settle();
  }

  /** Nothing is in flight any more but what waits for events. */
  async settle(): Promise<void> {
    const isBusy = (): boolean => [...this.#running].some(({ verdict }) => !verdict.isParked);
    for (let turns = 0; isBusy() && this.#problem === undefined && turns < TURNS_MAX; turns++) await turn();
    // Large transfers of regions are the work of threads.
    const endMs = performance.now() + LATE_MS;
    while (isBusy() && this.#problem === undefined) {
      assert.ok(performance.now() < endMs, `not answered: ${this.#describe()}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  #describe(): string {
    return [...this.#running]
      .filter(({ verdict }) => !verdict.isParked)
      .map(({ queue, submission }) => `${queue.name} opcode ${submission.entry.opcode}`)
      .join(', ');
  }

  /** Throws what was found to be wrong. */
  check(): void {
    if (this.#problem !== undefined) throw this.#problem;
    const [fatal] = this.#drive.fatals;
    if (fatal !== undefined) throw new Error(`broken: ${String(fatal)}`, { cause: fatal });
    for (const { name, link } of this.#drive.queues) {
      const isExplained = link.endReason === undefined || link.endReason.includes('keep alive');
      assert.ok(isExplained, `the drive has ended ${name}: ${link.endReason}`);
    }
  }

  /** Time goes by: keep alive timers, leases. */
  advance(ms: number): void {
    const { model } = this.#drive;
    this.#drive.advance(ms);
    for (const id of model.uncertainSequences) model.perhapsExpired.add(id);
    for (const [id, { leaseSeconds, namedAtMs }] of [...model.sequences]) {
      if (leaseSeconds === 0) continue;
      const agedMs = model.nowMs - namedAtMs;
      if (agedMs < leaseSeconds * 1000) continue;
      // Leases are looked at once a second.
      if (agedMs >= leaseSeconds * 1000 + 2000 && this.#drive.kind !== 'troubled') {
        model.sequences.delete(id);
        model.expired.add(id);
      } else {
        model.loseSequence(id);
        model.perhapsExpired.add(id);
      }
    }
  }

  /** The host of a queue goes away in the middle of what it does, and comes back. */
  async reconnect(name: FuzzQueue['name']): Promise<void> {
    const queue = this.#drive.queues.find((one) => one.name === name)!;
    if (!queue.link.isOpen) return;
    queue.link.close();
    for (const running of [...this.#running]) {
      if (running.queue !== queue) continue;
      this.#running.delete(running);
      if (running.verdict.isWriter) running.verdict.onUncertain();
    }
    // What the connection had begun goes on for a while.
    for (let i = 0; i < 50; i++) await turn();
    await this.settle();
    queue.host.queueCount--;
    queue.link = await this.#drive.connectIo(queue, queue.queueId);
  }

  /** The hosts' own. */
  end(): void {
    for (const { host } of this.#drive.queues) {
      for (const { fd } of host.regions.values()) closeSync(fd);
      host.regions.clear();
    }
  }

  // --- before

  /** What a host sends by a region lies there before its command. */
  #fillRegion({ regions }: HostModel, { place }: Submission, data: Uint8Array): void {
    if (place.kind !== 'keyed' || data.length === 0) return;
    const region = regions.get(place.key);
    if (region !== undefined && place.offset + data.length <= region.sizeBytes)
      writeSync(region.fd, data, 0, data.length, place.offset);
  }

  #judge(queue: FuzzQueue, submission: Submission, capsule: Uint8Array, input: CommandInput): Verdict {
    const verdict = new Verdict();
    const { entry } = submission;
    if (queue.link.has(entry.commandId)) return verdict.fault('commandIdConflict');
    const isDamaged = !input.isIntact && this.#carriesData(submission, capsule);
    if (isDamaged) verdict.fault('transientTransport');
    if (queue.refusal !== undefined) return verdict.fault(queue.refusal);
    const { kind } = this.#drive;
    if (kind === 'quotas' && queue.host.isConfined) verdict.excuse('hostQuota');
    if (kind === 'quotas' && queue.name.startsWith('guest')) verdict.excuse('hostQuota');
    if (entry.opcode % 2 === 1) verdict.excuse('commandInterrupted');
    const { host, queueId } = queue;
    const readRegion = (key: number, offset: number, lengthBytes: number): Uint8Array =>
      this.#readRegion(host, key, offset, lengthBytes);
    const data = isDamaged ? undefined : this.#dataOf(host, submission, capsule, input.data);
    const { model } = this.#drive;
    judge(tables, { submission, data, drive: model, host, queueId, verdict, readRegion });
    this.#noteAbort(queue, submission);
    return verdict;
  }

  /** Whether a damaged digest of its data would be seen. */
  #carriesData({ entry, place, lengthBytes }: Submission, capsule: Uint8Array): boolean {
    return capsule.length > 0 || (place.kind === 'transport' && lengthBytes > 0 && (entry.opcode & 1) === 1);
  }

  /** What the drive sees of the host's data; undefined: none. */
  #dataOf(
    host: HostModel,
    { entry, place, lengthBytes }: Submission,
    capsule: Uint8Array,
    data: Uint8Array,
  ): Uint8Array | undefined {
    if ((entry.opcode & 1) === 0) return undefined;
    switch (place.kind) {
      case 'none':
        return new Uint8Array(0);
      case 'inCapsule':
        return place.offset + lengthBytes <= capsule.length
          ? capsule.slice(place.offset, place.offset + lengthBytes)
          : undefined;
      case 'transport': {
        if (lengthBytes > TRANSFER_BYTES_MAX) return undefined;
        const padded = new Uint8Array(lengthBytes);
        padded.set(data.subarray(0, lengthBytes));
        return padded;
      }
      case 'keyed': {
        const region = host.regions.get(place.key);
        const isIn = region !== undefined && place.offset + lengthBytes <= region.sizeBytes;
        return isIn ? this.#readRegion(host, place.key, place.offset, lengthBytes) : undefined;
      }
    }
  }

  #readRegion(host: HostModel, key: number, offset: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    const region = host.regions.get(key);
    if (region !== undefined && lengthBytes > 0) readSync(region.fd, bytes, 0, lengthBytes, offset);
    return bytes;
  }

  /** A command that somebody wants to be aborted may be. */
  #noteAbort({ host, queueId }: FuzzQueue, { entry }: Submission): void {
    if (queueId !== 0 || entry.opcode !== adminOpcodes.abort.opcode) return;
    const sqid = entry.cdw10 & 0xffff;
    const cid = entry.cdw10 >>> abortBits.cid.shift;
    for (const { queue, submission, verdict } of this.#running) {
      if (queue.host === host && queue.queueId === sqid && submission.entry.commandId === cid)
        verdict.excuseAlways('aborted');
    }
  }

  /** Commands that run at once and work on the same: nobody knows which comes first. */
  #keepApart(running: Running): void {
    const { verdict } = running;
    for (const other of this.#running) {
      if (other.verdict.isParked) continue;
      const isFormat = [verdict, other.verdict].some(({ touches }) => touches.includes('format'));
      if (isFormat) for (const one of [verdict, other.verdict]) one.excuseAlways('formatInProgress');
      const isShared = (name: string): boolean =>
        other.verdict.touches.includes(name) && (name !== 'sequences' || verdict.isWriter !== other.verdict.isWriter);
      // What a host has put into a region, or waits to find there, another command must not change.
      const isRegionShared = verdict.touches.some(
        (name) => name.startsWith('region ') && other.verdict.touches.includes(name),
      );
      const isChange = verdict.isWriter || other.verdict.isWriter;
      const isConflict =
        isRegionShared ||
        (isChange &&
          ((isFormat && verdict.touches.length > 0 && other.verdict.touches.length > 0) ||
            verdict.touches.some(isShared)));
      if (isConflict && running.queue.refusal === undefined) {
        verdict.isUnsure = true;
        other.verdict.isUnsure = true;
      }
    }
  }

  // --- after

  #completed(running: Running, completion: Completion): void {
    this.#running.delete(running);
    try {
      this.#examine(running, completion);
    } catch (error) {
      this.#problem ??= error as Error;
    }
  }

  #examine({ queue, submission, verdict }: Running, completion: Completion): void {
    const { status } = completion;
    const { entry } = submission;
    const code = status === 0 ? undefined : codeOfStatus.get(status);
    const what = `${queue.name} opcode ${entry.opcode.toString(16)}h NSID ${entry.namespaceId}`;
    assert.ok(status === 0 || code !== undefined, `${what}: status ${status.toString(16)}h is of no table`);
    const cells = this.#cells(queue, submission, code ?? 'success');
    for (const cell of cells) this.#tally.reach(cell);
    if (code === undefined) {
      this.#succeeded(verdict, completion, what);
      return;
    }
    const { host } = queue;
    host.errorCount++;
    host.lastError = { queueId: queue.queueId, commandId: entry.commandId, status, opcode: entry.opcode };
    const isListed =
      cells.length === 0 || cells.some((cell) => statusesOf.get(cell.slice(0, -code.length - 1))?.has(code));
    assert.ok(isListed, `${what} ends with ${code}, which spec/command-statuses.ts does not have`);
    const { excuses } = this.#drive.model.traits;
    const isExplained =
      verdict.faults.has(code) || verdict.always.has(code) || (verdict.excuses.has(code) && excuses.has(code));
    const faults = [...verdict.faults].join(', ') || 'nothing';
    assert.ok(isExplained || verdict.isUnsure, `${what} fails with ${code}, wrong with it is ${faults}`);
    if (!verdict.isUnsure) verdict.onFailure(code, completion);
    else if (verdict.isWriter) verdict.onUncertain(completion);
  }

  #succeeded(verdict: Verdict, completion: Completion, what: string): void {
    if (verdict.isUnsure) {
      if (verdict.isWriter) verdict.onUncertain(completion);
      return;
    }
    assert.equal(verdict.faults.size, 0, `${what} succeeds, wrong with it is ${[...verdict.faults].join(', ')}`);
    try {
      verdict.onSuccess(completion);
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
    }
  }

  #cells({ name, queueId, host }: FuzzQueue, { entry }: Submission, status: ErrorCode | 'success'): string[] {
    if (name === 'unconnected') {
      const sets = entry.namespaceId === 0 ? (['admin', 'discovery'] as const) : setsOfNamespace(entry.namespaceId);
      return cellsOf(sets, entry.opcode, status);
    }
    // A drive's own discovery controller takes no registrations.
    const { opcode } = discoveryOpcodes.discoveryInformationManagement;
    if (host.kind === 'discovery' && entry.opcode === opcode) return [];
    const sets =
      queueId !== 0
        ? setsOfNamespace(entry.namespaceId)
        : host.kind === 'io'
          ? (['admin'] as const)
          : (['discovery'] as const);
    return cellsOf(sets, entry.opcode, status);
  }
}
