/**
 * What NVMe asks of an I/O controller and of a discovery controller over TCP (Base Specification 2.0, "Controller Types" and
 * the support requirements of commands, log pages and features; NVM Command Set Specification 1.0; NVMe/TCP Transport
 * Specification 1.0), and what the drive does about it.
 */

/** M mandatory, O optional, P prohibited, - means nothing there. Over fabrics, where that differs from PCI Express. */
export type Requirement = 'M' | 'O' | 'P' | '-';

export interface ConformanceRow {
  /** Opcode, identifier, offset or field, as the standard writes it. */
  readonly id: string;
  readonly name: string;
  readonly io: Requirement;
  readonly discovery: Requirement;
  /** Which of the two have it. */
  readonly has: 'both' | 'I/O' | 'discovery' | 'neither';
  /** Test files below test/ without ending where it is tested; where a mandatory thing is missing, why. */
  readonly by: readonly string[];
  readonly note?: string;
}

const row = (
  id: string,
  name: string,
  [io, discovery]: readonly [Requirement, Requirement],
  has: ConformanceRow['has'],
  by: readonly string[] = [],
  note = '',
): ConformanceRow => ({ id, name, io, discovery, has, by, note });

const M_M = ['M', 'M'] as const;
const M_O = ['M', 'O'] as const;
const M_P = ['M', 'P'] as const;
const O_O = ['O', 'O'] as const;
const O_P = ['O', 'P'] as const;
const P_P = ['P', 'P'] as const;

const admin = 'commands/admin';
const table = 'commands/conformance';
const format = 'commands/format-nvm';
const discovery = 'controller/discovery';
const linux = 'linux/admin-tests';
const authentication = 'controller/authentication';
const linuxAuthentication = 'linux/authentication-tests';
const linuxDiscovery = 'linux/discovery-tests';

export const fabricsConformance: readonly ConformanceRow[] = [
  row('00h', 'Property Set', M_M, 'both', ['controller/lifecycle']),
  row('01h', 'Connect', M_M, 'both', ['controller/connect', discovery]),
  row('04h', 'Property Get', M_M, 'both', ['controller/lifecycle']),
  row('05h', 'Authentication Send', O_O, 'both', [authentication, linuxAuthentication], 'DH-HMAC-CHAP'),
  row('06h', 'Authentication Receive', O_O, 'both', [authentication, linuxAuthentication], 'where --hosts wants it'),
  row('08h', 'Disconnect', O_P, 'I/O', ['controller/connect'], 'of I/O queues; refused on the admin queue'),
];

export const propertyConformance: readonly ConformanceRow[] = [
  row('00h', 'CAP', M_M, 'both', ['controller/lifecycle', discovery]),
  row('08h', 'VS', M_M, 'both', ['controller/lifecycle']),
  row('14h', 'CC', M_M, 'both', ['controller/lifecycle']),
  row('1Ch', 'CSTS', M_M, 'both', ['controller/lifecycle']),
  row('20h', 'NSSR', O_O, 'neither', [], 'CAP.NSSRS is 0'),
  row('68h', 'CRTO', M_M, 'both', ['controller/lifecycle']),
];

