import { readdirSync, readFileSync } from 'node:fs';
import {
  STAGING_MAGIC,
  STAGING_RECORD_MAGIC,
  stagingKinds,
  stagingRecord,
  stagingSegmentHeader,
} from '../../spec/media-format/staging.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import { fileError, fileErrorReason } from '../base/file-errors.ts';
import { type FileSystem, systemFileSystem } from '../base/file-system.ts';
import type { OperationCounter } from './contract.ts';

export type StagingKind = keyof typeof stagingKinds;

export interface StagedRecord {
  readonly operation: number;
  readonly kind: StagingKind;
  readonly payload: Uint8Array;
}

/** Where the log begins that counts, and how much of that segment was synced when this was written down. */
export interface LogPosition {
  readonly segment: number;
  readonly sizeBytes: number;
}

/** Segments of the staging log as bytes: files, or memory in tests. */
export interface StagingStore {
  /** Numbers of the segments that exist, ascending. */
  list(): number[];
  read(segment: number): Uint8Array;
  create(segment: number): StagingSegment;
  remove(segment: number): void;
}

export interface StagingSegment {
  /** Appends, or leaves the segment as it was and throws DriveError writeFault. */
  append(bytes: Uint8Array): void;
  sync(): Promise<void>;
  close(): void;
}

export interface StagingWriter {
  /** Returns the record's operation number: `operation`, or a new one. */
  append(kind: StagingKind, payload: Uint8Array, operation?: number): number;
}

/** Appends records to the newest segment; reads them back after a start. */
export class StagingFile implements StagingWriter {
  readonly #store: StagingStore;
  readonly #uuid: Uint8Array;
  readonly #operations: OperationCounter;
  /** Called after each record. */
  readonly #appended: () => void;
  readonly #sum: (bytes: Uint8Array) => number;
  #segment: StagingSegment | undefined;
  /** Segments before it that were not synced since their last record. */
  #older: StagingSegment[] = [];
  #segmentNumber = 0;
  segmentBytes = 0;
  recordCount = 0;
  byteCount = 0;
  syncCount = 0;

  constructor(
    options: { uuid: Uint8Array },
    modules: {
      store: StagingStore;
      operations: OperationCounter;
      /** CRC32C of payloads. */
      sum: (bytes: Uint8Array) => number;
      appended?: () => void;
    },
  ) {
    this.#appended = modules.appended ?? ((): void => undefined);
    this.#sum = modules.sum;
    this.#uuid = options.uuid;
    this.#store = modules.store;
    this.#operations = modules.operations;
  }

  get segmentNumber(): number {
    return this.#segmentNumber;
  }

