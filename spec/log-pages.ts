/** Log pages: Get Log Page (NVMe base specification, "Log Page Information and Layout") and the drive's own. */
import { packBits } from './bits.ts';
import { features } from './features.ts';
import { limits } from './limits.ts';
import { defineStruct, reserved, text, u8, u16, u32, uint64, uint128 } from './struct.ts';

/** CDW10 of Get Log Page. */
export const getLogPageBits = {
  lid: { shift: 0, width: 8, meaning: 'logPages' },
  lsp: { shift: 8, width: 7, meaning: 'log specific parameter' },
  rae: { shift: 15, width: 1, meaning: 'retain asynchronous event' },
  numdl: { shift: 16, width: 16, meaning: 'dwords to return minus 1, low half' },
} as const;

/** CDW11. CDW12 and CDW13 are the byte offset, a multiple of 4. */
export const getLogPageHighBits = {
  numdu: { shift: 0, width: 16, meaning: 'dwords to return minus 1, high half' },
  lsi: { shift: 16, width: 16, meaning: 'log specific identifier: endurance group, for page 09h' },
} as const;

/** CDW14. */
export const getLogPageIndexBits = {
  uuidIndex: { shift: 0, width: 7, meaning: 'UUID index' },
  ot: { shift: 23, width: 1, meaning: 'the offset is an index' },
  csi: { shift: 24, width: 8, meaning: 'command set, for the effects log' },
} as const;

export interface LogPageRow {
  readonly lid: number;
  readonly sizeBytes: number;
  readonly name: string;
}

/** What the drive answers. A read past the end of a page returns zeros there. */
export const logPages = {
  supported: { lid: 0x00, sizeBytes: 1024, name: 'Supported Log Pages' },
  error: { lid: 0x01, sizeBytes: 64 * limits.errorLogEntryCountMax, name: 'Error Information' },
  smart: { lid: 0x02, sizeBytes: 512, name: 'SMART / Health Information' },
  firmwareSlot: { lid: 0x03, sizeBytes: 512, name: 'Firmware Slot Information' },
  changedNamespaces: { lid: 0x04, sizeBytes: 4096, name: 'Changed Namespace List' },
  effects: { lid: 0x05, sizeBytes: 4096, name: 'Commands Supported and Effects' },
  enduranceGroup: { lid: 0x09, sizeBytes: 512, name: 'Endurance Group Information' },
  featureEffects: { lid: 0x12, sizeBytes: 1024, name: 'Feature Identifiers Supported and Effects' },
  driveStatistics: { lid: 0xc0, sizeBytes: 1024, name: 'Drive Statistics' },
} as const satisfies Record<string, LogPageRow>;

export type LogPageName = keyof typeof logPages;

const byLid = new Map<number, LogPageName>(Object.entries(logPages).map(([key, row]) => [row.lid, key as LogPageName]));
export const logPageOf = (lid: number): LogPageName | undefined => byLid.get(lid);

/** Log 00h: one of these for each page number. */
export const supportedLogPageBits = {
  lsupp: { shift: 0, width: 1, meaning: 'supported' },
  ios: { shift: 1, width: 1, meaning: 'index offset supported' },
} as const;

/** Pages of a discovery controller. The discovery log is as long as its entries want. */
export const discoveryLogPages = {
  supported: logPages.supported,
  error: logPages.error,
  discovery: { lid: 0x70, sizeBytes: 1024, name: 'Discovery' },
} as const satisfies Record<string, LogPageRow>;

export type DiscoveryLogPageName = keyof typeof discoveryLogPages;

export function encodeSupportedLogPages(pages: Readonly<Record<string, LogPageRow>> = logPages): Uint8Array {
  const target = new Uint8Array(logPages.supported.sizeBytes);
  const view = new DataView(target.buffer);
  for (const { lid } of Object.values(pages))
    view.setUint32(4 * lid, packBits(supportedLogPageBits, { lsupp: 1 }), true);
  return target;
}

/** Entry of log 01h, newest first: the errors of this controller since it connected. 64 bytes. */
export const errorInformationEntry = defineStruct('error information entry', 64, {
  errorCount: uint64(0, 'number of this error, from 1; 0: no entry'),
  sqid: u16(8, 'queue'),
  cmdid: u16(10, 'command id'),
  statusField: u16(12, 'statusBits'),
  paramErrorLoc: u16(14, 'byte in bits 7:0, bit in 10:8; FFFFh: not of the command'),
  lba: uint64(16, 'first LBA'),
  nsid: u32(24, 'namespace'),
  vs: u8(28, 'vendor specific information'),
  trtype: u8(29, 'transport: 3 TCP'),
  csi: u8(30, 'command set'),
  opcode: u8(31, 'opcode'),
  cs: uint64(32, 'command specific information'),
  trtypeSpecInfo: u16(40, 'transport specific information'),
  reserved0: reserved(42, 21),
  logPageVersion: u8(63, '1: csi and opcode are given'),
});

