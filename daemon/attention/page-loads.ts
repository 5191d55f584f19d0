import { assert } from '../base/assert.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import type { DirectMedia } from '../nand/media.ts';

/** Of one request, at most. */
const LOAD_BYTES_MAX = 1024 * 1024;

const states = { empty: 0, loading: 1, loaded: 2, checked: 3, failed: 4 } as const;

/** Pages on their way from the disk, side by side there and here. */
interface Load {
  readonly firstPage: number;
  readonly firstFrame: number;
  pageCount: number;
  readonly waiters: (() => void)[];
}

export interface PageLoadModules {
  readonly media: DirectMedia;
  readonly pages: Pick<KvPages, 'eraseCount' | 'pageSizeBytes'>;
  /** A load of these frames has ended. */
  readonly ended: (firstFrame: number, frameCount: number) => void;
}

/** What the frames of the cache hold, and what is on its way to them. */
export class PageLoads {
  readonly #modules: PageLoadModules;
  readonly #page: Uint32Array;
  readonly #eraseCount: Uint32Array;
  readonly #state: Uint8Array;
  /** Read ahead, and not wanted yet. */
  readonly #isAhead: Uint8Array;
  readonly #loads: (Load | undefined)[];
  aheadCount = 0;
  residentCount = 0;
  evictedCount = 0;
  requestCount = 0;

  constructor(frameCount: number, modules: PageLoadModules) {
    this.#modules = modules;
    this.#page = new Uint32Array(frameCount);
    this.#eraseCount = new Uint32Array(frameCount);
    this.#state = new Uint8Array(frameCount);
    this.#isAhead = new Uint8Array(frameCount);
    this.#loads = Array.from({ length: frameCount }, () => undefined);
  }

  /** Whether the frame holds the page as it is since its last erase, or is being filled with it. */
  isThere(frame: number, page: number): boolean {
    const state = this.#state[frame];
    return (
      state !== states.empty &&
      state !== states.failed &&
      this.#page[frame] === page &&
      this.#eraseCount[frame] === this.#modules.pages.eraseCount(page as Ppn)
    );
  }

  /** Whether the frame cannot be filled with anything now. */
  isLoading(frame: number): boolean {
    return this.#state[frame] === states.loading;
  }

  isChecked(frame: number): boolean {
    return this.#state[frame] === states.checked;
  }

  hasFailed(frame: number): boolean {
    return this.#state[frame] === states.failed;
  }

  pageOf(frame: number): Ppn {
    return this.#page[frame]! as Ppn;
  }

  /** The page was seen right. */
  markChecked(frame: number): void {
    if (this.#state[frame] === states.loaded) this.#state[frame] = states.checked;
  }

  /** Nobody knows whether the page is right: it is read again for the next who wants it. */
  distrust(frame: number): void {
    if (this.#state[frame] === states.loaded) this.empty(frame);
  }

  markAhead(frame: number): void {
    this.aheadCount += 1 - this.#isAhead[frame]!;
    this.#isAhead[frame] = 1;
  }

  /** Returns how many: 0 or 1. */
  clearAhead(frame: number): number {
    const wasAhead = this.#isAhead[frame]!;
    this.#isAhead[frame] = 0;
    this.aheadCount -= wasAhead;
    return wasAhead;
  }

  /** Makes room. */
  evict(frame: number): void {
    if (this.#state[frame] !== states.empty) this.evictedCount++;
    this.empty(frame);
  }

  empty(frame: number): void {
    assert(this.#state[frame] !== states.loading, () => `frame ${frame} is not being filled`);
    if (this.#state[frame] !== states.empty) this.residentCount--;
    this.#state[frame] = states.empty;
    this.clearAhead(frame);
  }

  /** Loads pages, ascending, to frames: by one request what lies side by side there and here. */
  begin(pages: readonly number[], frames: readonly number[]): void {
    const { pageSizeBytes } = this.#modules.pages;
    let load: Load | undefined;
    for (const [i, page] of pages.entries()) {
      const frame = frames[i]!;
      this.empty(frame);
      this.residentCount++;
      this.#page[frame] = page;
      this.#eraseCount[frame] = this.#modules.pages.eraseCount(page as Ppn);
      this.#state[frame] = states.loading;
      const isNext =
        load !== undefined &&
        page === load.firstPage + load.pageCount &&
        frame === load.firstFrame + load.pageCount &&
        (load.pageCount + 1) * pageSizeBytes <= LOAD_BYTES_MAX;
      if (isNext) load!.pageCount++;
      else {
        if (load) this.#submit(load);
        load = { firstPage: page, firstFrame: frame, pageCount: 1, waiters: [] };
      }
    }
    if (load) this.#submit(load);
  }

  /** Whether all of these are loaded; else `loaded` is called once they are, or have failed. */
  whenLoaded(frames: readonly number[], loaded: () => void): boolean {
    let left = 0;
    let last: Load | undefined;
    const ended = (): void => {
      if (--left === 0) loaded();
    };
    for (const frame of frames) {
      const load = this.#loads[frame];
      // Neighbours come by one load.
      if (load === undefined || load === last) continue;
      last = load;
      left++;
      load.waiters.push(ended);
    }
    return left === 0;
  }

  #offset(frame: number): number {
    return this.#modules.media.cacheOffset + frame * this.#modules.pages.pageSizeBytes;
  }

  #submit(load: Load): void {
    const { firstPage, firstFrame, pageCount } = load;
    for (let frame = firstFrame; frame < firstFrame + pageCount; frame++) this.#loads[frame] = load;
    this.requestCount++;
    this.#modules.media.load(firstPage, pageCount, this.#offset(firstFrame), (error) => {
      if (error !== undefined && pageCount > 1) this.#loadOneByOne(load);
      else this.#ended(load, error);
    });
  }

  /** Something of it could not be read: finds out what. */
  #loadOneByOne(load: Load): void {
    let left = load.pageCount;
    for (let i = 0; i < load.pageCount; i++) {
      const frame = load.firstFrame + i;
      this.#modules.media.load(load.firstPage + i, 1, this.#offset(frame), (error) => {
        if (error !== undefined) this.#state[frame] = states.failed;
        if (--left === 0) this.#ended(load, undefined);
      });
    }
  }

  #ended({ firstFrame, pageCount, waiters }: Load, error: Error | undefined): void {
    for (let frame = firstFrame; frame < firstFrame + pageCount; frame++) {
      this.#loads[frame] = undefined;
      if (this.#state[frame] === states.loading) this.#state[frame] = error ? states.failed : states.loaded;
    }
    for (const waiter of waiters) waiter();
    this.#modules.ended(firstFrame, pageCount);
  }
}
