import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import { frameArenas } from '../kernels/contract.ts';
import type { FrameSource, FrameSourceSnapshot } from './frame-source.ts';
import { KeptSet } from './kept-set.ts';
import { JOB_PAGES_MAX } from './plan.ts';
import { ReuseHistory } from './reuse-history.ts';

/** Frames that pages pass through, at least: the jobs of some workers. */
const PASSING_FRAMES_MIN = 4 * JOB_PAGES_MAX;
const PASSING_SHARE = 1 / 16;
/** Pages whose use is remembered together. */
const PAGES_PER_LINE = 16;
const NOBODY = -1;
const NO_FRAME = -1;
const states = { empty: 0, loading: 1, loaded: 2 } as const;

/**
 * Frames in the arena for kernels that cannot map the media file. Frames in use by a job stay. Of the idle ones most are kept
 * until a page comes that deserves it more (`KeptSet`), so that a long scan flushes nothing and a cycle larger than the
 * cache has its share of hits; the others are given up least recently used first.
 *
 * A page that one job is loading is loaded by a second job into a frame of its own, which is not kept: the second one
 * neither waits nor sees a half-filled frame.
 */
export class FrameCache implements FrameSource {
  readonly arenaCode = frameArenas.memory;
  readonly isInPlace = false;
  readonly frameCount: number;
  readonly #arena: Arena;
  readonly #pages: Pick<KvPages, 'eraseCount'>;
  readonly #base: number;
  readonly #frameSizeBytes: number;
  /** Page of each frame, or NOBODY; with its block's erase count it names the content. */
  readonly #page: Float64Array;
  readonly #eraseCount: Float64Array;
  readonly #state: Uint8Array;
  readonly #userCount: Uint32Array;
  readonly #history: ReuseHistory;
  readonly #kept: KeptSet;
  /** Idle frames not kept, least recently used first: a ring of links through the entry after the last frame. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #frameOf = new Map<number, number>();
  readonly #free: number[] = [];
  #inUse = 0;
  #hits = 0;
  #misses = 0;
  #evictions = 0;

  /** Takes at least what one job needs, whatever `sizeBytes` says. DriveError bufferFull if the arena is too small. */
  constructor(
    options: { sizeBytes: number; frameSizeBytes: number; pageCount: number },
    modules: { arena: Arena; pages: Pick<KvPages, 'eraseCount'> },
  ) {
    this.#arena = modules.arena;
    this.#pages = modules.pages;
    this.#frameSizeBytes = options.frameSizeBytes;
    this.frameCount = Math.max(JOB_PAGES_MAX, Math.floor(options.sizeBytes / options.frameSizeBytes));
    this.#base = modules.arena.allocate(this.frameCount * options.frameSizeBytes);
    this.#history = new ReuseHistory({
      lineCount: Math.ceil(options.pageCount / PAGES_PER_LINE),
      linesPerRank: 1,
      correlatedUses: this.frameCount / 8,
    });
    const passingCount = Math.max(PASSING_FRAMES_MIN, Math.floor(this.frameCount * PASSING_SHARE));
    this.#kept = new KeptSet(
      { placeCount: this.frameCount, sizeMax: this.frameCount - passingCount },
      {
        history: this.#history,
        places: {
          lineOf: (frame) => lineOf(this.#page[frame]!),
          isInUse: (frame) => this.#userCount[frame] !== 0,
        },
      },
    );
    this.#page = new Float64Array(this.frameCount).fill(NOBODY);
    this.#eraseCount = new Float64Array(this.frameCount);
    this.#state = new Uint8Array(this.frameCount);
    this.#userCount = new Uint32Array(this.frameCount);
    this.#next = new Int32Array(this.frameCount + 1);
    this.#previous = new Int32Array(this.frameCount + 1);
    this.#next[this.frameCount] = this.frameCount;
    this.#previous[this.frameCount] = this.frameCount;
    for (let frame = this.frameCount - 1; frame >= 0; frame--) this.#free.push(frame);
  }

  get available(): number {
    return this.frameCount - this.#inUse;
  }

  acquire(page: Ppn): number {
    const known = this.#lookUp(page);
    this.#history.use(lineOf(page));
    if (known !== NO_FRAME && this.#state[known] === states.loaded) {
      if (this.#userCount[known] === 0) {
        if (!this.#kept.has(known)) this.#unlink(known);
        this.#inUse++;
      }
      this.#userCount[known]!++;
      this.#hits++;
      return known;
    }
    const frame = known === NO_FRAME ? this.#frameFor(page) : this.#victim();
    this.#misses++;
    this.#inUse++;
    this.#userCount[frame] = 1;
    this.#state[frame] = states.loading;
    if (known === NO_FRAME) {
      this.#page[frame] = page;
      this.#eraseCount[frame] = this.#pages.eraseCount(page);
      this.#frameOf.set(page, frame);
    }
    return frame;
  }

  offset(handle: number): number {
    return this.#base + handle * this.#frameSizeBytes;
  }

  isLoaded(handle: number): boolean {
    return this.#state[handle] === states.loaded;
  }

  /** A copy in memory stays what it was when it was loaded, whatever becomes of the cells. */
  isChecked(handle: number): boolean {
    return this.isLoaded(handle);
  }

  release(handle: number, loaded: boolean): void {
    assert(this.#userCount[handle]! > 0, `frame ${handle} is in use`);
    if (loaded && this.#state[handle] === states.loading && this.#page[handle] !== NOBODY) {
      this.#state[handle] = states.loaded;
    }
    this.#userCount[handle]!--;
    if (this.#userCount[handle] !== 0) return;
    this.#inUse--;
    // Kept ones are in no ring.
    if (this.#state[handle] !== states.loaded) this.#empty(handle);
    else if (!this.#kept.has(handle)) this.#makeIdle(handle);
  }

  isReady(page: Ppn): boolean {
    const frame = this.#lookUp(page);
    return frame !== NO_FRAME && this.#state[frame] === states.loaded;
  }

  close(): void {
    this.#arena.free(this.#base);
  }

  snapshot(): FrameSourceSnapshot {
    return {
      kind: 'copies',
      frameCount: this.frameCount,
      frameSizeBytes: this.#frameSizeBytes,
      framesResident: this.#frameOf.size,
      framesInUse: this.#inUse,
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
      loads: this.#misses,
    };
  }

  /** Frame that holds the page, or is being filled with it. Drops one that holds what was there before an erase. */
  #lookUp(page: Ppn): number {
    const frame = this.#frameOf.get(page);
    if (frame === undefined) return NO_FRAME;
    if (this.#eraseCount[frame] === this.#pages.eraseCount(page)) return frame;
    assert(this.#userCount[frame] === 0, `page ${page} was not erased while a job used its frame`);
    if (!this.#kept.has(frame)) this.#unlink(frame);
    this.#empty(frame);
    return NO_FRAME;
  }

  /** A frame that is kept, if the page deserves it, or one that it passes through. */
  #frameFor(page: Ppn): number {
    const isRoom = !this.#kept.isFull;
    const gaveWay = isRoom ? undefined : this.#kept.giveWayTo(lineOf(page));
    const frame = gaveWay === undefined ? this.#victim() : this.#evict(gaveWay);
    if (isRoom || gaveWay !== undefined) this.#kept.add(frame);
    return frame;
  }

  #victim(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const oldest = this.#next[this.frameCount]!;
    if (oldest !== this.frameCount) {
      this.#unlink(oldest);
      return this.#evict(oldest);
    }
    const kept = this.#kept.anyIdle();
    assert(kept !== undefined, 'no more frames are taken than are available');
    return this.#evict(kept);
  }

  #evict(frame: number): number {
    this.#evictions++;
    this.#forget(frame);
    return frame;
  }

  #makeIdle(frame: number): void {
    const end = this.frameCount;
    const newest = this.#previous[end]!;
    this.#next[newest] = frame;
    this.#previous[frame] = newest;
    this.#next[frame] = end;
    this.#previous[end] = frame;
  }

  #unlink(frame: number): void {
    const next = this.#next[frame]!;
    const previous = this.#previous[frame]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
  }

  #empty(frame: number): void {
    this.#forget(frame);
    this.#free.push(frame);
  }

  #forget(frame: number): void {
    const page = this.#page[frame]!;
    if (page !== NOBODY) this.#frameOf.delete(page);
    this.#kept.remove(frame);
    this.#page[frame] = NOBODY;
    this.#state[frame] = states.empty;
  }
}

const lineOf = (page: number): number => Math.floor(page / PAGES_PER_LINE);
