/**
 * The control plane as a table: method, path, what goes in, what comes out. The server and the client are both made
 * from it. 64-bit ids are decimal strings: JSON numbers end at 2^53. Prose: `control-plane.md`.
 */
import { elementTypeNames } from './element-type.ts';
import { array, boolean, integer, number, object, oneOf, optional, record, string } from './schema.ts';
import type { Schema, TypeOf } from './schema.ts';

const sequenceId = string('sequence id, decimal', { pattern: '^[0-9]{1,20}$' });
const count = (description: string) => integer(description, { minimum: 0 });

export const pageLimits = { limitDefault: 100, limitMax: 1000 } as const;
const limit = optional(
  integer('entries to return', { minimum: 1, maximum: pageLimits.limitMax, default: pageLimits.limitDefault }),
);

/** `live`: the process answers. `ready`: commands are served. */
export const health = object({
  state: oneOf('state of the drive', ['stopped', 'opening', 'ready', 'stopping', 'failed']),
  live: boolean('the process answers'),
  ready: boolean('commands are served'),
  readOnly: boolean('so many erase blocks are bad that the drive only reads'),
  detail: string('for people; empty if there is nothing to say'),
});

const geometry = object({
  channelCount: count('channels'),
  dieCount: count('dies per channel'),
  planeCount: count('planes per die'),
  superblockCount: count('erase units: block b of every die'),
  pagesPerBlock: count('pages of one block'),
  pageSizeBytes: count('bytes of a flash page'),
  rawBytes: count('capacity of all cells'),
});

export const drive = object({
  serial: string('serial number'),
  model: string('model number'),
  firmware: string('firmware revision'),
  subsystemNqn: string('NVMe qualified name of the subsystem'),
  uuid: string('identity given by format'),
  folder: string('folder that holds the drive'),
  processId: count('process of the daemon'),
  version: string('version of the daemon'),
  uptimeSeconds: number('since the drive became ready'),
  geometry,
  kernels: object({
    name: oneOf('kernel set', ['native', 'wasm', 'reference']),
    isa: string('instruction set in use'),
    workerCount: count('compute workers'),
  }),
  deviceTime: object({
    mode: oneOf('how device time is used', ['off', 'report', 'enforce']),
    profile: string('what the drive is made of: a name that format --profile knows'),
  }),
  cache: object({
    kind: oneOf("how attention comes to pages: mapped, its own copies for kernels that can't map, or direct I/O", [
      'mapping',
      'copies',
      'direct',
    ]),
    capacityBytes: count('bytes of pages that it can hold; 0 if mapped'),
    residentBytes: count('bytes of pages that it holds'),
    hitPages: count('pages that commands found there'),
    missPages: count('pages that were read for commands'),
    evictedPages: count('pages that made room for others'),
    loadCount: count('requests to the disk that the misses took'),
  }),
  listeners: array(string('unix:PATH or tcp:HOST:PORT'), 'where NVMe hosts connect'),
  configuration: record(string('value as text'), 'options in force, by name'),
});

export const namespace = object({
  namespaceId: count('NSID'),
  commandSet: oneOf('command set', ['nvm', 'kv-cache']),
  commandSetId: count('CSI'),
  capacityBytes: count('capacity promised to it'),
  usedBytes: count('of these, in use'),
  blockSizeBytes: count('logical block (NVM) or page (KV cache)'),
});

export const sequenceShape = object({
  layerCount: count('layers'),
  kvHeadCount: count('KV heads'),
  headDimK: count('elements of a K row'),
  headDimV: count('elements of a V row'),
  elementTypeK: oneOf('type K is stored in', elementTypeNames),
  elementTypeV: oneOf('type V is stored in', elementTypeNames),
  groupTokens: count('tokens per group'),
});