export const adminConformance: readonly ConformanceRow[] = [
  row('00h', 'Delete I/O Submission Queue', P_P, 'neither', [table], 'a queue is a connection'),
  row('01h', 'Create I/O Submission Queue', P_P, 'neither', [table], 'Connect makes queues'),
  row('02h', 'Get Log Page', M_M, 'both', [admin, table, discovery, linux]),
  row('04h', 'Delete I/O Completion Queue', P_P, 'neither', [table]),
  row('05h', 'Create I/O Completion Queue', P_P, 'neither', [table]),
  row('06h', 'Identify', M_M, 'both', [admin, table, discovery, linux]),
  row('08h', 'Abort', M_O, 'both', ['controller/async-events', table, linux], 'a command that runs goes on'),
  row('09h', 'Set Features', M_O, 'both', [admin, table, discovery, linux]),
  row('0Ah', 'Get Features', M_O, 'both', [admin, table, discovery, linux]),
  row('0Ch', 'Asynchronous Event Request', M_O, 'both', ['controller/async-events', discovery, linux, linuxDiscovery]),
  row('0Dh', 'Namespace Management', O_P, 'neither', [], 'the namespaces are those of format'),
  row('10h', 'Firmware Commit', O_P, 'neither', [], 'the slot is read only (FRMW bit 0)'),
  row('11h', 'Firmware Image Download', O_P, 'neither'),
  row('14h', 'Device Self-test', O_P, 'neither'),
  row('15h', 'Namespace Attachment', O_P, 'neither', [], 'both namespaces are attached to every controller'),
  row('18h', 'Keep Alive', M_M, 'both', ['controller/lifecycle', discovery]),
  row(
    '21h',
    'Discovery Information Management',
    P_P,
    'discovery',
    [discovery, linuxDiscovery],
    'of a central service: O',
  ),
  row('80h', 'Format NVM', O_P, 'I/O', [format, table, linux]),
  row('81h', 'Security Send', O_P, 'neither'),
  row('82h', 'Security Receive', O_P, 'neither'),
  row('84h', 'Sanitize', O_P, 'neither', [], 'SANICAP is 0'),
];

export const nvmConformance: readonly ConformanceRow[] = [
  row('00h', 'Flush', M_P, 'I/O', ['commands/nvm', table, linux]),
  row('01h', 'Write', M_P, 'I/O', ['commands/nvm', table, 'linux/block-tests']),
  row('02h', 'Read', M_P, 'I/O', ['commands/nvm', table, 'linux/block-tests']),
  row('04h', 'Write Uncorrectable', O_P, 'neither'),
  row('05h', 'Compare', O_P, 'I/O', ['commands/nvm', table, linux]),
  row('08h', 'Write Zeroes', O_P, 'I/O', ['commands/nvm', table, linux]),
  row('09h', 'Dataset Management', O_P, 'I/O', ['commands/nvm', table, linux]),
  row('0Ch', 'Verify', O_P, 'I/O', ['commands/nvm', table, linux]),
  row('0Dh', 'Reservation Register, Report, Acquire, Release', O_P, 'neither', [], 'RESCAP is 0'),
  row('19h', 'Copy', O_P, 'neither'),
];

export const logPageConformance: readonly ConformanceRow[] = [
  row('00h', 'Supported Log Pages', M_M, 'both', [admin, discovery, linux]),
  row('01h', 'Error Information', M_O, 'both', ['controller/async-events', discovery, linux], 'of one association'),
  row('02h', 'SMART / Health Information', M_P, 'I/O', [admin, 'controller/async-events', linux]),
  row('03h', 'Firmware Slot Information', M_P, 'I/O', [admin, linux]),
  row('04h', 'Changed Namespace List', O_P, 'I/O', ['controller/async-events', linux]),
  row('05h', 'Commands Supported and Effects', M_O, 'I/O', [admin, linux]),
  row('09h', 'Endurance Group Information', O_P, 'I/O', [admin], 'mandatory since there are endurance groups'),
  row('12h', 'Feature Identifiers Supported and Effects', M_O, 'I/O', [admin, linux]),
  row('13h', 'NVMe-MI Commands Supported and Effects', O_O, 'neither', [], 'no management interface'),
  row('70h', 'Discovery', ['P', 'M'], 'discovery', [discovery, 'e2e/discovery', linuxDiscovery]),
];