/** Log 02h. Field names are nvme-cli's. Data units are 512,000 bytes, rounded up. 512 bytes. */
export const smartLog = defineStruct('SMART / Health Information', logPages.smart.sizeBytes, {
  criticalWarning: u8(0, 'criticalWarningBits'),
  temperature: u16(1, 'K'),
  availSpare: u8(3, 'percent'),
  spareThresh: u8(4, 'percent'),
  percentUsed: u8(5, 'percent of rated life; may exceed 100'),
  enduranceGrpCriticalWarningSummary: u8(6, 'criticalWarning of the endurance group'),
  reserved0: reserved(7, 25),
  dataUnitsRead: uint128(32, 'thousands of 512 bytes read by hosts'),
  dataUnitsWritten: uint128(48, 'thousands of 512 bytes written by hosts'),
  hostReadCommands: uint128(64, 'read commands'),
  hostWriteCommands: uint128(80, 'write commands'),
  controllerBusyTime: uint128(96, 'minutes'),
  powerCycles: uint128(112, 'times the daemon started'),
  powerOnHours: uint128(128, 'hours'),
  unsafeShutdowns: uint128(144, 'times it ended without a clean shutdown'),
  mediaErrors: uint128(160, 'pages that could not be read'),
  numErrLogEntries: uint128(176, 'errors of this controller: entries that the error log had'),
  warningTempTime: u32(192, 'minutes'),
  criticalCompTime: u32(196, 'minutes'),
  temperatureSensor1: u16(200, 'K; 0: none'),
  temperatureSensor2: u16(202, 'K; 0: none'),
  temperatureSensor3: u16(204, 'K; 0: none'),
  temperatureSensor4: u16(206, 'K; 0: none'),
  temperatureSensor5: u16(208, 'K; 0: none'),
  temperatureSensor6: u16(210, 'K; 0: none'),
  temperatureSensor7: u16(212, 'K; 0: none'),
  temperatureSensor8: u16(214, 'K; 0: none'),
  thmTemp1TransCount: u32(216, 'thermal transitions'),
  thmTemp2TransCount: u32(220, 'thermal transitions'),
  thmTemp1TotalTime: u32(224, 's'),
  thmTemp2TotalTime: u32(228, 's'),
  reserved1: reserved(232, 280),
});

/** Log 03h. There is one slot, read only. 512 bytes. */
export const firmwareSlotLog = defineStruct('Firmware Slot Information', logPages.firmwareSlot.sizeBytes, {
  afi: u8(0, 'active slot in bits 2:0: 1'),
  reserved0: reserved(1, 7),
  frs1: text(8, 8, 'revision in slot 1', 0x20),
  reserved1: reserved(16, 496),
});

/** One dword of log 12h. */
export const featureEffectBits = {
  fsupp: { shift: 0, width: 1, meaning: 'supported' },
  udcc: { shift: 1, width: 1, meaning: 'changes the content of namespaces' },
  ncc: { shift: 2, width: 1, meaning: 'changes the capability of a namespace' },
  nic: { shift: 3, width: 1, meaning: 'changes the inventory of namespaces' },
  ccc: { shift: 4, width: 1, meaning: 'changes the capability of the controller' },
  uuidSelection: { shift: 19, width: 1, meaning: 'takes a UUID index' },
  controllerScope: { shift: 21, width: 1, meaning: 'holds for one controller' },
} as const;

/** Log 12h: one dword for each feature identifier. */
export function encodeFeatureEffects(): Uint8Array {
  const target = new Uint8Array(logPages.featureEffects.sizeBytes);
  const view = new DataView(target.buffer);
  for (const { fid } of Object.values(features)) {
    view.setUint32(4 * fid, packBits(featureEffectBits, { fsupp: 1, controllerScope: 1 }), true);
  }
  return target;
}

