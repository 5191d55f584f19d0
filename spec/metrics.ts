/**
 * Every metric of the drive: what `GET /metrics` shows is this table and nothing else of ours.
 *
 * Names start with `attndrive_`, end in their base unit, and end in `_total` if and only if they are counters.
 * Counters count from the start of the daemon. `device` quantities come from the device model, others from the wall
 * clock. Labels have few values each: an id or an address is never a label.
 */
export interface MetricRow {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds of a histogram's buckets, ascending, without +Inf. */
  readonly buckets?: readonly number[];
}

const counter = <const L extends readonly string[]>(name: string, help: string, ...labels: L) =>
  ({ name: `attndrive_${name}`, type: 'counter', help, labels }) as const;
const gauge = <const L extends readonly string[]>(name: string, help: string, ...labels: L) =>
  ({ name: `attndrive_${name}`, type: 'gauge', help, labels }) as const;
const histogram = <const L extends readonly string[]>(
  name: string,
  help: string,
  labels: L,
  buckets: readonly number[],
) => ({ name: `attndrive_${name}`, type: 'histogram', help, labels, buckets }) as const;

/** 10 us to 10 s, three per decade. */
export const latencyBucketsSeconds: readonly number[] = [
  1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10,
];

/** 1 us to 10 s, three per decade. */
export const deviceLatencyBucketsSeconds: readonly number[] = [1e-6, 2e-6, 5e-6, ...latencyBucketsSeconds];

