import type { KvPages, Ppn } from '../ftl/contract.ts';
import { frameArenas, frameStruct } from '../kernels/contract.ts';
import type { FrameSource } from './frame-source.ts';
import { pageFlags, pageRecord, wordsOf } from './job-layout.ts';
import type { PageSums } from './page-sums.ts';
import { groupIndex, type TargetPlan, type Tile } from './plan.ts';

const pageWords = wordsOf(pageRecord.offsetOf);
const frameWords = wordsOf(frameStruct.offsetOf);

const noHandles: readonly number[] = [];

export interface WalkerModules {
  /** All of the arena. */
  readonly words: Uint32Array;
  readonly frames: FrameSource;
  readonly pages: Pick<KvPages, 'pageSizeBytes' | 'areReadable' | 'eraseCount' | 'readFails'>;
  /** Sums of pages that were seen right, so that the next check needs no entry; undefined: each is checked once. */
  readonly sums: PageSums | undefined;
  /** Whether pages that lie in place are checked at every use. */
  readonly checksAlways: boolean;
}

/** Where a walker writes: offsets in the arena, with room for all frames of the tile and two page records for each. */
export interface WalkerPlaces {
  readonly frames: number;
  readonly pages: number;
}

/**
 * Goes through the tokens that one tile of query tokens sees of one KV head, chunk after chunk, and writes what the kernel
 * needs to find their rows: frames; and records of the pages that a job must bring or check first.
 */
export class ChunkWalker {
  /** Written so far. */
  frameCount = 0;
  pageCount = 0;
  readonly #plan: TargetPlan;
  readonly #tile: Tile;
  readonly #kvHead: number;
  readonly #modules: WalkerModules;
  /** Whether rows go on from a page to the one behind it without a gap. */
  readonly #rowsFillPages: boolean;
  #places: WalkerPlaces = { frames: 0, pages: 0 };
  #handles: number[] | undefined;
  // Where the next chunk starts.
  #span = 0;
  #token: number;

  constructor(plan: TargetPlan, tile: Tile, kvHead: number, modules: WalkerModules) {
    this.#plan = plan;
    this.#tile = tile;
    this.#kvHead = kvHead;
    this.#modules = modules;
    const { groupTokens, rowBytesK, rowBytesV } = plan.layout;
    const { pageSizeBytes } = modules.pages;
    this.#rowsFillPages = groupTokens * rowBytesK === pageSizeBytes && groupTokens * rowBytesV === pageSizeBytes;
    this.#token = tile.spans[0]?.start ?? 0;
  }

  writeTo(places: WalkerPlaces): void {
    this.#places = places;
  }