const sequenceProperties = {
  id: sequenceId,
  parentId: string('sequence it was forked from; "0": none'),
  label: string('label'),
  owner: string('hash of the host NQN that created it, decimal'),
  leaseSeconds: count('0: kept until reclaimed'),
  shape: sequenceShape,
  tokenCountMin: count('tokens of its shortest layer'),
  tokenCountMax: count('tokens of its longest layer'),
  pageCount: count('flash pages that hold it, shared ones included'),
  sharedPageCount: count('of these, held by another sequence too'),
  bufferedTokenCount: count('tokens over all layers that are in the tail buffer only'),
};

export const sequenceSummary = object(sequenceProperties);

/** A sequence with its block table in summary. */
export const sequenceDetail = object({
  ...sequenceProperties,
  lengths: array(count('tokens'), 'tokens per layer'),
  blockTable: object({
    groupCount: count('whole groups in flash, over all layers (a group has a K and a V page per KV head)'),
    pagesPerChannel: array(count('pages'), 'flash pages by the channel they lie on'),
    runPageMean: number('mean length in pages of runs of consecutive groups of a stream that lie side by side'),
    paddingBytesPerPageK: count('bytes of a K page that hold no token'),
    paddingBytesPerPageV: count('bytes of a V page that hold no token'),
    paddingBytes: count('bytes lost to padding over all pages'),
  }),
});

export const connection = object({
  controllerId: count('CNTLID of its association'),
  queueId: count('0: admin queue'),
  transport: oneOf('socket', ['unix', 'tcp']),
  peer: string('address of the peer; empty on a Unix socket'),
  hostNqn: string('NQN of the host'),
  queueEntryCount: count('entries of the queue'),
  inFlightCount: count('commands being worked on'),
  commandCount: count('commands completed since it connected'),
  connectedSeconds: number('since it connected'),
  regionCount: count('memory regions of its association'),
  regionBytes: count('bytes of these'),
});

export const superblockStates = ['free', 'open', 'full', 'victim', 'bad'] as const;

export const superblock = object({
  index: count('superblock'),
  state: oneOf('state', superblockStates),
  use: string('what is written to it: block, kv, gc; empty if free'),
  eraseCount: count('erase cycles'),
  eraseCountMax: count('erase cycles of the most worn of its erase blocks'),
  replacedBlockCount: count('erase blocks that serve in it instead of its own'),
  failedBlockCount: count('bad erase blocks in it, to be replaced at its next erase'),
  validPageCount: count('pages that hold live data'),
  writtenPageCount: count('pages programmed since the last erase'),
});

export const blockSummary = object({
  superblockCount: count('superblocks'),
  pagesPerSuperblock: count('pages of one'),
  byState: record(count('superblocks'), 'superblocks by state'),
  eraseCountMin: count('fewest erase cycles of the erase blocks in use'),
  eraseCountMax: count('most erase cycles'),
  eraseCountMean: number('mean erase cycles'),
  badBlocks: record(count('erase blocks'), 'bad erase blocks by reason: factory, program, erase'),
  spareBlockCount: count('good erase blocks beyond one for each superblock in every unit'),
  availableSparePercent: count('what may still fail, of what might when new'),
  percentUsed: count('mean erase cycles of those that the blocks are rated for; may exceed 100'),
  validPageCount: count('pages that hold live data'),
});

/** What can be injected. */
export const faultKinds = ['bit-errors', 'read-failure', 'program-failure', 'erase-failure'] as const;
/** What became of bit errors in a page. */
export const pageFaultStates = ['waiting', 'corrected', 'retried', 'uncorrectable', 'erased'] as const;

const FAULT_COUNT_MAX = 1_000_000;
const positive = (description: string) => optional(integer(description, { minimum: 1, maximum: FAULT_COUNT_MAX }));

/** One of: a page; a superblock, a unit, or both; an LBA; a group of a sequence; nothing: wherever the next operation is. */
const faultPlace = object({
  page: optional(count('physical page')),
  superblock: optional(count('superblock')),
  unit: optional(count('plane of a die: (die * planes per die + plane) * channels + channel')),
  lba: optional(count('LBA: the page that holds it now')),
  sequence: optional(sequenceId),
  layer: optional(count('layer of the sequence')),
  head: optional(count('KV head of the layer')),
  part: optional(oneOf('which rows', ['K', 'V'])),
  group: optional(count('token group: the page that holds it now')),
});

