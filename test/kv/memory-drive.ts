/**
 * An FTL in memory with the faults that the real one may show: pages and log records that were not synced can be lost
 * (records only from the end, pages in any combination), page numbers are used again as soon as that is allowed, freed
 * pages are overwritten, reads and reservations take their time. It checks how it is used.
 */
import assert from 'node:assert/strict';
import type { Arena } from '../../daemon/base/arena.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import {
  PROGRAM_PAGES_MAX,
  stagingOwners,
  type CheckpointParticipant,
  type CheckpointSink,
  type KvPageRun,
  type KvPages,
  type KvPageTag,
  type KvRecovery,
  type KvRunPages,
  type KvRunTarget,
  type Lpn,
  type PagePins,
  type PageReservation,
  type Ppn,
  type RecoveredEvent,
  type StagingLog,
  type StagingOwner,
} from '../../daemon/ftl/contract.ts';
import type { MetaKey, MetaReader, MetaRecord } from '../../daemon/meta/contract.ts';

export type Random = () => number;

/** Mulberry32. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface MemoryDriveOptions {
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly pageCount: number;
}

interface Page {
  readonly bytes: Uint8Array;
  readonly tag: KvPageTag;
  readonly operation: number;
  readonly channel: number;
  readonly placement: number;
  synced: boolean;
}

interface LogRecord {
  readonly operation: number;
  readonly payload: Uint8Array;
}

type Participant = CheckpointParticipant & KvRecovery;

/** What is left after a crash or a shutdown; `open` makes a drive of it again. */
export interface DriveRemains {
  readonly options: MemoryDriveOptions;
  readonly records: ReadonlyMap<string, MetaRecord & { namespace: number }>;
  readonly log: readonly LogRecord[];
  readonly pages: ReadonlyMap<Lpn, Page>;
  readonly checkpointOperation: number;
  readonly operation: number;
}

export const newRemains = (options: MemoryDriveOptions): DriveRemains => ({
  options,
  records: new Map(),
  log: [],
  pages: new Map(),
  checkpointOperation: 0,
  operation: 0,
});

const compareKeys = (a: MetaKey, b: MetaKey): number => {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const x = a[i] as number | string;
    const y = b[i] as number | string;
    if (x !== y) return x < y ? -1 : 1;
  }
  return a.length - b.length;
};

export class MemoryDrive implements KvPages, StagingLog {
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly pageCount: number;
  readonly pages: Map<Lpn, Page>;
  /** In the order they were programmed. */
  readonly programs: { lpn: Lpn; tag: KvPageTag; channel: number; placement: number }[] = [];
  readonly reads: Lpn[] = [];
  /** Programs that still succeed; then writeFault, once. */
  programsUntilFault = Number.POSITIVE_INFINITY;
  isReadOnly = false;
  /** The log takes no records. */
  refusesRecords = false;
  /** Operation number of the last log record. */
  recordOperation = 0;
  /** Reads wait for it. */
  gate: Promise<void> = Promise.resolve();
  readonly #options: MemoryDriveOptions;
  readonly #arena: Arena;
  readonly #random: Random;
  readonly #references: Uint16Array;
  #readsNow = 0;
  readonly #records: Map<string, MetaRecord & { namespace: number }>;
  #log: LogRecord[];
  #syncedRecordCount: number;
  #free: Lpn[] = [];
  #freeAfterCheckpoint: Lpn[] = [];
  #reserved = 0;
  #operation: number;
  #checkpointOperation: number;
  #participant: Participant | undefined;

  private constructor(remains: DriveRemains, modules: { arena: Arena; random: Random }) {
    this.#options = remains.options;
    this.pageSizeBytes = remains.options.pageSizeBytes;
    this.channelCount = remains.options.channelCount;
    this.pageCount = remains.options.pageCount;
    this.#arena = modules.arena;
    this.#random = modules.random;
    this.pages = new Map([...remains.pages].map(([lpn, page]) => [lpn, { ...page, synced: true }]));
    this.#records = new Map(remains.records);
    this.#log = [...remains.log];
    this.#syncedRecordCount = this.#log.length;
    this.#operation = remains.operation;
    this.#checkpointOperation = remains.checkpointOperation;
    this.#references = new Uint16Array(this.pageCount);
  }

