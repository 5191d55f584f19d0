/**
 * Identify: which data structure CDW10's CNS asks for, and the structures that every NVMe drive has. Those of the
 * KV-cache command set stand in `identify-kv.ts`. Field keys are the specification's mnemonics in lower case, as
 * nvme-cli prints them.
 */
import { bytes, defineStruct, reserved, text, u8, u16, u24, u32, uint64, uint128 } from './struct.ts';

export const IDENTIFY_BYTES = 4096;

/** CDW10 of Identify. */
export const identifyBits = {
  cns: { shift: 0, width: 8, meaning: 'cnsValues' },
  cntid: { shift: 16, width: 16, meaning: 'controller; used by no CNS of this drive' },
} as const;

/** CDW11 of Identify. */
export const identifyCommandSetBits = {
  cnssid: { shift: 0, width: 16, meaning: 'CNS specific identifier' },
  csi: { shift: 24, width: 8, meaning: 'command set' },
} as const;

/** What CNS values the drive answers; every answer is 4096 bytes. */
export const cnsValues = {
  namespace: { cns: 0x00, name: 'Identify Namespace (NVM command set)' },
  controller: { cns: 0x01, name: 'Identify Controller' },
  activeNamespaces: { cns: 0x02, name: 'Active Namespace ID list' },
  namespaceDescriptors: { cns: 0x03, name: 'Namespace Identification Descriptor list' },
  commandSetNamespace: { cns: 0x05, name: 'I/O Command Set specific Identify Namespace' },
  commandSetController: { cns: 0x06, name: 'I/O Command Set specific Identify Controller' },
  commandSetActiveNamespaces: { cns: 0x07, name: 'I/O Command Set specific Active Namespace ID list' },
  independentNamespace: { cns: 0x08, name: 'I/O Command Set Independent Identify Namespace' },
  enduranceGroups: { cns: 0x19, name: 'Endurance Group list' },
  commandSets: { cns: 0x1c, name: 'I/O Command Set data structure' },
} as const;

export type CnsName = keyof typeof cnsValues;

/** All flash is of one endurance group: it wears as a whole. */
export const ENDURANCE_GROUP_ID = 1;

/** Command set identifiers. The KV-cache command set's (30h) stands in `kv-commands.ts`. */
export const NVM_CSI = 0x00;

/** CTRATT of Identify Controller. */
export const controllerAttributeBits = {
  hostId128: { shift: 0, width: 1, meaning: '128-bit host id' },
  enduranceGroups: { shift: 4, width: 1, meaning: 'endurance groups' },
  trafficBasedKeepAlive: { shift: 6, width: 1, meaning: 'traffic based keep alive' },
} as const;

/** SGLS of Identify Controller. */
export const sglSupportBits = {
  supported: { shift: 0, width: 2, meaning: '1: SGLs, no alignment demanded' },
  keyed: { shift: 2, width: 1, meaning: 'keyed SGL data block: memory regions' },
  address: { shift: 20, width: 1, meaning: 'the address of a data block may be an offset: in-capsule data' },
} as const;

/** OACS of Identify Controller. */
export const optionalAdminCommandBits = {
  formatNvm: { shift: 1, width: 1, meaning: 'Format NVM' },
} as const;

/** ONCS of Identify Controller. */
export const optionalNvmCommandBits = {
  compare: { shift: 0, width: 1, meaning: 'Compare' },
  writeUncorrectable: { shift: 1, width: 1, meaning: 'Write Uncorrectable' },
  datasetManagement: { shift: 2, width: 1, meaning: 'Dataset Management' },
  writeZeroes: { shift: 3, width: 1, meaning: 'Write Zeroes' },
  timestamp: { shift: 6, width: 1, meaning: 'feature Timestamp' },
  verify: { shift: 7, width: 1, meaning: 'Verify' },
} as const;

