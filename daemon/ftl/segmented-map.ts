import type { MetaReader } from '../meta/contract.ts';
import { DriveError } from '../base/errors.ts';
import type { CheckpointSink } from './contract.ts';

export const SEGMENT_ENTRIES = 4096;
/** Nothing is mapped. */
export const UNMAPPED = 0xffff_ffff;

/** A table of 32-bit addresses that is stored in segments: a checkpoint writes those that changed. */
export class SegmentedMap {
  readonly entries: Uint32Array;
  readonly #namespace: number;
  readonly #dirty: Uint8Array;

  constructor(namespace: number, entryCount: number) {
    this.#namespace = namespace;
    this.entries = new Uint32Array(entryCount).fill(UNMAPPED);
    this.#dirty = new Uint8Array(Math.ceil(entryCount / SEGMENT_ENTRIES));
  }

  get(index: number): number {
    return this.entries[index]!;
  }

  set(index: number, address: number): void {
    this.entries[index] = address;
    this.#dirty[Math.floor(index / SEGMENT_ENTRIES)] = 1;
  }

  /** Nothing is mapped any more. */
  clear(): void {
    this.entries.fill(UNMAPPED);
    this.#dirty.fill(1);
  }

  checkpoint(sink: CheckpointSink): void {
    for (let segment = this.#dirty.indexOf(1); segment >= 0; segment = this.#dirty.indexOf(1, segment + 1)) {
      this.#dirty[segment] = 0;
      const entries = this.entries.slice(segment * SEGMENT_ENTRIES, (segment + 1) * SEGMENT_ENTRIES);
      sink.put(this.#namespace, [segment], new Uint8Array(entries.buffer));
    }
  }

  /** DriveError mediaFormat if a stored segment doesn't fit. */
  load(reader: MetaReader): void {
    for (const { key, value } of reader.range(this.#namespace)) {
      const first = (key[0] as number) * SEGMENT_ENTRIES;
      const expectedBytes = 4 * Math.max(0, Math.min(SEGMENT_ENTRIES, this.entries.length - first));
      if (!(value instanceof Uint8Array) || value.length !== expectedBytes) {
        throw new DriveError('mediaFormat', `metadata: map ${this.#namespace} segment ${key[0]} has the wrong size`);
      }
      new Uint8Array(this.entries.buffer, 4 * first, value.length).set(value);
    }
  }
}
