import { assert } from '../base/assert.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import { frameArenas } from '../kernels/contract.ts';
import type { DirectMedia } from '../nand/media.ts';
import type { FrameSource, FrameSourceSnapshot } from './frame-source.ts';
import { KeptSet } from './kept-set.ts';
import { LineIndex } from './line-index.ts';
import { PageLoads } from './page-loads.ts';
import { ReuseHistory } from './reuse-history.ts';

/** Neighbouring pages of the file that are kept and given up together. */
export const LINE_BYTES = 256 * 1024;
/** Lines of so many bytes of the file stay or go together, so that requests can be larger than a line. */
const RANK_BYTES = 2 * 1024 * 1024;
/** Lines that only pass through: as many as are being read (16 MiB) and being worked on. */
const PASSING_LINES = 96;
/** The cache has more lines than one job can have pages. */
export const CACHE_BYTES_MIN = 64 * 2 ** 20;
/** Lines that reading ahead leaves to those who want them now. */
const AHEAD_LINES_LEFT = 16;
const NOTHING = -1;

/** Frames of one line, side by side. */
interface Segment {
  readonly number: number;
  readonly firstFrame: number;
  line: number;
  /** Frames that jobs hold, and that are being filled. */
  users: number;
}

type Pages = Iterable<number> & { readonly length: number };

export interface PageCacheModules {
  readonly media: DirectMedia;
  readonly pages: Pick<KvPages, 'eraseCount' | 'pageSizeBytes'>;
  /** Physical pages of the drive. */
  readonly pageCount: number;
  /** After `bring` was refused: it may not be any more. */
  readonly roomMade: () => void;
}

/**
 * The drive's cache of pages, for direct I/O: frames in a slab that kernels walk in place. `bring` sees to it that pages are
 * there or on their way, `whenLoaded` tells when they have come; nobody waits for the disk.
 *
 * It holds lines: neighbouring pages of the file, of which any may be there. So pages that lie side by side are read by one
 * request, and stay or go together. Most lines are kept: they stay until one comes that deserves it more (`ReuseHistory`).
 * The others are passed through, first in, first out.
 */
export class PageCache implements FrameSource {
  readonly arenaCode = frameArenas.media;
  readonly isInPlace = false;
  /** `bring` has seen to it. */
  readonly available = Number.POSITIVE_INFINITY;
  readonly frameCount: number;
  readonly pageSizeBytes: number;
  readonly #pagesPerLine: number;
  readonly #segments: readonly Segment[];
  readonly #free: Segment[];
  /** Not kept, oldest first. */
  readonly #passing: Segment[] = [];
  readonly #kept: KeptSet;
  /** Lines that pages pass through: what jobs are prepared at a time should not need more than a part of them. */
  readonly passingLineCount: number;
  readonly #index: LineIndex;
  readonly #history: ReuseHistory;
  readonly #loads: PageLoads;
  readonly #cacheOffset: number;
  readonly #roomMade: () => void;
  #isRefused = false;
  #refusedLines = 0;
  #missing = new Uint32Array(256);
  #found = new Uint32Array(256);
  #foundCount = 0;
  /** Of all segments. */
  #userCount = 0;
  #hits = 0;
  #misses = 0;

