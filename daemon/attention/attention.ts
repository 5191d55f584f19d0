import { type DeviceJob, untimed } from '../timing/device-job.ts';
import type { Arena } from '../base/arena.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import type { VerifyPolicy } from '../ftl/verify-policy.ts';
import type { KernelName, Kernels } from '../kernels/contract.ts';
import type { KvStore } from '../kv/contract.ts';
import { Command } from './command.ts';
import type { AttendCounts, AttendOptions, AttendTarget, AttentionEngine } from './contract.ts';
import { bookAttention } from './device-work.ts';
import { FrameCache } from './frame-cache.ts';
import { createMappedFrames, type FrameSource, type FrameSourceSnapshot } from './frame-source.ts';
import { PageCache } from './page-cache.ts';
import type { DirectMedia } from '../nand/media.ts';
import { JobRunner } from './job-runner.ts';
import { LoopWorker } from './loop-worker.ts';
import { pendingEvents } from '../kernels/native/event-loop.ts';
import { type CellAccess, CellReader } from '../nand/cell-reader.ts';
import { JOB_PAGES_MAX, planTargets, releasePlan } from './plan.ts';
import { Pool } from './pool.ts';
import { ReadAhead } from './read-ahead.ts';
import { Scheduler } from './scheduler.ts';
import { PageSums } from './page-sums.ts';
import type { UnitModules } from './unit.ts';

const MIB = 2 ** 20;

export interface AttentionSettings {
  /** Compute workers; 0: every command runs on the event loop, before `attend` returns. */
  readonly workerCount: number;
  /** Commands that walk at most this many bytes, all of them resident and checked, run on the event loop. */
  readonly inlineBytesMax?: number;
  /** Frames of kernels that cannot map the media file, in the arena; at least what one job needs is taken. */
  readonly frameCacheBytes: number;
  /** Set if pages are read past the page cache: where they are cached. Native kernels and workers only. */
  readonly direct?: DirectMedia | undefined;
  /** Partials, job lists and converted queries of units in progress, in the arena. */
  readonly scratchBytesMax?: number;
  /** Default first-use. */
  readonly verify?: VerifyPolicy;
  /** The flash, as threads read it. */
  readonly media: CellAccess;
  /** Tests: flash that is in no file. Without workers only. */
  readonly reader?: CellReader;
  /** Tests: job-gate.ts. */
  readonly gate?: SharedArrayBuffer;
  /**
   * Whether the event loop takes jobs, too, in the place of one of several workers. Default: where CPUs are no more than workers,
   * event loop and a client, and nobody holds a gate.
   */
  readonly loopComputes?: boolean;
}

export interface AttentionModules {
  readonly arena: Arena;
  readonly kv: KvStore;
  readonly pages: KvPages;
  /** The event loop's own; workers load the same set. */
  readonly kernels: Kernels;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A compute worker died: our bug; the drive must stop. Every command has failed by then. */
  readonly onFatal: (cause: Error) => void;
}

export interface AttentionSnapshot {
  readonly kernels: KernelName;
  readonly isa: string;
  readonly workerCount: number;
  readonly workersBusy: number;
  /** Jobs run by each worker, and last by the event loop. */
  readonly workerJobs: readonly number[];
  /** Commands begun and not ended. */
  readonly commandsActive: number;
  readonly commandsCompleted: number;
  readonly commandsFailed: number;
  /** Of both, those that ran on the event loop. */
  readonly commandsInline: number;
  readonly flashTokens: number;
  readonly bufferedTokens: number;
  readonly pagesWalked: number;
  /** K and V bytes, padding left out. */
  readonly bytesWalked: number;
  /** Jobs handed to workers and not taken back. */
  readonly jobsOut: number;
  readonly scratchBytes: number;
  readonly frames: FrameSourceSnapshot;
}

/** Starts the workers; resolves when they are ready. */
export async function createAttention(settings: AttentionSettings, modules: AttentionModules): Promise<Attention> {
  const attention = new Attention(settings, modules);
  await attention.start();
  return attention;
}