  /** Writes the next chunk; returns the frames that it took of the source. There is one more for each job of the tile. */
  next(): readonly number[] {
    const { flashTokenCount } = this.#plan.view;
    this.#handles = undefined;
    const after = this.#eachRun((start, end) => {
      const flashEnd = Math.min(end, flashTokenCount);
      if (start < flashEnd) this.#walkFlash(start, flashEnd);
      if (end > flashEnd) this.#walkTail(Math.max(start, flashTokenCount), end);
    });
    this.#span = after.span;
    this.#token = after.token;
    return this.#handles ?? noHandles;
  }

  /** Adds the physical pages of the next chunk to a list. */
  peekPages(list: number[]): void {
    const { pages, view, layout } = this.#plan;
    const { groupTokens } = layout;
    this.#eachRun((start, end) => {
      const flashEnd = Math.min(end, view.flashTokenCount);
      if (start >= flashEnd) return;
      const first = Math.floor(start / groupTokens);
      const index = this.#indexOf(first);
      const indexEnd = index + 2 * (Math.ceil(flashEnd / groupTokens) - first);
      for (let i = index; i < indexEnd; i++) list.push(pages[i]!);
    });
  }

  /** Calls back with the runs of tokens of the next chunk; returns where the one after it starts. */
  #eachRun(visit: (start: number, end: number) => void): { readonly span: number; readonly token: number } {
    const { chunkTokens } = this.#plan.layout;
    const { spans } = this.#tile;
    let span = this.#span;
    let token = this.#token;
    let chunkEnd = 0;
    for (;;) {
      const at = spans[span];
      if (!at) break;
      if (token >= at.end) {
        span++;
        token = spans[span]?.start ?? 0;
        continue;
      }
      if (chunkEnd === 0) chunkEnd = (Math.floor(token / chunkTokens) + 1) * chunkTokens;
      if (token >= chunkEnd) break;
      const end = Math.min(at.end, chunkEnd);
      visit(token, end);
      token = end;
    }
    return { span, token };
  }

  /** Of a group's K page in the list of pages; V's is the next. */
  #indexOf(group: number): number {
    const plan = this.#plan;
    return ((this.#kvHead - plan.firstKvHead) * plan.groupCount + groupIndex(plan.groupRuns, group)) * 2;
  }

  #walkFlash(start: number, end: number): void {
    const plan = this.#plan;
    const { groupTokens } = plan.layout;
    const { frames, pages, checksAlways } = this.#modules;
    const first = Math.floor(start / groupTokens);
    const groupCount = Math.ceil(end / groupTokens) - first;
    // Groups that follow one another do so in the list, whatever runs they belong to.
    const index = this.#indexOf(first);
    if (frames.isInPlace && !checksAlways && pages.areReadable(plan.pages, index, index + 2 * groupCount)) {
      this.#writeRuns(index, groupCount, start, end);
      return;
    }
    for (let group = first; group < first + groupCount; group++) {
      const from = Math.max(start, group * groupTokens);
      this.#writeGroup(index + 2 * (group - first), from, Math.min(end, (group + 1) * groupTokens));
    }
  }

  /** A frame for each run of groups whose pages, and with them their rows, lie side by side. */
  #writeRuns(index: number, groupCount: number, start: number, end: number): void {
    const { pages, layout } = this.#plan;
    const { groupTokens } = layout;
    const isPacked = this.#rowsFillPages;
    const listEnd = index + 2 * groupCount;
    let token = start;
    for (let at = index; at < listEnd; ) {
      const pageK = pages[at]!;
      const pageV = pages[at + 1]!;
      let count = 1;
      at += 2;
      if (isPacked) {
        for (; at < listEnd && pages[at] === pageK + count && pages[at + 1] === pageV + count; at += 2) count++;
      }
      const skipped = token % groupTokens;
      const tokenCount = Math.min(end - token, count * groupTokens - skipped);
      this.#writePagesFrame(pageK, pageV, skipped, token, tokenCount);
      token += tokenCount;
    }
  }

  #writeGroup(index: number, start: number, end: number): void {
    const plan = this.#plan;
    const { frames } = this.#modules;
    const handleK = frames.acquire(plan.pages[index]! as Ppn);
    const handleV = frames.acquire(plan.pages[index + 1]! as Ppn);
    if (!frames.isInPlace) {
      this.#handles ??= [];
      this.#handles.push(handleK, handleV);
    }
    this.#writePage(index, handleK);
    this.#writePage(index + 1, handleV);
    this.#writePagesFrame(handleK, handleV, start % plan.layout.groupTokens, start, end - start);
  }

  #writePagesFrame(handleK: number, handleV: number, skipped: number, firstToken: number, tokenCount: number): void {
    const { frames } = this.#modules;
    const { rowBytesK, rowBytesV } = this.#plan.layout;
    this.#writeFrame(
      frames.offset(handleK) + skipped * rowBytesK,
      frames.offset(handleV) + skipped * rowBytesV,
      firstToken,
      tokenCount,
      frames.arenaCode,
    );
  }

  #walkTail(start: number, end: number): void {
    const { view, layout } = this.#plan;
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
    const at = (this.#places.frames + this.frameCount * frameStruct.sizeBytes) >>> 2;
    words[at + frameWords.kOffset] = offsetK;
    words[at + frameWords.kOffset + 1] = offsetK / 0x1_0000_0000;
    words[at + frameWords.vOffset] = offsetV;
    words[at + frameWords.vOffset + 1] = offsetV / 0x1_0000_0000;
    words[at + frameWords.firstToken] = firstToken;
    words[at + frameWords.tokenCount] = tokenCount;
    words[at + frameWords.kArena] = arenaCode;
    words[at + frameWords.vArena] = arenaCode;
    this.frameCount++;
  }

  /** A page record, if the job must load or check the page. */
  #writePage(index: number, handle: number): void {
    const { words, frames, pages, sums, checksAlways } = this.#modules;
    const { pages: physical, logicalPages } = this.#plan;
    const page = physical[index]! as Ppn;
    const eraseCount = pages.eraseCount(page);
    // Bytes that come from the file anew may have changed there since they were checked.
    const isLoaded = frames.isLoaded(handle);
    const isChecked = isLoaded && frames.isChecked(handle);
    const isSilent = pages.readFails(page);
    if (isChecked && !checksAlways && !isSilent) return;
    // The sum of what the file holds is that of what is loaded from it.
    const isKnown = (isChecked || !frames.isInPlace) && sums?.isKnown(page, eraseCount) === true;
    const flags =
      (isLoaded ? 0 : pageFlags.load) |
      pageFlags.check |
      (isKnown ? pageFlags.sumKnown : 0) |
      (isSilent ? pageFlags.fail : 0);
    const at = (this.#places.pages + this.pageCount * pageRecord.sizeBytes) >>> 2;
    words[at + pageWords.page] = page;
    words[at + pageWords.logicalPage] = logicalPages[index]!;
    words[at + pageWords.eraseCount] = eraseCount;
    words[at + pageWords.sum] = isKnown ? sums.get(page) : 0;
    const offset = frames.offset(handle);
    const isInMemory = frames.arenaCode === frameArenas.memory;
    words[at + pageWords.frame] = isInMemory ? offset : 0;
    words[at + pageWords.mediaOffset] = isInMemory ? 0 : offset;
    words[at + pageWords.mediaOffset + 1] = isInMemory ? 0 : offset / 0x1_0000_0000;
    words[at + pageWords.flags] = flags;
    this.pageCount++;
  }
}
