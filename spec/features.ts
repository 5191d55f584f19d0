/** Features: Set Features and Get Features (NVMe base specification, "Features"). Dword layouts are those of CDW10-11. */

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

/** CDW11 to set, DW0 to get. */
export const volatileWriteCacheBits = {
  enable: { shift: 0, width: 1, meaning: '1: writes complete before they are durable; 0: each write is as with FUA' },
} as const;

/** CDW11 asks, DW0 of the completion grants. Both are counts minus 1; FFFFh is invalid. */
export const numberOfQueuesBits = {
  submission: { shift: 0, width: 16, meaning: 'I/O submission queues, minus 1' },
  completion: { shift: 16, width: 16, meaning: 'I/O completion queues, minus 1' },
} as const;

export interface FeatureRow {
  readonly fid: number;
  readonly name: string;
  readonly changeable: boolean;
}

export const features = {
  volatileWriteCache: { fid: 0x06, name: 'Volatile Write Cache', changeable: true },
  numberOfQueues: { fid: 0x07, name: 'Number of Queues', changeable: true },
  /** CDW11 and DW0: milliseconds; 0 is off. */
  keepAliveTimer: { fid: 0x0f, name: 'Keep Alive Timer', changeable: true },
} as const satisfies Record<string, FeatureRow>;

export type FeatureName = keyof typeof features;

const byFid = new Map<number, FeatureName>(Object.entries(features).map(([key, row]) => [row.fid, key as FeatureName]));
export const featureOf = (fid: number): FeatureName | undefined => byFid.get(fid);
