import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import { type KvPages, PROGRAM_PAGES_MAX, stagingOwners, type StagingLog } from '../ftl/contract.ts';
import { assembleJob, type Kernels } from '../kernels/contract.ts';
import { newCounters } from './counters.ts';
import { Holdings } from './holdings.ts';
import { generationOf, type Layer, type Sequence } from './sequence.ts';
import { encodeTruncate } from './staged-records.ts';
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
  /** And again, for jobs of kernels. */
  readonly words: Uint32Array;
  #frames: PageFrames | undefined;
  #pages: KvPages | undefined;
  #log: StagingLog | undefined;

  constructor(modules: { arena: Arena; kernels: Kernels; clock: Clock }) {
    this.arena = modules.arena;
    this.kernels = modules.kernels;
    this.clock = modules.clock;
    this.tails = new TailBuffer({ arena: modules.arena });
    this.buffer = Buffer.from(modules.arena.buffer);
    this.words = new Uint32Array(modules.arena.buffer);
  }

  attach(pages: KvPages, log: StagingLog): void {
    assert(this.#pages === undefined, 'attached once');
    this.#pages = pages;
    this.#log = log;
    this.#frames = new PageFrames(this.arena, pages.pageSizeBytes);
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

  /** Memory to assemble pages in, used again and again. Only for synchronous use. */
  pageFrames(): PageFrames {
    assert(this.#frames !== undefined, 'the drive is open');
    return this.#frames;
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

/** What a processor keeps near itself between assembling, summing and writing. */
const FRAMES_BYTES = 512 * 1024;

/** Arena memory for the pages that are programmed together, and for the kernel's job that makes them. */
export class PageFrames {
  readonly offset: number;
  readonly pageCount: number;
  readonly jobOffset: number;
  /** Of the pages that were just made. */
  readonly checksums: Uint32Array;
  /** Numbers of the pages that were just programmed. */
  readonly lpns: Uint32Array;

  constructor(arena: Arena, pageSizeBytes: number) {
    this.pageCount = Math.min(PROGRAM_PAGES_MAX, FRAMES_BYTES / pageSizeBytes);
    this.offset = arena.allocate(this.pageCount * pageSizeBytes);
    this.jobOffset = arena.allocate(assembleJob.sizeBytes);
    this.checksums = new Uint32Array(arena.buffer, arena.allocate(4 * this.pageCount), this.pageCount);
    this.lpns = new Uint32Array(this.pageCount);
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
