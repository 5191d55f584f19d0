/**
 * Fabrics commands and controller properties (NVMe base specification 2.x, "Fabrics Commands"; NVMe over Fabrics 1.1).
 * All of them are submission entries with opcode 7Fh; the tables below are those 64 bytes again, named as Fabrics do.
 */
import { FABRICS_OPCODE } from './opcodes.ts';
import { bytes, defineStruct, reserved, text, u8, u16, u32, u64 } from './struct.ts';

const commandFields = {
  opcode: u8(0, 'FABRICS_OPCODE'),
  flags: u8(1, 'PSDT in bits 7:6: 01b where the command has data'),
  commandId: u16(2, 'CID'),
  fctype: u8(4, 'fabricsTypes'),
  reserved0: reserved(5, 19),
  sgl: bytes(24, 16, 'SGL1: the connect data'),
} as const;

export const connectCommand = defineStruct('Connect command', 64, {
  ...commandFields,
  recfmt: u16(40, 'record format, 0'),
  qid: u16(42, 'queue: 0 admin, 1 and up I/O'),
  sqsize: u16(44, 'entries of the submission queue, minus 1'),
  cattr: u8(46, 'connectAttributes'),
  reserved1: reserved(47, 1),
  kato: u32(48, 'keep alive timeout in ms, admin queue only; 0: off'),
  reserved2: reserved(52, 12),
});

export const connectAttributes = {
  priorityClass: { shift: 0, width: 2, meaning: 'arbitration class of an I/O queue; ignored' },
  disableSqFlowControl: { shift: 2, width: 1, meaning: 'the host does not read SQHD' },
  individualQueueDeletion: { shift: 3, width: 1, meaning: 'the host may send Disconnect for one I/O queue' },
} as const;

/** Connect's data, 1024 bytes. */
export const connectData = defineStruct('Connect data', 1024, {
  hostid: bytes(0, 16, 'host identifier; the same in every queue of an association, not all zero'),
  cntlid: u16(16, 'controller to connect to; CNTLID_DYNAMIC for a new one, on the admin queue'),
  reserved0: reserved(18, 238),
  subnqn: text(256, 256, 'NQN of the subsystem'),
  hostnqn: text(512, 256, 'NQN of the host'),
  reserved1: reserved(768, 256),
});

export const CNTLID_DYNAMIC = 0xffff;
export const CNTLID_STATIC_ANY = 0xfffe;

/** DW0 of Connect's completion. */
export const connectResult = {
  cntlid: { shift: 0, width: 16, meaning: 'the controller that this queue belongs to' },
  atr: { shift: 17, width: 1, meaning: 'the host has to authenticate on this queue before anything else' },
  ascr: { shift: 18, width: 1, meaning: 'and to set up a secure channel; never asked for' },
} as const;

/** DW0 of Connect's completion when it fails with `connectInvalidParameters`. */
export const connectInvalidResult = {
  ipo: { shift: 0, width: 16, meaning: 'byte offset of the parameter that is wrong' },
  iattr: { shift: 16, width: 1, meaning: '0: the offset is in the command, 1: in the data' },
} as const;

export const propertySetCommand = defineStruct('Property Set command', 64, {
  opcode: u8(0, 'FABRICS_OPCODE'),
  flags: u8(1, 'ignored: there is no data'),
  commandId: u16(2, 'CID'),
  fctype: u8(4, 'fabricsTypes'),
  reserved0: reserved(5, 19),
  sgl: bytes(24, 16, 'SGL1: a descriptor of no data'),
  attrib: u8(40, 'size of the property in bits 2:0: 0 is 4 bytes, 1 is 8'),
  reserved1: reserved(41, 3),
  ofst: u32(44, 'offset of the property'),
  value: u64(48, 'value; the low 4 bytes for a 4-byte property'),
  reserved2: reserved(56, 8),
});

/** The completion's DW0 and DW1 are the value. */
export const propertyGetCommand = defineStruct('Property Get command', 64, {
  opcode: u8(0, 'FABRICS_OPCODE'),
  flags: u8(1, 'ignored: there is no data'),
  commandId: u16(2, 'CID'),
  fctype: u8(4, 'fabricsTypes'),
  reserved0: reserved(5, 19),
  sgl: bytes(24, 16, 'SGL1: a descriptor of no data'),
  attrib: u8(40, 'size of the property in bits 2:0: 0 is 4 bytes, 1 is 8'),
  reserved1: reserved(41, 3),
  ofst: u32(44, 'offset of the property'),
  reserved2: reserved(48, 16),
});

export const disconnectCommand = defineStruct('Disconnect command', 64, {
  opcode: u8(0, 'FABRICS_OPCODE'),
  flags: u8(1, 'ignored: there is no data'),
  commandId: u16(2, 'CID'),
  fctype: u8(4, 'fabricsTypes'),
  reserved0: reserved(5, 19),
  sgl: bytes(24, 16, 'SGL1: a descriptor of no data'),
  recfmt: u16(40, 'record format, 0'),
  reserved1: reserved(42, 22),
});

export const PROPERTY_SIZE_4 = 0;
export const PROPERTY_SIZE_8 = 1;

/** Controller properties. `sizeBytes` must match the size in the command. */
export const properties = {
  cap: { offset: 0x00, sizeBytes: 8, writable: false, name: 'Controller Capabilities' },
  vs: { offset: 0x08, sizeBytes: 4, writable: false, name: 'Version' },
  cc: { offset: 0x14, sizeBytes: 4, writable: true, name: 'Controller Configuration' },
  csts: { offset: 0x1c, sizeBytes: 4, writable: false, name: 'Controller Status' },
  /** Bits 15:0: longest wait for RDY with media, as CAP.TO; read by hosts that see CAP.CRMS. */
  crto: { offset: 0x68, sizeBytes: 4, writable: false, name: 'Controller Ready Timeouts' },
} as const;

