/** One run of the drive, from its start to the loss of its power, as those see it who work on it. */
import assert from 'node:assert/strict';
import type { ErrorCode } from '../../spec/errors.ts';
import type { Arena } from '../../daemon/base/arena.ts';
import type { ComposedDrive } from './composed-drive.ts';
import type { BlockModel, Ticks } from './block-model.ts';
import { hasCellFaults } from './cell-faults.ts';
import type { ErasedData } from './erased-data.ts';
import type { EventLoop } from './event-loop.ts';
import type { Completion } from './host.ts';
import type { KvModel } from './kv-model.ts';
import type { Machine } from './machine.ts';
import type { HistoryOptions } from './options.ts';
import type { Prng } from './prng.ts';
import type { SimStores } from './stores.ts';
import type { Trace } from './trace.ts';

/** Longer than anything takes that is in flight, garbage collection in the background included. */
const PAUSE_NS = 1e9;
const PAUSES_MAX = 20;
/** For those who only wait until nothing is in flight. */
const SHORT_PAUSE_NS = 1e6;
const SHORT_PAUSES_MAX = 1000;

/** What had gone wrong, or was going on, when a command was submitted: what may explain how it ends. */
export interface Troubles {
  readonly refusalCount: number;
  readonly readFailureCount: number;
  readonly isFormatting: boolean;
}

export class World {
  readonly options: HistoryOptions;
  readonly loop: EventLoop;
  readonly machine: Machine;
  readonly random: Prng;
  readonly trace: Trace;
  readonly ticks: Ticks;
  readonly blocks: BlockModel;
  readonly kv: KvModel;
  readonly drive: ComposedDrive;
  readonly arena: Arena;
  readonly stores: SimStores;
  readonly erased: ErasedData;
  /** Checks the drive from inside, once nothing is in flight. */
  audit: () => void = () => undefined;
  /** Nobody begins anything before. */
  resumeAtNs = 0;
  isEnding = false;
  /** Tasks that are in the middle of something. */
  busyCount = 0;
  /** A namespace is being formatted, or may be: its host has lost the connection. */
  isFormatting = false;
  commandCount = 0;
  onCommand: () => void = () => undefined;

  constructor(
    options: HistoryOptions,
    modules: {
      loop: EventLoop;
      machine: Machine;
      random: Prng;
      trace: Trace;
      ticks: Ticks;
      blocks: BlockModel;
      kv: KvModel;
      drive: ComposedDrive;
      arena: Arena;
      stores: SimStores;
      erased: ErasedData;
    },
  ) {
    this.options = options;
    this.loop = modules.loop;
    this.machine = modules.machine;
    this.random = modules.random;
    this.trace = modules.trace;
    this.ticks = modules.ticks;
    this.blocks = modules.blocks;
    this.kv = modules.kv;
    this.drive = modules.drive;
    this.arena = modules.arena;
    this.stores = modules.stores;
    this.erased = modules.erased;
  }

  get nowNs(): number {
    return this.loop.nowNs();
  }

  troubles(): Troubles {
    const { refusalCount, readFailureCount } = this.machine;
    return { refusalCount, readFailureCount, isFormatting: this.isFormatting };
  }

  /** Everybody stops until nothing is in flight. False: somebody takes too long. */
  async pause(): Promise<boolean> {
    for (let waits = 0; waits < SHORT_PAUSES_MAX; waits++) {
      this.resumeAtNs = Math.max(this.resumeAtNs, this.nowNs + 2 * SHORT_PAUSE_NS);
      await this.loop.wait(SHORT_PAUSE_NS);
      if (this.busyCount === 0 && this.drive.subsystem.snapshot().inFlightCount === 0) return true;
    }
    return false;
  }

  /** Everybody stops and nothing is in flight; then the drive is checked from inside. */
  async pauseAndAudit(): Promise<void> {
    for (let waits = 0; waits < PAUSES_MAX; waits++) {
      this.resumeAtNs = Math.max(this.resumeAtNs, this.nowNs + 2 * PAUSE_NS);
      await this.loop.wait(PAUSE_NS);
      if (this.drive.subsystem.snapshot().inFlightCount > 0 || this.#isPinned()) continue;
      this.audit();
      return;
    }
    assert.fail('commands or pins stay, though nobody does anything');
  }

  /** But for what garbage collection has begun to empty, and goes on with when it must. */
  #isPinned(): boolean {
    const { superblocks, geometry } = this.drive.ftl.flash;
    for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
      if (superblocks.pinCount(superblock) > Number(superblocks.state(superblock) === 'victim')) return true;
    }
    return false;
  }

  /**
   * What became of a command. Fails if it ended in a way that nothing explains. `allowed`: errors that this command may
   * end with on a healthy disk; `troubles`: of when it was submitted.
   */
  outcome(
    completion: Completion,
    what: string,
    troubles: Troubles,
    allowed: readonly ErrorCode[] = [],
  ): Completion['error'] {
    this.commandCount++;
    this.onCommand();
    const { error } = completion;
    if (error === undefined || error === 'lost' || allowed.includes(error)) return error;
    const { refusalCount, readFailureCount, hasFailedSync } = this.machine;
    const isDiskToBlame = refusalCount > troubles.refusalCount || hasFailedSync || hasCellFaults(this.options.cells);
    const isExplained =
      (error === 'writeFault' && isDiskToBlame) ||
      (error === 'unrecoveredRead' && readFailureCount > troubles.readFailureCount) ||
      (error === 'formatInProgress' && (this.isFormatting || troubles.isFormatting)) ||
      // Too many blocks are bad.
      (error === 'namespaceWriteProtected' && hasCellFaults(this.options.cells));
    assert.ok(isExplained, `${what} ends with ${error} (DW0 ${completion.dw0})`);
    return error;
  }
}
