/**
 * What kind of history a seed plays. Swarm testing: each seed has its own drive, its own mixture of work, with kinds of it
 * switched off at random, and its own troubles. What all seeds do a little would hide what some must do a lot.
 */
import { limits } from '../../spec/limits.ts';
import { type TimingMode, timingModes } from '../../daemon/config.ts';
import { type GcOptions, placements } from '../../daemon/ftl/gc-options.ts';
import { type VerifyPolicy, verifyPolicies } from '../../daemon/ftl/verify-policy.ts';
import { victimPolicyNames } from '../../daemon/ftl/victim-policy.ts';
import { completeGeometry, type Geometry, planGeometry, RESERVE_SUPERBLOCKS } from '../../daemon/nand/geometry.ts';
import { type CellFaults, hasCellFaults, noCellFaults } from './cell-faults.ts';
import { timedProfileNames } from './device-times.ts';
import type { DiskBehaviour } from './machine.ts';
import type { Prng } from './prng.ts';

/** Kinds of work, and how often each is done where it is not switched off. */
const workWeights = {
  blockWrite: 30,
  blockRead: 12,
  blockCompare: 3,
  blockZeroes: 4,
  blockDeallocate: 4,
  flush: 5,
  create: 6,
  append: 36,
  appendAgain: 4,
  appendWrong: 2,
  attend: 10,
  readBack: 6,
  query: 3,
  fork: 4,
  truncate: 5,
  reclaim: 4,
  toggleWriteCache: 1,
  disconnect: 1,
  sleep: 1,
  audit: 1,
  format: 1,
} as const;

export type WorkKind = keyof typeof workWeights;

/** Without these nothing else has anything to work on. */
const always: readonly WorkKind[] = ['create', 'append', 'reclaim', 'blockWrite'];

/** How a run of the drive ends. */
export type EndKind = 'powerCut' | 'kill' | 'shutdown';

/** What is in the log or in flash and not covered by a checkpoint before the drive makes one by itself. */
export interface CheckpointLimits {
  readonly stagingSegmentBytesMax: number;
  readonly unflushedFlashBytesMax: number;
}

export interface HistoryOptions {
  readonly geometry: Geometry;
  readonly work: Readonly<Record<WorkKind, number>>;
  /** Hosts, and tasks that work at once on each. */
  readonly hostCount: number;
  readonly tasksPerHost: number;
  readonly thinkNs: number;
  /** LBAs and sequences that work is done on: few are met again and again. */
  readonly lbaSpan: number;
  readonly blocksPerWriteMax: number;
  readonly sequenceCountMax: number;
  readonly tokensPerAppendMax: number;
  /** Share of writes and appends with FUA. */
  readonly fuaChance: number;
  /** Share of new sequences that have a lease. */
  readonly leaseChance: number;
  /** Milliseconds; 0: the drive makes no checkpoints by itself. */
  readonly checkpointIntervalMs: number;
  readonly gc: GcOptions;
  readonly verify: VerifyPolicy;
  readonly disk: DiskBehaviour;
  readonly cells: CellFaults;
  readonly cellSeed: number;
  /** Of a run: a time in which the disk refuses, a sync that fails, a time in which reads fail. */
  readonly refusalsChance: number;
  readonly syncFailureChance: number;
  readonly readFailuresChance: number;
  /** Of a shutdown: cells rot until the next start. */
  readonly rotChance: number;
  readonly ends: Readonly<Record<EndKind, number>>;
  /** Steps of the disk to a power cut. */
  readonly stepsMax: number;
  /** Share of runs that end while they still recover. */
  readonly earlyCutChance: number;
  /** Power cuts of the whole history. */
  readonly cutCount: number;
  readonly checkpoints: CheckpointLimits;
  /** Of one pass; undefined: no scrub. */
  readonly scrubSeconds: number | undefined;
  /** Erases by which superblocks may differ before data is moved to level them. */
  readonly wearSpreadMax: number;
  /** Device time, and whose. */
  readonly timing: TimingMode;
  readonly profile: string;
}

const KIB = 2 ** 10;

