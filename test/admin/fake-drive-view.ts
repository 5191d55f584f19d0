import type { DriveView } from '../../daemon/admin/drive-view.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { FaultRequest, FaultStatus, ScrubStatus, SequenceDetail, SuperblockStatus } from '../../spec/admin-api.ts';
import { latencyBucketsSeconds, type MetricsSnapshot } from '../../spec/metrics.ts';

const shape = {
  layerCount: 2,
  kvHeadCount: 4,
  headDimK: 64,
  headDimV: 64,
  elementTypeK: 'f16',
  elementTypeV: 'f16',
  groupTokens: 128,
} as const;

export const superblocks: readonly SuperblockStatus[] = Array.from({ length: 7 }, (_, index) => ({
  index,
  state: index < 4 ? 'free' : 'full',
  use: index < 4 ? '' : 'kv',
  eraseCount: index,
  eraseCountMax: index,
  replacedBlockCount: index === 5 ? 1 : 0,
  failedBlockCount: 0,
  validPageCount: index < 4 ? 0 : 60,
  writtenPageCount: index < 4 ? 0 : 64,
}));

export function sequenceOf(id: bigint): SequenceDetail {
  return {
    id: String(id),
    parentId: '0',
    label: `sequence ${id}`,
    owner: '18446744073709551615',
    leaseSeconds: 0,
    shape,
    tokenCountMin: 130,
    tokenCountMax: 131,
    pageCount: 16,
    sharedPageCount: 0,
    bufferedTokenCount: 5,
    lengths: [131, 130],
    blockTable: {
      groupCount: 2,
      pagesPerChannel: [4, 4, 4, 4],
      runPageMean: 4,
      paddingBytesPerPageK: 0,
      paddingBytesPerPageV: 0,
      paddingBytes: 0,
    },
  };
}

export const statistics: MetricsSnapshot = {
  info: [{ labels: { version: '0.1.0', kernels: 'wasm', isa: 'simd128', serial: 'S"1\\' }, value: 1 }],
  ready: 1,
  commands: [
    { labels: { queue: 'kv', opcode: 'KV Append', status: 'success' }, value: 12 },
    { labels: { queue: 'kv', opcode: 'KV Append', status: 'appendGap' }, value: 1 },
  ],
  commandLatency: [
    {
      labels: { queue: 'kv', opcode: 'ATTN' },
      counts: [3, 2, ...latencyBucketsSeconds.slice(2).map(() => 0), 1],
      sum: 11.5,
    },
  ],
  superblocks: [{ labels: { state: 'free' }, value: 4 }],
};

/** A drive of three sequences that remembers what was done to it. */
export class FakeDriveView implements DriveView {
  readonly ids = new Set([3n, 7n, 18_446_744_073_709_551_615n]);
  ready = true;
  flushCount = 0;
  failure: Error | undefined;

  health = () =>
    ({ state: this.ready ? 'ready' : 'opening', live: true, ready: this.ready, readOnly: false, detail: '' }) as const;
  drive = () => {
    if (this.failure) throw this.failure;
    return {
      serial: 'S1',
      model: 'attndrive',
      firmware: '0.1.0',
      subsystemNqn: 'nqn.2026-11.dev.attndrive:S1',
      uuid: '0d3e4b61-58a5-4f2e-9c0c-6d6a0b1e7f10',
      folder: '/srv/drive',
      processId: 1,
      version: '0.1.0',
      uptimeSeconds: 1.5,
      geometry: {
        channelCount: 4,
        dieCount: 2,
        planeCount: 1,
        superblockCount: 7,
        pagesPerBlock: 8,
        pageSizeBytes: 16_384,
        rawBytes: 7 * 64 * 16_384,
      },
      kernels: { name: 'wasm', isa: 'simd128', workerCount: 2 },
      deviceTime: { mode: 'off', profile: 'ideal' },
      cache: {
        kind: 'direct',
        capacityBytes: 2 ** 28,
        residentBytes: 2 ** 20,
        hitPages: 5,
        missPages: 64,
        evictedPages: 0,
        loadCount: 2,
      },
      listeners: ['unix:/run/nvme.sock'],
      configuration: { logLevel: 'info' },
    } as const;
  };
  namespaces = () => [
    {
      namespaceId: 2,
      commandSet: 'kv-cache',
      commandSetId: 0x30,
      capacityBytes: 1,
      usedBytes: 0,
      blockSizeBytes: 16_384,
    } as const,
  ];
  sequences = (after: bigint, countMax: number) =>
    [...this.ids]
      .filter((id) => id > after)
      .slice(0, countMax)
      .map(summaryOf);
  sequence = (id: bigint) => sequenceOf(this.#known(id));
  connections = () => [];
  blockSummary = () => ({
    superblockCount: 7,
    pagesPerSuperblock: 64,
    byState: { free: 4, full: 3 },
    eraseCountMin: 0,
    eraseCountMax: 6,
    eraseCountMean: 3,
    badBlocks: { factory: 2, program: 1, erase: 0 },
    spareBlockCount: 5,
    availableSparePercent: 97,
    percentUsed: 12,
    validPageCount: 180,
  });
  superblocks = (after: number, countMax: number, state: string | undefined) =>
    superblocks.filter((row) => row.index > after && (state === undefined || row.state === state)).slice(0, countMax);
  readonly requests: FaultRequest[] = [];
  faults = (): FaultStatus[] => this.requests.map((request, i) => faultOf(request, i + 1));
  addFault = async (request: FaultRequest): Promise<FaultStatus> => faultOf(request, this.requests.push(request));
  removeFault = async (id: number): Promise<void> => {
    if (this.requests.splice(id - 1, 1).length === 0) throw new DriveError('unknownFault', `fault ${id}`);
  };
  scrubState: ScrubStatus['state'] = 'waiting';
  scrub = (): ScrubStatus => ({ ...scrubStatus, state: this.scrubState });
  startScrub = (): void => void (this.scrubState = 'requested');
  statistics = () => statistics;
  flush = async () => {
    this.flushCount++;
  };
  reclaim = async (id: bigint) => {
    this.ids.delete(this.#known(id));
  };

  #known(id: bigint): bigint {
    if (!this.ids.has(id)) throw new DriveError('unknownSequence', String(id));
    return id;
  }
}

const scrubStatus = {
  intervalSeconds: 604_800,
  pass: { pagesChecked: 20, pagesBad: 1, pagesRefreshed: 0, pagesTotal: 180 },
  lastPass: { pagesChecked: 170, pagesBad: 0, pagesRefreshed: 2, durationSeconds: 604_000 },
  passCount: 1,
  totals: { pagesChecked: 190, pagesBad: 1, pagesRefreshed: 2 },
  badPageCount: 1,
  badPages: [{ page: 77, detail: 'page 77 fails its checksum; it held LBA 5' }],
} as const;

const faultOf = ({ kind, where, count = 1, bits = 0 }: FaultRequest, id: number): FaultStatus => ({
  id: String(id),
  kind,
  ...(where === undefined ? {} : { where }),
  count,
  bits,
  remainingCount: count,
  pages: [],
});

function summaryOf(id: bigint) {
  const { lengths: _lengths, blockTable: _blockTable, ...summary } = sequenceOf(id);
  return summary;
}
