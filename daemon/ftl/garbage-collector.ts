import { backgroundLabel } from '../../spec/device-trace.ts';
import type { DeviceTime, ReusableJob } from '../timing/device-job.ts';
import { assert } from '../base/assert.ts';
import type { Logger } from '../base/logger.ts';
import type { Random } from '../base/random.ts';
import type { Allocator } from './allocator.ts';
import type { OperationCounter } from './contract.ts';
import { STEP_PAGES } from './copy-buffer.ts';
import type { MoveRole, Mover } from './mover.ts';
import type { Pool, Superblocks } from './superblocks.ts';
import type { VictimPolicy } from './victim-policy.ts';

export interface CollectorModules {
  /** What moves superblocks for the sake of wear chooses none by itself, and has a write point of its own. */
  readonly role: MoveRole;
  readonly superblocks: Superblocks;
  readonly allocator: Allocator;
  readonly operations: OperationCounter;
  readonly mover: Mover;
  readonly policy: VictimPolicy;
  readonly random: Random;
  readonly logger: Logger;
  readonly deviceTime: DeviceTime;
}

const labels: Record<MoveRole, number> = {
  gc: backgroundLabel('garbageCollection'),
  wear: backgroundLabel('wearLevelling'),
};

/** The superblock that is being emptied. */
interface Victim {
  readonly superblock: number;
  readonly validSlotCount: number;
  /** It only fills up the page of what was gathered before: there is no room for all of it. */
  readonly isFillingOnly: boolean;
}

/**
 * Empties superblocks of one pool, a few pages at a time: `step` reads and programs no more than it is told, and goes on
 * next time where it was, so whoever waits for it waits for a known number of pages. Host writes, forks, truncates and
 * reclaims may race with it. It erases nothing: an empty superblock is freed once a checkpoint covers it (space.ts).
 */
export class GarbageCollector {
  readonly #pool: Pool;
  readonly #modules: CollectorModules;
  readonly #job: ReusableJob;
  #victim: Victim | undefined;
  /** Victims before it of which slots wait for others to fill their page. */
  readonly #unfinished = new Set<number>();
  #running: Promise<unknown> | undefined;
  /** [superblock] -> what stayed in it because it can't be read, and keeps it from being erased. */
  readonly #unreadable = new Map<number, { readonly epoch: number; readonly validSlotCount: number }>();
  victimCount = 0;

  constructor(pool: Pool, modules: CollectorModules) {
    this.#pool = pool;
    this.#modules = modules;
    this.#job = modules.deviceTime.createJob();
  }

  /**
   * Reads at most `movesMax` pages (STEP_PAGES where entries are looked at first) and programs what is valid in them.
   * Resolves with what it cost, in pages: 0 if nothing can be gained, or there is no room to copy to. `staleShareMin`:
   * a new victim has at least this share to gain. `isForHost`: a command waits for it. DriveError writeFault.
   */
  async step(
    movesMax: number,
    { staleShareMin = 0, isForHost = false }: { staleShareMin?: number; isForHost?: boolean } = {},
  ): Promise<number> {
    return this.#inTurn(isForHost, () => this.#step(Math.min(movesMax, STEP_PAGES), staleShareMin));
  }

  /** One at a time, each a job of its own in device time. */
  async #inTurn<T>(isForHost: boolean, work: () => Promise<T>): Promise<T> {
    while (this.#running) await this.#running.catch(() => undefined);
    const { role, deviceTime } = this.#modules;
    this.#job.begin(labels[role], deviceTime.backgroundArrivalNs(isForHost));
    const running = work();
    this.#running = running;
    try {
      return await running;
    } finally {
      this.#running = undefined;
      this.#job.end();
    }
  }