/** Product build, kernels and limits: vendor area of Identify Controller. 1024 bytes. */
export const controllerVendorArea = defineStruct('Identify Controller vendor area', 1024, {
  version: u16(0, '1'),
  reserved0: reserved(2, 2),
  pageSizeBytes: u32(4, 'flash page size'),
  build: text(8, 64, 'product version and build'),
  kernelSet: text(72, 16, 'attention kernels in use: native, wasm or reference'),
  kernelIsa: text(88, 16, 'instruction set that they use'),
  attendEntryCountMax: u32(104, 'entries of one ATTN command'),
  queryRowCountMax: u32(108, 'query rows (tokens times heads) of one ATTN command'),
  queryTokenCountMax: u32(112, 'query tokens of one entry'),
  queryHeadsPerKvHeadMax: u32(116, 'query heads per KV head'),
  regionCountMax: u32(120, 'memory regions of one association'),
  reserved1: reserved(124, 4),
  regionBytesMax: uint64(128, 'size of one memory region'),
  regionBytesTotalMax: uint64(136, 'size of all memory regions of one association'),
  resultSlotCountMax: u32(144, 'result slots of one association'),
  resultSlotBytesTotalMax: u32(148, 'bytes in all result slots of one association'),
  keyedBlockBytesMax: u32(152, 'data of one command that names a memory region'),
  computeWorkerCount: u32(156, 'compute workers'),
  reserved2: reserved(160, 864),
});

export const identifyController = defineStruct('Identify Controller', IDENTIFY_BYTES, {
  vid: u16(0, 'PCI vendor; 0: none'),
  ssvid: u16(2, 'PCI subsystem vendor; 0: none'),
  sn: text(4, 20, 'serial number', 0x20),
  mn: text(24, 40, 'model number', 0x20),
  fr: text(64, 8, 'firmware revision', 0x20),
  rab: u8(72, 'recommended arbitration burst, 2^n'),
  ieee: u24(73, 'OUI; 0: none'),
  cmic: u8(76, 'multi-path and sharing; bit 1: several controllers'),
  mdts: u8(77, 'largest transfer, 4096 * 2^n bytes'),
  cntlid: u16(78, 'controller id'),
  ver: u32(80, 'specification version, as VS'),
  rtd3r: u32(84, 'RTD3 resume latency'),
  rtd3e: u32(88, 'RTD3 entry latency, us'),
  oaes: u32(92, 'optional asynchronous events; 0: none'),
  ctratt: u32(96, 'controllerAttributeBits'),
  rrls: u16(100, 'read recovery levels'),
  reserved0: reserved(102, 9),
  cntrltype: u8(111, '1: I/O controller'),
  fguid: bytes(112, 16, 'FRU GUID'),
  crdt1: u16(128, 'command retry delay 1, 100 ms'),
  crdt2: u16(130, 'command retry delay 2'),
  crdt3: u16(132, 'command retry delay 3'),
  reserved1: reserved(134, 119),
  nvmsr: u8(253, 'NVM subsystem report'),
  vwci: u8(254, 'VPD write cycles'),
  mec: u8(255, 'management endpoint capabilities'),
  oacs: u16(256, 'optionalAdminCommandBits'),
  acl: u8(258, 'concurrent Abort commands, minus 1'),
  aerl: u8(259, 'concurrent Asynchronous Event Requests, minus 1'),
  frmw: u8(260, 'firmware slots; bit 0: slot 1 read only, bits 3:1 number of slots'),
  lpa: u8(261, 'log page attributes; bit 1: effects log, bit 2: extended offsets, bit 5: supported log pages'),
  elpe: u8(262, 'error log entries, minus 1'),
  npss: u8(263, 'power states, minus 1'),
  avscc: u8(264, 'vendor admin command format'),
  apsta: u8(265, 'autonomous power states'),
  wctemp: u16(266, 'warning temperature, K'),
  cctemp: u16(268, 'critical temperature, K'),
  mtfa: u16(270, 'firmware activation time, 100 ms'),
  hmpre: u32(272, 'host memory buffer preferred'),
  hmmin: u32(276, 'host memory buffer minimum'),
  tnvmcap: uint128(280, 'total capacity, bytes'),
  unvmcap: uint128(296, 'unallocated capacity, bytes'),
  rpmbs: u32(312, 'replay protected memory'),
  edstt: u16(316, 'extended self-test time'),
  dsto: u8(318, 'self-test options'),
  fwug: u8(319, 'firmware update granularity'),
  kas: u16(320, 'keep alive granularity, 100 ms'),
  hctma: u16(322, 'host thermal management'),
  mntmt: u16(324, 'minimum thermal management temperature'),
  mxtmt: u16(326, 'maximum thermal management temperature'),
  sanicap: u32(328, 'sanitize'),
  hmminds: u32(332, 'host memory buffer descriptor size'),
  hmmaxd: u16(336, 'host memory buffer descriptors'),
  nsetidmax: u16(338, 'NVM sets'),
  endgidmax: u16(340, 'largest endurance group id'),
  anatt: u8(342, 'ANA transition time'),
  anacap: u8(343, 'ANA capabilities'),
  anagrpmax: u32(344, 'ANA groups'),
  nanagrpid: u32(348, 'ANA group ids'),
  pels: u32(352, 'persistent event log size'),
  domainid: u16(356, 'domain'),
  reserved2: reserved(358, 10),
  megcap: uint128(368, 'largest endurance group'),
  reserved3: reserved(384, 128),
  sqes: u8(512, 'submission entry size: 66h, 2^6 bytes'),
  cqes: u8(513, 'completion entry size: 44h, 2^4 bytes'),
  maxcmd: u16(514, 'commands outstanding in one queue'),
  nn: u32(516, 'largest namespace id'),
  oncs: u16(520, 'optionalNvmCommandBits'),
  fuses: u16(522, 'fused operations'),
  fna: u8(524, 'format attributes; 0: each namespace on its own, or all by NSID FFFFFFFFh; no cryptographic erase'),
  vwc: u8(525, 'bit 0: volatile write cache; bits 2:1 = 3: flush takes NSID FFFFFFFFh'),
  awun: u16(526, 'atomic write unit, blocks minus 1'),
  awupf: u16(528, 'atomic write unit over power fail, blocks minus 1'),
  icsvscc: u8(530, 'vendor I/O command format'),
  nwpc: u8(531, 'write protection'),
  acwu: u16(532, 'atomic compare and write unit'),
  cdfs: u16(534, 'copy descriptor formats'),
  sgls: u32(536, 'sglSupportBits'),
  mnan: u32(540, 'namespaces; 0: as nn'),
  maxdna: uint128(544, 'domain namespace attachments'),
  maxcna: u32(560, 'namespaces of one controller'),
  reserved4: reserved(564, 204),
  subnqn: text(768, 256, 'NQN of the subsystem'),
  reserved5: reserved(1024, 768),
  ioccsz: u32(1792, 'I/O command capsule, 16-byte units: (64 + in-capsule data) / 16'),
  iorcsz: u32(1796, 'I/O response capsule, 16-byte units: 1'),
  icdoff: u16(1800, 'in-capsule data offset, 16-byte units: 0'),
  fcatt: u8(1802, 'fabrics controller attributes; bit 0 = 0: dynamic'),
  msdbd: u8(1803, 'SGL data block descriptors of one command: 1'),
  ofcs: u16(1804, 'optional fabrics commands; bit 0: Disconnect'),
  dctype: u8(1806, 'discovery controller type'),
  reserved6: reserved(1807, 241),
  psd0: bytes(2048, 32, 'power state 0'),
  reserved7: reserved(2080, 992),
  vs: bytes(3072, 1024, 'controllerVendorArea'),
});