function drawGeometry(random: Prng): Geometry {
  const pageSizeBytes = random.pick([4096, 4096, 4096, 8192, 16_384]);
  const channelCount = random.pick([1, 1, 2, 3, 4]);
  const diesPerChannel = random.pick([1, 1, 1, 2]);
  const overProvisioning = random.pick([0.01, 0.07, 0.25]);
  const geometry = planGeometry({
    blockCapacityBytes: random.pick([128, 256, 512, 1024]) * KIB,
    kvCapacityBytes: random.pick([256, 512, 1024]) * KIB,
    pageSizeBytes,
    channelCount,
    diesPerChannel,
    overProvisioning,
  });
  return random.chance(0.7) ? withoutSpares(geometry, overProvisioning) : geometry;
}

/** Small drives are given superblocks that they don't need. Without those garbage is collected all the time. */
function withoutSpares(geometry: Geometry, overProvisioning: number): Geometry {
  const superblockBytes = geometry.pagesPerSuperblock * geometry.pageSizeBytes;
  const share = (capacityBytes: number, reserve: number): number =>
    Math.ceil((capacityBytes * (1 + overProvisioning)) / superblockBytes) + reserve;
  const blockSuperblockCount = share(geometry.blockCapacityBytes, RESERVE_SUPERBLOCKS.block);
  const kvSuperblockCount = share(geometry.kvCapacityBytes, RESERVE_SUPERBLOCKS.kv);
  const superblockCount = blockSuperblockCount + kvSuperblockCount;
  return completeGeometry({ ...geometry, blockSuperblockCount, kvSuperblockCount, superblockCount });
}

function drawWork(random: Prng): Record<WorkKind, number> {
  const work = { ...workWeights } as Record<WorkKind, number>;
  const shareOff = random.pick([0, 0.2, 0.5]);
  for (const kind of Object.keys(work) as WorkKind[]) {
    if (!always.includes(kind) && random.chance(shareOff)) work[kind] = 0;
    else work[kind] *= random.pick([1, 1, 1, 3]);
  }
  // Some seeds leave one namespace alone.
  const namespaces = random.below(6);
  for (const kind of Object.keys(work) as WorkKind[]) {
    const isBlock = kind.startsWith('block');
    const isKv = ['create', 'append', 'attend', 'readBack', 'query', 'fork', 'truncate', 'reclaim'].some((name) =>
      kind.startsWith(name),
    );
    if ((namespaces === 0 && isKv) || (namespaces === 1 && isBlock)) work[kind] = 0;
  }
  if (random.chance(0.6)) work.format = 0;
  return work;
}

function drawDisk(random: Prng): DiskBehaviour {
  return {
    readNs: random.pick([2000, 60_000, 500_000]),
    syncNs: random.pick([20_000, 400_000, 5_000_000]),
    commitNs: random.pick([20_000, 400_000, 5_000_000]),
    stallChance: random.pick([0, 0.02, 0.2]),
    refusalChance: random.pick([0.05, 0.3, 1]),
    readFailureChance: random.pick([0.01, 0.2]),
  };
}

function drawGc(random: Prng): GcOptions {
  const startSuperblocks = random.pick([1, 2, 4]);
  return {
    placement: random.pick(placements),
    policy: random.pick(victimPolicyNames),
    choiceCount: random.pick([2, 8]),
    windowSuperblocks: random.pick([1, 4]),
    startSuperblocks,
    stopSuperblocks: startSuperblocks + random.pick([0, 2, 6]),
  };
}

function drawCells(random: Prng, superblockCount: number): CellFaults {
  const hasBitErrors = random.chance(0.4);
  if (random.chance(0.75)) return { ...noCellFaults, hasBitErrors };
  return {
    programChance: random.pick([0, 0.001, 0.01]),
    eraseChance: random.pick([0, 0.002, 0.02]),
    factoryBadChance: random.pick([0, 0.02]),
    spareBlocksPerUnit: Math.ceil(superblockCount * random.pick([0.05, 0.3, 1])),
    hasBitErrors,
  };
}

function drawCheckpoints(random: Prng): CheckpointLimits {
  const { stagingSegmentBytesMax, unflushedFlashBytesMax } = limits;
  return {
    stagingSegmentBytesMax: random.pick([stagingSegmentBytesMax, stagingSegmentBytesMax, 4 * KIB, 64 * KIB]),
    unflushedFlashBytesMax: random.pick([unflushedFlashBytesMax, unflushedFlashBytesMax, 64 * KIB, 512 * KIB]),
  };
}