export const metrics = {
  // The drive as a whole
  info: gauge('info', 'Always 1; the labels say what runs.', 'version', 'kernels', 'isa', 'serial'),
  ready: gauge('ready', '1 while commands are served, else 0.'),
  uptimeSeconds: gauge('uptime_seconds', 'Time since the drive became ready.'),
  workers: gauge('compute_workers', 'Compute workers.'),

  // Commands
  commands: counter(
    'commands_total',
    'Completed commands by opcode name and status name.',
    'queue',
    'opcode',
    'status',
  ),
  commandLatency: histogram(
    'command_latency_seconds',
    'From the arrival of a command to its completion on the socket.',
    ['queue', 'opcode'],
    latencyBucketsSeconds,
  ),
  commandsInFlight: gauge('commands_in_flight', 'Commands being worked on.', 'queue'),
  deviceLatency: histogram(
    'device_latency_seconds',
    'Device time of commands, from arrival to completion (start --timing).',
    ['queue', 'opcode'],
    deviceLatencyBucketsSeconds,
  ),
  queueEntries: gauge('queue_entries', 'Submission queue entries of all connections.', 'queue'),

  // Device time
  timingInfo: gauge(
    'timing_info',
    'Always 1; the labels say how device time is used, and which profile it has.',
    'mode',
    'profile',
  ),
  deviceBusy: counter(
    'device_busy_seconds_total',
    'Device time that resources were busy, summed over each kind.',
    'resource',
  ),
  deviceResources: gauge('device_resources', 'Resources of each kind in the model.', 'resource'),
  completionsHeld: counter(
    'completions_held_total',
    'Completions that waited for their device time (--timing enforce).',
  ),
  completionsLate: counter('completions_late_total', 'Completions that real work made later than their device time.'),
  completionsLateRatio: gauge('completions_late_ratio', 'Late ones among all of these.'),
  holdError: gauge(
    'hold_error_seconds',
    'How late after their device time held completions left, by percentile.',
    'percentile',
  ),

  // Hosts
  connections: gauge('connections', 'Connections of NVMe hosts.', 'transport'),
  associations: gauge('associations', 'Associations (an admin queue with its I/O queues).'),
  connectionsRefused: counter('connections_refused_total', 'Connections closed before Connect, by reason.', 'reason'),
  hostsRefused: counter('hosts_refused_total', 'Connects of hosts that may not.'),
  httpRefused: counter('http_refused_total', 'HTTP requests that were not let in, by reason.', 'reason'),
  authentications: counter('authentications_total', 'In-band authentications of queues by how they ended.', 'result'),
  hostQuotaRefusals: counter(
    'host_quota_refusals_total',
    'Times that a host wanted more than its quota, by quota.',
    'quota',
  ),
  hostBytes: counter(
    'host_bytes_total',
    'Data of commands by direction (in, out) and path (capsule, pdu, region, slot).',
    'direction',
    'path',
  ),
  regions: gauge('regions', 'Memory regions.'),
  regionBytes: gauge('region_bytes', 'Bytes of all memory regions.'),

  // Attention
  attendEntries: counter('attend_entries_total', 'ATTN entries (one sequence and layer each).'),
  attendTokens: counter(
    'attend_tokens_total',
    'Tokens attended to, by where their K and V lay: flash or buffer.',
    'source',
  ),
  attendPages: counter('attend_pages_total', 'Flash pages walked by ATTN.'),
  attendBytes: counter('attend_bytes_total', 'Bytes of K and V that ATTN read.'),
  attendJobsQueued: gauge('attend_jobs_queued', 'Attention jobs that wait for a compute worker.'),

  cachePages: counter(
    'cache_pages_total',
    'Flash pages that ATTN wanted, by what its cache had of them: hit or miss. None if the media is mapped.',
    'result',
  ),
  cacheEvictions: counter('cache_evictions_total', 'Pages that made room for others in the cache.'),
  cacheLoads: counter('cache_loads_total', 'Requests to the disk that misses took.'),
  cacheBytes: gauge('cache_bytes', 'The cache: capacity, resident, in_use.', 'what'),

  // KV cache
  sequences: gauge('sequences', 'Live sequences.'),
  kvTokensAppended: counter('kv_tokens_appended_total', 'Tokens appended, per layer.'),
  kvTokensBuffered: gauge('kv_tokens_buffered', 'Tokens, over all layers, that are in the tail buffer only.'),
  kvPages: gauge('kv_pages', 'Flash pages of the KV namespace by state: used, free.', 'state'),
  kvPaddingBytes: gauge('kv_padding_bytes', 'Bytes of KV pages that hold no token.'),

  // Flash
  nandPagesProgrammed: counter(
    'nand_pages_programmed_total',
    'Flash pages programmed, by cause: block, kv, gc, wear.',
    'cause',
  ),
  nandPagesRead: counter('nand_pages_read_total', 'Flash pages read, by cause: host, attend, gc, wear.', 'cause'),
  nandBlocksErased: counter('nand_superblocks_erased_total', 'Superblocks erased.'),
  gcPagesMoved: counter(
    'gc_pages_moved_total',
    'Pages that garbage collection read, by whether a host waited for it (host) or not (idle).',
    'for',
  ),
  gcEraseWaits: counter('gc_erase_waits_total', 'Times a host waited for a checkpoint to erase a superblock.'),
  superblocks: gauge('superblocks', 'Superblocks by state.', 'state'),
  flashBlocksBad: gauge('flash_blocks_bad', 'Bad erase blocks by reason: factory, program, erase.', 'reason'),
  flashBlocksSpare: gauge('flash_blocks_spare', 'Good erase blocks beyond one for each superblock in every unit.'),
  availableSpare: gauge('available_spare_ratio', 'What may still fail, of what might when new: SMART available spare.'),
  enduranceUsed: gauge('endurance_used_ratio', 'Mean erases of the rated cycles: SMART percentage used.'),
  eraseCount: gauge('flash_block_erases', 'Erases of the erase blocks in use: min, mean, max.', 'statistic'),
  readOnly: gauge('read_only', '1 if so many erase blocks are bad that the drive only reads, else 0.'),
  writeAmplification: gauge('write_amplification_ratio', 'Pages programmed over pages that hosts asked for.'),
  mediaErrors: counter('media_errors_total', 'Page reads that gave wrong bytes or none.'),
  correctedReads: counter(
    'corrected_reads_total',
    'Page reads with bit errors that were corrected: at once, or after a retry. ATTN over checked pages is not counted.',
    'how',
  ),
  readRetries: counter('read_retries_total', 'Further reads, with shifted thresholds, of pages with bit errors.'),
  scrubPagesChecked: counter('scrub_pages_checked_total', 'Pages in use that the scrub looked at.'),
  scrubPagesRefreshed: counter('scrub_pages_refreshed_total', 'Pages with many bit errors that it programmed anew.'),
  scrubPasses: counter('scrub_passes_total', 'Passes of the scrub over all pages in use.'),
  scrubProgress: gauge('scrub_progress_ratio', 'How much of its pass the scrub has done; 0 between passes.'),
  pagesBad: gauge('flash_pages_bad', 'Pages in use that were found unreadable since the start.'),
  stagingBytes: gauge('staging_bytes', 'Bytes in the staging log.'),
  stagingBytesWritten: counter('staging_bytes_written_total', 'Bytes appended to the staging log.'),
  checkpoints: counter('checkpoints_total', 'Checkpoints (flushes that shared one count once).'),
  bufferBytes: gauge('buffer_bytes', 'Working memory by state: used, free.', 'state'),
} as const satisfies Record<string, MetricRow>;

export type Metrics = typeof metrics;
export type MetricKey = keyof Metrics;

/** One value of a metric that has labels. */
export interface Sample<L extends string> {
  readonly labels: Readonly<Record<L, string>>;
  readonly value: number;
}

/** One histogram: `counts` per bucket of the table, not cumulative, and one more for what lies above the last bound. */
export interface HistogramSample<L extends string> {
  readonly labels: Readonly<Record<L, string>>;
  readonly counts: ArrayLike<number>;
  readonly sum: number;
}

type LabelOf<R extends MetricRow> = R['labels'][number];
export type MetricValue<R extends MetricRow> = R['type'] extends 'histogram'
  ? readonly HistogramSample<LabelOf<R>>[]
  : [LabelOf<R>] extends [never]
    ? number
    : readonly Sample<LabelOf<R>>[];

/** Everything that a scrape shows, taken at one moment. A metric left out is shown without a value. */
export type MetricsSnapshot = { readonly [K in MetricKey]?: MetricValue<Metrics[K]> };
