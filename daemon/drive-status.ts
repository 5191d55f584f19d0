import { criticalWarningBits } from '../spec/async-events.ts';
import { packBits } from '../spec/bits.ts';
import { elementTypes } from '../spec/element-type.ts';
import { limits } from '../spec/limits.ts';
import type { DriveStatus } from './commands/contract.ts';
import type { EnduranceSnapshot } from './ftl/endurance.ts';
import type { RunningDrive } from './rooms.ts';

const KELVIN_OF_A_PROCESS = 273 + 25;
const NS_PER_HOUR = 3.6e12;
/** SMART counts data in thousands of 512 bytes, rounded up. */
const DATA_UNIT_BYTES = 512_000;
const SPARE_THRESHOLD_PERCENT = 10;
/** What the field holds; more is told as this. */
const PERCENT_USED_MAX = 255;

/** `backup`: after a failed sync what stands for the drive's power-protected buffer can't be trusted any more. */
function criticalWarning({ availableSparePercent, isReadOnly }: EnduranceSnapshot, hasSyncFailed: boolean): number {
  const spare = availableSparePercent < SPARE_THRESHOLD_PERCENT ? 1 : 0;
  return packBits(criticalWarningBits, { spare, readOnly: isReadOnly ? 1 : 0, backup: hasSyncFailed ? 1 : 0 });
}

/** Joins the rooms' snapshots into what Identify and Get Log Page say. */
export class RoomStatus implements DriveStatus {
  readonly #drive: RunningDrive;

  constructor(drive: RunningDrive) {
    this.#drive = drive;
  }