export type PropertyName = keyof typeof properties;

export const propertyAt = (offset: number): PropertyName | undefined =>
  (Object.keys(properties) as PropertyName[]).find((name) => properties[name].offset === offset);

/** CAP, 64 bits. */
export const capBits = {
  mqes: { shift: 0, width: 16, meaning: 'largest queue, minus 1' },
  cqr: { shift: 16, width: 1, meaning: 'queues are physically contiguous; 1 on fabrics' },
  ams: { shift: 17, width: 2, meaning: 'arbitration mechanisms besides round robin' },
  to: { shift: 24, width: 8, meaning: 'longest wait for CSTS.RDY, in 500 ms' },
  dstrd: { shift: 32, width: 4, meaning: 'doorbell stride; 0 on fabrics' },
  nssrs: { shift: 36, width: 1, meaning: 'subsystem reset supported' },
  cssNvm: { shift: 37, width: 1, meaning: 'NVM command set' },
  cssIocs: { shift: 43, width: 1, meaning: 'I/O command sets by CSI: CC.CSS may be 110b' },
  cssNone: { shift: 44, width: 1, meaning: 'no I/O command set' },
  mpsmin: { shift: 48, width: 4, meaning: 'smallest memory page, 2^(12 + n)' },
  mpsmax: { shift: 52, width: 4, meaning: 'largest memory page, 2^(12 + n)' },
  crms: { shift: 59, width: 2, meaning: 'controller ready modes; 01b: with media' },
} as const;

export const vsBits = {
  tertiary: { shift: 0, width: 8, meaning: 'tertiary version number' },
  minor: { shift: 8, width: 8, meaning: 'minor version number' },
  major: { shift: 16, width: 16, meaning: 'major version number' },
} as const;

/** The version of the specification that VS and Identify Controller state: 2.0.0. */
export const NVME_VERSION = 0x0002_0000;

export const ccBits = {
  en: { shift: 0, width: 1, meaning: 'enable' },
  css: { shift: 4, width: 3, meaning: 'commandSetSelections' },
  mps: { shift: 7, width: 4, meaning: 'memory page size, 2^(12 + n)' },
  ams: { shift: 11, width: 3, meaning: 'arbitration; 0: round robin' },
  shn: { shift: 14, width: 2, meaning: 'shutdown notification: 1 normal, 2 abrupt' },
  iosqes: { shift: 16, width: 4, meaning: 'I/O submission entry size, 2^n; 6' },
  iocqes: { shift: 20, width: 4, meaning: 'I/O completion entry size, 2^n; 4' },
  crime: { shift: 24, width: 1, meaning: 'ready independent of media; 0' },
} as const;

export const commandSetSelections = {
  nvm: 0,
  /** Every command set that Identify CNS 1Ch names: needed for the KV-cache namespace. */
  allSupported: 6,
  adminOnly: 7,
} as const;

export const cstsBits = {
  rdy: { shift: 0, width: 1, meaning: 'ready' },
  cfs: { shift: 1, width: 1, meaning: 'controller fatal status' },
  shst: { shift: 2, width: 2, meaning: 'shutdownStates' },
  nssro: { shift: 4, width: 1, meaning: 'subsystem reset occurred' },
  pp: { shift: 5, width: 1, meaning: 'processing paused' },
  st: { shift: 6, width: 1, meaning: 'shutdown type' },
} as const;

export const shutdownStates = { normal: 0, occurring: 1, complete: 2 } as const;

export const NQN_BYTES_MAX = 223;
export const DISCOVERY_NQN = 'nqn.2014-08.org.nvmexpress.discovery';
const NQN_PREFIX = 'nqn.2026-11.dev.attndrive:';
export const subsystemNqn = (serial: string): string => NQN_PREFIX + serial;
/**
 * A second name of every drive: the subsystem that answers at this address, whatever its serial number. For hosts that
 * were given only an address; Identify Controller tells the name itself.
 */
export const ANY_SUBSYSTEM_NQN = 'nqn.2026-11.dev.attndrive';

/**
 * What is wrong with an NVMe qualified name, or undefined: `nqn.yyyy-mm.reverse.domain:string`, or
 * `nqn.2014-08.org.nvmexpress:uuid:UUID`, UTF-8 of at most 223 bytes.
 */
export function nqnProblem(nqn: string): string | undefined {
  const sizeBytes = new TextEncoder().encode(nqn).length;
  if (sizeBytes > NQN_BYTES_MAX) return `${sizeBytes} bytes, at most ${NQN_BYTES_MAX}`;
  if (!/^nqn\.\d{4}-(0[1-9]|1[0-2])\.[^:\s]+(:.+)?$/u.test(nqn)) return 'not of the form nqn.YYYY-MM.DOMAIN:NAME';
  if (/\p{Cc}/u.test(nqn)) return 'has a control character';
  const uuid = /^nqn\.2014-08\.org\.nvmexpress:uuid:(.*)$/u.exec(nqn)?.[1];
  if (uuid !== undefined && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/iu.test(uuid)) return 'its UUID is malformed';
  return undefined;
}

export const isFabricsCommand = (entry: Uint8Array): boolean => entry[0] === FABRICS_OPCODE;