export const featureConformance: readonly ConformanceRow[] = [
  row('01h', 'Arbitration', M_P, 'I/O', [admin, linux], 'kept; commands run as they come'),
  row('02h', 'Power Management', M_P, 'I/O', [admin, linux], 'one power state'),
  row('04h', 'Temperature Threshold', M_P, 'I/O', [admin, 'controller/async-events', linux]),
  row('05h', 'Error Recovery', M_P, 'I/O', [admin, linux], 'kept; for both namespaces at once, DULBE is not there'),
  row('06h', 'Volatile Write Cache', M_P, 'I/O', [admin, linux], 'mandatory since there is one'),
  row('07h', 'Number of Queues', M_P, 'I/O', [admin, linux]),
  row('0Ah', 'Write Atomicity Normal', M_P, 'I/O', [admin, linux], 'kept; AWUN and AWUPF are one block'),
  row('0Bh', 'Asynchronous Event Configuration', M_O, 'both', [admin, 'controller/async-events', discovery, linux]),
  row('0Eh', 'Timestamp', O_P, 'I/O', [admin, linux]),
  row('0Fh', 'Keep Alive Timer', M_O, 'both', [admin, discovery, linux]),
  row('16h', 'Host Behavior Support', O_P, 'I/O', [admin, linux], 'kept; no command retry delays are given'),
  row('19h', 'I/O Command Set Profile', M_P, 'I/O', [admin, linux], 'mandatory since CAP.CSS has I/O command sets'),
  row('81h', 'Host Identifier', O_O, 'both', [admin, linux], 'to get; Connect sets it'),
];

export const identifyConformance: readonly ConformanceRow[] = [
  row('00h', 'Identify Namespace', M_P, 'I/O', [admin, linux]),
  row('01h', 'Identify Controller', M_M, 'both', [admin, discovery, linux]),
  row('02h', 'Active Namespace ID list', M_P, 'I/O', [admin, linux]),
  row('03h', 'Namespace Identification Descriptor list', M_P, 'I/O', [admin, 'linux/nvmet-tests']),
  row('05h', 'I/O Command Set specific Identify Namespace', M_P, 'I/O', [admin]),
  row('06h', 'I/O Command Set specific Identify Controller', M_P, 'I/O', [admin]),
  row('07h', 'I/O Command Set specific Active Namespace ID list', M_P, 'I/O', [admin, linux]),
  row('08h', 'I/O Command Set Independent Identify Namespace', M_P, 'I/O', [admin, 'linux/kv-tests']),
  row('19h', 'Endurance Group List', O_P, 'I/O', [admin], 'mandatory since there are endurance groups'),
  row('1Ch', 'I/O Command Set data structure', M_P, 'I/O', [admin]),
  row('10h', 'Allocated Namespace ID list and others of Namespace Management', O_P, 'neither', [table]),
  row('17h', 'UUID list', O_P, 'neither', [], 'CTRATT bit 9 is 0'),
];

