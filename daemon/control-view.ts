import type {
  BlockSummary,
  ConnectionStatus,
  DriveStatus,
  FaultRequest,
  FaultStatus,
  Health,
  NamespaceStatus,
  ScrubStatus,
  SequenceDetail,
  SequenceStatus,
  SuperblockState,
  SuperblockStatus,
} from '../spec/admin-api.ts';
import { pageLimits } from '../spec/admin-api.ts';
import { BLOCK_NSID, KV_CACHE_CSI, KV_CACHE_NSID } from '../spec/kv-commands.ts';
import { limits } from '../spec/limits.ts';
import type { MetricsSnapshot } from '../spec/metrics.ts';
import type { DriveView } from './admin/drive-view.ts';
import type { SocketAddress } from './config.ts';
import { FaultView } from './fault-view.ts';
import { MODEL_NUMBER, type RunningDrive } from './rooms.ts';
import type { SuperblockSnapshot } from './ftl/contract.ts';
import type { FrameSourceSnapshot } from './attention/frame-source.ts';
import type { SequenceSummary } from './kv/contract.ts';
import { takeMetrics } from './metrics-view.ts';
import { channelOf } from './nand/geometry.ts';

/** What the control plane knows: the rooms' snapshots, put together when it asks. */
export class ControlView implements DriveView {
  readonly #drive: RunningDrive;
  readonly #faults: FaultView;

  constructor(drive: RunningDrive) {
    this.#drive = drive;
    this.#faults = new FaultView(drive);
  }

  health(): Health {
    const { state } = this.#drive;
    const ready = state === 'ready';
    const readOnly = ready && this.#drive.room('ftl').isReadOnly;
    const detail = readOnly ? 'read-only: too many erase blocks are bad; reading goes on' : '';
    return { state, live: true, ready, readOnly, detail };
  }

