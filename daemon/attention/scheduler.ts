import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { KvPages, Ppn } from '../ftl/contract.ts';
import type { Kernels } from '../kernels/contract.ts';
import type { Command } from './command.ts';
import { commandRecord, hasFailed, jobRecord, jobStates, unitRecord, wordsOf } from './job-layout.ts';
import { type JobQueue, lanes } from './job-queue.ts';
import type { JobRunner } from './job-runner.ts';
import type { LoopWorker } from './loop-worker.ts';
import type { PageCache } from './page-cache.ts';
import type { ReadAhead } from './read-ahead.ts';
import { ownerOf } from './plan.ts';
import { stageOf } from './stage.ts';
import { Turns } from './turns.ts';
import type { PreparedJob, Unit } from './unit.ts';

const jobWords = wordsOf(jobRecord.offsetOf);
const unitWords = wordsOf(unitRecord.offsetOf);
const commandWords = wordsOf(commandRecord.offsetOf);

export interface SchedulerOptions {
  /** Scratch that units in progress of a lane may hold together; one unit may always run, however large. */
  readonly scratchBytesMax: number;
}

export interface SchedulerModules {
  readonly arena: Arena;
  /** All of the arena. */
  readonly words: Uint32Array;
  readonly kernels: Pick<Kernels, 'merge'>;
  /** Runs jobs on the event loop. */
  readonly runner: JobRunner;
  /** Where pages must be brought before jobs walk them; undefined: they are there, or workers load them. */
  readonly cache: PageCache | undefined;
  readonly readAhead: ReadAhead | undefined;
  /** What a command is told that could not read a page. */
  readonly unrecovered: KvPages['unrecovered'];
  /** A command has ended, well or (`failure` set) not; nothing of it runs any more. */
  readonly ended: (command: Command) => void;
}

type Step = 'pushed' | 'needsScratch' | 'needsFrames' | 'needsRoom' | 'over';

/** Scratch of the express lane: this part of what the bulk lane may hold, beside it. */
const EXPRESS_SCRATCH_SHARE = 8;

/** Looks for completed jobs in a row before other events get their turn. */
const ROUNDS_MAX = 8;

/** A class: there is one for each job, and what is spread into a literal costs more than all the rest of preparing it. */
class JobOut implements PreparedJob {
  readonly unit: Unit;
  readonly offset: number;
  readonly handles: readonly number[];
  readonly command: Command;
  readonly slot: number;

  constructor({ unit, offset, handles }: PreparedJob, command: Command, slot: number) {
    this.unit = unit;
    this.offset = offset;
    this.handles = handles;
    this.command = command;
    this.slot = slot;
  }
}

/**
 * Turns commands into jobs and sees them through. Commands of a lane take turns, one job each, so that none is delayed by
 * the whole of another; those that walk little have a lane of their own, and wait for the jobs at hand only. How many jobs
 * are out at once is bounded by the queue, and what they take of the arena by `scratchBytesMax` and by the frames there are;
 * a command that cannot go on waits for jobs to come back.
 */
export class Scheduler {
  readonly #modules: SchedulerModules;
  readonly #turns: readonly Turns[];
  readonly #active = new Set<Command>();
  /** Jobs out, by slot. */
  readonly #out: (JobOut | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  /** Waits for idle frames; until it has them, no other command takes any, or it might never find enough. */
  #frameWaiter: Command | undefined;
  /** Waits for room in the cache of pages; until it has some, others go on with what is in the cache. */
  #roomWaiter: Command | undefined;
  /** Jobs whose pages are on their way. */
  #parkedCount = 0;
  #advancesSoon = false;
  #queue: JobQueue | undefined;
  #loopWorker: LoopWorker | undefined;

