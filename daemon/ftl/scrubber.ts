import { backgroundLabel } from '../../spec/device-trace.ts';
import { oobFlags, oobKinds, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { DeviceTime, ReusableJob } from '../timing/device-job.ts';
import type { Arena } from '../base/arena.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { channelOf } from '../nand/geometry.ts';
import { CopyBuffer, STEP_PAGES } from './copy-buffer.ts';
import type { BadPage, Flash, OobEntry } from './flash.ts';
import type { Relocatable } from './mover.ts';
import type { PageWriter } from './page-writer.ts';
import { placementOf } from './placement-table.ts';
import type { Space } from './space.ts';
import type { Pool } from './superblocks.ts';
import { temperatures } from './temperature.ts';

export interface ScrubOptions {
  /** Time in which every page in use is looked at once; undefined: only when it is asked for. */
  readonly intervalSeconds: number | undefined;
}

/** Where a pass stands: as it is kept over restarts, so that a drive which is often restarted is looked through too. */
export interface ScrubPosition {
  readonly superblock: number;
}

export interface ScrubModules {
  readonly flash: Flash;
  readonly owners: Readonly<Record<Pool, Relocatable>>;
  readonly spaces: Readonly<Record<Pool, Space>>;
  readonly writer: PageWriter;
  readonly arena: Arena;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly deviceTime: DeviceTime;
}

interface PassCounts {
  pagesChecked: number;
  /** Pages in use that could not be read, or were not what was programmed. */
  pagesBad: number;
  /** Pages that were programmed anew elsewhere, since their bit errors came near to what can be corrected. */
  pagesRefreshed: number;
}

export interface ScrubPass extends Readonly<PassCounts> {
  readonly durationSeconds: number;
}

export interface ScrubSnapshot {
  readonly intervalSeconds: number | undefined;
  readonly isRunning: boolean;
  /** Spread over the interval; false: asked for, as fast as it goes. */
  readonly isPaced: boolean;
  /** Of the pass under way, and of all since the start. */
  readonly pass: ScrubPass;
  /** About as many pages as the pass will look at. */
  readonly pagesTotal: number;
  readonly passCount: number;
  readonly totals: Readonly<PassCounts>;
  readonly lastPass: ScrubPass | undefined;
  readonly badPages: readonly BadPage[];
}

const LABEL = backgroundLabel('scrub');

const noCounts = (): PassCounts => ({ pagesChecked: 0, pagesBad: 0, pagesRefreshed: 0 });

/** Between looks at whether hosts are at work, and how often a step makes way for them. */
const LOAD_WAIT_MS = 20;
const LOAD_WAITS_MAX = 50;
/** Between two steps of a pass that is spread over its interval. */
const STEP_DELAY_MS_MIN = 5;
const STEP_DELAY_MS_MAX = 60_000;
/** Of what can be corrected: a page with more errors is programmed anew. */
const REFRESH_SHARE = 0.9;
/** A pass programs no more than one page in so many that it looks at, and a few. */
const REFRESH_DIVISOR = 64;
const REFRESHES_MIN = 8;

/**
 * Looks at every page in use, over and over, a few pages at a time: entry, owner and checksum. It keeps out of hosts' way:
 * while they work a step waits, up to a second. A page whose bit errors come near to what the error correction can do is
 * programmed anew elsewhere, as a host's write would be, and the old one is let go of. A page that can't be read stays.
 */
export class Scrubber {
  readonly #options: ScrubOptions;
  readonly #modules: ScrubModules;
  readonly #buffer: CopyBuffer;
  readonly #job: ReusableJob;
  #timer: Timer | undefined;
  #step: Promise<void> = Promise.resolve();
  #isStarted = false;
  #isClosed = false;
  /** undefined: no pass is under way. */
  #isPaced: boolean | undefined;
  #superblock = 0;
  #firstSuperblock = 0;
  #nextPage = 0;
  #beganNs = 0;
  #pagesTotal = 0;
  #pass: PassCounts = noCounts();
  readonly #totals: PassCounts = noCounts();
  #lastPass: ScrubPass | undefined;
  #passCount = 0;
  #hostWork = 0;
  #waitCount = 0;
  /** When the next pass is due. */
  #waitUntilNs = 0;

  constructor(options: ScrubOptions, modules: ScrubModules) {
    this.#options = options;
    this.#modules = modules;
    this.#buffer = new CopyBuffer({ ...modules, cause: 'scrub' });
    this.#job = modules.deviceTime.createJob();
  }

  /** Where the last run of the drive was: before the first checkpoint, which would forget it. */
  resumeAt(position: ScrubPosition | undefined): void {
    this.#superblock = (position?.superblock ?? 0) % this.#modules.flash.geometry.superblockCount;
  }

  start(): void {
    this.#isStarted = true;
    if (this.#options.intervalSeconds !== undefined) this.#begin(true);
  }

  /** A pass over everything, beginning now. One that is asked for goes on. */
  passNow(): void {
    if (!this.#isStarted || this.#isClosed || this.#isPaced === false) return;
    this.#timer?.cancel();
    this.#begin(false);
  }

  get position(): ScrubPosition {
    return { superblock: this.#superblock };
  }

  snapshot(): ScrubSnapshot {
    return {
      intervalSeconds: this.#options.intervalSeconds,
      isRunning: this.#isPaced !== undefined,
      isPaced: this.#isPaced === true,
      pass: { ...this.#pass, durationSeconds: this.#isPaced === undefined ? 0 : this.#elapsedSeconds() },
      pagesTotal: this.#pagesTotal,
      passCount: this.#passCount,
      totals: { ...this.#totals },
      lastPass: this.#lastPass,
      badPages: this.#modules.flash.badPages(),
    };
  }

  /** Nothing of it runs any more when it resolves. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.cancel();
    await this.#step;
  }

  // --- Passes

  #begin(isPaced: boolean): void {
    const { flash, clock } = this.#modules;
    const { superblocks, geometry } = flash;
    this.#isPaced = isPaced;
    this.#firstSuperblock = this.#superblock;
    this.#nextPage = 0;
    this.#beganNs = clock.nowNs();
    this.#pass = noCounts();
    const slotCount = superblocks.validSlotCount.reduce((sum, count) => sum + count, 0);
    this.#pagesTotal = Math.ceil(slotCount / geometry.slotsPerPage);
    this.#schedule(0);
  }

  #elapsedSeconds(): number {
    return (this.#modules.clock.nowNs() - this.#beganNs) / 1e9;
  }

  /** As long as a look at so many pages may take, if all of them together are to take the interval. */
  #delayMs(pageCount: number): number {
    const { intervalSeconds = 0 } = this.#options;
    const delayMs = (intervalSeconds * 1000 * pageCount) / Math.max(1, this.#pagesTotal);
    return Math.min(STEP_DELAY_MS_MAX, Math.max(STEP_DELAY_MS_MIN, delayMs));
  }

  #schedule(delayMs: number): void {
    if (this.#isClosed) return;
    this.#timer = this.#modules.clock.setTimer(delayMs, () => {
      // A step of a pass that made way for this one may still be under way.
      this.#step = this.#step.then(() => this.#tick());
    });
  }

  async #tick(): Promise<void> {
    if (this.#isClosed) return;
    if (this.#isPaced === undefined) {
      this.#begin(true);
      return;
    }
    if (this.#isPaced && this.#makesWay()) {
      this.#schedule(LOAD_WAIT_MS);
      return;
    }
    const pass = this.#pass;
    const pageCount = await this.#lookOn(pass);
    // Somebody may have asked for a pass meanwhile: that has its own timer.
    if (this.#pass !== pass || this.#isPaced === undefined) return;
    this.#schedule(this.#isPaced ? this.#delayMs(pageCount) : 0);
  }

  /** Whether hosts did something since the last look. A step waits for them, but not for ever. */
  #makesWay(): boolean {
    const { reads, programs } = this.#modules.flash.array.counters;
    const hostWork = reads.block + reads.kv + programs.block + programs.kv + this.#modules.flash.readsOutside;
    const isBusy = hostWork !== this.#hostWork && this.#waitCount < LOAD_WAITS_MAX;
    this.#hostWork = hostWork;
    this.#waitCount = isBusy ? this.#waitCount + 1 : 0;
    return isBusy;
  }

  #end(): void {
    const { logger } = this.#modules;
    this.#lastPass = { ...this.#pass, durationSeconds: this.#elapsedSeconds() };
    this.#passCount++;
    this.#isPaced = undefined;
    logger.info({ ...this.#lastPass }, 'scrubbed');
    const { intervalSeconds } = this.#options;
    if (intervalSeconds === undefined) return;
    // What is left of the interval: the pass may have had less to do than it was thought to.
    const leftSeconds = Math.max(0, intervalSeconds - this.#lastPass.durationSeconds);
    this.#waitUntilNs = this.#modules.clock.nowNs() + leftSeconds * 1e9;
    this.#waitForNext();
  }

  /** Timers have a longest delay. */
  #waitForNext(): void {
    const leftMs = Math.max(0, (this.#waitUntilNs - this.#modules.clock.nowNs()) / 1e6);
    if (leftMs <= STEP_DELAY_MS_MAX) this.#schedule(leftMs);
    else if (!this.#isClosed) this.#timer = this.#modules.clock.setTimer(STEP_DELAY_MS_MAX, () => this.#waitForNext());
  }

  // --- Pages

  /** The next few pages in use; returns how many. */
  async #lookOn(pass: PassCounts): Promise<number> {
    const ppns = this.#nextPages();
    if (ppns.length === 0) {
      this.#end();
      return 0;
    }
    this.#job.begin(LABEL, this.#modules.deviceTime.backgroundArrivalNs(false));
    try {
      for (const ppn of await this.#lookAt(ppns, pass)) await this.#refresh(pass, ppn);
    } finally {
      this.#job.end();
    }
    return ppns.length;
  }

  /** Returns those that are right, but weak. */
  async #lookAt(ppns: readonly number[], pass: PassCounts): Promise<number[]> {
    const { superblocks } = this.#modules.flash;
    const superblock = this.#superblock;
    superblocks.pin(superblock);
    try {
      const errors = await this.#buffer.read(ppns, this.#job);
      return ppns.filter((ppn, index) => this.#check(pass, ppn, index, errors[index]) && this.#isWeak(ppn));
    } finally {
      superblocks.unpin(superblock);
    }
  }

  /** Up to a step's pages of one superblock; none: the pass is over. */
  #nextPages(): number[] {
    const { geometry, superblocks } = this.#modules.flash;
    const { pagesPerSuperblock, superblockCount } = geometry;
    const ppns: number[] = [];
    for (;;) {
      const isUsed =
        superblocks.state(this.#superblock) !== 'free' && superblocks.validSlotCount[this.#superblock]! > 0;
      const end = isUsed ? pagesPerSuperblock : 0;
      for (; this.#nextPage < end && ppns.length < STEP_PAGES; this.#nextPage++) {
        const ppn = this.#superblock * pagesPerSuperblock + this.#nextPage;
        if (superblocks.hasValid(ppn)) ppns.push(ppn);
      }
      if (ppns.length > 0) return ppns;
      this.#superblock = (this.#superblock + 1) % superblockCount;
      this.#nextPage = 0;
      if (this.#superblock === this.#firstSuperblock) return ppns;
    }
  }

  /** True if it is right, or nothing in use any more. */
  #check(pass: PassCounts, ppn: number, index: number, error: DriveError | undefined): boolean {
    const { flash } = this.#modules;
    if (!flash.superblocks.hasValid(ppn)) return true;
    this.#count(pass, 'pagesChecked');
    try {
      if (error) throw flash.unrecovered(ppn, 'a page', error);
      if (flash.superblocks.pool(flash.superblocks.superblockOfSlot(ppn * flash.geometry.slotsPerPage)) === 'kv') {
        this.#checkKv(ppn, index);
      } else this.#checkBlocks(ppn, index);
      return true;
    } catch (reason) {
      if (!(reason instanceof DriveError) || reason.code !== 'unrecoveredRead') throw reason;
      this.#count(pass, 'pagesBad');
      return false;
    }
  }

  #checkKv(ppn: number, index: number): void {
    const { flash } = this.#modules;
    const entry = this.#entryAt(ppn, index, 0, 'kv');
    flash.checkKvPage(ppn, entry, entry.logical, this.#buffer.cells(index));
  }

  #checkBlocks(ppn: number, index: number): void {
    const { flash } = this.#modules;
    const { slotsPerPage } = flash.geometry;
    const cells = this.#buffer.cells(index);
    for (let i = 0; i < slotsPerPage; i++) {
      const slot = ppn * slotsPerPage + i;
      if (!flash.superblocks.isValid(slot)) continue;
      const entry = this.#entryAt(ppn, index, i, 'block');
      flash.checkBlockSlot(slot, entry, entry.logical, cells.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES));
    }
  }

  /** The entry of a valid slot. DriveError unrecoveredRead if it is damaged. */
  #entryAt(ppn: number, index: number, slot: number, pool: Pool): OobEntry {
    const { flash, owners } = this.#modules;
    const entry = flash.checkedEntry(ppn, this.#buffer.oob(index), slot);
    if (entry && owners[pool].isCurrent(entry, ppn * flash.geometry.slotsPerPage + slot)) return entry;
    throw flash.unrecovered(ppn, `slot ${slot}; its out-of-band entry is damaged`);
  }

  #count(pass: PassCounts, what: keyof PassCounts): void {
    pass[what]++;
    this.#totals[what]++;
  }

  // --- Refreshing

  /** Whether its bit errors are so many that it should not wait for more. */
  #isWeak(ppn: number): boolean {
    const { errors } = this.#modules.flash.array;
    const { worstBits, retryCount } = errors.errorsOf(ppn);
    return worstBits > 0 && (retryCount > 0 || worstBits > REFRESH_SHARE * errors.correctableBits);
  }

  /** Programs what is valid in a page elsewhere. Room comes first: whoever waits for it must hold no pin. */
  async #refresh(pass: PassCounts, ppn: number): Promise<void> {
    const { flash, spaces, logger } = this.#modules;
    const { superblocks, geometry } = flash;
    const superblock = superblocks.superblockOfSlot(ppn * geometry.slotsPerPage);
    const epoch = superblocks.epoch[superblock];
    const pool = superblocks.pool(superblock);
    const isEnough = pass.pagesRefreshed >= REFRESHES_MIN + pass.pagesChecked / REFRESH_DIVISOR;
    if (pool === undefined || isEnough || this.#isClosed) return;
    try {
      const reservation = await spaces[pool].reserve(1);
      try {
        // It may have been erased while this waited, and be anybody's now.
        if (superblocks.epoch[superblock] !== epoch || !superblocks.hasValid(ppn)) return;
        superblocks.pin(superblock);
        try {
          const [error] = await this.#buffer.read([ppn], this.#job);
          if (error === undefined && this.#programAnew(ppn, pool)) {
            reservation.take();
            this.#count(pass, 'pagesRefreshed');
          }
        } finally {
          superblocks.unpin(superblock);
        }
      } finally {
        reservation.release();
      }
    } catch (error) {
      // No room, a read-only drive, a disk that refuses: the page is still right where it is.
      if (!(error instanceof DriveError)) throw error;
      logger.debug({ page: ppn, err: error }, 'a page was not refreshed');
    }
  }

  /** Synchronous, after the page was read: the maps are looked at again. */
  #programAnew(ppn: number, pool: Pool): boolean {
    const { flash, owners, writer } = this.#modules;
    const { geometry, superblocks } = flash;
    const { slotsPerPage } = geometry;
    const from = ppn * slotsPerPage;
    const entries = Array.from({ length: pool === 'kv' ? 1 : slotsPerPage }, (_, i) =>
      superblocks.isValid(from + i) ? this.#entryAt(ppn, 0, i, pool) : undefined,
    );
    if (entries.every((entry) => entry === undefined)) return false;
    const [first] = entries;
    const isKv = first?.kind === oobKinds.kv;
    const placement = isKv ? placementOf(first.sequenceId) : temperatures.cold;
    const channel = isKv ? channelOf(geometry, ppn % geometry.unitCount) : undefined;
    const copies = entries.map((entry) => entry && { ...entry, flags: entry.flags | oobFlags.copy });
    const target = { pool, role: 'host', placement, channel, job: this.#job } as const;
    const to = writer.write(target, this.#buffer.cells(0), copies, 'scrub');
    entries.forEach((entry, i) => {
      if (entry) owners[pool].moved(entry, from + i, to * slotsPerPage + i);
    });
    return true;
  }
}
