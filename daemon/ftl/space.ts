import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Allocator } from './allocator.ts';
import type { PageReservation } from './contract.ts';
import { STEP_PAGES } from './copy-buffer.ts';
import { readOnlyError } from './endurance.ts';
import type { GarbageCollector } from './garbage-collector.ts';
import { GC_RESERVE_SUPERBLOCKS, type GcOptions, type PoolThresholds, thresholdsOf } from './gc-options.ts';
import type { Pool, Superblocks } from './superblocks.ts';
import type { WearLeveller } from './wear-levelling.ts';

/** A pool of which nobody asked room for so long is idle. */
const IDLE_MS = 50;
/** Superblocks with less to gain are left alone while the pool is idle: no host needs it yet, and they may lose more. */
const IDLE_STALE_SHARE_MIN = 1 / 8;

export interface SpaceModules {
  readonly superblocks: Superblocks;
  readonly allocator: Allocator;
  readonly collector: GarbageCollector;
  /** Moves superblocks for the sake of wear. */
  readonly relocator: GarbageCollector;
  readonly leveller: WearLeveller;
  /** Makes a checkpoint and resolves when it is durable. */
  readonly checkpoint: () => Promise<void>;
  /** DriveError writeFault once nothing can be made durable any more. */
  readonly assertWorking: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What was moved, in pages read, and for whom. */
export interface CollectionCounters {
  /** While a host waited. */
  hostMoves: number;
  /** While no host asked for room. */
  idleMoves: number;
  /** Times that a host waited for a checkpoint to erase something. */
  eraseWaits: number;
}

/**
 * Room to program pages in one pool. Once there is less than the start threshold, each reservation moves as many pages as
 * it takes to get back what it takes, and no more than a fixed number for each page that it asks for; superblocks that
 * became empty are erased by checkpoints made in advance. Only when nothing is left does a host wait for more than that.
 */
export class Space {
  readonly #pool: Pool;
  readonly #options: GcOptions;
  readonly #modules: SpaceModules;
  #known: { readonly quota: number; readonly thresholds: PoolThresholds } | undefined;
  #releaseWaiters: (() => void)[] = [];
  #queue: Promise<void> = Promise.resolve();
  /** Reservations that wait. */
  #waitingCount = 0;
  #erasing: Promise<void> | undefined;
  /** A checkpoint failed: the next one is a host's, which is told. */
  #isErasingStopped = false;
  #idleTimer: Timer | undefined;
  #wasUsed = false;
  #idleWork: Promise<void> | undefined;
  #relocation: Promise<void> | undefined;
  #closed = false;
  /** Operation number of the last durable checkpoint. */
  #durableOperation = 0;
  readonly counters: CollectionCounters = { hostMoves: 0, idleMoves: 0, eraseWaits: 0 };

  constructor(pool: Pool, options: GcOptions, modules: SpaceModules) {
    this.#pool = pool;
    this.#options = options;
    this.#modules = modules;
  }

  /** They follow from the superblocks that the pool has; some may go bad. */
  get thresholds(): PoolThresholds {
    const { allocator, superblocks } = this.#modules;
    const quota = allocator.quota(this.#pool);
    if (this.#known?.quota !== quota) {
      const writePointCount = allocator.writePointCount(this.#pool);
      const writers = { geometry: superblocks.geometry, quota, writePointCount };
      this.#known = { quota, thresholds: thresholdsOf(this.#pool, writers, this.#options) };
    }
    return this.#known.thresholds;
  }

  /**
   * Whoever holds a pin or another reservation of this pool must not wait for one.
   * DriveError capacityExceeded if garbage collection can't make that much room; writeFault if it can't go on;
   * namespaceWriteProtected.
   */
  reserve(pageCount: number): Promise<SpaceReservation> {
    this.#waitingCount++;
    const turn = this.#queue.then(() => this.#grant(pageCount)).finally(() => this.#waitingCount--);
    this.#queue = turn.then(
      () => undefined,
      () => undefined,
    );
    return turn;
  }

  /** Whether `reserveNow` can do it. DriveError as `assertWritable`. */
  hasRoomNow(pageCount: number): boolean {
    this.assertWritable();
    return this.#waitingCount === 0 && !this.#owes(pageCount) && this.#available() >= pageCount;
  }

  /** `reserve` where nothing has to be waited for. */
  reserveNow(pageCount: number): SpaceReservation {
    assert(this.hasRoomNow(pageCount), 'there is room now');
    return this.#take(pageCount);
  }

  async #grant(pageCount: number): Promise<SpaceReservation> {
    this.assertWritable();
    await this.#pay(pageCount);
    while (this.#available() < pageCount) {
      await this.#makeRoom(pageCount);
      this.assertWritable();
    }
    return this.#take(pageCount);
  }

  #take(pageCount: number): SpaceReservation {
    this.#modules.allocator.reserve(this.#pool, pageCount);
    this.#eraseInAdvance();
    this.#watchForIdleness();
    return new SpaceReservation(pageCount, (count) => this.#giveBack(count));
  }