const faultProperties = {
  kind: oneOf('what is injected', faultKinds),
  where: optional(faultPlace),
};

export const faultRequest = object({
  ...faultProperties,
  count: positive('operations that fail, or pages that get bit errors; 1 if left out'),
  bits: positive('raw bit errors that one codeword of each page gets; of bit-errors only; 1 if left out'),
});

export const fault = object({
  id: string('fault'),
  ...faultProperties,
  count: count('as requested'),
  bits: count('as requested; 0: no bit errors'),
  remainingCount: count('how often it still strikes'),
  pages: array(
    object({ page: count('physical page'), state: oneOf('what became of its bit errors', pageFaultStates) }),
    'pages that have bit errors by it, or will as soon as nobody reads them',
  ),
});

export const scrubStates = ['waiting', 'paced', 'requested'] as const;

const scrubPass = {
  pagesChecked: count('pages that it looked at'),
  pagesBad: count('of these, pages that cannot be read'),
  pagesRefreshed: count('of these, pages that had so many bit errors that they were programmed anew'),
};

export const scrub = object({
  intervalSeconds: count('time in which every page in use is looked at once; 0: only on request'),
  state: oneOf('a pass is under way, spread over the interval or as fast as it goes, or none', scrubStates),
  pass: object({ ...scrubPass, pagesTotal: count('pages in use when it began') }),
  lastPass: optional(object({ ...scrubPass, durationSeconds: number('how long it took') })),
  passCount: count('passes since the start'),
  totals: object(scrubPass),
  badPageCount: count('pages in use that somebody found unreadable since the start'),
  badPages: array(
    object({ page: count('physical page'), detail: string('why, and whose it is') }),
    `the first ${pageLimits.limitMax} of them`,
  ),
});

const empty = object({});
export const idParameter = object({ id: sequenceId });
export const sequencesQuery = object({
  after: optional(string('list ids above this one', { pattern: '^[0-9]{1,20}$' })),
  limit,
});
export const blocksQuery = object({
  after: optional(integer('list superblocks above this one', { minimum: -1 })),
  limit,
  state: optional(oneOf('only superblocks in this state', superblockStates)),
});

/** A list that is read page by page: `next` is the `after` of the following page, absent at the end. */
const pageOf = <T>(item: Schema<T>, what: string) => object({ items: array(item, what) });

export interface Route<P = unknown, Q = unknown, R = unknown, B = unknown> {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** `:name` stands for a parameter. */
  readonly path: string;
  readonly summary: string;
  readonly parameters: Schema<P>;
  readonly query: Schema<Q>;
  /** Undefined: none is needed. */
  readonly body: Schema<B> | undefined;
  /** Undefined: plain text (the metrics). */
  readonly response: Schema<R> | undefined;
  /** Whether it changes the drive. */
  readonly changes: boolean;
}

const route = <P, Q, R, B>(
  method: Route['method'],
  path: string,
  summary: string,
  shape: { parameters?: Schema<P>; query?: Schema<Q>; response?: Schema<R>; body?: Schema<B> },
): Route<P, Q, R, B> => ({
  method,
  path,
  summary,
  parameters: shape.parameters ?? (empty as Schema<P>),
  query: shape.query ?? (empty as Schema<Q>),
  body: shape.body,
  response: shape.response,
  changes: method !== 'GET',
});