  constructor(modules: PageCacheModules) {
    const { media, pages, pageCount } = modules;
    this.pageSizeBytes = pages.pageSizeBytes;
    this.#pagesPerLine = LINE_BYTES / this.pageSizeBytes;
    this.#cacheOffset = media.cacheOffset;
    const segmentCount = Math.floor(media.cacheSizeBytes / LINE_BYTES);
    assert(segmentCount >= CACHE_BYTES_MIN / LINE_BYTES, `${segmentCount} lines`);
    this.frameCount = segmentCount * this.#pagesPerLine;
    this.#segments = Array.from({ length: segmentCount }, (_, number) => {
      return { number, firstFrame: number * this.#pagesPerLine, line: NOTHING, users: 0 };
    });
    this.#free = this.#segments.toReversed();
    this.passingLineCount = Math.min(PASSING_LINES, segmentCount / 2);
    this.#index = new LineIndex(segmentCount);
    const lineCount = Math.ceil(pageCount / this.#pagesPerLine);
    const linesPerRank = RANK_BYTES / LINE_BYTES;
    this.#history = new ReuseHistory({ lineCount, linesPerRank, correlatedUses: Math.floor(this.frameCount / 8) });
    this.#kept = new KeptSet(
      { placeCount: segmentCount, sizeMax: segmentCount - this.passingLineCount },
      {
        history: this.#history,
        places: {
          lineOf: (number) => this.#segments[number]!.line,
          isInUse: (number) => this.#segments[number]!.users > 0,
        },
      },
    );
    this.#loads = new PageLoads(this.frameCount, {
      media,
      pages,
      ended: (first, count) => this.#loadEnded(first, count),
    });
    this.#roomMade = modules.roomMade;
  }

  /** Lines that pages of a list lie in, from `from` on; one to which they come back counts twice. */
  countLines(pages: readonly number[], from: number): number {
    let count = 0;
    let even = NOTHING;
    let odd = NOTHING;
    for (let i = from; i < pages.length; i++) {
      // K and V by turns, each in lines of its own.
      const line = this.#lineOf(pages[i]!);
      if (line !== even && line !== odd) count++;
      if (i % 2 === 0) even = line;
      else odd = line;
    }
    return count;
  }

  get isLoading(): boolean {
    return this.#userCount > 0;
  }

  /**
   * Has pages loaded that are not there, all in one go; false, and nothing is done, if there is no room for them now, or if
   * they may not be loaded. Until the caller yields the event loop, and then while `acquire`d, they stay. `all`: ascending,
   * them and others that are wanted soon: those of the same lines are read along.
   */
  bring(pages: Pages, all: () => Uint32Array, mayLoad = true): boolean {
    const missing = this.#findAll(pages);
    if (missing.length > 0 && !(mayLoad && this.#loadAll(missing, all(), 'mayHaveKept'))) {
      this.#isRefused = true;
      return false;
    }
    for (const page of missing) this.#loads.clearAhead(this.#frameOf(page));
    // What was read ahead, or along, is a miss when somebody comes to want it.
    let aheadCount = 0;
    for (let i = 0; i < this.#foundCount && this.#loads.aheadCount > 0; i++) {
      aheadCount += this.#loads.clearAhead(this.#found[i]!);
    }
    this.#hits += this.#foundCount - aheadCount;
    this.#misses += missing.length + aheadCount;
    for (const page of pages) this.#history.use(this.#lineOf(page));
    return true;
  }

  /** Whether a `bring` that was refused may be granted now. */
  get hasRoomAgain(): boolean {
    return this.#userCount === 0 || this.#idlePassingCount() >= this.#refusedLines;
  }

  /**
   * Has pages, ascending, loaded that are likely to be brought next, as far as that takes no room from anybody. Returns how
   * many of them there is nothing left to do for, from the first on.
   */
  readAhead(pages: Uint32Array): number {
    const aheadMax = (this.passingLineCount * this.#pagesPerLine) / 2;
    const lineCountMax = this.#idlePassingCount() - AHEAD_LINES_LEFT;
    const pageCountMax = Math.min(aheadMax - this.#loads.aheadCount, lineCountMax * this.#pagesPerLine);
    if (pageCountMax <= 0) return 0;
    const part = pages.subarray(0, pageCountMax);
    const missing = this.#findAll(part);
    if (missing.length > 0 && !this.#loadAll(missing, part, 'onlyPassing')) return 0;
    return part.length;
  }

  acquire(page: Ppn): number {
    const frame = this.#lookUp(page);
    assert(frame !== NOTHING, () => `page ${page} was brought`);
    this.#enter(this.#segmentOf(frame));
    return frame;
  }

  /** Whether all of these are loaded; else `loaded` is called once they are, or have failed. */
  whenLoaded(handles: readonly number[], loaded: () => void): boolean {
    return this.#loads.whenLoaded(handles, loaded);
  }

  offset(handle: number): number {
    return this.#cacheOffset + handle * this.pageSizeBytes;
  }

  /** Workers load nothing: a job is handed out when its pages are there. */
  isLoaded(): boolean {
    return true;
  }

  isChecked(handle: number): boolean {
    return this.#loads.isChecked(handle);
  }

  /** The page that the disk could not read to this frame, if so. */
  failedPage(handle: number): Ppn | undefined {
    return this.#loads.hasFailed(handle) ? this.#loads.pageOf(handle) : undefined;
  }

  release(handle: number, loaded: boolean): void {
    if (loaded) this.#loads.markChecked(handle);
    // Whatever is wrong with it, the next one wants to see it anew.
    else this.#loads.distrust(handle);
    this.#leave(this.#segmentOf(handle));
  }

  isReady(page: Ppn): boolean {
    const frame = this.#lookUp(page);
    return frame !== NOTHING && this.#loads.isChecked(frame);
  }

  snapshot(): FrameSourceSnapshot {
    const inUse = this.#segments.filter(({ users }) => users > 0);
    return {
      kind: 'direct',
      frameCount: this.frameCount,
      frameSizeBytes: this.pageSizeBytes,
      framesResident: this.#loads.residentCount,
      framesInUse: inUse.length * this.#pagesPerLine,
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#loads.evictedCount,
      loads: this.#loads.requestCount,
    };
  }

  // --- What is there

  #lineOf(page: number): number {
    return Math.floor(page / this.#pagesPerLine);
  }

  #segmentOf(frame: number): Segment {
    return this.#segments[Math.floor(frame / this.#pagesPerLine)]!;
  }

  /** Frame of a page whose line is there. */
  #frameOf(page: number): number {
    const number = this.#index.get(this.#lineOf(page));
    assert(number !== NOTHING, () => `the line of page ${page} is there`);
    return this.#segments[number]!.firstFrame + (page % this.#pagesPerLine);
  }

  /** Frame that holds the page or is being filled with it. */
  #lookUp(page: number): number {
    const number = this.#index.get(this.#lineOf(page));
    if (number === NOTHING) return NOTHING;
    const frame = this.#segments[number]!.firstFrame + (page % this.#pagesPerLine);
    return this.#loads.isThere(frame, page) ? frame : NOTHING;
  }

  /** Sorts out what is there (frames, in `#found`) and what is not; returns the latter, ascending. */
  #findAll(pages: Pages): Uint32Array {
    if (this.#missing.length < pages.length) {
      this.#missing = new Uint32Array(pages.length * 2);
      this.#found = new Uint32Array(pages.length * 2);
    }
    let missingCount = 0;
    this.#foundCount = 0;
    for (const page of pages) {
      const frame = this.#lookUp(page);
      if (frame === NOTHING) this.#missing[missingCount++] = page;
      else this.#found[this.#foundCount++] = frame;
    }
    return this.#missing.subarray(0, missingCount).sort();
  }

  // --- Room

  #enter(segment: Segment): void {
    segment.users++;
    this.#userCount++;
  }

  #leave(segment: Segment): void {
    assert(segment.users > 0, 'the segment is in use');
    segment.users--;
    this.#userCount--;
  }

  #loadEnded(firstFrame: number, frameCount: number): void {
    for (let frame = firstFrame; frame < firstFrame + frameCount; frame++) this.#leave(this.#segmentOf(frame));
    if (!this.#isRefused || !this.hasRoomAgain) return;
    this.#isRefused = false;
    this.#roomMade();
  }

  /** Makes room for the lines of pages, and loads what is wanted of these lines; all ascending. False if there is none. */
  #loadAll(missing: Uint32Array, wanted: Uint32Array, room: 'onlyPassing' | 'mayHaveKept'): boolean {
    const isAlone = this.#userCount === 0;
    // What is there already must not make room for what is not.
    for (let i = 0; i < this.#foundCount; i++) this.#enter(this.#segmentOf(this.#found[i]!));
    const lines = this.#linesOf(missing);
    const held: Segment[] = [];
    let newCount = 0;
    for (const line of lines) {
      const number = this.#index.get(line);
      if (number === NOTHING) newCount++;
      else held.push(this.#segments[number]!);
    }
    for (const segment of held) this.#enter(segment);
    const hasRoom = this.#idlePassingCount() >= newCount || (isAlone && room === 'mayHaveKept');
    if (room === 'mayHaveKept') this.#refusedLines = newCount;
    // A frame may still be filled with what was there before an erase.
    const isFree = hasRoom && missing.every((page) => !this.#isStillLoading(page));
    if (isFree) {
      for (const line of lines) {
        if (this.#index.get(line) !== NOTHING) continue;
        const segment = this.#place(line);
        this.#enter(segment);
        held.push(segment);
      }
      this.#begin(lines, wanted);
    }
    for (const segment of held) this.#leave(segment);
    for (let i = 0; i < this.#foundCount; i++) this.#leave(this.#segmentOf(this.#found[i]!));
    return isFree;
  }

  #isStillLoading(page: number): boolean {
    return this.#index.get(this.#lineOf(page)) !== NOTHING && this.#loads.isLoading(this.#frameOf(page));
  }

  #begin(lines: readonly number[], wanted: Uint32Array): void {
    const pages: number[] = [];
    const frames: number[] = [];
    for (const line of lines) {
      const end = (line + 1) * this.#pagesPerLine;
      for (let i = firstAtLeast(wanted, line * this.#pagesPerLine); i < wanted.length && wanted[i]! < end; i++) {
        const page = wanted[i]!;
        const frame = this.#frameOf(page);
        if (page === wanted[i - 1] || this.#loads.isThere(frame, page) || this.#loads.isLoading(frame)) continue;
        pages.push(page);
        frames.push(frame);
        this.#enter(this.#segmentOf(frame));
      }
    }
    this.#loads.begin(pages, frames);
    for (const frame of frames) this.#loads.markAhead(frame);
  }

  #linesOf(pages: Uint32Array): number[] {
    const lines: number[] = [];
    for (const page of pages) {
      const line = this.#lineOf(page);
      if (line !== lines.at(-1)) lines.push(line);
    }
    return lines;
  }

  #idlePassingCount(): number {
    let count = this.#free.length;
    for (const { users } of this.#passing) if (users === 0) count++;
    return count;
  }

  /** Gives the line a segment: kept, if it deserves that, or passing. */
  #place(line: number): Segment {
    const isRoom = !this.#kept.isFull;
    const gaveWay = isRoom ? undefined : this.#kept.giveWayTo(line);
    const segment = gaveWay === undefined ? (this.#free.pop() ?? this.#oldest()) : this.#segments[gaveWay]!;
    if (segment.line !== NOTHING) this.#evict(segment);
    segment.line = line;
    this.#index.set(line, segment.number);
    if (isRoom || gaveWay !== undefined) this.#kept.add(segment.number);
    else this.#passing.push(segment);
    return segment;
  }

  /** That passes through and that nobody uses; if there is none, one that was kept. */
  #oldest(): Segment {
    const at = this.#passing.findIndex(({ users }) => users === 0);
    if (at !== NOTHING) return this.#passing.splice(at, 1)[0]!;
    const number = this.#kept.anyIdle();
    assert(number !== undefined, 'no more lines are brought than there is room for');
    this.#kept.remove(number);
    return this.#segments[number]!;
  }

  #evict(segment: Segment): void {
    this.#index.delete(segment.line);
    const end = segment.firstFrame + this.#pagesPerLine;
    for (let frame = segment.firstFrame; frame < end; frame++) this.#loads.evict(frame);
  }
}

/** Index of the first that is at least so large. */
function firstAtLeast(ascending: Uint32Array, value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