/** Log 09h of the one endurance group. Field names are nvme-cli's. 512 bytes. */
export const enduranceGroupLog = defineStruct('Endurance Group Information', logPages.enduranceGroup.sizeBytes, {
  criticalWarning: u8(0, 'criticalWarningBits'),
  enduranceGroupFeatures: u8(1, 'bit 0: rotational media'),
  reserved0: reserved(2, 1),
  avlSpare: u8(3, 'percent'),
  avlSpareThreshold: u8(4, 'percent'),
  percentUsed: u8(5, 'percent of rated life; may exceed 100'),
  domainIdentifier: u16(6, 'domain'),
  reserved1: reserved(8, 24),
  enduranceEstimate: uint128(
    32,
    'billions of bytes that may be written over its life without amplification; 0: no limit',
  ),
  dataUnitsRead: uint128(48, 'billions of bytes that hosts read and attention walked, rounded up'),
  dataUnitsWritten: uint128(64, 'billions of bytes that hosts wrote, rounded up'),
  mediaUnitsWritten: uint128(80, 'billions of bytes programmed into flash, rounded up'),
  hostReadCmds: uint128(96, 'read commands'),
  hostWriteCmds: uint128(112, 'write commands'),
  mediaDataIntegrityErr: uint128(128, 'pages that could not be read'),
  numErrInfoLogEntries: uint128(144, "errors counted over the drive's life"),
  totalEndGrpCap: uint128(160, 'capacity, bytes'),
  unallocEndGrpCap: uint128(176, 'of it, in no namespace, bytes'),
  reserved2: reserved(192, 320),
});

/** One dword of log 05h. */
export const commandEffectBits = {
  csupp: { shift: 0, width: 1, meaning: 'supported' },
  lbcc: { shift: 1, width: 1, meaning: 'changes the content of a namespace' },
  ncc: { shift: 2, width: 1, meaning: 'changes the capability of a namespace' },
  nic: { shift: 3, width: 1, meaning: 'changes the inventory of namespaces' },
  ccc: { shift: 4, width: 1, meaning: 'changes the capability of the controller' },
  cse: { shift: 16, width: 3, meaning: 'who must be idle: 0 nobody' },
  uuidSelection: { shift: 19, width: 1, meaning: 'takes a UUID index' },
} as const;

/** Log 05h: 256 dwords of admin commands, then 256 of I/O commands of the CSI in CDW14, then 2048 reserved bytes. */
export const EFFECTS_IO_OFFSET = 1024;

/** `cse` of a command that takes a namespace for itself. */
const NAMESPACE_IDLE = 1;

/** Opcodes that change what a namespace holds are in `changing`; such an admin command has the namespace for itself. */
export function encodeEffectsLog(
  adminOpcodes: Iterable<number>,
  ioOpcodes: Iterable<number>,
  changing: { readonly admin: ReadonlySet<number>; readonly io: ReadonlySet<number> },
): Uint8Array {
  const target = new Uint8Array(logPages.effects.sizeBytes);
  const view = new DataView(target.buffer);
  for (const opcode of adminOpcodes) {
    const change = changing.admin.has(opcode) ? { lbcc: 1, cse: NAMESPACE_IDLE } : {};
    view.setUint32(4 * opcode, packBits(commandEffectBits, { csupp: 1, ...change }), true);
  }
  for (const opcode of ioOpcodes) {
    const effects = packBits(commandEffectBits, { csupp: 1, lbcc: changing.io.has(opcode) ? 1 : 0 });
    view.setUint32(EFFECTS_IO_OFFSET + 4 * opcode, effects, true);
  }
  return target;
}

