/** The staging log in memory: files that grow, in a folder whose names are durable once it is synced. */
import type { StagingSegment, StagingStore } from '../../daemon/ftl/staging-log.ts';
import { SECTOR_BYTES } from '../../daemon/nand/media-memory.ts';
import type { UnsyncedFates } from './unsynced-fates.ts';

/** Operations of the log that something may happen at. */
export type StagingStep = 'append' | 'create' | 'remove' | 'sync';

interface UnsyncedWrite {
  readonly start: number;
  readonly end: number;
}

export class SegmentMemory implements StagingSegment {
  readonly #folder: StagingMemory;
  #buffer: Uint8Array;
  #sizeBytes: number;
  #unsynced: UnsyncedWrite[] = [];
  /** The folder was synced since the file was made. */
  isNameDurable = false;

  constructor(folder: StagingMemory, bytes = new Uint8Array(0)) {
    this.#folder = folder;
    this.#buffer = bytes;
    this.#sizeBytes = bytes.length;
  }

  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#sizeBytes);
  }

  /** Spoils what is on the disk. */
  set bytes(bytes: Uint8Array) {
    this.#buffer = bytes;
    this.#sizeBytes = bytes.length;
    this.#unsynced = [];
  }

  append(bytes: Uint8Array): void {
    if (!this.#folder.step('append')) return;
    const end = this.#sizeBytes + bytes.length;
    if (end > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(4096, 2 * end));
      grown.set(this.bytes);
      this.#buffer = grown;
    }
    this.#buffer.set(bytes, this.#sizeBytes);
    this.#unsynced.push({ start: this.#sizeBytes, end });
    this.#sizeBytes = end;
  }

  async sync(): Promise<void> {
    this.#folder.step('sync');
    const covered = this.#unsynced.length;
    const names = this.isNameDurable ? undefined : this.#folder.names();
    const writes = this.#unsynced;
    await this.#folder.settle();
    if (this.#unsynced === writes) this.#unsynced = writes.slice(covered);
    else this.#unsynced = this.#unsynced.filter((write) => !writes.slice(0, covered).includes(write));
    if (names !== undefined) this.#folder.namesSynced(names);
  }

  close(): void {}

  /** The same file for another folder. */
  copy(folder: StagingMemory): SegmentMemory {
    const copied = new SegmentMemory(folder, this.bytes.slice());
    copied.#unsynced = [...this.#unsynced];
    copied.isNameDurable = this.isNameDurable;
    return copied;
  }

  /**
   * What is on the disk after a power cut. The size of a file may be written before its bytes: what is missing then reads
   * as zeros.
   */
  afterPowerCut(folder: StagingMemory, fates: UnsyncedFates): SegmentMemory {
    const left = this.bytes.slice();
    let keptEnd = this.#unsynced[0]?.start ?? left.length;
    const isKept = fates.ofWrites(this.#unsynced.length);
    const kept = new Set<number>();
    for (let write = this.#unsynced.length - 1; write >= 0; write--) {
      const { start, end } = this.#unsynced[write]!;
      const first = Math.floor(start / SECTOR_BYTES);
      for (let sector = first; sector * SECTOR_BYTES < end; sector++) {
        const from = Math.max(start, sector * SECTOR_BYTES);
        const to = Math.min(end, (sector + 1) * SECTOR_BYTES);
        if (kept.has(sector) || isKept(write, sector - first)) {
          kept.add(sector);
          keptEnd = Math.max(keptEnd, to);
        } else left.fill(0, from, to);
      }
    }
    const segment = new SegmentMemory(folder, fates.whole() ? left : left.slice(0, keptEnd));
    segment.isNameDurable = true;
    return segment;
  }
}

/** Names of a folder that the next sync of it makes durable. */
interface Names {
  readonly created: readonly SegmentMemory[];
  readonly removed: readonly SegmentMemory[];
}

export class StagingMemory implements StagingStore {
  readonly segments = new Map<number, SegmentMemory>();
  /** Removed, but the folder was not synced since. */
  #removed: { readonly number: number; readonly segment: SegmentMemory }[] = [];
  /** May throw to stop a run there. */
  onStep: (what: StagingStep) => void = () => undefined;

  /** False: the power is off, and nothing happens any more. */
  step(what: StagingStep): boolean {
    this.onStep(what);
    return true;
  }

  /** Resolves when a sync is done. */
  settle(): Promise<void> {
    return Promise.resolve();
  }

  list(): number[] {
    return [...this.segments.keys()].sort((a, b) => a - b);
  }

  read(segment: number): Uint8Array {
    return this.segments.get(segment)!.bytes.slice();
  }

  create(segment: number): StagingSegment {
    const created = new SegmentMemory(this);
    if (this.step('create')) this.segments.set(segment, created);
    return created;
  }

  remove(segment: number): void {
    const removed = this.segments.get(segment);
    if (removed === undefined || !this.step('remove')) return;
    this.segments.delete(segment);
    this.#removed.push({ number: segment, segment: removed });
  }

  /** What a sync of the folder that begins now covers. */
  names(): Names {
    const created = [...this.segments.values()].filter(({ isNameDurable }) => !isNameDurable);
    return { created, removed: this.#removed.map(({ segment }) => segment) };
  }

  namesSynced({ created, removed }: Names): void {
    for (const segment of created) segment.isNameDurable = true;
    this.#removed = this.#removed.filter(({ segment }) => !removed.includes(segment));
  }

  /** Puts into `left`, which is empty, what a killed process leaves: everything, synced or not. */
  copyTo(left: StagingMemory): void {
    for (const [number, segment] of this.segments) left.segments.set(number, segment.copy(left));
    left.#removed = this.#removed.map(({ number, segment }) => ({ number, segment: segment.copy(left) }));
  }

  /** Puts into `left`, which is empty, what a power cut leaves. */
  powerCut(left: StagingMemory, fates: UnsyncedFates): void {
    for (const { number, segment } of this.#removed) {
      if (!fates.whole() || !segment.isNameDurable) continue;
      left.segments.set(number, segment.afterPowerCut(left, fates));
    }
    for (const [number, segment] of this.segments) {
      if (!segment.isNameDurable && !fates.whole()) continue;
      left.segments.set(number, segment.afterPowerCut(left, fates));
    }
  }
}
