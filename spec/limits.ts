/**
 * Every bound of the system. Hitting one is a status or an error that names it, never growth.
 * Relations between bounds are asserted below, when the module loads.
 */
export const limits = {
  // Flash
  pageSizeBytesMin: 4096,
  pageSizeBytesMax: 65_536,
  lbaSizeBytes: 4096,
  superblockCountMin: 128,
  channelCountMax: 64,
  /** Write points of KV pages, which are chosen by sequence. A drive with more to spare has more. */
  kvWritePointCountMin: 4,
  kvWritePointCountMax: 64,
  /** Staging log kept before a checkpoint stages everything anew; it can become twice as long until one is made. */
  stagingSegmentBytesMax: 64 * 1024 * 1024,
  /** Flash programmed since the last checkpoint before the drive makes one by itself: a start after a crash reads it. */
  unflushedFlashBytesMax: 256 * 1024 * 1024,

  // Sequences
  /** Half of what a page's 16-bit holder count can hold; the other half is for commands that hold pages while reading. */
  sequenceCountMax: 32_768,
  /** Sequences whose lease ended, of which a late command is told so rather than that they are unknown. */
  expiredSequenceCountMax: 4096,
  /** Sequences looked at by one sweep for ended leases. */
  leaseSweepCountMax: 4096,
  layerCountMax: 512,
  kvHeadCountMax: 512,
  headDimMin: 8,
  headDimMax: 256,
  sequenceTokensMax: 0x7fff_ffff,
  labelBytesMax: 128,

  // ATTN
  attendEntryCountMax: 1024,
  queryHeadsPerKvHeadMax: 128,
  queryTokenCountMax: 4096,
  /** Query rows (tokens times heads) over all entries of one command. */
  queryRowCountMax: 131_072,
  /** Queries, carried keys and values, and outputs of one command. */
  attendBytesMax: 128 * 1024 * 1024,

  // NVMe over Fabrics
  /** Largest data transfer of one command over a socket: MDTS 8 at 4 KiB pages. */
  transferBytesMax: 1 << 20,
  mdtsExponent: 8,
  /** Largest keyed SGL data block: its length field has 24 bits. */
  keyedBlockBytesMax: 0xff_ffff,
  inCapsuleBytesMax: 32_768,
  adminInCapsuleBytesMax: 8192,
  h2cDataBytesMax: 131_072,
  queueEntriesMax: 128,
  adminQueueEntriesMax: 32,
  ioQueueCountMax: 64,
  /** Asynchronous event requests of one controller: AERL plus 1. */
  asyncEventRequestCountMax: 4,
  /** Errors that a controller remembers: ELPE plus 1. */
  errorLogEntryCountMax: 64,
  /** Entries of a discovery service, and of one registration with it. */
  discoveryEntryCountMax: 4096,
  discoveryEntriesPerRegistrationMax: 64,
  /** An association with a discovery controller that asks for no keep alive ends after so long a silence. */
  discoveryIdleTimeoutMs: 120_000,
  /** How often a controller that wants to be told of bad health has it looked at. */
  healthCheckIntervalMs: 1000,
  associationCountMax: 256,
  connectionCountMax: 1024,
  /** A new connection has this long for ICReq and Connect, and a started capsule for its end. */
  handshakeTimeoutMs: 10_000,
  /** A host that has to authenticate has this long for it, from Connect. */
  authenticationTimeoutMs: 60_000,
  /** A message of an authentication. */
  authenticationBytesMax: 8192,
  keepAliveTimeoutMsMax: 3_600_000,
  /** A host that takes nothing of what it asked for for this long is disconnected. */
  sendStallTimeoutMs: 30_000,
  /** Data of the commands of one connection that run at once; more wait. One command may always run. */
  connectionDataBytesMax: 8 * 1024 * 1024,
  /** The same over all connections; a connection that has nothing running may exceed it by one small command. */
  dataBytesTotalMax: 128 * 1024 * 1024,
  /** In-capsule data of waiting commands over all connections; beyond it commands are refused, to be retried. */
  waitingCapsuleBytesTotalMax: 64 * 1024 * 1024,
  /** A connection whose output has piled up to this is not read from until the host takes some. */
  connectionOutputBytesMax: 16 * 1024 * 1024,

  // Peer-to-peer memory of one association
  regionCountMax: 64,
  regionBytesMax: 2 ** 32,
  regionBytesTotalMax: 2 ** 34,
  /** A command's data in a region is taken at once up to this size, and so in the order in which a queue's commands came. */
  regionReadNowBytesMax: 4 * 1024 * 1024,
  /** From the first K row of an append to its first V row, in a region. */
  appendDistanceBytesMax: 0xffff_ffff,
  resultSlotCountMax: 64,
  resultSlotBytesTotalMax: 64 * 1024 * 1024,

  // HTTP control plane
  adminBodyBytesMax: 65_536,
  adminConnectionCountMax: 64,
  /** A request has this long to arrive whole. */
  adminRequestTimeoutMs: 10_000,
  /** Of a bearer token: 32 letters and digits are more than anybody can guess. */
  adminTokenCharactersMin: 32,
  adminTokenCharactersMax: 1024,
  /** An idle kept-alive connection is closed after this long. */
  adminIdleTimeoutMs: 60_000,
} as const;

function relation(holds: boolean, text: string): void {
  if (!holds) throw new Error(`limits do not fit together: ${text}`);
}

relation(limits.transferBytesMax === 4096 << limits.mdtsExponent, 'MDTS is stated in units of 4 KiB pages');
relation(limits.transferBytesMax <= limits.keyedBlockBytesMax, 'a keyed block can carry what a socket can');
relation(limits.inCapsuleBytesMax % 16 === 0, 'IOCCSZ counts units of 16 bytes');
relation(limits.h2cDataBytesMax >= 4096, 'MAXH2CDATA is at least 4096 (NVMe/TCP transport specification)');
relation(
  limits.headDimMax * 4 <= limits.pageSizeBytesMin,
  'the widest row of the widest element type fits the smallest page',
);