  constructor(options: SchedulerOptions, modules: SchedulerModules) {
    this.#modules = modules;
    const { scratchBytesMax } = options;
    this.#turns = [
      new Turns(lanes.express, scratchBytesMax / EXPRESS_SCRATCH_SHARE),
      new Turns(lanes.bulk, scratchBytesMax),
    ];
  }

  /** Where jobs go, and who takes some of them on the event loop. Without a queue only `runInline` works. */
  useQueue(queue: JobQueue, loopWorker?: LoopWorker): void {
    this.#queue = queue;
    this.#loopWorker = loopWorker;
    for (let slot = this.#turns.length * queue.capacity - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
  }

  /** Commands begun and not ended. */
  get activeCount(): number {
    return this.#active.size;
  }

  get scratchBytes(): number {
    return this.#turns.reduce((sum, { scratchBytes }) => sum + scratchBytes, 0);
  }

  /** Runs a command to its end before it returns. `ended` is called as for any other. */
  runInline(command: Command): void {
    this.#begin(command);
    try {
      for (let unit = command.nextUnit(); unit; unit = command.nextUnit()) this.#runUnitInline(command, unit);
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      command.failure = error;
    }
    this.#end(command);
  }

  /** Hands a command to the workers. */
  start(command: Command): void {
    this.#begin(command);
    if (command.unitCount === 0) {
      this.#end(command);
      return;
    }
    this.#turnsOf(command).runnable.push(command);
    this.#advance();
  }

  /** Jobs may have come back. */
  advance(): void {
    this.#settleAll();
    this.#advance();
  }

  /** Fails every command; those with no job out end at once, the others when their jobs are back. */
  failAll(failure: Error): void {
    for (const command of [...this.#active]) this.#fail(command, failure);
    if (this.#queue) this.#advance();
  }

  /** When no worker runs any more: takes back what came back, and fails the commands whose jobs never will. */
  abandon(failure: Error): void {
    this.#loopWorker?.end();
    this.#settleAll();
    for (const command of [...this.#active]) this.#fail(command, failure);
    for (const { ready } of this.#turns) ready.length = 0;
    for (const [slot, job] of this.#out.entries()) {
      if (!job) continue;
      this.#out[slot] = undefined;
      job.unit.settle(job);
      job.command.jobsOut--;
    }
    for (const command of [...this.#active]) this.#end(command);
  }

  #begin(command: Command): void {
    const { arena, words } = this.#modules;
    command.record = arena.allocate(commandRecord.sizeBytes);
    const at = command.record >>> 2;
    words.fill(0, at, at + commandRecord.sizeBytes / 4);
    words[at + commandWords.unitsRemaining] = command.unitCount;
    this.#active.add(command);
  }

  #end(command: Command): void {
    assert(command.jobsOut === 0, 'a command ends when none of its jobs is out');
    for (const unit of [...command.units]) this.#freeUnit(command, unit);
    this.#modules.arena.free(command.record);
    this.#active.delete(command);
    this.#modules.ended(command);
  }

  #runUnitInline(command: Command, unit: Unit): void {
    const { runner, words, kernels } = this.#modules;
    unit.begin(this.#modules.arena.allocate(unit.scratchSizeBytes), command.record);
    this.#keepUnit(command, unit);
    if (unit.jobCount === 0) kernels.merge(unit.mergeOffset);
    while (!unit.isPrepared) {
      const job = unit.prepareJob(0);
      assert(job !== undefined, 'an inline command finds its frames');
      runner.run(job.offset);
      runner.finish(job.offset);
      unit.settle(job);
      if (hasFailed(words, job.offset)) throw this.#failureOf(unit, job.offset);
    }
    this.#freeUnit(command, unit);
  }

  #advance(): void {
    const queue = this.#queue;
    assert(queue !== undefined, 'the scheduler has a queue');
    for (let round = 0; round < ROUNDS_MAX; round++) {
      this.#pushJobs(queue);
      const isWaiting = this.#isWaiting();
      for (const { lane } of this.#turns) queue.setStarving(lane, isWaiting);
      // A job that came back before its worker could see a flag set above is found here; every later one is signalled.
      if (this.#settleAll() === 0) return;
    }
    setImmediate(() => this.#advance());
  }

  #turnsOf(command: Command): Turns {
    return this.#turns[command.lane]!;
  }

  /** Whether there are jobs to prepare or to hand out. */
  #isWaiting(): boolean {
    return this.#turns.some(({ isWaiting }) => isWaiting);
  }

  #pushJobs(queue: JobQueue): void {
    for (const turns of this.#turns) this.#pushLane(queue, turns);
    queue.wakeWorkers();
    if (queue.outCount > 0) this.#loopWorker?.begin();
    if (this.#roomWaiter === undefined) this.#modules.readAhead?.goOn();
    const isWorkOut = queue.outCount > 0 || this.#parkedCount > 0 || this.#modules.cache?.isLoading === true;
    assert(!this.#isWaiting() || isWorkOut, 'a command that waits has jobs to wait for');
  }

  #pushLane(queue: JobQueue, turns: Turns): void {
    const { runnable, ready } = turns;
    let waitingCount = 0;
    let early = queue.workerCount;
    while (ready.length > 0 && turns.outCount < queue.capacity) this.#push(this.#out[ready.shift()!]!, queue);
    while (turns.outCount < queue.capacity && waitingCount < runnable.length) {
      const command = runnable.shift();
      assert(command !== undefined, 'a runnable command');
      const step = this.#step(command, queue);
      // The first ones begin while the rest is prepared.
      if (early > 0) {
        early--;
        queue.wakeWorkers();
      }
      waitingCount = step === 'needsScratch' || step === 'needsRoom' ? waitingCount + 1 : 0;
      if (step === 'needsFrames') {
        runnable.unshift(command);
        return;
      }
      if (step !== 'over') runnable.push(command);
    }
  }

  #push({ command, offset }: JobOut, queue: JobQueue): void {
    const turns = this.#turnsOf(command);
    turns.outCount++;
    queue.push(offset, turns.lane);
  }

  /** One job of one command: pushed; or it must wait; or (`over`) all its jobs are prepared, or it failed. */
  #step(command: Command, queue: JobQueue): Step {
    const { cache } = this.#modules;
    if (cache) return this.#stage(command, queue, cache);
    try {
      while (command.current === undefined || command.current.isPrepared) {
        const unit = this.#pending(command);
        if (!unit) {
          this.#endIfDone(command);
          return 'over';
        }
        if (!this.#beginUnit(command, unit)) return 'needsScratch';
      }
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      this.#fail(command, error);
      return 'over';
    }
    if (this.#frameWaiter !== undefined && this.#frameWaiter !== command) return 'needsFrames';
    const job = this.#prepareJob(command, command.current);
    this.#frameWaiter = job === undefined ? command : undefined;
    if (!job) return 'needsFrames';
    this.#push(job, queue);
    return job.unit.isPrepared && !command.hasMoreUnits ? 'over' : 'pushed';
  }

  #prepareJob(command: Command, unit: Unit): JobOut | undefined {
    const slot = this.#freeSlots.pop() ?? this.#out.length;
    const job = unit.prepareJob(slot);
    if (!job) {
      this.#freeSlots.push(slot);
      return undefined;
    }
    const jobOut = new JobOut(job, command, slot);
    this.#out[slot] = jobOut;
    command.jobsOut++;
    return jobOut;
  }

  /**
   * A step where pages must be brought: some jobs of a command together, so that pages which lie side by side are read by one
   * request. KV heads go through the chunks of tokens in step, since neighbours on the disk are as likely those of another
   * head. Jobs whose pages are on their way are handed out when those have come.
   */
  #stage(command: Command, queue: JobQueue, cache: PageCache): Step {
    try {
      if (command.batch.length === 0) this.#beginBatch(command);
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      this.#fail(command, error);
      return 'over';
    }
    const { batch } = command;
    if (batch.length === 0) {
      if (command.hasMoreUnits) return 'needsScratch';
      this.#endIfDone(command);
      return 'over';
    }
    if (this.#roomWaiter === command && !cache.hasRoomAgain) return 'needsRoom';
    const { pages, unitCount } = stageOf(batch, cache);
    const mayLoad = this.#roomWaiter === undefined || this.#roomWaiter === command;
    if (!cache.bring(pages, () => batch[0]!.plan.sortedPages(), mayLoad)) {
      this.#roomWaiter ??= command;
      return 'needsRoom';
    }
    if (this.#roomWaiter === command) this.#roomWaiter = undefined;
    for (const unit of batch.splice(0, unitCount)) {
      const job = this.#prepareJob(command, unit);
      assert(job !== undefined, 'a job whose pages were brought can be prepared');
      if (!unit.isPrepared) batch.push(unit);
      this.#parkedCount++;
      if (cache.whenLoaded(job.handles, () => this.#arrived(job, cache))) this.#handOut(job, queue);
    }
    if (batch.length > 0 || command.hasMoreUnits) return 'pushed';
    this.#modules.readAhead?.after(command.plans);
    return 'over';
  }

  /** Units of one plan go through its pages together: as many as there is scratch for. */
  #beginBatch(command: Command): void {
    const { batch } = command;
    for (let unit = this.#pending(command); unit; unit = this.#pending(command)) {
      if (batch.length > 0 && unit.plan !== batch[0]!.plan) return;
      if (!this.#beginUnit(command, unit)) return;
      if (unit.jobCount > 0) batch.push(unit);
    }
  }

  #handOut(job: JobOut, queue: JobQueue): void {
    this.#parkedCount--;
    const turns = this.#turnsOf(job.command);
    if (turns.outCount < queue.capacity) this.#push(job, queue);
    else turns.ready.push(job.slot);
  }

  /** The pages of a job have come. */
  #arrived(job: JobOut, cache: PageCache): void {
    const queue = this.#queue;
    // After the workers have ended nobody wants it any more.
    if (queue === undefined || this.#out[job.slot] !== job) return;
    for (const handle of job.handles) {
      const page = cache.failedPage(handle);
      if (page !== undefined) job.unit.refuse(job, page);
    }
    this.#handOut(job, queue);
    this.advanceSoon();
  }

  /** Something has changed, and more may in the same turn. */
  advanceSoon(): void {
    if (this.#advancesSoon) return;
    this.#advancesSoon = true;
    queueMicrotask(() => {
      this.#advancesSoon = false;
      this.advance();
    });
  }

  #pending(command: Command): Unit | undefined {
    command.waiting ??= command.nextUnit();
    return command.waiting;
  }

  /** Gives the unit its scratch block; false if there is none now. DriveError bufferFull if there never will be. */
  #beginUnit(command: Command, unit: Unit): boolean {
    const { words, kernels } = this.#modules;
    const base = this.#takeScratch(command, unit);
    if (base === undefined) return false;
    unit.begin(base, command.record);
    this.#keepUnit(command, unit);
    command.waiting = undefined;
    command.current = unit;
    if (unit.jobCount > 0) return true;
    // Nothing is seen: the outputs are zeros, and no worker is needed for that.
    kernels.merge(unit.mergeOffset);
    Atomics.sub(words, (command.record >>> 2) + commandWords.unitsRemaining, 1);
    // This may have been the last unit while jobs of others are out, whose worker then saw no reason to wake us.
    Atomics.store(words, (command.record >>> 2) + commandWords.wakeAlways, 1);
    this.#freeUnit(command, unit);
    command.unitsDone++;
    return true;
  }

  #takeScratch(command: Command, unit: Unit): number | undefined {
    const turns = this.#turnsOf(command);
    if (turns.scratchWaiter !== undefined && turns.scratchWaiter !== command) return undefined;
    turns.scratchWaiter = command;
    const size = unit.scratchSizeBytes;
    if (turns.scratchBytes > 0 && turns.scratchBytes + size > turns.scratchBytesMax) return undefined;
    try {
      const base = this.#modules.arena.allocate(size);
      turns.scratchWaiter = undefined;
      return base;
    } catch (error) {
      if (error instanceof DriveError && this.scratchBytes > 0) return undefined;
      throw error;
    }
  }

  #keepUnit(command: Command, unit: Unit): void {
    command.units.add(unit);
    this.#turnsOf(command).scratchBytes += unit.scratchSizeBytes;
  }

  #freeUnit(command: Command, unit: Unit): void {
    command.units.delete(unit);
    this.#turnsOf(command).scratchBytes -= unit.scratchSizeBytes;
    this.#modules.arena.free(unit.base);
  }

  #settleAll(): number {
    return this.#queue?.drain((offset) => this.#settle(offset)) ?? 0;
  }

  #settle(offset: number): void {
    const { words } = this.#modules;
    const slot = words[(offset >>> 2) + jobWords.slot]!;
    const job = this.#out[slot];
    assert(job !== undefined && job.offset === offset, `job ${offset} is out`);
    this.#out[slot] = undefined;
    this.#freeSlots.push(slot);
    const { unit, command } = job;
    unit.settle(job);
    command.jobsOut--;
    this.#turnsOf(command).outCount--;
    if (hasFailed(words, offset)) this.#fail(command, command.failure ?? this.#failureOf(unit, offset));
    else if (command.failure) this.#endIfDone(command);
    else {
      if (unit.isSettled) {
        this.#freeUnit(command, unit);
        command.unitsDone++;
        this.#endIfDone(command);
      }
      // The wake-up for the whole command may have come before every job of it was handed back, and whoever is late
      // sees no reason to wake us: ask for it. The next look at the rings comes after this.
      const record = command.record >>> 2;
      if (command.jobsOut > 0 && Atomics.load(words, record + commandWords.unitsRemaining) === 0) {
        Atomics.store(words, record + commandWords.wakeAlways, 1);
      }
    }
  }

  #failureOf({ plan }: Unit, offset: number): DriveError {
    const { words, unrecovered } = this.#modules;
    const at = offset >>> 2;
    const page = words[at + jobWords.failedPage]! as Ppn;
    return unrecovered(page, ownerOf(plan, page), words[at + jobWords.state] === jobStates.readFailed);
  }

  /** Prepares no more jobs of the command; those that are out but not begun are skipped. */
  #fail(command: Command, failure: Error): void {
    if (command.failure === undefined) {
      command.failure = failure;
      const { words } = this.#modules;
      for (const unit of command.units) Atomics.store(words, (unit.base >>> 2) + unitWords.failed, 1);
      Atomics.store(words, (command.record >>> 2) + commandWords.wakeAlways, 1);
      if (this.#frameWaiter === command) this.#frameWaiter = undefined;
      if (this.#roomWaiter === command) this.#roomWaiter = undefined;
      this.#turnsOf(command).leave(command);
    }
    this.#endIfDone(command);
  }

  #endIfDone(command: Command): void {
    if (command.jobsOut > 0) return;
    if (command.failure !== undefined || command.unitsDone === command.unitCount) this.#end(command);
  }
}