/** Attention over stored sequences. */
export class Attention implements AttentionEngine {
  readonly #settings: AttentionSettings;
  readonly #modules: AttentionModules;
  readonly #reader: CellReader;
  readonly #frames: FrameSource & { close?(): void };
  readonly #cache: PageCache | undefined;
  readonly #runner: JobRunner;
  readonly #scheduler: Scheduler;
  readonly #unitModules: UnitModules;
  readonly #waiters = new Map<Command, { resolve(counts: AttendCounts): void; reject(error: Error): void }>();
  #pool: Pool | undefined;
  /** Why no command is taken any more. */
  #closed: DriveError | undefined;
  #isClosing = false;
  #completedCount = 0;
  #failedCount = 0;
  #inlineCount = 0;
  #flashTokens = 0;
  #bufferedTokens = 0;
  #pagesWalked = 0;
  #bytesWalked = 0;

  constructor(settings: AttentionSettings, modules: AttentionModules) {
    this.#settings = settings;
    this.#modules = modules;
    const { arena, kernels, pages } = modules;
    this.#reader = settings.reader ?? new CellReader(settings.media);
    const { direct, media } = settings;
    const { pageCount } = media.geometry;
    const roomMade = (): void => this.#scheduler.advanceSoon();
    this.#cache = direct && new PageCache({ media: direct, pages, pageCount, roomMade });
    this.#frames = this.#cache ?? this.#createFrames();
    const words = new Uint32Array(arena.buffer);
    const floats = new Float32Array(arena.buffer);
    // Caches hold copies, checked as they were loaded.
    const checksAlways = this.#frames.isInPlace && settings.verify === 'always';
    // Pages of the cache come and go.
    const sums = checksAlways || this.#cache ? new PageSums(media.geometry.pageCount) : undefined;
    this.#unitModules = { words, floats, kernels, frames: this.#frames, pages, sums, checksAlways };
    const readAhead = this.#cache && new ReadAhead({ kv: modules.kv, pages, cache: this.#cache });
    this.#runner = new JobRunner({ memory: arena.memory, kernels, reader: this.#reader });
    this.#scheduler = new Scheduler(
      { scratchBytesMax: settings.scratchBytesMax ?? 32 * MIB },
      {
        arena,
        words,
        kernels,
        cache: this.#cache,
        readAhead,
        runner: this.#runner,
        unrecovered: (page, owner, isUnreadable) => pages.unrecovered(page, owner, isUnreadable),
        ended: (command) => this.#ended(command),
      },
    );
  }

  #createFrames(): FrameSource & { close?(): void } {
    const { arena, kernels, pages } = this.#modules;
    if (kernels.canMapMedia) return createMappedFrames((page) => this.#reader.cellOffset(page), pages);
    const { frameCacheBytes, media } = this.#settings;
    const { pageCount } = media.geometry;
    const options = { sizeBytes: frameCacheBytes, frameSizeBytes: pages.pageSizeBytes, pageCount };
    return new FrameCache(options, { arena, pages });
  }

  async start(): Promise<void> {
    const { workerCount, media, gate, loopComputes: loopWanted } = this.#settings;
    if (workerCount === 0) return;
    const { name, isa } = this.#modules.kernels;
    const { clock } = this.#modules;
    // Where jobs may wait for a disk, the event loop must not.
    const loopMayCompute = this.#frames.isInPlace && this.#cache === undefined && clock.poll !== undefined;
    const loopComputes = loopMayCompute ? loopWanted : false;
    const options = { workerCount, kernels: name, isa, media, gate, loopComputes };
    const advance = (): void => this.#scheduler.advance();
    this.#pool = await Pool.start(options, this.#modules, {
      signalled: advance,
      died: (cause) => this.#workerDied(cause),
    });
    const { queue, loopEnd: worker } = this.#pool;
    const loopModules = { queue, runner: this.#runner, clock, advance, hasPendingEvents: pendingEvents() };
    const loopWorker = worker && new LoopWorker({ ...loopModules, worker });
    this.#scheduler.useQueue(queue, loopWorker);
  }

  attend(options: AttendOptions, targets: readonly AttendTarget[], job: DeviceJob = untimed): Promise<AttendCounts> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw this.#closed;
      const plans = planTargets(options, targets, this.#modules);
      const command = new Command(options, plans, this.#unitModules);
      this.#waiters.set(command, { resolve, reject });
      try {
        if (!this.#pool || this.#isSmall(command)) {
          this.#inlineCount++;
          bookAttention(plans, job);
          if (this.#cache) for (const plan of plans) this.#cache.bring(plan.pages, () => plan.pages, false);
          this.#scheduler.runInline(command);
        } else {
          this.#pool.setActive(true);
          this.#scheduler.start(command);
          // The workers have begun; in the same turn, so before whatever is planned next.
          bookAttention(plans, job);
        }
      } catch (error) {
        // It never began.
        if (this.#waiters.delete(command)) for (const plan of plans) releasePlan(plan);
        throw error;
      }
    });
  }

  snapshot(): AttentionSnapshot {
    const { kernels } = this.#modules;
    const queue = this.#pool?.queue;
    return {
      kernels: kernels.name,
      isa: kernels.isa,
      workerCount: this.#settings.workerCount,
      workersBusy: queue?.busyCount() ?? 0,
      workerJobs: queue ? [...queue.jobCounts(), queue.loopJobCount()] : [],
      commandsActive: this.#scheduler.activeCount,
      commandsCompleted: this.#completedCount,
      commandsFailed: this.#failedCount,
      commandsInline: this.#inlineCount,
      flashTokens: this.#flashTokens,
      bufferedTokens: this.#bufferedTokens,
      pagesWalked: this.#pagesWalked,
      bytesWalked: this.#bytesWalked,
      jobsOut: queue?.outCount ?? 0,
      scratchBytes: this.#scheduler.scratchBytes,
      frames: this.#frames.snapshot(),
    };
  }

  /**
   * Takes no more commands, fails those in progress (namespaceNotReady), and resolves when no worker runs and nothing
   * of them is held any more.
   */
  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#closed ??= new DriveError('namespaceNotReady', 'the drive is closing');
    this.#scheduler.failAll(this.#closed);
    await this.#pool?.stop();
    this.#scheduler.abandon(this.#closed);
    this.#frames.close?.();
  }

  /** Whether running it here costs less than waking a worker, and cannot wait for a disk. */
  #isSmall(command: Command): boolean {
    if (command.walkBytes > (this.#settings.inlineBytesMax ?? 2 ** 20)) return false;
    if (this.#frames.available < JOB_PAGES_MAX) return false;
    return command.plans.every((plan) => {
      for (const page of plan.pages) if (!this.#frames.isReady(page as Ppn)) return false;
      return true;
    });
  }

  #ended(command: Command): void {
    for (const plan of command.plans) releasePlan(plan);
    if (this.#scheduler.activeCount === 0) this.#pool?.setActive(false);
    const waiter = this.#waiters.get(command);
    this.#waiters.delete(command);
    const { failure, counts } = command;
    if (failure) {
      this.#failedCount++;
      waiter?.reject(failure);
      return;
    }
    this.#completedCount++;
    this.#flashTokens += counts.flashTokenCount;
    this.#bufferedTokens += counts.bufferedTokenCount;
    this.#pagesWalked += counts.pageCount;
    this.#bytesWalked += command.walkBytes;
    this.#modules.pages.countReads(counts.pageCount);
    waiter?.resolve(counts);
  }

  #workerDied(cause: Error): void {
    this.#closed = new DriveError('internal', `a compute worker died: ${cause.message}`, { cause });
    this.#modules.logger.error({ err: cause }, 'a compute worker died');
    this.#scheduler.abandon(this.#closed);
    this.#modules.onFatal(cause);
  }
}
