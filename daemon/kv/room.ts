import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import { stagingOwners, type KvPages, type StagingLog } from '../ftl/contract.ts';
import type { Kernels } from '../kernels/contract.ts';
import { newCounters } from './counters.ts';
import { Holdings } from './holdings.ts';
import { generationOf, type Layer, type Sequence } from './sequence.ts';
import { encodeTruncate } from './staged-records.ts';
import type { Part } from './shape.ts';
import { TailBuffer, type TailSlab } from './tail-slab.ts';

/** What the files of this room work on together. Pages and log are there once the drive is open (`attach`). */
export class KvRoom {
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly clock: Clock;
  readonly tails: TailBuffer;
  readonly counters = newCounters();
  readonly holdings = new Holdings();
  /** Live sequences that differ from their metadata records or have tail tokens that are not staged. */
  readonly dirty = new Set<Sequence>();
  /** The arena again, for native comparisons. */
  readonly buffer: Buffer;
  readonly #frames: [PageFrame | undefined, PageFrame | undefined] = [undefined, undefined];
  #pages: KvPages | undefined;
  #log: StagingLog | undefined;

  constructor(modules: { arena: Arena; kernels: Kernels; clock: Clock }) {
    this.arena = modules.arena;
    this.kernels = modules.kernels;
    this.clock = modules.clock;
    this.tails = new TailBuffer({ arena: modules.arena });
    this.buffer = Buffer.from(modules.arena.buffer);
  }

  attach(pages: KvPages, log: StagingLog): void {
    assert(this.#pages === undefined, 'attached once');
    this.#pages = pages;
    this.#log = log;
  }

  get pages(): KvPages {
    assert(this.#pages !== undefined, 'the drive is open');
    return this.#pages;
  }

  get log(): StagingLog {
    assert(this.#log !== undefined, 'the drive is open');
    return this.#log;
  }

  /** Writes an operation to the staging log; returns its operation number. */
  record(payload: Uint8Array): number {
    return this.log.append(stagingOwners.kv, payload);
  }

  copy(target: number, source: number, sizeBytes: number): void {
    this.arena.bytes.copyWithin(target, source, source + sizeBytes);
  }

  isEqual(a: number, b: number, sizeBytes: number): boolean {
    return this.buffer.compare(this.buffer, b, b + sizeBytes, a, a + sizeBytes) === 0;
  }

  /**
   * A page-sized frame to assemble a page of one part in, kept for reuse: everything from `usedBytes` on is zero. Only
   * for synchronous use.
   */
  pageFrame(part: Part, usedBytes: number): number {
    const frame = (this.#frames[part] ??= new PageFrame(this.arena, this.pages.pageSizeBytes));
    return frame.use(usedBytes);
  }

  /** A sequence holds so many pages more, or fewer. */
  countHeld(sequence: Sequence, pageCount: number): void {
    this.counters.heldPageCount += pageCount;
    sequence.holding.pageCount += pageCount;
  }

  releasePages(layer: Layer, fromGroup: number): void {
    layer.table.forEachPage(fromGroup, layer.table.groupCount, (page) => this.pages.release(page));
  }

  /** Gives a layer its new tail slab, or none. */
  replaceSlab(layer: Layer, slab: TailSlab | undefined): void {
    if (layer.slab === slab) return;
    layer.slab?.letGo();
    layer.slab = slab;
  }

  /**
   * Begins a new generation of a layer at its present length, so that pages of a failed append, which lie in flash with
   * valid tags, are never taken for tokens. DriveError writeFault: the log can't be written, and nothing may be added to
   * the layer until this was done.
   */
  abandonGeneration(sequence: Sequence, layerIndex: number): void {
    const layer = sequence.layers[layerIndex];
    assert(layer !== undefined, `layer ${layerIndex} exists`);
    layer.hasStrayPages = true;
    const operation = this.record(encodeTruncate(sequence.id, layerIndex, layer.length));
    this.markTruncated(sequence, layer, operation);
  }

  /** Bookkeeping of a layer whose generation ended: its whole tail must be staged again under the new one. */
  markTruncated(sequence: Sequence, layer: Layer, operation: number): void {
    layer.generation = generationOf(operation);
    layer.hasStrayPages = false;
    layer.stagedLength = layer.length - sequence.tailCount(layer);
    this.dirty.add(sequence);
  }
}

/** One page of arena memory that is zero behind what was last put into it. */
class PageFrame {
  readonly #arena: Arena;
  readonly #offset: number;
  #usedBytes: number;

  constructor(arena: Arena, pageSizeBytes: number) {
    this.#arena = arena;
    this.#offset = arena.allocate(pageSizeBytes);
    this.#usedBytes = pageSizeBytes;
  }

  use(usedBytes: number): number {
    if (usedBytes < this.#usedBytes) {
      this.#arena.bytes.fill(0, this.#offset + usedBytes, this.#offset + this.#usedBytes);
    }
    this.#usedBytes = usedBytes;
    return this.#offset;
  }
}

/** The layer, or DriveError layerRange. */
export function layerOf(sequence: Sequence, layerIndex: number): Layer {
  const layer = sequence.layers[layerIndex];
  if (layer === undefined) {
    throw new DriveError('layerRange', `layer ${layerIndex}, allowed are 0 to ${sequence.layers.length - 1}`);
  }
  return layer;
}
