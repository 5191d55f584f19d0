import { elementSizeBytes, elementTypes } from '../../spec/element-type.ts';
import { assert } from '../base/assert.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import { attendJob, boundsStruct, frameStruct, type Kernels, mergeJob, partialSizeBytes } from '../kernels/contract.ts';
import { ChunkWalker, type WalkerModules } from './chunk-walker.ts';
import { type AttendOptions, outputSizeBytes } from './contract.ts';
import { type Lane, lanes } from './job-queue.ts';
import { JOB_MAGIC, jobRecord, jobStates, pageFlags, pageRecord, unitRecord, wordsOf } from './job-layout.ts';
import type { TargetPlan, Tile } from './plan.ts';
import { visibleEnd, visibleStart } from './visibility.ts';

const unitWords = wordsOf(unitRecord.offsetOf);
const jobWords = wordsOf(jobRecord.offsetOf);
const attendWords = wordsOf(attendJob.offsetOf);
const mergeWords = wordsOf(mergeJob.offsetOf);
const pageWords = wordsOf(pageRecord.offsetOf);
const boundsWords = wordsOf(boundsStruct.offsetOf);

const align64 = (sizeBytes: number): number => Math.ceil(sizeBytes / 64) * 64;

export interface UnitModules extends WalkerModules {
  /** All of the arena. */
  readonly floats: Float32Array;
  readonly kernels: Pick<Kernels, 'convert'>;
  readonly pages: WalkerModules['pages'] & Pick<KvPages, 'markVerified'>;
}

/** A job that was written to the arena and not yet settled. */
export interface PreparedJob {
  readonly unit: Unit;
  /** Of the job record. */
  readonly offset: number;
  /** Frames it holds. */
  readonly handles: readonly number[];
}

/** Where a unit's parts lie in its scratch block. */
interface Scratch {
  readonly jobs: number;
  readonly bounds: number;
  readonly outputRows: number;
  readonly queries: number;
  readonly frames: number;
  readonly pages: number;
  readonly partials: number;
  readonly sizeBytes: number;
}

/** Which unit it is. */
export interface UnitPlace {
  readonly plan: TargetPlan;
  /** Among those of its plan: by KV head, then by tile. */
  readonly index: number;
  /** Of its command. */
  readonly lane: Lane;
}

/**
 * One unit of work: the query rows of one KV head and one tile of query tokens of one target. It takes one scratch
 * block of the arena, and is turned into jobs one chunk of tokens at a time, since each job needs frames.
 */
export class Unit {
  readonly plan: TargetPlan;
  readonly jobCount: number;
  readonly scratchSizeBytes: number;
  readonly #options: AttendOptions;
  readonly #modules: UnitModules;
  readonly #tile: Tile;
  readonly #walker: ChunkWalker;
  readonly #firstHead: number;
  readonly #headCount: number;
  readonly #rowCount: number;
  readonly #scratch: Scratch;
  readonly #queriesInPlace: boolean;
  readonly #isReadOnce: boolean;
  #base = 0;
  #queries = 0;
  #nextJob = 0;
  #settledCount = 0;