  /** Opens what is left of a drive, as the FTL does: recover, settle, then a checkpoint that stages everything. */
  static async open(
    remains: DriveRemains,
    participant: Participant,
    modules: { arena: Arena; random: Random },
    moreEvents: readonly RecoveredEvent[] = [],
  ): Promise<MemoryDrive> {
    const drive = new MemoryDrive(remains, modules);
    drive.#participant = participant;
    const events: RecoveredEvent[] = drive.#log.map(({ operation, payload }) => ({
      operation,
      kind: 'staged',
      payload,
    }));
    for (const [lpn, page] of drive.pages) {
      if (page.operation > remains.checkpointOperation) {
        events.push({ operation: page.operation, kind: 'page', tag: page.tag, lpn });
      }
    }
    events.push(...moreEvents);
    events.sort((a, b) => a.operation - b.operation);
    drive.#references.set(participant.recover(events, drive.pageCount, drive.#reader()));
    for (let lpn = 0; lpn < drive.pageCount; lpn++) {
      if ((drive.#references[lpn] ?? 0) > 0) assert.ok(drive.pages.has(lpn as Lpn), `page ${lpn} is held and exists`);
      else {
        drive.pages.delete(lpn as Lpn);
        drive.#free.push(lpn as Lpn);
      }
    }
    await participant.settle(drive, drive);
    drive.checkpoint(true);
    return drive;
  }

  #reader(): MetaReader {
    const records = this.#records;
    const keyText = (namespace: number, key: MetaKey): string => JSON.stringify([namespace, ...key]);
    return {
      get: (namespace, key) => records.get(keyText(namespace, key))?.value,
      range: (namespace) =>
        [...records.values()].filter((r) => r.namespace === namespace).sort((a, b) => compareKeys(a.key, b.key)),
    };
  }

  // --- KvPages

  assertWritable(): void {
    if (this.isReadOnly) throw new DriveError('namespaceWriteProtected', 'set by the test');
  }

  get freePageCount(): number {
    return this.#free.length - this.#reserved;
  }

  async #wait(): Promise<void> {
    for (let turns = Math.floor(this.#random() * 4); turns > 0; turns--) await Promise.resolve();
  }

  async reserve(pageCount: number): Promise<PageReservation> {
    await this.#wait();
    if (this.freePageCount < pageCount) {
      throw new DriveError('capacityExceeded', `${pageCount} pages asked for, ${this.freePageCount} are free`);
    }
    this.#reserved += pageCount;
    const reservation = {
      remaining: pageCount,
      release: () => {
        this.#reserved -= reservation.remaining;
        reservation.remaining = 0;
      },
    };
    return reservation;
  }

  nextChannel(): number {
    return Math.floor(this.#random() * this.channelCount);
  }

  program(
    reservation: PageReservation,
    run: KvPageRun,
    { offset: pageOffset, checksums }: KvRunPages,
    { channel, placement }: KvRunTarget,
    lpns: Uint32Array,
  ): void {
    assert.ok(run.pageCount >= 1 && run.pageCount <= PROGRAM_PAGES_MAX);
    const { sequenceId, generation, layer, firstGroup, groupCount, firstIndex } = run;
    let programmed = 0;
    try {
      for (; programmed < run.pageCount; programmed++) {
        const index = firstIndex + programmed;
        const stream = Math.floor(index / groupCount);
        const group = firstGroup + (index % groupCount);
        const tag = { sequenceId, generation, layer, head: stream >> 1, part: (stream & 1) as 0 | 1, group };
        const offset = pageOffset + programmed * this.pageSizeBytes;
        assert.equal(checksums[programmed], crc32c(this.#arena.view(offset, this.pageSizeBytes)));
        const target = { channel: (channel + programmed) % this.channelCount, placement };
        lpns[programmed] = this.#programPage(reservation, tag, offset, target);
      }
    } catch (error) {
      // None of them is there, though what was written may be found after a crash.
      for (let i = 0; i < programmed; i++) this.release(lpns[i] as Lpn);
      throw error;
    }
  }

  #programPage(
    reservation: PageReservation,
    tag: KvPageTag,
    pageOffset: number,
    { channel, placement }: { channel: number; placement: number },
  ): Lpn {
    assert.ok(reservation.remaining > 0, 'programs stay within their reservation');
    assert.ok(channel >= 0 && channel < this.channelCount);
    assert.ok(tag.generation >= 0 && tag.generation < 2 ** 32);
    if (this.programsUntilFault-- <= 0) {
      this.programsUntilFault = Number.POSITIVE_INFINITY;
      throw new DriveError('writeFault', 'planted');
    }
    (reservation as { remaining: number }).remaining--;
    this.#reserved--;
    const [lpn] = this.#free.splice(Math.floor(this.#random() * this.#free.length), 1);
    assert.ok(lpn !== undefined);
    const bytes = this.#arena.view(pageOffset, this.pageSizeBytes).slice();
    this.pages.set(lpn, { bytes, tag: { ...tag }, operation: ++this.#operation, channel, placement, synced: false });
    this.#references[lpn] = 1;
    this.programs.push({ lpn, tag, channel, placement });
    return lpn;
  }

  retain(lpn: Lpn): void {
    assert.ok(this.referenceCount(lpn) > 0, `retain of page ${lpn}, which nobody holds`);
    this.#references[lpn]!++;
  }

  release(lpn: Lpn): void {
    assert.ok(this.referenceCount(lpn) > 0, `release of page ${lpn}, which nobody holds`);
    if (--this.#references[lpn]! === 0) this.#freeAfterCheckpoint.push(lpn);
  }

  referenceCount(lpn: Lpn): number {
    return this.#references[lpn] ?? 0;
  }

  get heldPageCount(): number {
    return this.#references.reduce((sum, count) => sum + (count > 0 ? 1 : 0), 0);
  }

  get holderCount(): number {
    return this.#references.reduce((sum, count) => sum + count, 0);
  }

  pin(lpn: Lpn): Ppn {
    return lpn as unknown as Ppn;
  }

  locate(lpn: Lpn): Ppn {
    return lpn as unknown as Ppn;
  }

  unpin(): void {}

  pinAll(logical: Uint32Array, physical: Uint32Array): PagePins {
    physical.set(logical);
    return { release: () => undefined };
  }

  areReadable(): boolean {
    return true;
  }

  /** Every other page is in memory. */
  readNow(lpn: Lpn, byteOffset: number, sizeBytes: number, targetOffset: number): boolean {
    assert.ok(this.referenceCount(lpn) > 0, `read of page ${lpn}, which nobody holds`);
    if (this.#readsNow++ % 2 === 0) return false;
    this.reads.push(lpn);
    this.#arena.bytes.set(this.pages.get(lpn)!.bytes.subarray(byteOffset, byteOffset + sizeBytes), targetOffset);
    return true;
  }

  async read(lpn: Lpn, targetOffset: number): Promise<void> {
    await this.#wait();
    await this.gate;
    assert.ok(this.referenceCount(lpn) > 0, `read of page ${lpn}, which nobody holds`);
    this.reads.push(lpn);
    this.#arena.bytes.set(this.pages.get(lpn)!.bytes, targetOffset);
  }

  isVerified(): boolean {
    return true;
  }

  markVerified(): void {}

  eraseCount(): number {
    return 0;
  }

  countReads(): void {}

  readFails(): boolean {
    return false;
  }

  unrecovered(): DriveError {
    return new DriveError('unrecoveredRead', 'not here');
  }

  // --- StagingLog and durability

  append(owner: StagingOwner, payload: Uint8Array): number {
    assert.equal(owner, stagingOwners.kv);
    if (this.refusesRecords) throw new DriveError('writeFault', 'planted: no record');
    this.#log.push({ operation: ++this.#operation, payload: payload.slice() });
    this.recordOperation = this.#operation;
    return this.#operation;
  }

  get operation(): number {
    return this.#operation;
  }

  get stagedBytes(): number {
    return this.#log.reduce((sum, { payload }) => sum + payload.byteLength, 0);
  }

  get recordCount(): number {
    return this.#records.size;
  }

  /** Everything so far is durable. Values go through JSON-like copying so that nothing stays shared. */
  checkpoint(restage = false, isClosing = false): void {
    const operation = this.#operation;
    const start = this.#log.length;
    const sink: CheckpointSink = {
      operation,
      restage,
      isClosing,
      stage: (owner, payload) => void this.append(owner, payload),
      put: (namespace, key, value) =>
        void this.#records.set(JSON.stringify([namespace, ...key]), { namespace, key, value: structuredClone(value) }),
      remove: (namespace, key) => {
        assert.ok(this.#records.delete(JSON.stringify([namespace, ...key])), `record ${key.join('/')} exists`);
      },
    };
    this.#participant!.checkpoint(sink);
    if (restage) this.#log.splice(0, start);
    this.#checkpointOperation = operation;
    this.#sync();
    for (const lpn of this.#freeAfterCheckpoint.splice(0)) {
      this.pages.get(lpn)?.bytes.fill(0xee);
      this.pages.delete(lpn);
      this.#free.push(lpn);
    }
  }

  syncStaging(): void {
    this.#participant!.stageBuffered(this);
    this.#sync();
  }

  #sync(): void {
    this.#syncedRecordCount = this.#log.length;
    for (const page of this.pages.values()) page.synced = true;
  }

  /** The process dies; what it wrote is in the page cache and survives. */
  kill(): DriveRemains {
    return this.#remains(this.#log.length, () => true);
  }

  /** Of what was not synced, the log keeps its first `recordCount` records and the media any pages. */
  powerCut(recordCount: number, keepsPage: (tag: KvPageTag, operation: number) => boolean): DriveRemains {
    return this.#remains(this.#syncedRecordCount + recordCount, keepsPage);
  }

  get unsyncedRecordCount(): number {
    return this.#log.length - this.#syncedRecordCount;
  }

  #remains(recordCount: number, keepsPage: (tag: KvPageTag, operation: number) => boolean): DriveRemains {
    const log = this.#log.slice(0, recordCount);
    const pages = new Map(
      [...this.pages]
        .filter(([, page]) => page.synced || keepsPage(page.tag, page.operation))
        .map(([lpn, page]) => [lpn, { ...page, bytes: page.bytes.slice() }]),
    );
    const operation = Math.max(
      this.#checkpointOperation,
      ...log.map((r) => r.operation),
      ...[...pages.values()].map((p) => p.operation),
    );
    return {
      options: this.#options,
      records: new Map(this.#records),
      log,
      pages,
      checkpointOperation: this.#checkpointOperation,
      operation,
    };
  }
}