  drive(): DriveStatus {
    const { options, listeners, modules, readyAtNs } = this.#drive;
    const ftl = this.#drive.room('ftl');
    const { geometry, identity } = ftl;
    const kernels = this.#drive.room('kernels');
    const configuration = Object.entries(options.config).map(([name, value]) => [name, configurationText(name, value)]);
    return {
      serial: identity.serial,
      model: MODEL_NUMBER,
      firmware: options.version,
      subsystemNqn: `nqn.2026-11.dev.attndrive:${identity.serial}`,
      uuid: identity.uuid,
      folder: options.folder,
      processId: process.pid,
      version: options.version,
      uptimeSeconds: (modules.clock.nowNs() - readyAtNs) / 1e9,
      geometry: {
        channelCount: geometry.channelCount,
        dieCount: geometry.diesPerChannel,
        planeCount: geometry.planesPerDie,
        superblockCount: geometry.superblockCount,
        pagesPerBlock: geometry.pagesPerBlock,
        pageSizeBytes: geometry.pageSizeBytes,
        rawBytes: geometry.pageCount * geometry.pageSizeBytes,
      },
      kernels: { name: kernels.name, isa: kernels.isa, workerCount: options.config.workers },
      deviceTime: { mode: this.#drive.room('deviceTime').mode, profile: this.#drive.room('deviceTime').profile },
      cache: cacheStatus(this.#drive.room('attention').snapshot().frames),
      listeners: [...listeners],
      configuration: Object.fromEntries(configuration) as Record<string, string>,
    };
  }

  namespaces(): readonly NamespaceStatus[] {
    const snapshot = this.#drive.room('ftl').snapshot();
    const { pageSizeBytes, blockCapacityBytes, kvCapacityBytes } = this.#drive.room('ftl').geometry;
    return [
      {
        namespaceId: BLOCK_NSID,
        commandSet: 'nvm',
        commandSetId: 0,
        capacityBytes: blockCapacityBytes,
        usedBytes: snapshot.blockLbasMapped * limits.lbaSizeBytes,
        blockSizeBytes: limits.lbaSizeBytes,
      },
      {
        namespaceId: KV_CACHE_NSID,
        commandSet: 'kv-cache',
        commandSetId: KV_CACHE_CSI,
        capacityBytes: kvCapacityBytes,
        usedBytes: (snapshot.kvPageCount - snapshot.kvPagesFree) * pageSizeBytes,
        blockSizeBytes: pageSizeBytes,
      },
    ];
  }

  sequences(after: bigint, countMax: number): readonly SequenceStatus[] {
    const sequences = this.#drive.room('sequences');
    return sequences.list(after, countMax).map((id) => sequenceStatus(sequences.inspect(id)));
  }

  sequence(id: bigint): SequenceDetail {
    const summary = this.#drive.room('sequences').inspect(id);
    const { shape, lengths } = summary;
    const groupCount = lengths.reduce((sum, length) => sum + Math.floor(length / shape.groupTokens), 0);
    const { paddingBytesPerPageK, paddingBytesPerPageV } = summary;
    return {
      ...sequenceStatus(summary),
      lengths: [...lengths],
      blockTable: {
        groupCount,
        ...this.#placement(id, summary),
        paddingBytesPerPageK,
        paddingBytesPerPageV,
        paddingBytes: groupCount * shape.kvHeadCount * (paddingBytesPerPageK + paddingBytesPerPageV),
      },
    };
  }

  /** Where a sequence's pages lie: spread over the channels, each stream side by side. */
  #placement(
    id: bigint,
    { shape, lengths, pageCount }: SequenceSummary,
  ): { pagesPerChannel: number[]; runPageMean: number } {
    const { kv, geometry } = this.#drive.room('ftl');
    const pagesPerChannel = new Array<number>(geometry.channelCount).fill(0);
    let runCount = 0;
    for (let layer = 0; layer < lengths.length; layer++) {
      const view = this.#drive.room('sequences').view(id, layer);
      const groupCount = view.flashTokenCount / shape.groupTokens;
      for (let stream = 0; stream < 2 * shape.kvHeadCount; stream++) {
        let previous = Number.NaN;
        for (let group = 0; group < groupCount; group++) {
          const ppn = kv.pin(view.page(group, stream >> 1, (stream & 1) as 0 | 1));
          pagesPerChannel[channelOf(geometry, ppn % geometry.unitCount)]!++;
          if (ppn !== previous + 1) runCount++;
          previous = ppn;
          kv.unpin(ppn);
        }
      }
      view.release();
    }
    return { pagesPerChannel, runPageMean: pageCount / Math.max(1, runCount) };
  }

  connections(): readonly ConnectionStatus[] {
    const { connections } = this.#drive.room('transport').snapshot();
    const { associations } = this.#drive.room('subsystem').snapshot();
    const nowMs = this.#drive.modules.clock.wallMs();
    return connections.map((connection) => {
      const association = associations.find(({ controllerId }) => controllerId === connection.controllerId);
      const queue = association?.queues.find(({ id }) => id === connection.queueId);
      return {
        controllerId: connection.controllerId ?? 0,
        queueId: connection.queueId ?? 0,
        transport: connection.transport,
        peer: connection.transport === 'unix' ? '' : connection.peer,
        hostNqn: association?.hostNqn ?? '',
        queueEntryCount: queue?.entryCount ?? 0,
        inFlightCount: connection.inFlightCount,
        commandCount: connection.commandCount,
        connectedSeconds: Math.max(0, (nowMs - connection.connectedAtMs) / 1000),
        regionCount: association?.regionCount ?? 0,
        regionBytes: association?.regionBytes ?? 0,
      };
    });
  }

  blockSummary(): BlockSummary {
    const ftl = this.#drive.room('ftl');
    const snapshot = ftl.snapshot();
    const { endurance } = snapshot;
    const { geometry } = ftl;
    const validSlots = ftl.superblocks().reduce((sum, { validSlotCount }) => sum + validSlotCount, 0);
    return {
      superblockCount: geometry.superblockCount,
      pagesPerSuperblock: geometry.pagesPerSuperblock,
      byState: { ...snapshot.superblocksByState },
      eraseCountMin: endurance.eraseCountMin,
      eraseCountMax: endurance.eraseCountMax,
      eraseCountMean: endurance.eraseCountMean,
      badBlocks: { ...endurance.badBlockCounts },
      spareBlockCount: endurance.spareBlockCount,
      availableSparePercent: endurance.availableSparePercent,
      percentUsed: endurance.percentUsed,
      validPageCount: Math.ceil(validSlots / geometry.slotsPerPage),
    };
  }

  superblocks(after: number, countMax: number, state: SuperblockState | undefined): readonly SuperblockStatus[] {
    const ftl = this.#drive.room('ftl');
    const { slotsPerPage, pagesPerSuperblock } = ftl.geometry;
    const status = (row: SuperblockSnapshot): SuperblockStatus => ({
      index: row.superblock,
      state: row.state as SuperblockState,
      use: row.pool === 'none' ? '' : row.pool,
      eraseCount: row.eraseCount,
      eraseCountMax: row.eraseCountMax,
      replacedBlockCount: row.replacedBlockCount,
      failedBlockCount: row.failedBlockCount,
      validPageCount: Math.ceil(row.validSlotCount / slotsPerPage),
      writtenPageCount: row.state === 'free' ? 0 : pagesPerSuperblock - ftl.flash.array.freePages(row.superblock),
    });
    const rows = ftl.superblocks().filter((row) => row.superblock > after && (state ?? row.state) === row.state);
    return rows.slice(0, countMax).map(status);
  }

  faults(): readonly FaultStatus[] {
    return this.#faults.list();
  }

  addFault(request: FaultRequest): Promise<FaultStatus> {
    return this.#faults.add(request);
  }

  removeFault(id: number): Promise<void> {
    return this.#faults.remove(id);
  }

  scrub(): ScrubStatus {
    const { intervalSeconds = 0, isRunning, isPaced, ...snapshot } = this.#drive.room('ftl').scrubber.snapshot();
    const { pass, pagesTotal, lastPass, passCount, totals, badPages } = snapshot;
    const { pagesChecked, pagesBad, pagesRefreshed } = pass;
    return {
      intervalSeconds,
      state: !isRunning ? 'waiting' : isPaced ? 'paced' : 'requested',
      pass: { pagesChecked, pagesBad, pagesRefreshed, pagesTotal },
      ...(lastPass && { lastPass }),
      passCount,
      totals,
      badPageCount: badPages.length,
      badPages: badPages.slice(0, pageLimits.limitMax).map(({ ppn, detail }) => ({ page: ppn, detail })),
    };
  }

  startScrub(): void {
    this.#drive.room('ftl').scrubber.passNow();
  }

  statistics(): MetricsSnapshot {
    return takeMetrics(this.#drive);
  }

  flush(): Promise<void> {
    return this.#drive.room('ftl').durability.flush();
  }

  reclaim(id: bigint): Promise<void> {
    return this.#drive.room('sequences').reclaim(id);
  }
}

type ConfigValue = string | number | boolean | SocketAddress | readonly SocketAddress[] | undefined;

/** An option as its user would write it: "always", "127.0.0.1:4420", "off". */
function configurationText(name: string, value: ConfigValue): string {
  if (value === undefined) return name === 'tcp' || name === 'http' ? 'off' : 'none';
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (typeof value !== 'object') return String(value);
  if (isList(value)) return value.map((item) => configurationText(name, item)).join(', ') || 'none';
  return `${value.host.includes(':') ? `[${value.host}]` : value.host}:${value.port}`;
}

const isList = (value: SocketAddress | readonly SocketAddress[]): value is readonly SocketAddress[] =>
  Array.isArray(value);

function sequenceStatus(summary: SequenceSummary): SequenceStatus {
  const { id, parentId, label, owner, leaseSeconds, shape, lengths } = summary;
  return {
    id: String(id),
    parentId: String(parentId),
    label,
    owner: String(owner),
    leaseSeconds,
    shape: { ...shape },
    tokenCountMin: Math.min(...lengths),
    tokenCountMax: Math.max(...lengths),
    pageCount: summary.pageCount,
    sharedPageCount: summary.sharedPageCount,
    bufferedTokenCount: summary.bufferedTokenCount,
  };
}

const cacheStatus = (frames: FrameSourceSnapshot): DriveStatus['cache'] => ({
  kind: frames.kind,
  capacityBytes: frames.frameCount * frames.frameSizeBytes,
  residentBytes: frames.framesResident * frames.frameSizeBytes,
  hitPages: frames.hits,
  missPages: frames.misses,
  evictedPages: frames.evictions,
  loadCount: frames.loads,
});