  get isReadOnly(): boolean {
    return this.#modules.allocator.isReadOnly;
  }

  /**
   * DriveError namespaceWriteProtected if so many blocks are bad that the drive only reads; writeFault once a sync has
   * failed.
   */
  assertWritable(): void {
    this.#modules.assertWorking();
    if (this.isReadOnly) throw readOnlyError();
  }

  #giveBack(pageCount: number): void {
    this.#modules.allocator.reserve(this.#pool, -pageCount);
    for (const resolve of this.#releaseWaiters.splice(0)) resolve();
  }

  /** Pages that hosts may program without anything being erased. */
  #available(): number {
    return this.#modules.allocator.hostPagesAvailable(this.#pool);
  }

  /** The same once everything is erased that may be, and garbage collection has its reserve back. */
  get roomPages(): number {
    const { allocator, superblocks, collector } = this.#modules;
    const { pagesPerSuperblock } = superblocks.geometry;
    const reserve = GC_RESERVE_SUPERBLOCKS * pagesPerSuperblock;
    const erasable = superblocks.freeableCount(this.#pool) * pagesPerSuperblock;
    return allocator.pagesLeft(this.#pool) + erasable + collector.passedPages - reserve;
  }

  // --- Collecting, bit by bit ---

  /** Whether pages have to be moved before so many may be programmed. */
  #owes(pageCount: number): boolean {
    return this.roomPages - pageCount < this.thresholds.startPages;
  }

  /** Moves what the pages asked for owe. */
  async #pay(pageCount: number): Promise<void> {
    let movesLeft = this.thresholds.movesPerHostPage * pageCount;
    while (movesLeft > 0 && this.#owes(pageCount)) {
      const moves = await this.#collectForHost(Math.min(movesLeft, STEP_PAGES));
      if (moves === 0) return;
      movesLeft -= moves;
    }
  }