export const adminRoutes = {
  health: route('GET', '/health', 'state of the drive; HTTP 503 unless it is ready', { response: health }),
  drive: route('GET', '/drive', 'identity, geometry, kernels, uptime, configuration', { response: drive }),
  namespaces: route('GET', '/namespaces', 'namespaces and how full they are', {
    response: pageOf(namespace, 'namespaces'),
  }),
  sequences: route('GET', '/sequences', 'sequences by ascending id', {
    query: sequencesQuery,
    response: object({
      items: array(sequenceSummary, 'sequences'),
      next: optional(string('`after` of the next page')),
    }),
  }),
  sequence: route('GET', '/sequences/:id', 'one sequence with its block table in summary', {
    parameters: idParameter,
    response: sequenceDetail,
  }),
  reclaim: route('DELETE', '/sequences/:id', 'reclaims a sequence', {
    parameters: idParameter,
    response: object({ reclaimed: sequenceId }),
  }),
  connections: route('GET', '/connections', 'connections of NVMe hosts', {
    response: pageOf(connection, 'connections'),
  }),
  blocks: route('GET', '/blocks', 'states of superblocks: a summary and a page of the list', {
    query: blocksQuery,
    response: object({
      summary: blockSummary,
      items: array(superblock, 'superblocks'),
      next: optional(integer('`after` of the next page')),
    }),
  }),
  faults: route('GET', '/faults', 'injected faults', { response: pageOf(fault, 'faults') }),
  addFault: route('POST', '/faults', 'injects a fault, if the daemon was started with --allow-faults', {
    body: faultRequest,
    response: fault,
  }),
  removeFault: route('DELETE', '/faults/:id', 'ends a fault and takes its bit errors back', {
    parameters: object({ id: string('fault', { pattern: '^[0-9]{1,10}$' }) }),
    response: object({ removed: string('fault') }),
  }),
  scrub: route('GET', '/scrub', 'what the scrub does and found', { response: scrub }),
  startScrub: route(
    'POST',
    '/scrub',
    'begins a pass over all pages in use now, unless one that was asked for goes on',
    {
      response: scrub,
    },
  ),
  flush: route('POST', '/flush', 'makes everything that has completed durable', {
    response: object({ durationSeconds: number('how long it took') }),
  }),
  metrics: route('GET', '/metrics', 'metrics in the Prometheus text format', {}),
} as const;

export type AdminRoutes = typeof adminRoutes;

export type Health = TypeOf<typeof health>;
export type DriveStatus = TypeOf<typeof drive>;
export type NamespaceStatus = TypeOf<typeof namespace>;
export type SequenceStatus = TypeOf<typeof sequenceSummary>;
export type SequenceDetail = TypeOf<typeof sequenceDetail>;
export type ConnectionStatus = TypeOf<typeof connection>;
export type SuperblockStatus = TypeOf<typeof superblock>;
export type SuperblockState = (typeof superblockStates)[number];
export type BlockSummary = TypeOf<typeof blockSummary>;
export type ScrubStatus = TypeOf<typeof scrub>;
export type FaultStatus = TypeOf<typeof fault>;
export type FaultRequest = TypeOf<typeof faultRequest>;
export type FaultPlace = TypeOf<typeof faultPlace>;

/** What a request that failed gets, whatever the reason. `code`: a row of errors.ts, or of the table below. */
export const adminError = object({
  code: string('stable code'),
  message: string('what was wrong, naming the value'),
  allowed: optional(string('what is allowed instead')),
});
export type AdminErrorBody = TypeOf<typeof adminError>;

/** Failures that only HTTP has. */
export const httpErrorTable = {
  unknownPath: { http: 404, text: 'no such path' },
  methodNotAllowed: { http: 405, text: 'method not allowed on this path' },
  notAcceptable: { http: 406, text: 'no representation that the client accepts' },
  tokenRequired: { http: 401, text: 'a bearer token is needed' },
  changesNotAllowed: { http: 403, text: 'this listener only shows the drive' },
  unknownHost: { http: 421, text: 'the drive is not called by this name' },
  requestTimeout: { http: 408, text: 'the request took too long to arrive' },
  bodyTooLarge: { http: 413, text: 'body too large' },
  unsupportedMediaType: { http: 415, text: 'body in a format that is not understood' },
  forbiddenOrigin: { http: 403, text: 'requests from web pages may not change the drive' },
  malformedBody: { http: 400, text: 'body cannot be parsed' },
} as const;
export type HttpErrorCode = keyof typeof httpErrorTable;

export const mediaTypes = { json: 'application/json', msgpack: 'application/msgpack' } as const;