export const controllerFieldConformance: readonly ConformanceRow[] = [
  row('VID, SSVID', 'PCI vendor', M_P, 'I/O', [], '0: the drive is on no PCI bus'),
  row('SN, MN, FR', 'names', M_M, 'both', [admin, discovery, linux]),
  row('RAB', 'recommended arbitration burst', M_P, 'I/O', [], '0: no recommendation'),
  row('IEEE', 'OUI', M_P, 'neither', [], '0: the makers have none'),
  row('CMIC', 'several controllers', O_O, 'I/O', ['linux/nvmet-tests']),
  row('MDTS', 'largest transfer', M_M, 'both', ['e2e/link', linux]),
  row('CNTLID', 'controller id', M_M, 'both', ['controller/connect']),
  row('VER', 'version', M_M, 'both', ['controller/lifecycle']),
  row('RTD3R, RTD3E', 'start and shutdown times', M_P, 'I/O', ['linux/nvmet-tests']),
  row('OAES', 'events', M_M, 'both', [admin, discovery]),
  row('CTRATT', 'attributes', M_M, 'both', ['linux/nvmet-tests']),
  row('CNTRLTYPE', 'controller type', M_M, 'both', [discovery, linux]),
  row(
    'NVMSR, VWCI, MEC',
    'management',
    M_P,
    'I/O',
    ['linux/nvmet-tests'],
    'a storage device without a management endpoint',
  ),
  row('OACS', 'optional admin commands', M_P, 'I/O', [format, 'linux/nvmet-tests']),
  row('ACL, AERL', 'Aborts and event requests at once', M_M, 'both', [admin, 'controller/async-events']),
  row('FRMW, LPA, ELPE, NPSS', 'slots, logs, power states', M_P, 'I/O', [admin, linux]),
  row('WCTEMP, CCTEMP', 'temperature thresholds', M_P, 'I/O', ['linux/nvmet-tests']),
  row('KAS', 'keep alive granularity', M_M, 'both', [admin]),
  row('SQES, CQES, NN', 'entry sizes, namespaces', M_P, 'I/O', [admin]),
  row('MAXCMD', 'commands of a queue', M_M, 'both', ['linux/block-tests']),
  row('ONCS, FUSES, VWC', 'optional NVM commands, write cache', M_P, 'I/O', [admin, 'linux/nvmet-tests']),
  row('FNA', 'format attributes', M_P, 'I/O', [format, 'linux/nvmet-tests'], '0: one namespace or all'),
  row('AWUN, AWUPF', 'atomic write units', M_P, 'I/O', ['linux/nvmet-tests'], '0: one block'),
  row('SGLS', 'SGLs', M_M, 'both', [admin, 'spec/sgl']),
  row('SUBNQN', 'NQN', M_M, 'both', [linux, discovery]),
  row('IOCCSZ, IORCSZ, ICDOFF, MSDBD', 'capsules', M_P, 'I/O', [admin, 'linux/block-tests']),
  row('DCTYPE', 'discovery controller type', ['-', 'M'], 'discovery', [discovery]),
  row('PSD0', 'power state 0', M_P, 'I/O', ['linux/nvmet-tests'], '0 W: power is not modelled'),
];

export const namespaceFieldConformance: readonly ConformanceRow[] = [
  row('NSZE, NCAP, NUSE', 'size, capacity, use', M_P, 'I/O', [admin, linux, 'linux/block-tests']),
  row('NSFEAT, NLBAF, FLBAS, LBAF0', 'features and formats', M_P, 'I/O', [admin, linux]),
  row('MC, DPC, DPS', 'metadata and protection', M_P, 'I/O', [], '0: neither'),
  row('NMIC', 'several controllers', O_P, 'I/O', [admin]),
  row('DLFEAT', 'deallocated blocks', O_P, 'I/O', ['commands/nvm', linux]),
  row('NGUID, UUID', 'names that last', M_P, 'I/O', [admin, 'linux/restart-tests']),
];

export const transportConformance: readonly ConformanceRow[] = [
  row('PDUs', 'ICReq to R2T', M_M, 'both', ['transport/malformed', 'transport/transfers']),
  row('HPDA, CPDA', 'data alignment', M_M, 'both', ['transport/digests', 'transport/transfers']),
  row('HDGST', 'header digest', O_O, 'both', ['transport/digests', 'e2e/digests', 'linux/block-tests']),
  row('DDGST', 'data digest', O_O, 'both', ['transport/digests', 'e2e/digests', 'linux/block-tests']),
  row('MAXR2T', 'R2Ts at once', M_M, 'both', ['transport/transfers'], 'one per command'),
  row('MAXH2CDATA', 'data of one PDU', M_M, 'both', ['transport/transfers']),
  row('SUCCESS', 'completion within C2HData', O_O, 'neither', [], 'a completion always follows'),
  row('TermReq', 'fatal errors', M_M, 'both', ['transport/malformed', 'transport/digests']),
  row('SQ flow control', 'and its absence', M_M, 'both', ['controller/queue', linuxDiscovery]),
  row('Keep alive', 'timeout, traffic based', M_M, 'both', ['controller/lifecycle', 'linux/restart-tests']),
  row('TLS', 'NVMe/TCP over TLS 1.3', O_O, 'neither', [], 'out of scope; a discovery record has SECTYPE 0'),
];