  /**
   * One step. 0 also if it has no page to go on with, since blocks have failed, but will once what is empty is erased: that
   * is no failure of the host's.
   */
  async #collectForHost(movesMax: number): Promise<number> {
    const { collector, superblocks } = this.#modules;
    try {
      const moves = await collector.step(movesMax, { isForHost: true });
      this.counters.hostMoves += moves;
      return moves;
    } catch (error) {
      if (!(error instanceof DriveError) || superblocks.freeableCount(this.#pool) === 0) throw error;
      return 0;
    }
  }

  /** Makes some progress towards room, or throws. */
  async #makeRoom(pageCount: number): Promise<void> {
    const { superblocks, allocator } = this.#modules;
    if (this.#freeEmpty() > 0) return;
    const freeable = superblocks.freeableCount(this.#pool);
    const gain = allocator.hostShareOf(this.#pool, freeable) * superblocks.geometry.pagesPerSuperblock;
    if (this.#available() + gain < pageCount) {
      const moves = await this.#collectForHost(STEP_PAGES);
      // It may have waited for a step of others: what they erased meanwhile is room, what nobody reads any more can be erased.
      if (moves > 0 || this.#available() >= pageCount) return;
    }
    if (superblocks.freeableCount(this.#pool) > 0) return this.#eraseNow();
    if (superblocks.emptySuperblocks(this.#pool).size > 0) return superblocks.nextUnpin();
    // Others have room that they haven't used: they may give it back, or supersede pages with what they write.
    if (allocator.reservedPages(this.#pool) > 0) return new Promise((resolve) => this.#releaseWaiters.push(resolve));
    const available = allocator.hostPagesAvailable(this.#pool);
    throw new DriveError(
      'capacityExceeded',
      `${pageCount} flash pages asked for in the ${this.#pool} namespace, ${available} can be made free`,
    );
  }

  /**
   * Before any host runs: a crash closed superblocks that were half full, so garbage collection may be short of room. A
   * checkpoint after each victim, so that another crash leaves no less.
   */
  async regain(): Promise<void> {
    const { allocator, collector } = this.#modules;
    if (allocator.isReadOnly) return;
    while (allocator.isShort(this.#pool) && (await collector.collect())) await this.#eraseNow();
  }

  // --- Erasing ---

  /** A checkpoint that covers everything up to `operation` is durable: what was empty by then can be erased. */
  checkpointed(operation: number): void {
    this.#durableOperation = operation;
    this.#isErasingStopped = false;
    this.#freeEmpty();
  }

  #freeEmpty(): number {
    const { superblocks, allocator } = this.#modules;
    let freed = 0;
    for (const superblock of superblocks.emptySuperblocks(this.#pool)) {
      const isCovered = superblocks.emptySince[superblock]! <= this.#durableOperation;
      if (!isCovered || superblocks.pinCount(superblock) > 0) continue;
      allocator.free(superblock);
      freed++;
    }
    return freed;
  }

  async #eraseNow(): Promise<void> {
    this.counters.eraseWaits++;
    // What that frees may do; if not, whoever waits comes here again.
    if (this.#erasing !== undefined) return this.#erasing;
    await this.#modules.checkpoint();
    this.#freeEmpty();
  }

  /** Before hosts have used up what is erased, and before garbage collection has no room to go on. */
  #eraseInAdvance(): void {
    const { superblocks, allocator } = this.#modules;
    if (this.#closed || this.#erasing || this.#isErasingStopped || this.isReadOnly) return;
    const { pagesPerSuperblock } = superblocks.geometry;
    const freeablePages = superblocks.freeableCount(this.#pool) * pagesPerSuperblock;
    if (freeablePages === 0) return;
    // At the latest when it gives back as much as is left: hosts go on with that meanwhile.
    const isLow = this.#available() < Math.max(this.thresholds.startPages / 2, freeablePages);
    const isShort = allocator.gcPagesAvailable(this.#pool) < pagesPerSuperblock;
    if (!isLow && !isShort) return;
    this.#erasing = this.#inBackground(() => this.#modules.checkpoint()).finally(() => (this.#erasing = undefined));
  }

  async #inBackground(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      // A broken invariant stops the drive: it stays unhandled.
      if (!(error instanceof DriveError)) throw error;
      this.#isErasingStopped = true;
      this.#modules.logger.warn({ pool: this.#pool, err: error }, 'background garbage collection stopped');
    }
  }

  // --- While hosts are idle ---

  #watchForIdleness(): void {
    this.#wasUsed = true;
    if (this.#idleTimer || this.#closed || this.roomPages >= this.thresholds.stopPages) return;
    this.#setIdleTimer();
  }

  #setIdleTimer(): void {
    this.#wasUsed = false;
    this.#idleTimer = this.#modules.clock.setTimer(IDLE_MS, () => {
      this.#idleTimer = undefined;
      if (this.#wasUsed) return this.#setIdleTimer();
      this.#collectInBackground(() => this.#waitingCount === 0 && this.roomPages < this.thresholds.stopPages);
    });
  }

  /** There may be fewer superblocks than there were: collects at once, since the other pool may wait for some. */
  wake(): void {
    this.#collectInBackground(() => this.roomPages < this.thresholds.startPages);
  }

  #collectInBackground(isWanted: () => boolean): void {
    if (this.#idleWork || this.#closed || this.isReadOnly) return;
    const work = this.#inBackground(() => this.#collectWhile(() => isWanted() && !this.#closed && !this.isReadOnly));
    this.#idleWork = work.finally(() => (this.#idleWork = undefined));
  }

  async #collectWhile(isWanted: () => boolean): Promise<void> {
    const { collector, superblocks, checkpoint } = this.#modules;
    while (isWanted()) {
      const staleShareMin = this.roomPages < this.thresholds.startPages ? 0 : IDLE_STALE_SHARE_MIN;
      const moves = await collector.step(STEP_PAGES, { staleShareMin });
      if (moves === 0) break;
      this.counters.idleMoves += moves;
    }
    if (!this.#closed && superblocks.freeableCount(this.#pool) > 0) await checkpoint();
  }

  // --- For the sake of wear ---

  /** Moves what should lie elsewhere, if there is anything: a superblock once in a while, and hosts go on meanwhile. */
  relocate(): void {
    if (this.#relocation || this.#closed || this.isReadOnly) return;
    // Not at once: it may be a host's program that opens a superblock.
    const work = Promise.resolve().then(() => this.#relocateAll());
    this.#relocation = work.finally(() => (this.#relocation = undefined));
  }

  async #relocateAll(): Promise<void> {
    const { leveller, relocator, logger } = this.#modules;
    try {
      for (;;) {
        const superblock = leveller.chooseToMove(this.#pool);
        // Without another it programs what was left over of the last one.
        if (superblock === undefined && relocator.gatheredSlotCount === 0) return;
        if (superblock !== undefined && !(await relocator.begin(superblock))) return;
        if (superblock !== undefined) leveller.moved();
        while (!this.#closed && !this.isReadOnly && (await relocator.step(STEP_PAGES)) > 0);
        if (superblock === undefined || this.#closed || this.isReadOnly) return;
      }
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      logger.warn({ pool: this.#pool, err: error }, 'levelling of wear stopped');
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idleTimer?.cancel();
    await this.#relocation;
    await this.#idleWork;
    await this.#erasing;
  }
}

/** Pages set aside. Whoever programs one takes it. */
export class SpaceReservation implements PageReservation {
  #remaining: number;
  readonly #giveBack: (count: number) => void;

  constructor(pageCount: number, giveBack: (count: number) => void) {
    this.#remaining = pageCount;
    this.#giveBack = giveBack;
  }

  get remaining(): number {
    return this.#remaining;
  }

  take(): void {
    assert(this.#remaining > 0, 'a page was reserved');
    this.#remaining--;
    this.#giveBack(1);
  }

  release(): void {
    this.#giveBack(this.#remaining);
    this.#remaining = 0;
  }
}
