/**
 * Traces of device time: when commands arrived and what each of them did to dies, channels, compute units and link, as
 * the drive recorded it (`attndrive start --record`). One header, then records of one size in the order of recording.
 */
import { kvOpcodes, nvmOpcodes } from './opcodes.ts';
import { defineStruct, reserved, text, u8, u16, u32, uint64 } from './struct.ts';

export const DEVICE_TRACE_MAGIC = 'ATTNTRAC';
export const DEVICE_TRACE_VERSION = 1;

/** The flash array and the profile that the drive had. 256 bytes. */
export const deviceTraceHeader = defineStruct('device trace header', 256, {
  magic: text(0, 8, 'DEVICE_TRACE_MAGIC'),
  version: u16(8, 'DEVICE_TRACE_VERSION'),
  channelCount: u16(10, 'channels'),
  diesPerChannel: u16(12, 'dies per channel'),
  planesPerDie: u16(14, 'planes per die'),
  pageSizeBytes: u32(16, 'flash page'),
  pagesPerBlock: u32(20, 'pages of an erase block'),
  startedAtMs: uint64(24, 'milliseconds since 1970 when the recording began'),
  profile: text(32, 32, 'name of the profile'),
  serial: text(64, 20, 'serial number of the drive'),
  reserved1: reserved(84, 172),
});

/** A job begins or ends, or does one thing more. 24 bytes. */
export const deviceTraceRecord = defineStruct('device trace record', 24, {
  kind: u8(0, 'traceKinds'),
  attemptCount: u8(1, 'reads: how often the page is sensed'),
  label: u16(2, 'begin: what the job is; firmware: firmwareWork'),
  job: u32(4, 'number of the job: its own from begin to end, then perhaps another one'),
  ppn: u32(8, 'physical page: page operations'),
  bytes: u32(12, 'bytes moved or worked on; finishHeads: heads'),
  value: uint64(
    16,
    'begin: arrival in ns; end: latency in ns; compute: floating-point operations; last: records before it',
  ),
});

/**
 * What a record says. Operations of a job begin together when what the last `join` (or `firmware`, `hostToDevice`,
 * `flush`) waited for has ended; each resource serves one at a time.
 */
export const traceKinds = {
  begin: 1,
  end: 2,
  /** The recording was ended in order. */
  last: 3,
  firmware: 16,
  hostToDevice: 17,
  deviceToHost: 18,
  read: 19,
  readToHost: 20,
  readToCompute: 21,
  programPosted: 22,
  program: 23,
  erase: 24,
  flush: 25,
  compute: 26,
  finishHeads: 27,
  join: 28,
} as const;
export type TraceKind = keyof typeof traceKinds;

/** What firmware does for a command before its first operation. */
export const firmwareWork = { other: 0, read: 1, write: 2, attend: 3 } as const;
export type FirmwareWork = keyof typeof firmwareWork;

/** High byte of a job's label; the low byte is the opcode, or the kind of background work. */
export const traceSources = { nvm: 1, kv: 2, background: 3 } as const;
export const backgroundWork = { garbageCollection: 1, scrub: 2, wearLevelling: 3 } as const;
export type BackgroundWork = keyof typeof backgroundWork;

export const commandLabel = (source: 'nvm' | 'kv', opcode: number): number => (traceSources[source] << 8) | opcode;
export const backgroundLabel = (work: BackgroundWork): number => (traceSources.background << 8) | backgroundWork[work];

const names = new Map<number, string>([
  ...Object.values(nvmOpcodes).map(({ opcode, name }): [number, string] => [commandLabel('nvm', opcode), name]),
  ...Object.values(kvOpcodes).map(({ opcode, name }): [number, string] => [commandLabel('kv', opcode), name]),
  [backgroundLabel('garbageCollection'), 'garbage collection'],
  [backgroundLabel('scrub'), 'scrub'],
  [backgroundLabel('wearLevelling'), 'levelling of wear'],
]);

/** "Read", "KV Attend", "garbage collection"; the number of a label that this version doesn't know. */
export const labelText = (label: number): string => names.get(label) ?? `job of label ${label}`;
