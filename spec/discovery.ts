/**
 * Discovery (NVMe base specification 2.x, "Discovery Log Page" and "Discovery Information Management"): where subsystems
 * are, as a discovery controller tells hosts, and as drives tell a discovery service.
 */
import { bytes, defineStruct, reserved, text, u8, u16, u32, uint64 } from './struct.ts';

export const trtypes = { tcp: 3 } as const;
export const adrfams = { ipv4: 1, ipv6: 2 } as const;
/** Port of a discovery service. */
export const DISCOVERY_PORT = 8009;

/** What an entry of the discovery log is about. */
export const subtypes = {
  /** Another discovery service. */
  referral: 1,
  nvm: 2,
  /** The discovery subsystem that tells it. */
  current: 3,
} as const;

/** `treq` of an entry. */
export const transportRequirementBits = {
  secureChannel: { shift: 0, width: 2, meaning: '0: not said, 1: TLS required, 2: not required' },
  disableSqFlowControl: { shift: 2, width: 1, meaning: 'SQ flow control can be disabled' },
} as const;

export const DISCOVERY_UNIT_BYTES = 1024;

export const discoveryLogHeader = defineStruct('discovery log header', DISCOVERY_UNIT_BYTES, {
  genctr: uint64(0, 'changes with the entries'),
  numrec: uint64(8, 'entries that follow'),
  recfmt: u16(16, 'record format, 0'),
  reserved0: reserved(18, 1006),
});

export const discoveryLogEntry = defineStruct('discovery log entry', DISCOVERY_UNIT_BYTES, {
  trtype: u8(0, 'trtypes'),
  adrfam: u8(1, 'adrfams'),
  subtype: u8(2, 'subtypes'),
  treq: u8(3, 'transportRequirementBits'),
  portid: u16(4, 'port of the subsystem; entries of one port have one id'),
  cntlid: u16(6, 'FFFFh: the controller is chosen when a host connects'),
  asqsz: u16(8, 'largest admin queue, entries'),
  eflags: u16(10, 'entry flags; 0'),
  reserved0: reserved(12, 20),
  trsvcid: text(32, 32, 'TCP port, decimal', 0x20),
  reserved1: reserved(64, 192),
  subnqn: text(256, 256, 'NQN of the subsystem'),
  traddr: text(512, 256, 'IP address', 0x20),
  tsas: bytes(768, 256, 'transport specific; byte 0: security, 0 none'),
});

/** CDW10 of Discovery Information Management. */
export const dimBits = {
  tas: { shift: 0, width: 4, meaning: 'dimTasks' },
} as const;

export const dimTasks = { register: 0, deregister: 1, update: 2 } as const;
/** `etype`: who registers. */
export const dimEntities = { host: 1, directDiscoveryController: 2 } as const;
/** `entfmt`. Extended entries end with attributes; this service takes them of hosts only, whose entries it has no use for. */
export const dimEntryFormats = { basic: 1, extended: 2 } as const;

/** Data of Discovery Information Management; `nument` entries follow. */
export const dimHeader = defineStruct('discovery information header', DISCOVERY_UNIT_BYTES, {
  tdl: u32(0, 'bytes of all of it'),
  reserved0: reserved(4, 4),
  nument: uint64(8, 'entries'),
  entfmt: u16(16, 'dimEntryFormats'),
  etype: u16(18, 'dimEntities'),
  portlcl: u8(20, 'port local'),
  reserved1: reserved(21, 1),
  ektype: u16(22, 'which fields of an entry identify it'),
  eid: text(24, 256, 'NQN of who registers'),
  ename: text(280, 256, 'its name, for people'),
  ever: text(536, 64, 'its version, for people'),
  reserved2: reserved(600, 424),
});

/** `dctype` of Identify Controller. */
export const discoveryControllerTypes = {
  /** Tells of itself. */
  direct: 1,
  /** Tells of many, and takes registrations. */
  central: 2,
} as const;
