/**
 * One history: a drive that is started, worked on, and loses its power, again and again, all from one seed.
 *
 * Fault model. The power goes before any step that changes a disk, or before it has ended. Of what no sync covered any
 * sectors of 512 bytes survive, in any combination over files, in order only within a sector; names of files by
 * themselves; transactions on their way whole, in order, or not. A killed process leaves all that it wrote, still unsynced.
 * The disk refuses writes for a while, fails a sync, and answers as late and in whatever order it likes. README.md has it in
 * full, and what is checked.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Arena, ARENA_RESERVED_BYTES, createArena, createArenaOver } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { checkImage } from '../../daemon/image/check.ts';
import type { Finding } from '../../daemon/image/finding.ts';
import type { LostDataSummary } from '../../daemon/image/lost-data.ts';
import type { Kernels } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { type ComposedDrive, composeDrive } from './composed-drive.ts';
import { UnsyncedFates } from '../ftl/unsynced-fates.ts';
import { BlockModel, Ticks } from './block-model.ts';
import { chipOf, FaultyDies, hasCellFaults } from './cell-faults.ts';
import { RecordedDeviceTime } from './device-times.ts';
import { ErasedData } from './erased-data.ts';
import { EventLoop, MachineTime } from './event-loop.ts';
import { HostSession } from './host-session.ts';
import { Invariants } from './invariants.ts';
import { KvModel } from './kv-model.ts';
import { Machine } from './machine.ts';
import type { Mutation } from './mutations.ts';
import { drawOptions, type EndKind, type HistoryOptions } from './options.ts';
import { Prng } from './prng.ts';
import { identity, newRemains, type Remains, SimStores } from './stores.ts';
import { count, newTally, type Tally } from './tally.ts';
import { Trace } from './trace.ts';
import { type Killed, verifyDrive } from './verify.ts';
import { hostModulesOf, workOn } from './work.ts';
import { World } from './world.ts';

const ARENA_BYTES = 24 * 2 ** 20;
const FRAME_CACHE_BYTES = 2 ** 20;
/** Commands of one run after which its power goes, whatever its disk did. */
const COMMANDS_MAX = 1500;
/** No command takes so long, whatever the disk does: something waits for what never comes. */
const STUCK_NS = 20e9;
/** Share of starts after which the drive is checked from inside too. */
const AUDIT_CHANCE = 0.3;
/** Share of ends after which what is left is checked before the next start. */
const IMAGE_CHECK_CHANCE = 0.3;
const ROT_FLIPS_MAX = 12;
const LONGEST_RUN_NS = 200e9;

/** Memory and kernels of all drives of this process, which are open one after the other. */
let shared:
  | { readonly memory: WebAssembly.Memory; readonly kernels: Kernels; readonly regionFolder: string }
  | undefined;

function sharedParts(): NonNullable<typeof shared> {
  if (shared === undefined) {
    const { memory } = createArena(ARENA_BYTES);
    const regionFolder = mkdtempSync(join(tmpdir(), 'attndrive-sim-'));
    process.once('exit', () => rmSync(regionFolder, { recursive: true, force: true }));
    shared = { memory, kernels: loadKernels('wasm', { memory }), regionFolder };
  }
  return shared;
}

export interface HistoryRequest {
  readonly seed: bigint;
  /** Power cuts after which it ends at the latest. */
  readonly cutsMax?: number;
  readonly trace?: Trace;
  /** A bug to plant. */
  readonly mutation?: Mutation | undefined;
}

export interface HistoryReport {
  readonly options: HistoryOptions;
  readonly tally: Tally;
  readonly traceHash: string;
}

/** What went wrong, and when. */
export class HistoryFailure extends Error {
  override readonly name = 'HistoryFailure';
  /** Replays it: a history of this seed that ends after so many power cuts. */
  readonly seed: bigint;
  readonly cuts: number;

  constructor(seed: bigint, cuts: number, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.seed = seed;
    this.cuts = cuts;
  }
}

export async function playHistory(request: HistoryRequest): Promise<HistoryReport> {
  const history = new History(request);
  const restore = request.mutation?.install?.();
  try {
    return await history.play();
  } catch (error) {
    throw new HistoryFailure(request.seed, history.tally.powerCuts + 1, error);
  } finally {
    restore?.();
  }
}

class History {
  readonly #options: HistoryOptions;
  readonly #random: Prng;
  readonly #trace: Trace;
  readonly #time = new MachineTime();
  readonly #cutsMax: number;
  readonly #mutation: Mutation | undefined;
  readonly #ticks = new Ticks();
  readonly #blocks: BlockModel;
  readonly #kv: KvModel;
  readonly #erased: ErasedData;
  #remains: Remains;
  #killed: Killed | undefined;
  readonly tally = newTally();
  #cutsInRow = 0;
  #isRotten = false;
  /** Nothing that was numbered up to it is numbered again. */
  #durableOperation = 0;

