import { elementSizeBytes, elementTypes } from '../../spec/element-type.ts';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import {
  attendJob,
  boundsStruct,
  frameArenas,
  frameStruct,
  type Kernels,
  mergeJob,
  partialSizeBytes,
} from '../kernels/contract.ts';
import { type AttendOptions, outputSizeBytes } from './contract.ts';
import type { FrameSource } from './frame-source.ts';
import type { PageSums } from './page-sums.ts';
import { JOB_MAGIC, jobRecord, jobStates, pageFlags, pageRecord, unitRecord, wordsOf } from './job-layout.ts';
import { chunksIn, groupIndex, type TargetPlan } from './plan.ts';
import { type TokenSpan, visibleEnd, visibleSpans, visibleStart } from './visibility.ts';

const unitWords = wordsOf(unitRecord.offsetOf);
const jobWords = wordsOf(jobRecord.offsetOf);
const attendWords = wordsOf(attendJob.offsetOf);
const mergeWords = wordsOf(mergeJob.offsetOf);
const pageWords = wordsOf(pageRecord.offsetOf);
const frameWords = wordsOf(frameStruct.offsetOf);
const boundsWords = wordsOf(boundsStruct.offsetOf);

const align64 = (sizeBytes: number): number => Math.ceil(sizeBytes / 64) * 64;

export interface UnitModules {
  readonly arena: Arena;
  /** All of the arena. */
  readonly words: Uint32Array;
  readonly floats: Float32Array;
  readonly kernels: Pick<Kernels, 'convert'>;
  readonly frames: FrameSource;
  readonly pages: Pick<KvPages, 'markVerified' | 'eraseCount' | 'readFails'>;
  /** Where mapped pages are checked at every use; undefined: at first use. */
  readonly sums: PageSums | undefined;
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
  readonly #kvHead: number;
  readonly #firstToken: number;
  readonly #tokenCount: number;
  readonly #firstHead: number;
  readonly #headCount: number;
  readonly #rowCount: number;
  readonly #spans: readonly TokenSpan[];
  readonly #scratch: Scratch;
  readonly #queriesInPlace: boolean;
  #base = 0;
  #queries = 0;
  #nextJob = 0;
  // Where the next job starts.
  #span = 0;
  #token = 0;
  #frame = 0;
  #page = 0;