  constructor({ plan, index, lane }: UnitPlace, options: AttendOptions, modules: UnitModules) {
    this.plan = plan;
    this.#options = options;
    this.#modules = modules;
    const { target, tiles } = plan;
    const kvHead = plan.firstKvHead + Math.floor(index / tiles.length);
    const tile = tiles[index % tiles.length]!;
    this.#tile = tile;
    this.#walker = new ChunkWalker(plan, tile, kvHead, modules);
    this.#firstHead = Math.max(target.firstQueryHead, kvHead * target.queryHeadsPerKvHead);
    const headEnd = Math.min(target.firstQueryHead + target.queryHeadCount, (kvHead + 1) * target.queryHeadsPerKvHead);
    this.#headCount = headEnd - this.#firstHead;
    this.#rowCount = tile.tokenCount * this.#headCount;
    this.jobCount = tile.jobCount;
    // What goes through in the bulk lane is more than caches hold, but other tiles come to the same pages.
    this.#isReadOnce = lane === lanes.bulk && tiles.length === 1;
    this.#queriesInPlace =
      options.queryType === 'f32' && (tile.tokenCount === 1 || this.#headCount === target.queryHeadCount);
    this.#scratch = this.#layOut();
    this.scratchSizeBytes = this.#scratch.sizeBytes;
  }

  /** Whether all its jobs were prepared. */
  get isPrepared(): boolean {
    return this.#nextJob === this.jobCount;
  }

  /** Offset of its merge job. */
  get mergeOffset(): number {
    return this.#base + unitRecord.offsetOf.merge;
  }

  /** Takes the scratch block (`base`) and writes everything but the jobs. */
  begin(base: number, commandOffset: number): void {
    this.#base = base;
    this.#walker.writeTo({ frames: base + this.#scratch.frames, pages: base + this.#scratch.pages });
    const { words } = this.#modules;
    const at = base >>> 2;
    words.fill(0, at, at + unitRecord.sizeBytes / 4);
    words[at + unitWords.jobsRemaining] = this.jobCount;
    words[at + unitWords.command] = commandOffset;
    this.#writeRows();
    this.#queries = this.#placeQueries();
    this.#writeMerge(at + unitWords.merge);
  }

  /** Offset of the scratch block. */
  get base(): number {
    return this.#base;
  }

  /** Writes the next job; undefined if there are not enough free frames for it now. `slot` is echoed in the record. */
  prepareJob(slot: number): PreparedJob | undefined {
    assert(!this.isPrepared, 'a unit has jobs left to prepare');
    if (this.#modules.frames.available < this.plan.layout.jobPages) return undefined;
    const { frameCount: firstFrame, pageCount: firstPage } = this.#walker;
    const handles = this.#walker.next();
    const offset = this.#base + this.#scratch.jobs + this.#nextJob * jobRecord.sizeBytes;
    this.#writeJob(offset >>> 2, firstFrame, firstPage, slot);
    this.#nextJob++;
    return { unit: this, offset, handles };
  }

  /** Adds the physical pages of the next job to a list. */
  peekPages(list: number[]): void {
    this.#walker.peekPages(list);
  }

  /** Before a prepared job runs: a page of it could not be read, so the job is to fail. */
  refuse(job: PreparedJob, page: Ppn): void {
    const { words } = this.#modules;
    const at = job.offset >>> 2;
    let record = words[at + jobWords.pages]! >>> 2;
    for (let i = words[at + jobWords.pageCount]!; i > 0; i--, record += pageRecord.sizeBytes / 4) {
      if (words[record + pageWords.page] === page) words[record + pageWords.flags]! |= pageFlags.fail;
    }
  }

  /** After a job ran: gives its frames back and remembers which pages were seen right. */
  settle(job: PreparedJob): void {
    const { words, frames, pages, sums } = this.#modules;
    const at = job.offset >>> 2;
    const done = words[at + jobWords.state] === jobStates.done;
    if (done) {
      let record = words[at + jobWords.pages]! >>> 2;
      for (let i = words[at + jobWords.pageCount]!; i > 0; i--, record += pageRecord.sizeBytes / 4) {
        const flags = words[record + pageWords.flags]!;
        if (!(flags & pageFlags.check) || flags & pageFlags.sumKnown) continue;
        const page = words[record + pageWords.page]! as Ppn;
        pages.markVerified(page);
        sums?.learn(page, words[record + pageWords.eraseCount]!, words[record + pageWords.sum]!);
      }
    }
    for (const handle of job.handles) frames.release(handle, done);
    this.#settledCount++;
  }

  /** Whether all its jobs were settled. */
  get isSettled(): boolean {
    return this.#settledCount === this.jobCount;
  }

  #layOut(): Scratch {
    const { layout } = this.plan;
    const { frameCount } = this.#tile;
    let next = unitRecord.sizeBytes;
    const take = (sizeBytes: number): number => {
      const offset = next;
      next += align64(sizeBytes);
      return offset;
    };
    return {
      jobs: take(this.jobCount * jobRecord.sizeBytes),
      bounds: take(this.#rowCount * boundsStruct.sizeBytes),
      outputRows: take(this.#rowCount * 4),
      queries: take(this.#queriesInPlace ? 0 : this.#rowCount * layout.shape.headDimK * 4),
      frames: take(frameCount * frameStruct.sizeBytes),
      pages: take(frameCount * 2 * pageRecord.sizeBytes),
      partials: take(this.jobCount * this.#rowCount * partialSizeBytes(layout.shape.headDimV)),
      sizeBytes: next,
    };
  }

  /** Bounds and output row numbers. Rows go by query token, then by head. */
  #writeRows(): void {
    const { words } = this.#modules;
    const { rule, target } = this.plan;
    let bounds = (this.#base + this.#scratch.bounds) >>> 2;
    let rows = (this.#base + this.#scratch.outputRows) >>> 2;
    const { firstToken, tokenCount } = this.#tile;
    for (let token = firstToken; token < firstToken + tokenCount; token++) {
      const start = visibleStart(rule, token);
      const end = visibleEnd(rule, token);
      const row = token * target.queryHeadCount + this.#firstHead - target.firstQueryHead;
      for (let head = 0; head < this.#headCount; head++, bounds += boundsStruct.sizeBytes / 4) {
        words[bounds + boundsWords.start] = start;
        words[bounds + boundsWords.end] = end;
        words[rows++] = row + head;
      }
    }
  }

  /** Queries as f32 rows in row order; returns where. */
  #placeQueries(): number {
    const { target, layout } = this.plan;
    const { queryType } = this.#options;
    const rowBytes = layout.shape.headDimK * elementSizeBytes(queryType);
    const sourceOf = (token: number): number =>
      target.queryOffset + (token * target.queryHeadCount + this.#firstHead - target.firstQueryHead) * rowBytes;
    const { firstToken, tokenCount } = this.#tile;
    if (this.#queriesInPlace) return sourceOf(firstToken);
    const offset = this.#base + this.#scratch.queries;
    const { headDimK } = layout.shape;
    const tokenBytes = this.#headCount * headDimK * 4;
    for (let i = 0; i < tokenCount; i++) {
      const source = sourceOf(firstToken + i);
      const { code } = elementTypes[queryType];
      const row = offset + i * tokenBytes;
      this.#modules.kernels.convert(source, code, row, elementTypes.f32.code, this.#headCount, headDimK);
    }
    return offset;
  }

  #writeMerge(at: number): void {
    const { words } = this.#modules;
    const { target, layout } = this.plan;
    const { outputType, statistics } = this.#options;
    const { headDimV } = layout.shape;
    const rowCount = target.queryTokenCount * target.queryHeadCount;
    words[at + mergeWords.queryCount] = this.#rowCount;
    words[at + mergeWords.headDimV] = headDimV;
    words[at + mergeWords.chunkCount] = this.jobCount;
    words[at + mergeWords.partials] = this.#base + this.#scratch.partials;
    words[at + mergeWords.chunkStrideBytes] = this.#rowCount * partialSizeBytes(headDimV);
    words[at + mergeWords.outputType] = elementTypes[outputType].code;
    words[at + mergeWords.outputRows] = this.#base + this.#scratch.outputRows;
    words[at + mergeWords.output] = target.outputOffset;
    const sizeBytes = outputSizeBytes(rowCount, headDimV, elementSizeBytes(outputType), statistics);
    words[at + mergeWords.statistics] = statistics ? target.outputOffset + sizeBytes - rowCount * 8 : 0;
  }

  #writeJob(at: number, firstFrame: number, firstPage: number, slot: number): void {
    const { words, floats } = this.#modules;
    const { shape } = this.plan.layout;
    const recordBytes = this.#rowCount * partialSizeBytes(shape.headDimV);
    words.fill(0, at, at + jobRecord.sizeBytes / 4);
    words[at + attendWords.queryCount] = this.#rowCount;
    words[at + attendWords.headDimK] = shape.headDimK;
    words[at + attendWords.headDimV] = shape.headDimV;
    words[at + attendWords.elementTypeK] = elementTypes[shape.elementTypeK].code;
    words[at + attendWords.elementTypeV] = elementTypes[shape.elementTypeV].code;
    words[at + attendWords.frameCount] = this.#walker.frameCount - firstFrame;
    words[at + attendWords.frames] = this.#base + this.#scratch.frames + firstFrame * frameStruct.sizeBytes;
    words[at + attendWords.queries] = this.#queries;
    words[at + attendWords.bounds] = this.#base + this.#scratch.bounds;
    words[at + attendWords.sinkCount] = this.#options.sinkCount;
    floats[at + attendWords.scale] = this.#options.scale === 0 ? 1 / Math.sqrt(shape.headDimK) : this.#options.scale;
    floats[at + attendWords.softCap] = this.#options.softCap;
    words[at + attendWords.partials] = this.#base + this.#scratch.partials + this.#nextJob * recordBytes;
    words[at + attendWords.isReadOnce] = this.#isReadOnce ? 1 : 0;
    words[at + jobWords.magic] = JOB_MAGIC;
    words[at + jobWords.unit] = this.#base;
    words[at + jobWords.pageCount] = this.#walker.pageCount - firstPage;
    words[at + jobWords.pages] = this.#base + this.#scratch.pages + firstPage * pageRecord.sizeBytes;
    words[at + jobWords.slot] = slot;
  }
}