/** Power state descriptor. 32 bytes. */
export const powerState = defineStruct('power state descriptor', 32, {
  mp: u16(0, 'maximum power, 0.01 W'),
  reserved0: reserved(2, 2),
  enlat: u32(4, 'entry latency, us'),
  exlat: u32(8, 'exit latency, us'),
  rrt: u8(12, 'relative read throughput'),
  rrl: u8(13, 'relative read latency'),
  rwt: u8(14, 'relative write throughput'),
  rwl: u8(15, 'relative write latency'),
  reserved1: reserved(16, 16),
});

/** Identify Namespace of the NVM command set, CNS 00h. */
export const identifyNamespace = defineStruct('Identify Namespace', IDENTIFY_BYTES, {
  nsze: uint64(0, 'size, blocks'),
  ncap: uint64(8, 'capacity, blocks'),
  nuse: uint64(16, 'blocks in use'),
  nsfeat: u8(24, 'bit 0: thin, bit 4: the preferred granularities below are given'),
  nlbaf: u8(25, 'LBA formats, minus 1'),
  flbas: u8(26, 'LBA format in use'),
  mc: u8(27, 'metadata'),
  dpc: u8(28, 'protection capabilities'),
  dps: u8(29, 'protection in use'),
  nmic: u8(30, 'bit 0: several controllers may use it'),
  rescap: u8(31, 'reservations'),
  fpi: u8(32, 'format progress'),
  dlfeat: u8(33, 'bits 2:0 = 1: deallocated blocks read as zeros; bit 3: Write Zeroes may deallocate'),
  nawun: u16(34, 'atomic write unit, blocks minus 1'),
  nawupf: u16(36, 'atomic write unit over power fail, blocks minus 1'),
  nacwu: u16(38, 'atomic compare and write unit'),
  nabsn: u16(40, 'atomic boundary'),
  nabo: u16(42, 'atomic boundary offset'),
  nabspf: u16(44, 'atomic boundary over power fail'),
  noiob: u16(46, 'optimal I/O boundary, blocks'),
  nvmcap: uint128(48, 'capacity, bytes'),
  npwg: u16(64, 'preferred write granularity, blocks minus 1'),
  npwa: u16(66, 'preferred write alignment, blocks minus 1'),
  npdg: u16(68, 'preferred deallocate granularity, blocks minus 1'),
  npda: u16(70, 'preferred deallocate alignment, blocks minus 1'),
  nows: u16(72, 'optimal write size, blocks minus 1'),
  mssrl: u16(74, 'copy: source range length'),
  mcl: u32(76, 'copy: length'),
  msrc: u8(80, 'copy: source ranges'),
  kpios: u8(81, 'key per I/O'),
  nulbaf: u8(82, 'unique LBA formats'),
  reserved0: reserved(83, 9),
  anagrpid: u32(92, 'ANA group'),
  reserved1: reserved(96, 3),
  nsattr: u8(99, 'bit 0: write protected'),
  nvmsetid: u16(100, 'NVM set'),
  endgid: u16(102, 'endurance group'),
  nguid: bytes(104, 16, 'NGUID'),
  eui64: bytes(120, 8, 'EUI-64'),
  lbaf0: u32(128, 'lbaFormatBits'),
  reserved2: reserved(132, 252),
  reserved3: reserved(384, 3712),
});

