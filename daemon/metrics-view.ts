import type { HoldSnapshot } from './controller/completion-hold.ts';
import type { MetricsSnapshot } from '../spec/metrics.ts';
import type { RunningDrive } from './rooms.ts';

/** Everything a scrape shows, from the rooms' snapshots; before the drive is ready, only that it isn't. */
export function takeMetrics(drive: RunningDrive): MetricsSnapshot {
  if (drive.state !== 'ready') return { ready: 0 };
  return {
    ...driveMetrics(drive),
    ...hostMetrics(drive),
    ...deviceTimeMetrics(drive),
    ...kvMetrics(drive),
    ...flashMetrics(drive),
  };
}

function driveMetrics(drive: RunningDrive): MetricsSnapshot {
  const kernels = drive.room('kernels');
  const arena = drive.room('arena');
  const labels = {
    version: drive.options.version,
    kernels: kernels.name,
    isa: kernels.isa,
    serial: drive.room('ftl').identity.serial,
  };
  return {
    info: [{ labels, value: 1 }],
    ready: 1,
    uptimeSeconds: (drive.modules.clock.nowNs() - drive.readyAtNs) / 1e9,
    workers: drive.options.config.workers,
    bufferBytes: [
      { labels: { state: 'used' }, value: arena.sizeBytes - arena.freeBytes },
      { labels: { state: 'free' }, value: arena.freeBytes },
    ],
  };
}

function hostMetrics(drive: RunningDrive): MetricsSnapshot {
  const subsystem = drive.room('subsystem').snapshot();
  const transport = drive.room('transport').snapshot();
  const { associations, hostBytes, counters } = subsystem;
  const queues = associations.flatMap((association) => association.queues);
  const byKind = (count: (queue: (typeof queues)[number]) => number) =>
    (['admin', 'io'] as const).map((kind) => ({
      labels: { queue: kind },
      value: queues.filter(({ id }) => (id === 0) === (kind === 'admin')).reduce((sum, queue) => sum + count(queue), 0),
    }));
  const bytes = (direction: 'in' | 'out', path: string, value: number) => ({ labels: { direction, path }, value });
  return {
    commands: subsystem.commands.map(({ queue, opcode, status, count }) => ({
      labels: { queue, opcode, status },
      value: count,
    })),
    commandLatency: subsystem.latencies.map(({ queue, opcode, counts, sumSeconds }) => ({
      labels: { queue, opcode },
      counts,
      sum: sumSeconds,
    })),
    commandsInFlight: byKind((queue) => queue.inFlightCount),
    queueEntries: byKind((queue) => queue.entryCount),
    connections: (['unix', 'tcp'] as const).map((kind) => ({
      labels: { transport: kind },
      value: transport.connections.filter((connection) => connection.transport === kind).length,
    })),
    associations: associations.length,
    connectionsRefused: Object.entries(transport.refusedCounts).map(([reason, value]) => ({
      labels: { reason },
      value,
    })),
    hostQuotaRefusals: [...subsystem.quotaRefusals].map(([quota, value]) => ({ labels: { quota }, value })),
    hostsRefused: subsystem.refusedHostCount,
    httpRefused: [...drive.room('admin').refusedCounts].map(([reason, value]) => ({ labels: { reason }, value })),
    authentications: [...subsystem.authentications].map(([result, value]) => ({ labels: { result }, value })),
    hostBytes: [
      bytes('in', 'capsule', hostBytes.inCapsule),
      bytes('in', 'pdu', hostBytes.inPdu),
      bytes('out', 'pdu', hostBytes.outPdu),
      bytes('in', 'region', counters.regionReadBytes),
      bytes('out', 'region', counters.regionWrittenBytes),
      bytes('out', 'slot', counters.slotWrittenBytes),
    ],
    regions: associations.reduce((sum, { regionCount }) => sum + regionCount, 0),
    regionBytes: associations.reduce((sum, { regionBytes }) => sum + regionBytes, 0),
    attendEntries: counters.attendEntries,
  };
}

function deviceTimeMetrics(drive: RunningDrive): MetricsSnapshot {
  const { mode, profile, device } = drive.room('deviceTime');
  const timingInfo = [{ labels: { mode, profile }, value: 1 }];
  if (device === undefined) return { timingInfo };
  const { deviceLatencies, hold } = drive.room('subsystem').snapshot();
  const resources = Object.entries(device.usage());
  return {
    timingInfo,
    deviceLatency: deviceLatencies.map(({ queue, opcode, counts, sumSeconds }) => ({
      labels: { queue, opcode },
      counts,
      sum: sumSeconds,
    })),
    deviceBusy: resources.map(([resource, { busyNs }]) => ({ labels: { resource }, value: busyNs / 1e9 })),
    deviceResources: resources.map(([resource, { count }]) => ({ labels: { resource }, value: count })),
    ...(hold && {
      completionsHeld: hold.heldCount,
      completionsLate: hold.lateCount,
      completionsLateRatio: lateRatio(hold),
      holdError: [
        { labels: { percentile: '50' }, value: hold.errorNsP50 / 1e9 },
        { labels: { percentile: '99' }, value: hold.errorNsP99 / 1e9 },
      ],
    }),
  };
}

