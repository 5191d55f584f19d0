import { assert } from '../base/assert.ts';
import type { Lpn } from '../ftl/contract.ts';

/** Entries of one metadata record: 4 KiB. */
export const TABLE_SEGMENT_ENTRIES = 1024;
const INITIAL_ENTRIES = 16;
/** Most layers of most sequences are short: none of them has memory of its own before its first group. */
const noEntries = new Uint32Array(0);

/**
 * Which logical page holds each group of each stream of one layer: rows [group], columns [stream = head * 2 + part].
 * Remembers from which group on it differs from what the metadata store holds.
 */
export class BlockTable {
  readonly streamCount: number;
  #entries = noEntries;
  #groupCount = 0;
  #dirtyFromGroup: number | undefined = 0;
  #savedSegmentCount = 0;

  constructor(streamCount: number) {
    this.streamCount = streamCount;
  }

  get groupCount(): number {
    return this.#groupCount;
  }

  get pageCount(): number {
    return this.#groupCount * this.streamCount;
  }

  page(group: number, stream: number): Lpn {
    assert(group >= 0 && group < this.#groupCount, `group ${group} of ${this.#groupCount}`);
    assert(stream >= 0 && stream < this.streamCount, `stream ${stream} of ${this.streamCount}`);
    return this.#entries[group * this.streamCount + stream] as Lpn;
  }

  /** Writes the pages of two neighbouring streams for groups [first, end), in turn, to `target` from `at` on. */
  copyPairs(stream: number, first: number, end: number, target: Uint32Array, at: number): void {
    assert(first >= 0 && first <= end && end <= this.#groupCount, `groups ${first} to ${end} of ${this.#groupCount}`);
    assert(stream >= 0 && stream + 1 < this.streamCount, `streams ${stream}, ${stream + 1} of ${this.streamCount}`);
    const entries = this.#entries;
    const step = this.streamCount;
    let to = at;
    for (let from = first * step + stream; from < end * step; from += step) {
      target[to++] = entries[from]!;
      target[to++] = entries[from + 1]!;
    }
  }

  /** Makes room for groups up to `groupCount`, so that `write` and `extendTo` cannot fail. */
  reserveGroups(groupCount: number): void {
    const needed = groupCount * this.streamCount;
    if (needed <= this.#entries.length) return;
    const larger = new Uint32Array(Math.max(needed, this.#entries.length * 2, INITIAL_ENTRIES));
    larger.set(this.#entries);
    this.#entries = larger;
  }

  /** Fills in a page beyond the present groups; part of the table only after `extendTo`. */
  write(group: number, stream: number, page: Lpn): void {
    assert(group >= this.#groupCount, `group ${group} is in the table already`);
    this.#entries[group * this.streamCount + stream] = page;
  }

  /** What `write` put beyond the present groups. */
  pending(group: number, stream: number): Lpn {
    return this.#entries[group * this.streamCount + stream] as Lpn;
  }

  extendTo(groupCount: number): void {
    assert(groupCount >= this.#groupCount, `extend from ${this.#groupCount} to ${groupCount} groups`);
    assert(groupCount * this.streamCount <= this.#entries.length, 'groups were reserved');
    if (groupCount > this.#groupCount) this.#markDirty(this.#groupCount);
    this.#groupCount = groupCount;
  }

  cutTo(groupCount: number): void {
    assert(groupCount <= this.#groupCount, `cut from ${this.#groupCount} to ${groupCount} groups`);
    if (groupCount < this.#groupCount) this.#markDirty(groupCount);
    this.#groupCount = groupCount;
  }

  /** Takes over the first groups of another table with as many streams. */
  copyFrom(other: BlockTable, groupCount: number): void {
    assert(this.#groupCount === 0 && other.streamCount === this.streamCount, 'copy into an empty table of equal width');
    assert(groupCount <= other.#groupCount, `copy ${groupCount} of ${other.#groupCount} groups`);
    this.reserveGroups(groupCount);
    this.#entries.set(other.#entries.subarray(0, groupCount * this.streamCount));
    this.extendTo(groupCount);
  }

  /** Calls back for every page of groups `from` to `to` - 1. */
  forEachPage(from: number, to: number, callback: (page: Lpn) => void): void {
    const end = to * this.streamCount;
    for (let index = from * this.streamCount; index < end; index++) callback(this.#entries[index] as Lpn);
  }

  #markDirty(group: number): void {
    this.#dirtyFromGroup = Math.min(this.#dirtyFromGroup ?? group, group);
  }

  /** Segments in the metadata store. */
  get savedSegmentCount(): number {
    return this.#savedSegmentCount;
  }

  /**
   * Gives every segment that changed since the last call (its little-endian entries, a copy) to `put`, and the number
   * of each that is no more to `remove`.
   */
  save(put: (segment: number, entries: Uint8Array) => void, remove: (segment: number) => void): void {
    const entryCount = this.pageCount;
    const segmentCount = Math.ceil(entryCount / TABLE_SEGMENT_ENTRIES);
    if (this.#dirtyFromGroup !== undefined) {
      const first = Math.floor((this.#dirtyFromGroup * this.streamCount) / TABLE_SEGMENT_ENTRIES);
      for (let segment = first; segment < segmentCount; segment++) {
        const from = segment * TABLE_SEGMENT_ENTRIES;
        put(segment, encodeEntries(this.#entries.subarray(from, Math.min(from + TABLE_SEGMENT_ENTRIES, entryCount))));
      }
    }
    for (let segment = segmentCount; segment < this.#savedSegmentCount; segment++) remove(segment);
    this.#savedSegmentCount = segmentCount;
    this.#dirtyFromGroup = undefined;
  }

  /** Takes back what `save` gave, before any other change. Segments come in ascending order. */
  loadSegment(segment: number, bytes: Uint8Array): void {
    assert(this.#groupCount === 0 && segment === this.#savedSegmentCount, `segment ${segment} in its turn`);
    const from = segment * TABLE_SEGMENT_ENTRIES;
    const count = Math.min(bytes.byteLength / 4, TABLE_SEGMENT_ENTRIES);
    this.reserveGroups(Math.ceil((from + count) / this.streamCount));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < count; i++) this.#entries[from + i] = view.getUint32(i * 4, true);
    this.#savedSegmentCount++;
  }

  /** Ends loading: the table holds this many groups, all of them saved. */
  loaded(groupCount: number): void {
    assert(this.#groupCount === 0, 'loaded once');
    assert(groupCount * this.streamCount <= this.#entries.length, `${groupCount} groups were loaded`);
    this.#groupCount = groupCount;
    this.#dirtyFromGroup = undefined;
  }
}

function encodeEntries(entries: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(entries.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < entries.length; i++) view.setUint32(i * 4, entries[i] ?? 0, true);
  return bytes;
}
