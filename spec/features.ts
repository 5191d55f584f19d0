/** Features: Set Features and Get Features (NVMe base specification, "Features"). Dword layouts are those of CDW10-11. */
import { asyncEventConfigurationBits } from './async-events.ts';
import type { BitFields } from './bits.ts';
import { bytes, defineStruct, reserved, u8, u16 } from './struct.ts';

/** CDW10 of Get Features. */
export const getFeaturesBits = {
  fid: { shift: 0, width: 8, meaning: 'feature' },
  select: { shift: 8, width: 3, meaning: 'featureSelects' },
} as const;

/** CDW10 of Set Features. */
export const setFeaturesBits = {
  fid: { shift: 0, width: 8, meaning: 'feature' },
  save: { shift: 31, width: 1, meaning: 'keep it over power cycles; no feature of this drive can be saved' },
} as const;

export const featureSelects = { current: 0, default: 1, saved: 2, supportedCapabilities: 3 } as const;

/** DW0 of Get Features with `supportedCapabilities`. */
export const featureCapabilityBits = {
  saveable: { shift: 0, width: 1, meaning: 'can be saved' },
  namespaceSpecific: { shift: 1, width: 1, meaning: 'has a value for each namespace' },
  changeable: { shift: 2, width: 1, meaning: 'can be set' },
} as const;

export const arbitrationBits = {
  burst: { shift: 0, width: 3, meaning: 'commands fetched at once, 2^n; kept, without effect' },
  low: { shift: 8, width: 8, meaning: 'weight; only round robin is there' },
  medium: { shift: 16, width: 8, meaning: 'weight' },
  high: { shift: 24, width: 8, meaning: 'weight' },
} as const;

export const powerManagementBits = {
  powerState: { shift: 0, width: 5, meaning: '0, the only one' },
  workloadHint: { shift: 5, width: 3, meaning: 'kept, without effect' },
} as const;

/** CDW11 to set; to get, CDW11 says which threshold, and DW0 is the threshold. */
export const temperatureThresholdBits = {
  threshold: { shift: 0, width: 16, meaning: 'kelvin' },
  sensor: { shift: 16, width: 4, meaning: '0: composite temperature, the only one; Fh, to set: all' },
  under: { shift: 20, width: 2, meaning: '0: over temperature, 1: under temperature' },
} as const;

export const errorRecoveryBits = {
  timeLimit: { shift: 0, width: 16, meaning: 'longest retry, 100 ms; kept: the drive reads a page once' },
} as const;

/** CDW11 to set, DW0 to get. */
export const volatileWriteCacheBits = {
  enable: { shift: 0, width: 1, meaning: '1: changes complete before they are durable; 0: once they are' },
} as const;

/** CDW11 asks, DW0 of the completion grants. Both are counts minus 1; FFFFh is invalid. */
export const numberOfQueuesBits = {
  submission: { shift: 0, width: 16, meaning: 'I/O submission queues, minus 1' },
  completion: { shift: 16, width: 16, meaning: 'I/O completion queues, minus 1' },
} as const;

export const writeAtomicityBits = {
  disableNormal: { shift: 0, width: 1, meaning: '1: AWUPF holds, not AWUN; they are the same here' },
} as const;

/** CDW11 and DW0: milliseconds; 0 is off. */
export const keepAliveBits = {
  timeoutMs: { shift: 0, width: 32, meaning: 'milliseconds; 0: off' },
} as const;

export const commandSetProfileBits = {
  combination: { shift: 0, width: 9, meaning: 'index in the list of CNS 1Ch: 0, the only one' },
} as const;

/** CDW11 of Get Features 81h. */
export const hostIdentifierBits = {
  extended: { shift: 0, width: 1, meaning: '1: the identifier has 128 bits, as on fabrics it must' },
} as const;

/** Data of feature 0Eh. To set, only the time counts. 8 bytes. */
export const timestampData = defineStruct('timestamp', 8, {
  milliseconds: bytes(0, 6, 'since 1970 where a host has set it, else since the controller was enabled; little-endian'),
  attributes: u8(6, 'timestampBits'),
  reserved0: reserved(7, 1),
});

export const timestampBits = {
  stopped: { shift: 0, width: 1, meaning: 'the clock may have stood still for a while; 0' },
  origin: { shift: 1, width: 3, meaning: '0: counted from zero since the controller was enabled, 1: set by a host' },
} as const;

/** Data of feature 16h. 512 bytes. */
export const hostBehaviorData = defineStruct('host behavior support', 512, {
  acre: u8(0, '1: the host takes command retry delays; the drive gives none'),
  etdas: u8(1, 'extended telemetry; 0'),
  lbafee: u8(2, 'extended LBA formats; 0'),
  hdisns: u8(3, 'host dispersed namespaces; 0'),
  cdfe: u16(4, 'copy descriptor formats; 0'),
  reserved0: reserved(6, 506),
});

export interface FeatureRow {
  readonly fid: number;
  readonly name: string;
  readonly changeable: boolean;
  /** Of CDW11 to set. */
  readonly bits: BitFields;
  /** Data that goes along, in bytes; 0: the value is CDW11 and DW0. */
  readonly dataBytes: number;
}

const row = (fid: number, name: string, bits: BitFields, dataBytes = 0, changeable = true): FeatureRow => ({
  fid,
  name,
  changeable,
  bits,
  dataBytes,
});

export const features = {
  arbitration: row(0x01, 'Arbitration', arbitrationBits),
  powerManagement: row(0x02, 'Power Management', powerManagementBits),
  temperatureThreshold: row(0x04, 'Temperature Threshold', temperatureThresholdBits),
  errorRecovery: row(0x05, 'Error Recovery', errorRecoveryBits),
  volatileWriteCache: row(0x06, 'Volatile Write Cache', volatileWriteCacheBits),
  numberOfQueues: row(0x07, 'Number of Queues', numberOfQueuesBits),
  writeAtomicity: row(0x0a, 'Write Atomicity Normal', writeAtomicityBits),
  asyncEventConfiguration: row(0x0b, 'Asynchronous Event Configuration', asyncEventConfigurationBits),
  timestamp: row(0x0e, 'Timestamp', {}, timestampData.sizeBytes),
  keepAliveTimer: row(0x0f, 'Keep Alive Timer', keepAliveBits),
  hostBehavior: row(0x16, 'Host Behavior Support', {}, hostBehaviorData.sizeBytes),
  commandSetProfile: row(0x19, 'I/O Command Set Profile', commandSetProfileBits),
  hostIdentifier: row(0x81, 'Host Identifier', hostIdentifierBits, 16, false),
} as const satisfies Record<string, FeatureRow>;

export type FeatureName = keyof typeof features;

const byFid = new Map<number, FeatureName>(Object.entries(features).map(([key, row]) => [row.fid, key as FeatureName]));
export const featureOf = (fid: number): FeatureName | undefined => byFid.get(fid);