/** Completions that came later than their device time, among all that have one. */
export const lateRatio = ({ heldCount, lateCount }: HoldSnapshot): number =>
  heldCount + lateCount === 0 ? 0 : lateCount / (heldCount + lateCount);

function kvMetrics(drive: RunningDrive): MetricsSnapshot {
  const kv = drive.room('sequences').snapshot();
  const ftl = drive.room('ftl').snapshot();
  const attention = drive.room('attention').snapshot();
  const { frames } = attention;
  const cacheBytes = (what: string, count: number) => ({ labels: { what }, value: count * frames.frameSizeBytes });
  return {
    cachePages: [
      { labels: { result: 'hit' }, value: frames.hits },
      { labels: { result: 'miss' }, value: frames.misses },
    ],
    cacheEvictions: frames.evictions,
    cacheLoads: frames.loads,
    cacheBytes: [
      cacheBytes('capacity', frames.frameCount),
      cacheBytes('resident', frames.framesResident),
      cacheBytes('in_use', frames.framesInUse),
    ],
    attendTokens: [
      { labels: { source: 'flash' }, value: attention.flashTokens },
      { labels: { source: 'buffer' }, value: attention.bufferedTokens },
    ],
    attendPages: attention.pagesWalked,
    attendBytes: attention.bytesWalked,
    attendJobsQueued: attention.jobsOut,
    sequences: kv.sequenceCount,
    kvTokensAppended: kv.appendedTokenCount,
    kvTokensBuffered: kv.bufferedTokenCount,
    kvPages: [
      { labels: { state: 'used' }, value: ftl.kvPageCount - ftl.kvPagesFree },
      { labels: { state: 'free' }, value: ftl.kvPagesFree },
    ],
    kvPaddingBytes: kv.heldPaddingBytes,
  };
}

function flashMetrics(drive: RunningDrive): MetricsSnapshot {
  const { counters, superblocksByState, stagingLogBytes, endurance } = drive.room('ftl').snapshot();
  const { isRunning, pass, pagesTotal, passCount, totals, badPages } = drive.room('ftl').scrubber.snapshot();
  const hostPages = counters.hostBlockPagesProgrammed + counters.hostKvPagesProgrammed;
  const { gcPagesProgrammed, scrubPagesProgrammed, wearPagesProgrammed } = counters;
  const movedPages = gcPagesProgrammed + scrubPagesProgrammed + wearPagesProgrammed;
  const cause = (name: string, value: number) => ({ labels: { cause: name }, value });
  return {
    nandPagesProgrammed: [
      cause('block', counters.hostBlockPagesProgrammed),
      cause('kv', counters.hostKvPagesProgrammed),
      cause('gc', counters.gcPagesProgrammed),
      cause('scrub', counters.scrubPagesProgrammed),
      cause('wear', counters.wearPagesProgrammed),
    ],
    nandPagesRead: [
      cause('host', counters.hostPagesRead),
      cause('attend', counters.attendPagesRead),
      cause('gc', counters.gcPagesRead),
      cause('scrub', counters.scrubPagesRead),
      cause('wear', counters.wearPagesRead),
    ],
    nandBlocksErased: counters.superblocksErased,
    gcPagesMoved: [
      { labels: { for: 'host' }, value: counters.gcHostMoves },
      { labels: { for: 'idle' }, value: counters.gcIdleMoves },
    ],
    gcEraseWaits: counters.eraseWaits,
    superblocks: Object.entries(superblocksByState).map(([state, value]) => ({ labels: { state }, value })),
    flashBlocksBad: Object.entries(endurance.badBlockCounts).map(([reason, value]) => ({ labels: { reason }, value })),
    flashBlocksSpare: endurance.spareBlockCount,
    availableSpare: endurance.availableSparePercent / 100,
    enduranceUsed: endurance.percentUsed / 100,
    eraseCount: [
      { labels: { statistic: 'min' }, value: endurance.eraseCountMin },
      { labels: { statistic: 'mean' }, value: endurance.eraseCountMean },
      { labels: { statistic: 'max' }, value: endurance.eraseCountMax },
    ],
    readOnly: endurance.isReadOnly ? 1 : 0,
    writeAmplification: hostPages === 0 ? 1 : (hostPages + movedPages) / hostPages,
    mediaErrors: counters.unrecoveredReads,
    correctedReads: [
      { labels: { how: 'once' }, value: counters.correctedReads - counters.retriedReads },
      { labels: { how: 'retry' }, value: counters.retriedReads },
    ],
    readRetries: counters.readRetries,
    scrubPagesChecked: totals.pagesChecked,
    scrubPagesRefreshed: totals.pagesRefreshed,
    scrubPasses: passCount,
    scrubProgress: isRunning && pagesTotal > 0 ? Math.min(1, pass.pagesChecked / pagesTotal) : 0,
    pagesBad: badPages.length,
    stagingBytes: stagingLogBytes,
    stagingBytesWritten: counters.stagingBytes,
    checkpoints: counters.checkpoints,
  };
}