/** Everything is drawn, in a fixed order, before the history begins. */
export function drawOptions(random: Prng): HistoryOptions {
  const geometry = drawGeometry(random);
  const lbaCount = geometry.blockCapacityBytes / 4096;
  return {
    geometry,
    work: drawWork(random),
    hostCount: random.pick([1, 1, 2, 3]),
    tasksPerHost: random.pick([1, 2, 4]),
    thinkNs: random.pick([0, 10_000, 300_000]),
    lbaSpan: Math.min(lbaCount, random.pick([8, 48, lbaCount, lbaCount])),
    blocksPerWriteMax: random.pick([1, 6, 6, 40]),
    sequenceCountMax: random.pick([1, 4, 4, 9]),
    tokensPerAppendMax: random.pick([2, 8, 30, 100]),
    fuaChance: random.pick([0, 0.1, 0.5]),
    leaseChance: random.pick([0, 0, 0.3]),
    checkpointIntervalMs: random.pick([0, 1, 20, 1000]),
    gc: drawGc(random),
    verify: random.pick(verifyPolicies),
    disk: drawDisk(random),
    cells: drawCells(random, geometry.superblockCount),
    cellSeed: random.nextUint32(),
    refusalsChance: random.pick([0, 0, 0, 0.3]),
    syncFailureChance: random.pick([0, 0, 0, 0.1]),
    readFailuresChance: random.pick([0, 0, 0, 0.3]),
    rotChance: random.pick([0, 0, 0, 0.3]),
    ends: random.pick([
      { powerCut: 1, kill: 0, shutdown: 0 },
      { powerCut: 6, kill: 1, shutdown: 1 },
      { powerCut: 2, kill: 1, shutdown: 1 },
    ]),
    stepsMax: random.pick([30, 60, 100, 250]),
    earlyCutChance: random.pick([0.1, 0.3, 0.6]),
    cutCount: random.pick([10, 50, 100]),
    checkpoints: drawCheckpoints(random),
    scrubSeconds: random.pick([undefined, undefined, 0.1, 2]),
    wearSpreadMax: random.pick([64, 1, 2, 5]),
    timing: random.pick(timingModes),
    profile: random.pick(timedProfileNames),
  };
}

/** One line for people. */
export function describeOptions(options: HistoryOptions): string {
  const { geometry, work, disk, ends, cells, gc } = options;
  const { pageSizeBytes, unitCount, superblockCount, pagesPerBlock } = geometry;
  const off = (Object.keys(work) as WorkKind[]).filter((kind) => work[kind] === 0);
  return [
    `pages of ${pageSizeBytes}, ${unitCount} units, ${superblockCount} superblocks of ${pagesPerBlock * unitCount} pages`,
    `${options.hostCount} hosts with ${options.tasksPerHost} tasks`,
    `${options.lbaSpan} LBAs, ${options.sequenceCountMax} sequences`,
    `FUA ${options.fuaChance}`,
    `checkpoints every ${options.checkpointIntervalMs} ms`,
    options.scrubSeconds === undefined ? 'no scrub' : `a scrub in ${options.scrubSeconds} s`,
    cells.hasBitErrors ? 'bit errors' : 'no bit errors',
    `wear within ${options.wearSpreadMax} erases`,
    `segments of ${options.checkpoints.stagingSegmentBytesMax / KIB} KiB`,
    `${gc.policy} from ${gc.startSuperblocks} to ${gc.stopSuperblocks} superblocks`,
    `sync ${disk.syncNs / 1000} us`,
    hasCellFaults(cells)
      ? `programs fail ${cells.programChance}, erases ${cells.eraseChance}, spares ${cells.spareBlocksPerUnit}`
      : 'perfect dies',
    `refusals ${options.refusalsChance}, failing syncs ${options.syncFailureChance}, reads ${options.readFailuresChance}`,
    `rot ${options.rotChance}`,
    `ends ${ends.powerCut}:${ends.kill}:${ends.shutdown}`,
    options.timing === 'off' ? 'no device time' : `device time of ${options.profile}: ${options.timing}`,
    `cuts after ${options.stepsMax} steps, early ${options.earlyCutChance}`,
    off.length > 0 ? `without ${off.join(' ')}` : 'all work',
  ].join('; ');
}