export const lbaFormatBits = {
  ms: { shift: 0, width: 16, meaning: 'metadata bytes' },
  lbads: { shift: 16, width: 8, meaning: 'block size, 2^n bytes' },
  rp: { shift: 24, width: 2, meaning: 'relative performance' },
} as const;

/** Entry of the descriptor list of CNS 03h: header, then `nidl` bytes; the list ends with a zero length. */
export const namespaceDescriptorHeader = defineStruct('namespace identification descriptor', 4, {
  nidt: u8(0, 'namespaceDescriptorTypes'),
  nidl: u8(1, 'bytes of the identifier that follows'),
  reserved0: reserved(2, 2),
});

export const namespaceDescriptorTypes = {
  eui64: { nidt: 1, nidl: 8 },
  nguid: { nidt: 2, nidl: 16 },
  uuid: { nidt: 3, nidl: 16 },
  csi: { nidt: 4, nidl: 1 },
} as const;

/** CNS 08h. */
export const independentNamespace = defineStruct('I/O Command Set Independent Identify Namespace', IDENTIFY_BYTES, {
  nsfeat: u8(0, 'common namespace features'),
  nmic: u8(1, 'bit 0: several controllers may use it'),
  rescap: u8(2, 'reservations'),
  fpi: u8(3, 'format progress'),
  anagrpid: u32(4, 'ANA group'),
  nsattr: u8(8, 'bit 0: write protected'),
  reserved0: reserved(9, 1),
  nvmsetid: u16(10, 'NVM set'),
  endgid: u16(12, 'endurance group'),
  nstat: u8(14, 'bit 0: ready'),
  kpios: u8(15, 'key per I/O'),
  maxkt: u16(16, 'key tags'),
  reserved1: reserved(18, 2),
  rgrpid: u32(20, 'reachability group'),
  reserved2: reserved(24, 4072),
});

/** CNS 05h of CSI 00h. */
export const nvmNamespace = defineStruct('NVM command set Identify Namespace', IDENTIFY_BYTES, {
  lbstm: uint64(0, 'storage tag mask'),
  pic: u8(8, 'protection capabilities'),
  reserved0: reserved(9, 3),
  elbaf0: u32(12, 'extended LBA format 0'),
  reserved1: reserved(16, 4080),
});