  /**
   * Empties one superblock, or goes on to the end with the one at hand; false if nothing can be gained, or there is no
   * room. `superblock`: this one, whatever it holds, after the one at hand: because its streams are scattered, say.
   */
  async collect(superblock?: number): Promise<boolean> {
    if (superblock !== undefined) {
      while (this.#victim !== undefined) await this.step(STEP_PAGES);
      if (!(await this.begin(superblock))) return false;
    }
    const before = this.victimCount;
    while (this.victimCount === before) if ((await this.step(STEP_PAGES)) === 0) return false;
    return true;
  }

  /** The next steps empty this superblock, whatever it holds. False if there is one at hand, or no room for all of it. */
  begin(superblock: number): Promise<boolean> {
    const begin = (): boolean => this.#hasRoomFor(superblock) && this.#beginWith(superblock);
    return this.#inTurn(false, () => Promise.resolve(this.#victim === undefined && begin()));
  }

  /** Slots read of earlier superblocks that wait for others to fill their page. */
  get gatheredSlotCount(): number {
    return this.#modules.mover.gatheredSlotCount;
  }

  /**
   * Pages of the victim that are as good as free: its superblock's share of what has been moved out of it. What is still
   * to be moved costs room, what it will give is more.
   */
  get passedPages(): number {
    if (this.#victim === undefined) return 0;
    const { superblock, validSlotCount } = this.#victim;
    const { superblocks } = this.#modules;
    const moved = 1 - superblocks.validSlotCount[superblock]! / validSlotCount;
    return moved * superblocks.geometry.pagesPerSuperblock;
  }

  async #step(movesMax: number, staleShareMin: number): Promise<number> {
    const { mover } = this.#modules;
    this.#forgetFinished();
    if (!this.#victim && !this.#begin(staleShareMin)) {
      // The page of what is gathered can't be filled any more.
      const isGathered = mover.gatheredSlotCount > 0 && staleShareMin === 0;
      return isGathered && this.#hasPages(1) && this.#programGathered() ? 1 : 0;
    }
    const victim = this.#victim!;
    try {
      const { moves, isProgrammed, isDone } = await mover.step(movesMax, victim.isFillingOnly, this.#job);
      if (isDone || (victim.isFillingOnly && isProgrammed)) this.#end(victim);
      this.#forgetFinished();
      // A page that held nothing valid any more when it was reached is progress too.
      return Math.max(1, moves);
    } catch (error) {
      this.#giveUp();
      throw error;
    }
  }

  #programGathered(): boolean {
    try {
      const isProgrammed = this.#modules.mover.programGathered(this.#job);
      this.#forgetFinished();
      return isProgrammed;
    } catch (error) {
      this.#giveUp();
      throw error;
    }
  }

  /** Chooses a victim. */
  #begin(staleShareMin: number): boolean {
    const { role, superblocks, policy, operations, random } = this.#modules;
    const candidates = role === 'gc' ? this.#candidates(staleShareMin) : [];
    if (candidates.length === 0) return false;
    return this.#beginWith(policy({ candidates, statistics: superblocks, operation: operations.last, random }));
  }