  constructor(plan: TargetPlan, index: number, options: AttendOptions, modules: UnitModules) {
    this.plan = plan;
    this.#options = options;
    this.#modules = modules;
    const { target, layout } = plan;
    this.#kvHead = plan.firstKvHead + Math.floor(index / plan.tileCount);
    this.#firstToken = (index % plan.tileCount) * plan.tileTokens;
    this.#tokenCount = Math.min(plan.tileTokens, target.queryTokenCount - this.#firstToken);
    this.#firstHead = Math.max(target.firstQueryHead, this.#kvHead * target.queryHeadsPerKvHead);
    const headEnd = Math.min(
      target.firstQueryHead + target.queryHeadCount,
      (this.#kvHead + 1) * target.queryHeadsPerKvHead,
    );
    this.#headCount = headEnd - this.#firstHead;
    this.#rowCount = this.#tokenCount * this.#headCount;
    this.#spans = visibleSpans(plan.rule, this.#firstToken, this.#tokenCount);
    this.#token = this.#spans[0]?.start ?? 0;
    this.jobCount = this.#countJobs(layout.chunkTokens);
    this.#queriesInPlace =
      options.queryType === 'f32' && (this.#tokenCount === 1 || this.#headCount === target.queryHeadCount);
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
    const firstFrame = this.#frame;
    const firstPage = this.#page;
    const handles: number[] = [];
    this.#writeFrames(handles);
    const offset = this.#base + this.#scratch.jobs + this.#nextJob * jobRecord.sizeBytes;
    this.#writeJob(offset >>> 2, firstFrame, firstPage, slot);
    this.#nextJob++;
    return { unit: this, offset, handles };
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
  }

  #countJobs(chunkTokens: number): number {
    const [first, second] = this.#spans;
    if (!first) return 0;
    if (!second) return chunksIn(first, chunkTokens);
    const shared = Math.floor((first.end - 1) / chunkTokens) === Math.floor(second.start / chunkTokens) ? 1 : 0;
    return chunksIn(first, chunkTokens) + chunksIn(second, chunkTokens) - shared;
  }

  #layOut(): Scratch {
    const { layout, view } = this.plan;
    let frameCount = 0;
    for (const span of this.#spans) {
      const flashEnd = Math.min(span.end, view.flashTokenCount);
      if (span.start < flashEnd) {
        frameCount += Math.ceil(flashEnd / layout.groupTokens) - Math.floor(span.start / layout.groupTokens);
      }
      const tailStart = Math.max(span.start, view.flashTokenCount);
      if (tailStart < span.end) frameCount += chunksIn({ start: tailStart, end: span.end }, layout.chunkTokens);
    }
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
    for (let token = this.#firstToken; token < this.#firstToken + this.#tokenCount; token++) {
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
    if (this.#queriesInPlace) return sourceOf(this.#firstToken);
    const offset = this.#base + this.#scratch.queries;
    const { headDimK } = layout.shape;
    const tokenBytes = this.#headCount * headDimK * 4;
    for (let i = 0; i < this.#tokenCount; i++) {
      const source = sourceOf(this.#firstToken + i);
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
    words[at + attendWords.frameCount] = this.#frame - firstFrame;
    words[at + attendWords.frames] = this.#base + this.#scratch.frames + firstFrame * frameStruct.sizeBytes;
    words[at + attendWords.queries] = this.#queries;
    words[at + attendWords.bounds] = this.#base + this.#scratch.bounds;
    words[at + attendWords.sinkCount] = this.#options.sinkCount;
    floats[at + attendWords.scale] = this.#options.scale === 0 ? 1 / Math.sqrt(shape.headDimK) : this.#options.scale;
    floats[at + attendWords.softCap] = this.#options.softCap;
    words[at + attendWords.partials] = this.#base + this.#scratch.partials + this.#nextJob * recordBytes;
    words[at + jobWords.magic] = JOB_MAGIC;
    words[at + jobWords.unit] = this.#base;
    words[at + jobWords.pageCount] = this.#page - firstPage;
    words[at + jobWords.pages] = this.#base + this.#scratch.pages + firstPage * pageRecord.sizeBytes;
    words[at + jobWords.slot] = slot;
  }

  /** Writes the frames of the next chunk. */
  #writeFrames(handles: number[]): void {
    const { view, layout } = this.plan;
    const { groupTokens, chunkTokens } = layout;
    let chunkEnd = 0;
    for (;;) {
      const span = this.#spans[this.#span];
      if (!span) return;
      if (this.#token >= span.end) {
        this.#span++;
        this.#token = this.#spans[this.#span]?.start ?? 0;
        continue;
      }
      if (chunkEnd === 0) chunkEnd = (Math.floor(this.#token / chunkTokens) + 1) * chunkTokens;
      if (this.#token >= chunkEnd) return;
      const start = this.#token;
      if (start < view.flashTokenCount) {
        const group = Math.floor(start / groupTokens);
        const end = Math.min((group + 1) * groupTokens, span.end);
        this.#writePageFrame(group, start, end, handles);
        this.#token = end;
      } else {
        const end = Math.min(span.end, chunkEnd);
        this.#writeTailFrame(start, end);
        this.#token = end;
      }
    }
  }

  #writePageFrame(group: number, start: number, end: number, handles: number[]): void {
    const { plan } = this;
    const { frames } = this.#modules;
    const index = ((this.#kvHead - plan.firstKvHead) * plan.groupCount + groupIndex(plan.groupRuns, group)) * 2;
    const handleK = frames.acquire(plan.pages[index]! as Ppn);
    const handleV = frames.acquire(plan.pages[index + 1]! as Ppn);
    handles.push(handleK, handleV);
    this.#writePage(index, handleK);
    this.#writePage(index + 1, handleV);
    const skipped = start - group * plan.layout.groupTokens;
    this.#writeFrame(
      frames.offset(handleK) + skipped * plan.layout.rowBytesK,
      frames.offset(handleV) + skipped * plan.layout.rowBytesV,
      start,
      end - start,
      frames.arenaCode,
    );
  }

  #writeTailFrame(start: number, end: number): void {
    const { view, layout } = this.plan;
    const skipped = start - view.flashTokenCount;
    this.#writeFrame(
      view.tail(this.#kvHead, 0) + skipped * layout.rowBytesK,
      view.tail(this.#kvHead, 1) + skipped * layout.rowBytesV,
      start,
      end - start,
      frameArenas.memory,
    );
  }

  #writeFrame(offsetK: number, offsetV: number, firstToken: number, tokenCount: number, arenaCode: number): void {
    const { words } = this.#modules;
    const at = (this.#base + this.#scratch.frames + this.#frame * frameStruct.sizeBytes) >>> 2;
    words[at + frameWords.kOffset] = offsetK;
    words[at + frameWords.kOffset + 1] = offsetK / 0x1_0000_0000;
    words[at + frameWords.vOffset] = offsetV;
    words[at + frameWords.vOffset + 1] = offsetV / 0x1_0000_0000;
    words[at + frameWords.firstToken] = firstToken;
    words[at + frameWords.tokenCount] = tokenCount;
    words[at + frameWords.kArena] = arenaCode;
    words[at + frameWords.vArena] = arenaCode;
    this.#frame++;
  }

  /** A page record, if the job must load or check the page. */
  #writePage(index: number, handle: number): void {
    const { words, frames, pages, sums } = this.#modules;
    const page = this.plan.pages[index]! as Ppn;
    const eraseCount = pages.eraseCount(page);
    // Bytes that come from the file anew may have changed there since they were checked.
    const isLoaded = frames.isLoaded(handle);
    const isChecked = isLoaded && frames.isChecked(handle);
    const isSilent = pages.readFails(page);
    if (isChecked && !sums && !isSilent) return;
    const isKnown = isChecked && sums?.isKnown(page, eraseCount) === true;
    const flags =
      (isLoaded ? 0 : pageFlags.load) |
      pageFlags.check |
      (isKnown ? pageFlags.sumKnown : 0) |
      (isSilent ? pageFlags.fail : 0);
    const at = (this.#base + this.#scratch.pages + this.#page * pageRecord.sizeBytes) >>> 2;
    words[at + pageWords.page] = page;
    words[at + pageWords.logicalPage] = this.plan.logicalPages[index]!;
    words[at + pageWords.eraseCount] = eraseCount;
    words[at + pageWords.sum] = isKnown ? sums.get(page) : 0;
    words[at + pageWords.frame] = frames.arenaCode === frameArenas.memory ? frames.offset(handle) : 0;
    words[at + pageWords.flags] = flags;
    this.#page++;
  }
}