/** CNS 06h of CSI 00h. Sizes are 4096 * 2^n bytes; 0: no limit but the command's own. */
export const nvmController = defineStruct('NVM command set Identify Controller', IDENTIFY_BYTES, {
  vsl: u8(0, 'Verify size limit'),
  wzsl: u8(1, 'Write Zeroes size limit'),
  wusl: u8(2, 'Write Uncorrectable size limit'),
  dmrl: u8(3, 'ranges of one Dataset Management command; 0: 256'),
  dmrsl: u32(4, 'blocks of one range; 0: no limit'),
  dmsl: uint64(8, 'blocks of one Dataset Management command; 0: no limit'),
  reserved0: reserved(16, 4080),
});

/** Namespace lists (CNS 02h, 07h): ascending u32 ids, above the NSID given, zero-filled. */
export function encodeNamespaceList(namespaceIds: readonly number[]): Uint8Array {
  const target = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(target.buffer);
  namespaceIds.slice(0, IDENTIFY_BYTES / 4).forEach((id, index) => view.setUint32(4 * index, id, true));
  return target;
}

export function decodeNamespaceList(source: Uint8Array): number[] {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const ids: number[] = [];
  for (let at = 0; at + 4 <= source.byteLength; at += 4) {
    const id = view.getUint32(at, true);
    if (id === 0) break;
    ids.push(id);
  }
  return ids;
}

/** Endurance Group list (CNS 19h): u16 count, then u16 ids from CNSSID on, ascending. */
export function encodeEnduranceGroupList(groupIds: readonly number[]): Uint8Array {
  const target = new Uint8Array(IDENTIFY_BYTES);
  const view = new DataView(target.buffer);
  view.setUint16(0, groupIds.length, true);
  groupIds.forEach((id, index) => view.setUint16(2 + 2 * index, id, true));
  return target;
}

export interface NamespaceIdentifiers {
  readonly nguid?: Uint8Array;
  readonly uuid?: Uint8Array;
  readonly csi: number;
}

/** The list of CNS 03h. */
export function encodeNamespaceDescriptors(identifiers: NamespaceIdentifiers): Uint8Array {
  const target = new Uint8Array(IDENTIFY_BYTES);
  let at = 0;
  const put = (type: keyof typeof namespaceDescriptorTypes, identifier: Uint8Array): void => {
    namespaceDescriptorHeader.encode(namespaceDescriptorTypes[type], target, at);
    target.set(identifier.subarray(0, namespaceDescriptorTypes[type].nidl), at + namespaceDescriptorHeader.sizeBytes);
    at += namespaceDescriptorHeader.sizeBytes + namespaceDescriptorTypes[type].nidl;
  };
  if (identifiers.nguid !== undefined) put('nguid', identifiers.nguid);
  if (identifiers.uuid !== undefined) put('uuid', identifiers.uuid);
  put('csi', Uint8Array.of(identifiers.csi));
  return target;
}

/** Unknown types are skipped. */
export function decodeNamespaceDescriptors(source: Uint8Array): Partial<NamespaceIdentifiers> {
  const found: { nguid?: Uint8Array; uuid?: Uint8Array; csi?: number } = {};
  let at = 0;
  while (at + namespaceDescriptorHeader.sizeBytes <= source.length) {
    const { nidt, nidl } = namespaceDescriptorHeader.decode(source, at);
    const identifier = source.slice(at + namespaceDescriptorHeader.sizeBytes, at + 4 + nidl);
    if (nidl === 0 || identifier.length < nidl) break;
    if (nidt === namespaceDescriptorTypes.nguid.nidt) found.nguid = identifier;
    if (nidt === namespaceDescriptorTypes.uuid.nidt) found.uuid = identifier;
    if (nidt === namespaceDescriptorTypes.csi.nidt) found.csi = identifier[0] ?? 0;
    at += namespaceDescriptorHeader.sizeBytes + nidl;
  }
  return found;
}

/** CNS 1Ch: one combination, whose bits are the CSIs 0 to 63. */
export function encodeCommandSets(csis: readonly number[]): Uint8Array {
  const target = new Uint8Array(IDENTIFY_BYTES);
  let vector = 0n;
  for (const csi of csis) vector |= 1n << BigInt(csi);
  new DataView(target.buffer).setBigUint64(0, vector, true);
  return target;
}