  constructor({ seed, cutsMax, trace = new Trace(), mutation }: HistoryRequest) {
    this.#mutation = mutation;
    this.#options = drawOptions(Prng.of(seed, 'options'));
    this.#random = Prng.of(seed, 'history');
    this.#trace = trace;
    trace.setClock(() => this.#time.nowNs);
    this.#cutsMax = Math.min(cutsMax ?? Number.POSITIVE_INFINITY, this.#options.cutCount);
    const { geometry } = this.#options;
    this.#blocks = new BlockModel(geometry.blockCapacityBytes / 4096, this.#ticks);
    this.#kv = new KvModel(this.#ticks);
    this.#erased = new ErasedData(this.#blocks.lbaCount);
    this.#remains = newRemains(geometry);
    // Whatever an earlier history left there must change nothing.
    new Uint8Array(sharedParts().memory.buffer, ARENA_RESERVED_BYTES).fill(0xa5);
  }

  async play(): Promise<HistoryReport> {
    while (this.tally.powerCuts < this.#cutsMax) await this.#run();
    this.tally.virtualSeconds = this.#time.nowNs / 1e9;
    return { options: this.#options, tally: this.tally, traceHash: this.#trace.hash };
  }

  /** From one start to the next. */
  async #run(): Promise<void> {
    const options = this.#options;
    const random = this.#random;
    const end = random.weighted(options.ends);
    const isEarly = random.chance(options.earlyCutChance);
    const steps = isEarly ? random.below(30) : 20 + random.below(options.stepsMax);
    const stepsLeft = end === 'shutdown' ? Number.POSITIVE_INFINITY : steps;
    const loop = new EventLoop(this.#time);
    const trace = this.#trace;
    trace.note('start', this.tally.powerCuts);
    const machine = new Machine({ behaviour: options.disk, stepsLeft }, { loop, random: random.fork(), trace });
    const stores = new SimStores(this.#remains, machine);
    this.#mutation?.stores?.(stores, machine);
    const run = new Run(
      { end, options, mutation: this.#mutation, killed: this.#killed, durableOperation: this.#durableOperation },
      { loop, machine, stores, trace, random, history: this.#models() },
    );
    run.begin();
    await loop.run();
    this.tally.commands += run.commandCount;
    this.tally.timedJobs += run.deviceTime?.check() ?? 0;
    this.tally.diskSteps += machine.stepCount;
    this.tally.refusals += machine.refusalCount;
    this.tally.readFailures += machine.readFailureCount;
    this.#durableOperation = Math.max(this.#durableOperation, run.durableOperation);
    this.#time.nowNs += 1e6;
    this.#end(run, machine, stores);
    if (run.isShutDown && random.chance(options.rotChance)) await this.#rot();
    else if (!this.#isRotten && random.chance(IMAGE_CHECK_CHANCE)) {
      assert.deepEqual((await this.#checkImage()).texts, [], 'what a check of the image finds');
    }
  }

  #models() {
    return { ticks: this.#ticks, blocks: this.#blocks, kv: this.#kv, erased: this.#erased };
  }

  #end(run: Run, machine: Machine, stores: SimStores): void {
    const { tally } = this;
    const fates = new UnsyncedFates(this.#random.fork());
    const how = run.isShutDown ? 'shutdown' : run.endsBy === 'kill' || run.isRefused ? 'kill' : 'powerCut';
    this.#trace.note(how);
    this.#trace.explain(() => `${how}${how === 'powerCut' ? `, unsynced writes: ${fates.way}` : ''}`);
    // What a start has found is durable; what came before it counts no more.
    if (how !== 'kill') this.#killed = undefined;
    else if (run.isVerified) this.#killed = { scope: this.#kv.scope() };
    if (how === 'shutdown') tally.shutdowns++;
    else if (how === 'kill') tally.kills++;
    else {
      tally.powerCuts++;
      count(tally.cutsWhile, run.phase);
      count(tally.cutsBefore, machine.cutBefore ?? 'no step');
    }
    this.#cutsInRow = run.isVerified ? 0 : this.#cutsInRow + Number(how === 'powerCut');
    tally.cutsInRowMax = Math.max(tally.cutsInRowMax, this.#cutsInRow);
    this.#remains = how === 'powerCut' ? stores.afterPowerCut(fates) : stores.afterKill(fates);
    this.#erased.check(this.#remains);
  }

  /** Looks at what is left without starting it. */
  async #checkImage(): Promise<{ texts: readonly string[]; lost: LostDataSummary }> {
    const { memory, kernels } = sharedParts();
    const stores = { ...identity, chip: chipOf(this.#options.cells), ...this.#remains };
    const texts: string[] = [];
    const onFinding = ({ kind, text }: Finding): void => void texts.push(`${kind}: ${text}`);
    const { lost } = await checkImage(stores, { arena: createArenaOver(memory), kernels }, { onFinding });
    return { texts, lost };
  }

  /** Bits flip while the drive is off. A check of the image says whose they were. */
  async #rot(): Promise<void> {
    const { cells } = this.#remains.media;
    for (let flips = 1 + this.#random.below(ROT_FLIPS_MAX); flips > 0; flips--) {
      cells[this.#random.below(cells.length)]! ^= 1 << this.#random.below(8);
    }
    this.#isRotten = true;
    const { lost } = await this.#checkImage();
    assert.ok(!lost.isMoreUnknown, 'a check of the image knows whose cells have rotted');
    this.#trace.explain(() => `rot of ${lost.lbaCount} LBAs, sequences ${lost.sequences.map((one) => one.sequenceId)}`);
    for (const { start, end } of lost.lbas) for (let lba = start; lba < end; lba++) this.#blocks.rot(lba);
    for (const { sequenceId } of lost.sequences) this.#kv.rot(sequenceId);
  }
}

interface RunPlan {
  readonly end: EndKind;
  readonly options: HistoryOptions;
  readonly mutation: Mutation | undefined;
  readonly killed: Killed | undefined;
  readonly durableOperation: number;
}

interface RunModules {
  readonly loop: EventLoop;
  readonly machine: Machine;
  readonly stores: SimStores;
  readonly trace: Trace;
  readonly random: Prng;
  readonly history: {
    readonly ticks: Ticks;
    readonly blocks: BlockModel;
    readonly kv: KvModel;
    readonly erased: ErasedData;
  };
}

/** A drive from its start to the loss of its power, or to the end of its process. */
class Run {
  readonly endsBy: EndKind;
  readonly deviceTime: RecordedDeviceTime | undefined;
  readonly #options: HistoryOptions;
  readonly #mutation: Mutation | undefined;
  readonly #killed: Killed | undefined;
  readonly #durableBefore: number;
  readonly #modules: RunModules;
  readonly #random: Prng;
  #world: World | undefined;
  phase: 'opening' | 'reading all' | 'working' | 'shutting down' = 'opening';
  isShutDown = false;
  /** All of it was read and compared with the models. */
  isVerified = false;
  /** The process has ended because the disk refused what it cannot do without. */
  isRefused = false;

  constructor(plan: RunPlan, modules: RunModules) {
    const { end, options, mutation, killed, durableOperation } = plan;
    this.#killed = killed;
    this.#durableBefore = durableOperation;
    this.endsBy = end;
    this.#mutation = mutation;
    this.#options = options;
    this.#modules = modules;
    this.#random = modules.random.fork();
    const { timing, profile, geometry } = options;
    if (timing !== 'off') this.deviceTime = new RecordedDeviceTime(profile, geometry, modules.loop);
  }

  get commandCount(): number {
    return this.#world?.commandCount ?? 0;
  }

  /** Of the last checkpoint. */
  get durableOperation(): number {
    return this.#world?.drive.ftl.durability.lastOperation ?? 0;
  }

  begin(): void {
    const { loop } = this.#modules;
    this.#script().then(
      () => loop.stop(),
      (error: unknown) => loop.fail(error),
    );
  }

  async #script(): Promise<void> {
    this.#trouble();
    const arena = createArenaOver(sharedParts().memory);
    const drive = await this.#open(arena);
    if (drive === undefined) return;
    this.#mutation?.drive?.(drive);
    const { loop, machine, trace, history, stores } = this.#modules;
    const world = new World(this.#options, {
      loop,
      machine,
      random: this.#random,
      trace,
      drive,
      arena,
      stores,
      ...history,
    });
    this.#world = world;
    this.phase = 'reading all';
    const { last } = drive.ftl.operations;
    assert.ok(last > this.#durableBefore, `operation ${last} after ${this.#durableBefore} was durable`);
    const invariants = new Invariants(world, stores.media);
    world.audit = () => invariants.check();
    const modules = hostModulesOf(world);
    const sessions: HostSession[] = [];
    for (let i = 0; i < this.#options.hostCount; i++) {
      sessions.push(await HostSession.open(drive.subsystem, modules));
    }
    await verifyDrive(world, sessions[0]!, this.#killed);
    this.isVerified = true;
    if (this.#random.chance(AUDIT_CHANCE)) await world.pauseAndAudit();
    this.phase = 'working';
    this.#readTrouble();
    this.#checkpointNowAndThen(drive);
    this.#watch(world, sessions);
    const { tasksPerHost } = this.#options;
    const tasks = sessions.flatMap((session) => Array.from({ length: tasksPerHost }, () => workOn(world, session)));
    await Promise.all(tasks);
    await this.#shutDown(drive, sessions);
  }

  async #open(arena: Arena): Promise<ComposedDrive | undefined> {
    const { loop, stores } = this.#modules;
    const { kernels, regionFolder } = sharedParts();
    try {
      const { cells, cellSeed, gc, verify, checkpoints, scrubSeconds, wearSpreadMax, timing } = this.#options;
      return await composeDrive(stores.stores(chipOf(cells)), {
        ftlOptions: {
          failures: new FaultyDies(cells, cellSeed),
          gc,
          verify,
          scrub: { intervalSeconds: scrubSeconds },
          wearSpreadMax,
          ...checkpoints,
        },
        arena,
        kernels,
        clock: loop,
        random: this.#random.fork(),
        onFatal: (error) => loop.fail(error),
        regionFolder,
        frameCacheBytes: FRAME_CACHE_BYTES,
        reader: stores.reader,
        deviceTime: this.deviceTime?.device,
        timing,
      });
    } catch (error) {
      if (!this.#isRefusal(error)) throw error;
      this.isRefused = true;
      return undefined;
    }
  }

  async #shutDown(drive: ComposedDrive, sessions: readonly HostSession[]): Promise<void> {
    this.phase = 'shutting down';
    const { machine, history } = this.#modules;
    if (this.#random.chance(0.5)) machine.cutAfter(this.#random.below(12));
    const submitted = history.ticks.next();
    const scope = history.kv.scope();
    for (const { host } of sessions) host.disconnect();
    try {
      await drive.close();
    } catch (error) {
      if (!this.#isRefusal(error)) throw error;
      this.isRefused = true;
      return;
    }
    history.blocks.flushed(submitted);
    history.kv.flushed(scope);
    this.isShutDown = true;
  }

  /** As the composition root does; less often while nothing happens, or nothing can be made durable. */
  #checkpointNowAndThen(drive: ComposedDrive, afterMs = this.#options.checkpointIntervalMs): void {
    if (afterMs === 0) return;
    const { operations, durability } = drive.ftl;
    this.#modules.loop.setTimer(afterMs, () => {
      const again = (): void => this.#checkpointNowAndThen(drive);
      const later = (): void => this.#checkpointNowAndThen(drive, Math.min(2 * afterMs, 1000));
      if (operations.last === durability.lastOperation) later();
      else durability.flush().then(again, later);
    });
  }

  /** Ends a run that has done enough, and finds out if a command never ends. */
  #watch(world: World, sessions: readonly HostSession[]): void {
    const { loop, machine } = this.#modules;
    const endNs = world.nowNs + LONGEST_RUN_NS;
    const commandsMax = this.endsBy === 'shutdown' ? this.#random.below(100) : COMMANDS_MAX;
    const end = (): void => {
      if (this.endsBy === 'shutdown') world.isEnding = true;
      else machine.powerOff();
    };
    const look = (): void => {
      for (const { host } of sessions) host.checkProgress(STUCK_NS);
      if (world.nowNs >= endNs) end();
      loop.after(STUCK_NS, look);
    };
    loop.after(STUCK_NS, look);
    world.onCommand = () => {
      if (world.commandCount >= commandsMax) end();
    };
  }

  /** A disk that refuses for a while, or fails a sync. */
  #trouble(): void {
    const { loop, machine } = this.#modules;
    const random = this.#random;
    if (random.chance(this.#options.refusalsChance)) {
      const beginNs = random.chance(0.3) ? 0 : random.below(50e6);
      loop.after(beginNs, () => (machine.isRefusing = true));
      loop.after(beginNs + random.below(50e6), () => (machine.isRefusing = false));
    }
    if (random.chance(this.#options.syncFailureChance)) {
      loop.after(random.below(30e6), () => (machine.failsSync = true));
    }
  }

  /** A disk that can't read for a while. Not while the drive recovers: what can't be read then may have been promised. */
  #readTrouble(): void {
    const { loop, machine } = this.#modules;
    const random = this.#random;
    if (!random.chance(this.#options.readFailuresChance)) return;
    const beginNs = random.chance(0.3) ? 0 : random.below(50e6);
    loop.after(beginNs, () => (machine.isFailingReads = true));
    loop.after(beginNs + random.below(50e6), () => (machine.isFailingReads = false));
  }

  /** The disk or its cells explain it. */
  #isRefusal(error: unknown): boolean {
    if (!(error instanceof DriveError)) return false;
    const { machine } = this.#modules;
    if (error.code === 'unrecoveredRead') return machine.readFailureCount > 0;
    return error.code === 'writeFault' && (machine.refusalCount > 0 || hasCellFaults(this.#options.cells));
  }
}