/** Log C0h: counters since the drive was formatted, unless they say "now" or "since start". 1024 bytes. */
export const driveStatistics = defineStruct('Drive Statistics', logPages.driveStatistics.sizeBytes, {
  version: u16(0, '1'),
  reserved0: reserved(2, 2),
  pageSizeBytes: u32(4, 'flash page size'),
  kernelSet: text(8, 16, 'attention kernels in use'),
  kernelIsa: text(24, 16, 'instruction set that they use'),
  uptimeSeconds: uint64(40, 'since start'),
  // Host traffic
  blockReadBytes: uint64(48, 'read from the block namespace'),
  blockWrittenBytes: uint64(56, 'written to the block namespace'),
  kvAppendedBytes: uint64(64, 'keys and values appended, as stored'),
  kvReadBackBytes: uint64(72, 'keys and values read back, as sent'),
  linkReceivedBytes: uint64(80, 'from hosts over sockets, PDU headers included'),
  linkSentBytes: uint64(88, 'to hosts over sockets, PDU headers included'),
  regionReadBytes: uint64(96, 'taken from memory regions'),
  regionWrittenBytes: uint64(104, 'put into memory regions'),
  // NAND
  hostPagesProgrammed: uint64(112, 'flash pages programmed with new data'),
  gcPagesProgrammed: uint64(120, 'flash pages programmed by garbage collection'),
  metadataPagesProgrammed: uint64(128, 'flash pages programmed for anything else'),
  hostPagesRead: uint64(136, 'flash pages read for hosts'),
  attendPagesRead: uint64(144, 'flash pages walked by attention'),
  gcPagesRead: uint64(152, 'flash pages read by garbage collection'),
  blocksErased: uint64(160, 'erase blocks erased'),
  paddingBytesProgrammed: uint64(168, 'bytes of programmed pages that hold nothing'),
  pagesWithPadding: uint64(176, 'programmed pages that hold padding'),
  freeSuperblocks: uint64(184, 'free superblocks now'),
  // Staging log and metadata
  stagingRecords: uint64(192, 'records appended to the staging log'),
  stagingBytes: uint64(200, 'bytes appended to the staging log'),
  stagingSyncs: uint64(208, 'syncs of the staging log'),
  checkpoints: uint64(216, 'metadata transactions'),
  // Attention
  attendCommands: uint64(224, 'ATTN and ATTN Exchange commands completed with success'),
  attendEntries: uint64(232, 'entries of these'),
  attendFlashTokens: uint64(240, 'tokens attended to in flash pages, per entry'),
  attendBufferedTokens: uint64(248, 'tokens attended to in the tail buffer, per entry'),
  attendBytesKept: uint64(256, 'bytes of keys and values that attention read and no link carried'),
  // Sequences
  sequenceCount: uint64(264, 'sequences now'),
  sequencesCreated: uint64(272, 'sequences created or forked'),
  sequencesReclaimed: uint64(280, 'sequences reclaimed'),
  kvPagesInUse: uint64(288, 'logical KV pages in use now'),
  kvPagesTotal: uint64(296, 'logical KV pages that the namespace promises'),
  bufferedTokens: uint64(304, 'tokens, over all layers and sequences, in the tail buffer now'),
  // Health
  unrecoveredReads: uint64(312, 'pages that failed their checksum'),
  commandsFailed: uint64(320, 'commands completed with an error status'),
  // Endurance
  badBlocksFactory: uint64(328, 'erase blocks that the maker has marked bad'),
  badBlocksProgram: uint64(336, 'erase blocks bad since a program failed'),
  badBlocksErase: uint64(344, 'erase blocks bad since an erase failed'),
  spareBlocks: uint64(352, 'good erase blocks beyond one for each superblock in every unit'),
  badSuperblocks: uint64(360, 'superblocks given up, since a unit has no erase block left for them'),
  eraseCountMin: uint64(368, 'erases of the least worn erase block in use'),
  eraseCountMax: uint64(376, 'erases of the most worn erase block in use'),
  eraseCountMeanThousandths: uint64(384, 'mean erases of the erase blocks in use, in thousandths'),
  readOnly: u8(392, '1: so many erase blocks are bad that the drive only reads'),
  reserved1: reserved(393, 7),
  // Errors and the scrub
  correctedReads: uint64(400, 'page reads with bit errors that were corrected'),
  readRetries: uint64(408, 'further reads, with shifted thresholds, that this took'),
  scrubPagesRead: uint64(416, 'flash pages read by the scrub'),
  scrubPagesProgrammed: uint64(424, 'flash pages that it programmed anew'),
  scrubPasses: uint64(432, 'passes of the scrub over all pages in use'),
  badPages: uint64(440, 'pages in use that were found unreadable since the start'),
  wearPagesProgrammed: uint64(
    448,
    'flash pages programmed for the sake of wear: moved to level it, or from failed blocks',
  ),
  reserved2: reserved(456, 312),
  // Device time, since start: what the drive's profile says, not this machine, unless it says "wall"
  timingMode: text(768, 16, 'how device time is used: off, report or enforce'),
  profile: text(784, 32, 'what the drive is made of'),
  timedCommands: uint64(816, 'I/O commands that have a device time'),
  deviceLatencySumNs: uint64(824, 'their latencies in device time'),
  wallLatencySumNs: uint64(832, 'latencies of I/O commands in wall time on this machine'),
  dieBusyNs: uint64(840, 'device time that dies were busy, summed over all of them'),
  channelBusyNs: uint64(848, 'channels, likewise'),
  computeBusyNs: uint64(856, 'compute units, likewise'),
  linkInBusyNs: uint64(864, 'link, from the host'),
  linkOutBusyNs: uint64(872, 'link, to the host'),
  completionsHeld: uint64(880, 'completions that waited for their device time (enforce)'),
  completionsLate: uint64(888, 'completions that real work made later than their device time (enforce)'),
  holdErrorP50Ns: uint64(896, 'wall time by which held completions left late, median'),
  holdErrorP99Ns: uint64(904, 'the same, 99th percentile'),
  reserved3: reserved(912, 112),
});
