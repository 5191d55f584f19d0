import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Allocator } from './allocator.ts';
import type { PageReservation } from './contract.ts';
import type { GarbageCollector } from './garbage-collector.ts';
import type { Pool, Superblocks } from './superblocks.ts';

/** Superblocks emptied before a checkpoint is made to erase them, if garbage collection can go on that long. */
const ERASE_BATCH = 4;
/** Below this many superblocks that hosts may open, garbage collection goes on in the background. */
const LOW_WATER_SUPERBLOCKS = 3;

export interface SpaceModules {
  readonly superblocks: Superblocks;
  readonly allocator: Allocator;
  readonly collector: GarbageCollector;
  /** Makes a checkpoint and resolves when it is durable. */
  readonly checkpoint: () => Promise<void>;
  readonly logger: Logger;
}

/** Room to program pages in one pool. Whoever must wait for garbage collection waits in turn. */
export class Space {
  readonly #pool: Pool;
  readonly #modules: SpaceModules;
  #reservedPages = 0;
  #releaseWaiters: (() => void)[] = [];
  #queue: Promise<void> = Promise.resolve();
  #background: Promise<void> | undefined;
  #closed = false;
  /** Operation number of the last durable checkpoint. */
  #durableOperation = 0;

  constructor(pool: Pool, modules: SpaceModules) {
    this.#pool = pool;
    this.#modules = modules;
  }

  /**
   * Whoever holds a pin or another reservation of this pool must not wait for one.
   * DriveError capacityExceeded if garbage collection can't make that much room; writeFault if it can't go on;
   * namespaceWriteProtected.
   */
  reserve(pageCount: number): Promise<SpaceReservation> {
    const turn = this.#queue.then(async () => {
      this.assertWritable();
      while (this.#available() < pageCount) {
        await this.#makeRoom(pageCount);
        this.assertWritable();
      }
      this.#reservedPages += pageCount;
      this.#startBackground();
      return new SpaceReservation(pageCount, (count) => this.#giveBack(count));
    });
    this.#queue = turn.then(
      () => undefined,
      () => undefined,
    );
    return turn;
  }

  get isReadOnly(): boolean {
    return this.#modules.allocator.isReadOnly;
  }

  /** DriveError namespaceWriteProtected if so many blocks are bad that the drive only reads. */
  assertWritable(): void {
    if (!this.isReadOnly) return;
    throw new DriveError('namespaceWriteProtected', 'too many erase blocks are bad; what is stored can be read');
  }

  #giveBack(pageCount: number): void {
    this.#reservedPages -= pageCount;
    assert(this.#reservedPages >= 0, 'what is given back was reserved');
    for (const resolve of this.#releaseWaiters.splice(0)) resolve();
  }

  #available(): number {
    return this.#modules.allocator.hostPagesAvailable(this.#pool) - this.#reservedPages;
  }

  /** A checkpoint that covers everything up to `operation` is durable: what was empty by then can be erased. */
  checkpointed(operation: number): void {
    this.#durableOperation = operation;
    this.#freeEmpty();
  }

  #freeEmpty(): number {
    const { superblocks, allocator } = this.#modules;
    let freed = 0;
    for (let superblock = 0; superblock < superblocks.geometry.superblockCount; superblock++) {
      if (superblocks.pool(superblock) !== this.#pool || !superblocks.isEmpty(superblock)) continue;
      const isCovered = superblocks.emptySince[superblock]! <= this.#durableOperation;
      if (!isCovered || superblocks.pinCount(superblock) > 0) continue;
      allocator.free(superblock);
      freed++;
    }
    return freed;
  }

  /** Makes some progress towards room, or throws. */
  async #makeRoom(pageCount: number): Promise<void> {
    const { superblocks, allocator, collector, checkpoint } = this.#modules;
    if (this.#freeEmpty() > 0) return;
    let collected = 0;
    while (collected < ERASE_BATCH && !this.#closed && (await collector.collect(this.#pool))) collected++;
    const empties = this.#emptySuperblocks();
    if (empties.some((superblock) => superblocks.pinCount(superblock) === 0)) {
      await checkpoint();
      this.#freeEmpty();
      return;
    }
    if (collected > 0) return;
    if (empties.length > 0) return superblocks.nextUnpin();
    // Others have room that they haven't used: they may give it back, or supersede pages with what they write.
    if (this.#reservedPages > 0) return new Promise((resolve) => this.#releaseWaiters.push(resolve));
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
    const { allocator, collector, checkpoint } = this.#modules;
    if (allocator.isReadOnly) return;
    while (allocator.isShort(this.#pool) && (await collector.collect(this.#pool))) {
      await checkpoint();
      this.#freeEmpty();
    }
  }

  #emptySuperblocks(): number[] {
    const { superblocks } = this.#modules;
    const all = Array.from({ length: superblocks.geometry.superblockCount }, (_, superblock) => superblock);
    return all.filter((superblock) => superblocks.pool(superblock) === this.#pool && superblocks.isEmpty(superblock));
  }

  /** Garbage collection looks whether it has something to do: there may be fewer superblocks than there were. */
  wake(): void {
    this.#startBackground();
  }

  #startBackground(): void {
    const { allocator, superblocks } = this.#modules;
    const lowWater = LOW_WATER_SUPERBLOCKS * superblocks.geometry.pagesPerSuperblock;
    if (this.#closed || this.#background || allocator.isReadOnly || this.#available() >= lowWater) return;
    if (allocator.superblocksLeft(this.#pool) === 0) return;
    this.#background = this.#collectInBackground(lowWater).finally(() => (this.#background = undefined));
  }

  async #collectInBackground(lowWater: number): Promise<void> {
    const { collector, checkpoint, logger } = this.#modules;
    try {
      for (let i = 0; i < ERASE_BATCH && !this.#closed && this.#available() < lowWater; i++) {
        if (!(await collector.collect(this.#pool))) break;
      }
      if (!this.#closed && this.#emptySuperblocks().length > 0) await checkpoint();
    } catch (error) {
      // A broken invariant stops the drive: it stays unhandled.
      if (!(error instanceof DriveError)) throw error;
      logger.warn({ pool: this.#pool, err: error }, 'background garbage collection stopped');
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#background;
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