  health(): ReturnType<DriveStatus['health']> {
    const ftl = this.#drive.room('ftl');
    const { counters, endurance } = ftl.snapshot();
    const front = this.#drive.room('subsystem').snapshot().counters;
    const units = (bytes: number): number => Math.ceil(bytes / DATA_UNIT_BYTES);
    return {
      temperature: KELVIN_OF_A_PROCESS,
      criticalWarning: criticalWarning(endurance, ftl.durability.hasFailed),
      availSpare: endurance.availableSparePercent,
      spareThresh: SPARE_THRESHOLD_PERCENT,
      percentUsed: Math.min(PERCENT_USED_MAX, endurance.percentUsed),
      enduranceGrpCriticalWarningSummary: criticalWarning(endurance, false),
      dataUnitsRead: units(counters.hostLbasRead * limits.lbaSizeBytes),
      dataUnitsWritten: units(counters.hostLbasWritten * limits.lbaSizeBytes),
      hostReadCommands: front.blockReadCommands,
      hostWriteCommands: front.blockWriteCommands,
      powerCycles: ftl.startCount,
      powerOnHours: Math.floor((this.#drive.modules.clock.nowNs() - this.#drive.readyAtNs) / NS_PER_HOUR),
      unsafeShutdowns: ftl.unsafeShutdownCount,
      mediaErrors: counters.unrecoveredReads,
    };
  }

  endurance(): ReturnType<DriveStatus['endurance']> {
    const ftl = this.#drive.room('ftl');
    const { counters, endurance, blockLbaCount, kvPageCount } = ftl.snapshot();
    const { pageSizeBytes, pageCount } = ftl.geometry;
    const front = this.#drive.room('subsystem').snapshot().counters;
    const billions = (bytes: number): number => Math.ceil(bytes / 1e9);
    const hostPages = counters.hostBlockPagesProgrammed + counters.hostKvPagesProgrammed;
    const { gcPagesProgrammed, scrubPagesProgrammed, wearPagesProgrammed } = counters;
    const movedPages = gcPagesProgrammed + scrubPagesProgrammed + wearPagesProgrammed;
    const { hostLbasRead, hostLbasWritten, hostKvPagesProgrammed, attendPagesRead } = counters;
    return {
      criticalWarning: criticalWarning(endurance, false),
      avlSpare: endurance.availableSparePercent,
      avlSpareThreshold: SPARE_THRESHOLD_PERCENT,
      percentUsed: Math.min(PERCENT_USED_MAX, endurance.percentUsed),
      enduranceEstimate: billions((endurance.ratedCycles ?? 0) * pageCount * pageSizeBytes),
      dataUnitsRead: billions(hostLbasRead * limits.lbaSizeBytes + attendPagesRead * pageSizeBytes),
      dataUnitsWritten: billions(hostLbasWritten * limits.lbaSizeBytes + hostKvPagesProgrammed * pageSizeBytes),
      mediaUnitsWritten: billions((hostPages + movedPages) * pageSizeBytes),
      hostReadCmds: front.blockReadCommands,
      hostWriteCmds: front.blockWriteCommands,
      mediaDataIntegrityErr: counters.unrecoveredReads,
      totalEndGrpCap: blockLbaCount * limits.lbaSizeBytes + kvPageCount * pageSizeBytes,
    };
  }

  isReadOnly(): boolean {
    return this.#drive.room('ftl').isReadOnly;
  }

  statistics(): ReturnType<DriveStatus['statistics']> {
    const ftl = this.#drive.room('ftl');
    const snapshot = ftl.snapshot();
    const { counters, endurance } = snapshot;
    const scrub = ftl.scrubber.snapshot();
    const kv = this.#drive.room('sequences').snapshot();
    return {
      uptimeSeconds: this.#uptimeSeconds(),
      hostPagesProgrammed: counters.hostBlockPagesProgrammed + counters.hostKvPagesProgrammed,
      gcPagesProgrammed: counters.gcPagesProgrammed,
      hostPagesRead: counters.hostPagesRead,
      attendPagesRead: counters.attendPagesRead,
      gcPagesRead: counters.gcPagesRead,
      blocksErased: counters.superblocksErased,
      paddingBytesProgrammed: kv.programmedPaddingBytes,
      pagesWithPadding: kv.paddedPageCount,
      freeSuperblocks: snapshot.freeSuperblockCount,
      stagingRecords: counters.stagingRecords,
      stagingBytes: counters.stagingBytes,
      stagingSyncs: counters.stagingSyncs,
      checkpoints: counters.checkpoints,
      attendBytesKept: this.#drive.room('attention').snapshot().bytesWalked,
      sequenceCount: kv.sequenceCount,
      sequencesCreated: kv.createdCount + kv.forkedCount,
      sequencesReclaimed: kv.reclaimedCount,
      kvPagesInUse: snapshot.kvPageCount - snapshot.kvPagesFree,
      kvPagesTotal: snapshot.kvPageCount,
      bufferedTokens: kv.bufferedTokenCount,
      unrecoveredReads: counters.unrecoveredReads,
      badBlocksFactory: endurance.badBlockCounts.factory,
      badBlocksProgram: endurance.badBlockCounts.program,
      badBlocksErase: endurance.badBlockCounts.erase,
      spareBlocks: endurance.spareBlockCount,
      badSuperblocks: snapshot.superblocksByState['bad'] ?? 0,
      eraseCountMin: endurance.eraseCountMin,
      eraseCountMax: endurance.eraseCountMax,
      eraseCountMeanThousandths: Math.round(1000 * endurance.eraseCountMean),
      readOnly: endurance.isReadOnly ? 1 : 0,
      correctedReads: counters.correctedReads,
      readRetries: counters.readRetries,
      scrubPagesRead: counters.scrubPagesRead,
      scrubPagesProgrammed: counters.scrubPagesProgrammed,
      scrubPasses: scrub.passCount,
      badPages: scrub.badPages.length,
      wearPagesProgrammed: counters.wearPagesProgrammed,
      ...this.#deviceTime(),
    };
  }

  #deviceTime(): ReturnType<DriveStatus['statistics']> {
    const { mode, profile, device } = this.#drive.room('deviceTime');
    const names = { timingMode: mode, profile };
    if (device === undefined) return names;
    const { deviceLatencies, latencies, hold } = this.#drive.room('subsystem').snapshot();
    const { dies, channels, compute, linkIn, linkOut } = device.usage();
    const wall = latencies.filter(({ queue }) => queue === 'nvm' || queue === 'kv');
    return {
      ...names,
      timedCommands: sum(deviceLatencies.map(({ counts }) => sum(counts))),
      deviceLatencySumNs: sum(deviceLatencies.map(({ sumSeconds }) => Math.round(sumSeconds * 1e9))),
      wallLatencySumNs: sum(wall.map(({ sumSeconds }) => Math.round(sumSeconds * 1e9))),
      dieBusyNs: dies.busyNs,
      channelBusyNs: channels.busyNs,
      computeBusyNs: compute.busyNs,
      linkInBusyNs: linkIn.busyNs,
      linkOutBusyNs: linkOut.busyNs,
      completionsHeld: hold?.heldCount ?? 0,
      completionsLate: hold?.lateCount ?? 0,
      holdErrorP50Ns: Math.round(hold?.errorNsP50 ?? 0),
      holdErrorP99Ns: Math.round(hold?.errorNsP99 ?? 0),
    };
  }

  kvNamespace(): ReturnType<DriveStatus['kvNamespace']> {
    const { kv, geometry } = this.#drive.room('ftl');
    const arena = this.#drive.room('arena');
    return {
      state: 1,
      pageSizeBytes: kv.pageSizeBytes,
      pageCount: kv.pageCount,
      freePageCount: kv.freePageCount,
      capacityBytes: kv.pageCount * kv.pageSizeBytes,
      channelCount: geometry.channelCount,
      dieCountPerChannel: geometry.diesPerChannel,
      headDimMin: limits.headDimMin,
      headDimMax: limits.headDimMax,
      layerCountMax: limits.layerCountMax,
      kvHeadCountMax: limits.kvHeadCountMax,
      elementTypeMask: Object.values(elementTypes).reduce((mask, { code }) => mask | (1 << code), 0),
      sequenceTokensMax: limits.sequenceTokensMax,
      sequenceCountMax: limits.sequenceCountMax,
      sequenceCount: this.#drive.room('sequences').snapshot().sequenceCount,
      labelBytesMax: limits.labelBytesMax,
      groupTokensMin: 1,
      bufferBytes: arena.sizeBytes,
      bufferFreeBytes: arena.freeBytes,
    };
  }

  blockUsedLbaCount(): number {
    return this.#drive.room('ftl').blocks.mappedCount;
  }

  #uptimeSeconds(): number {
    return Math.floor((this.#drive.modules.clock.nowNs() - this.#drive.readyAtNs) / 1e9);
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