  append(kind: StagingKind, payload: Uint8Array, operation = this.#operations.next()): number {
    if (!this.#segment) throw new DriveError('writeFault', 'the staging log is closed');
    const record = new Uint8Array(paddedSize(payload.length));
    stagingRecord.encode(
      {
        magic: STAGING_RECORD_MAGIC,
        kind: stagingKinds[kind],
        operation,
        payloadBytes: payload.length,
        payloadCrc32c: this.#sum(payload),
      },
      record,
    );
    new DataView(record.buffer).setUint32(RECORD_CHECKED, crc32c(record.subarray(0, RECORD_CHECKED)), true);
    record.set(payload, stagingRecord.sizeBytes);
    this.#segment.append(record);
    this.segmentBytes += record.length;
    this.recordCount++;
    this.byteCount += record.length;
    this.#appended();
    return operation;
  }

  async sync(): Promise<void> {
    this.syncCount++;
    const older = [...this.#older];
    await Promise.all([...older, ...(this.#segment ? [this.#segment] : [])].map((segment) => segment.sync()));
    for (const segment of older) {
      if (!this.#older.includes(segment)) continue;
      this.#older.splice(this.#older.indexOf(segment), 1);
      segment.close();
    }
  }

  /** Begins a new segment; the old ones stay until `removeBefore`. DriveError writeFault: the old one goes on. */
  rotate(): void {
    const previous = this.#segment;
    const next = Math.max(this.#segmentNumber, ...this.#store.list(), 0) + 1;
    const segment = this.#store.create(next);
    const header = stagingSegmentHeader.encode({ magic: STAGING_MAGIC, segment: next, uuid: this.#uuid });
    new DataView(header.buffer).setUint32(SEGMENT_CHECKED, crc32c(header.subarray(0, SEGMENT_CHECKED)), true);
    try {
      segment.append(header);
    } catch (error) {
      segment.close();
      this.#store.remove(next);
      throw error;
    }
    this.#segment = segment;
    this.#segmentNumber = next;
    this.segmentBytes = header.length;
    if (previous) this.#older.push(previous);
  }

  removeBefore(segment: number): void {
    for (const old of this.#store.list()) if (old < segment) this.#store.remove(old);
  }

  /**
   * All whole records from `start`'s segment on, in the order written, up to the first that is not whole: a power cut may
   * leave anything of what was not synced. Without `start`, from the first segment that there is. DriveError mediaFormat
   * if anything before `start` is missing.
   */
  *replay(start: LogPosition | undefined): Iterable<StagedRecord> {
    const segments = this.#store.list().filter((segment) => segment >= (start?.segment ?? 0));
    if (start && segments[0] !== start.segment) {
      throw new DriveError('mediaFormat', `staging segment ${start.segment} is missing`);
    }
    for (const segment of segments) {
      const bytes = this.#store.read(segment);
      const wholeBytes = yield* this.#readSegment(bytes, segment);
      if (segment === start?.segment && wholeBytes < start.sizeBytes) {
        const what = `is damaged at byte ${wholeBytes}; it was synced up to byte ${start.sizeBytes}`;
        throw new DriveError('mediaFormat', `staging segment ${segment} ${what}`);
      }
      if (wholeBytes === 0 || wholeBytes < bytes.length) return;
    }
  }

  /** Yields the whole records at the beginning and returns how far they go. */
  *#readSegment(bytes: Uint8Array, segment: number): Generator<StagedRecord, number> {
    if (bytes.length < stagingSegmentHeader.sizeBytes) return 0;
    const header = stagingSegmentHeader.decode(bytes);
    // A power cut may leave a new segment without its header: nothing of it was ever promised.
    if (header.crc32c !== crc32c(bytes.subarray(0, SEGMENT_CHECKED))) return 0;
    if (header.magic !== STAGING_MAGIC || header.segment !== segment || Buffer.compare(header.uuid, this.#uuid) !== 0) {
      throw new DriveError('mediaFormat', `staging segment ${segment} belongs to another drive`);
    }
    let at = stagingSegmentHeader.sizeBytes;
    while (at + stagingRecord.sizeBytes <= bytes.length) {
      const record = stagingRecord.decode(bytes, at);
      const isHeaderRight =
        record.magic === STAGING_RECORD_MAGIC && record.crc32c === crc32c(bytes.subarray(at, at + RECORD_CHECKED));
      if (!isHeaderRight) return at;
      const end = at + stagingRecord.sizeBytes + record.payloadBytes;
      const payload = bytes.slice(at + stagingRecord.sizeBytes, end);
      if (end > bytes.length || record.payloadCrc32c !== this.#sum(payload)) return at;
      const kind = kindOfCode.get(record.kind);
      if (kind === undefined) throw new DriveError('mediaFormat', `staging segment ${segment}: kind ${record.kind}`);
      yield { operation: record.operation, kind, payload };
      at += paddedSize(record.payloadBytes);
    }
    return at;
  }

  close(): void {
    for (const segment of this.#older.splice(0)) segment.close();
    this.#segment?.close();
    this.#segment = undefined;
  }
}

const RECORD_CHECKED = stagingRecord.sizeBytes - 4;
const SEGMENT_CHECKED = stagingSegmentHeader.sizeBytes - 4;
const paddedSize = (payloadBytes: number): number => Math.ceil((stagingRecord.sizeBytes + payloadBytes) / 8) * 8;
const kindOfCode = new Map<number, StagingKind>(
  Object.entries(stagingKinds).map(([kind, code]) => [code, kind as StagingKind]),
);

/** Segments as files `NNNNNNNN.log` in a folder. */
export class StagingFolder implements StagingStore {
  readonly #folder: string;
  readonly #fileSystem: FileSystem;

  constructor(folder: string, fileSystem: FileSystem = systemFileSystem) {
    this.#folder = folder;
    this.#fileSystem = fileSystem;
  }

  #path(segment: number): string {
    return `${this.#folder}/${String(segment).padStart(8, '0')}.log`;
  }

  list(): number[] {
    let names: string[];
    try {
      names = readdirSync(this.#folder);
    } catch (error) {
      throw fileError('mediaFormat', error, this.#folder);
    }
    const segments = names.filter((name) => /^\d{8}\.log$/.test(name));
    return segments.map((name) => Number.parseInt(name, 10)).sort((a, b) => a - b);
  }

  read(segment: number): Uint8Array {
    try {
      return readFileSync(this.#path(segment));
    } catch (error) {
      throw fileError('mediaFormat', error, this.#path(segment));
    }
  }

  create(segment: number): StagingSegment {
    let descriptor: number;
    try {
      descriptor = this.#fileSystem.open(this.#path(segment), 'new');
    } catch (error) {
      const path = this.#path(segment);
      throw new DriveError('writeFault', `${path}: ${fileErrorReason(error, path)}`, { cause: error });
    }
    return new StagingSegmentFile(descriptor, { path: this.#path(segment), folder: this.#folder }, this.#fileSystem);
  }

  remove(segment: number): void {
    try {
      this.#fileSystem.remove(this.#path(segment));
    } catch {
      // Replay passes over it, and the next checkpoint tries again.
    }
  }
}

class StagingSegmentFile implements StagingSegment {
  readonly #descriptor: number;
  readonly #path: string;
  readonly #folder: string;
  readonly #fileSystem: FileSystem;
  #sizeBytes = 0;
  #isNameDurable = false;
  #syncsRunning = 0;
  #isClosing = false;

  constructor(descriptor: number, place: { path: string; folder: string }, fileSystem: FileSystem) {
    this.#descriptor = descriptor;
    this.#path = place.path;
    this.#folder = place.folder;
    this.#fileSystem = fileSystem;
  }

  append(bytes: Uint8Array): void {
    let written = 0;
    let cause: unknown;
    try {
      written = this.#fileSystem.write(this.#descriptor, bytes, this.#sizeBytes);
    } catch (error) {
      cause = error;
    }
    if (written !== bytes.length) {
      this.#cutBack();
      const why = cause === undefined ? 'the disk is full' : fileErrorReason(cause, this.#path);
      throw new DriveError('writeFault', `${this.#path}: ${why}`, { cause });
    }
    this.#sizeBytes += bytes.length;
  }

  #cutBack(): void {
    try {
      this.#fileSystem.resize(this.#descriptor, this.#sizeBytes);
    } catch {
      // The next record overwrites what is left; replay stops at it if there is none.
    }
  }

  async sync(): Promise<void> {
    this.#syncsRunning++;
    try {
      await this.#fileSystem.sync(this.#descriptor);
      if (!this.#isNameDurable) await this.#fileSystem.syncFolder(this.#folder);
      this.#isNameDurable = true;
    } catch (error) {
      throw new DriveError('writeFault', `sync of ${this.#path}: ${fileErrorReason(error, this.#path)}`, {
        cause: error,
      });
    } finally {
      this.#syncsRunning--;
      this.#closeIfIdle();
    }
  }

  close(): void {
    this.#isClosing = true;
    this.#closeIfIdle();
  }

  #closeIfIdle(): void {
    if (this.#isClosing && this.#syncsRunning === 0) this.#fileSystem.close(this.#descriptor);
  }
}