  #beginWith(superblock: number): boolean {
    const { superblocks, mover } = this.#modules;
    const validSlotCount = superblocks.validSlotCount[superblock]!;
    const isCollectable = superblocks.state(superblock) === 'full' && validSlotCount > 0;
    if (!isCollectable || superblocks.pool(superblock) !== this.#pool) return false;
    // With little room left it only fills up the page for the one before.
    const isFillingOnly = !this.#hasRoomFor(superblock);
    if (isFillingOnly && (mover.gatheredSlotCount === 0 || !this.#hasPages(1))) return false;
    superblocks.setState(superblock, 'victim');
    superblocks.pin(superblock);
    mover.begin(superblock);
    this.#victim = { superblock, validSlotCount, isFillingOnly };
    return true;
  }

  /** To copy all that it holds. */
  #hasRoomFor(superblock: number): boolean {
    const { superblocks, mover } = this.#modules;
    const slotCount = mover.gatheredSlotCount + superblocks.validSlotCount[superblock]!;
    return this.#hasPages(Math.ceil(slotCount / superblocks.geometry.slotsPerPage));
  }

  #hasPages(pageCount: number): boolean {
    const { role, allocator } = this.#modules;
    if (role === 'wear') return allocator.prepareWear(this.#pool, pageCount, this.#job);
    return allocator.gcPagesAvailable(this.#pool) >= pageCount;
  }

  /** Full superblocks with something to gain; none if all of it together is less than a page: it would go in circles. */
  #candidates(staleShareMin: number): number[] {
    const { superblocks, mover } = this.#modules;
    const { slotsPerSuperblock, geometry } = superblocks;
    const { superblockCount, slotsPerPage } = geometry;
    const gatheredRoom = mover.gatheredSlotCount > 0 ? slotsPerPage - 1 : 0;
    if (superblocks.staleSlotCount(this.#pool) + gatheredRoom < slotsPerPage) return [];
    const validMax = Math.min(slotsPerSuperblock - 1, (1 - staleShareMin) * slotsPerSuperblock);
    const candidates: number[] = [];
    let staleSlots = gatheredRoom;
    for (let superblock = 0; superblock < superblockCount; superblock++) {
      const valid = superblocks.validSlotCount[superblock]!;
      if (valid === 0 || valid > validMax) continue;
      if (superblocks.state(superblock) !== 'full' || superblocks.pool(superblock) !== this.#pool) continue;
      if (this.isUnreadable(superblock)) continue;
      candidates.push(superblock);
      staleSlots += slotsPerSuperblock - valid;
    }
    return staleSlots >= slotsPerPage ? candidates : [];
  }

  /** A page of it could not be read. Until some of it is written over: then there may be more to gain. */
  isUnreadable(superblock: number): boolean {
    const left = this.#unreadable.get(superblock);
    if (left === undefined) return false;
    const { epoch, validSlotCount } = this.#modules.superblocks;
    if (left.epoch === epoch[superblock] && left.validSlotCount === validSlotCount[superblock]) return true;
    this.#unreadable.delete(superblock);
    return false;
  }

  #end(victim: Victim): void {
    const { superblocks, mover, logger } = this.#modules;
    const { superblock } = victim;
    this.#victim = undefined;
    superblocks.unpin(superblock);
    if (!victim.isFillingOnly) this.victimCount++;
    if (mover.failure !== undefined) {
      const { [superblock]: epoch = 0 } = superblocks.epoch;
      const { [superblock]: validSlotCount = 0 } = superblocks.validSlotCount;
      this.#unreadable.set(superblock, { epoch, validSlotCount });
      logger.error({ superblock, err: mover.failure }, 'garbage collection leaves a page that cannot be read');
    }
    if (victim.isFillingOnly || mover.failure !== undefined) this.#putBack(superblock);
    else this.#unfinished.add(superblock);
  }

  /** What was not moved is where it was. */
  #putBack(superblock: number): void {
    const { superblocks } = this.#modules;
    if (superblocks.state(superblock) === 'victim') superblocks.setState(superblock, 'full');
  }

  #forgetFinished(): void {
    const { superblocks, mover } = this.#modules;
    for (const superblock of this.#unfinished) {
      if (superblocks.state(superblock) === 'victim' && superblocks.validSlotCount[superblock]! > 0) {
        assert(mover.gatheredSlotCount > 0, 'a victim that is left holds only what was gathered');
        continue;
      }
      this.#unfinished.delete(superblock);
    }
  }

  /** The disk refused a page. */
  #giveUp(): void {
    const victim = this.#victim;
    this.#victim = undefined;
    if (victim !== undefined) {
      this.#modules.superblocks.unpin(victim.superblock);
      this.#unfinished.add(victim.superblock);
    }
    for (const superblock of this.#unfinished) this.#putBack(superblock);
    this.#unfinished.clear();
  }
}
