/**
 * Asynchronous events (NVMe base specification, "Asynchronous Event Request command"): a host leaves requests with a
 * controller, and one is completed when there is something to tell.
 */

/** DW0 of a completed Asynchronous Event Request. */
export const asyncEventBits = {
  type: { shift: 0, width: 3, meaning: '1 SMART / health, 2 notice' },
  info: { shift: 8, width: 8, meaning: 'what happened' },
  lid: { shift: 16, width: 8, meaning: 'log page that tells more; reading it lets the next such event come' },
} as const;

/** CDW11 of Set Features, DW0 of Get Features (0Bh): which events the host wants. Those of SMART are warnings' bits. */
export const asyncEventConfigurationBits = {
  spare: { shift: 0, width: 1, meaning: 'available spare below its threshold' },
  temperature: { shift: 1, width: 1, meaning: 'temperature beyond a threshold' },
  reliability: { shift: 2, width: 1, meaning: 'reliability degraded' },
  readOnly: { shift: 3, width: 1, meaning: 'media read only' },
  backup: { shift: 4, width: 1, meaning: 'volatile memory backup failed' },
  persistentMemory: { shift: 5, width: 1, meaning: 'persistent memory region read only; never happens' },
  namespaceAttributes: { shift: 8, width: 1, meaning: 'a namespace changed' },
  discoveryLog: { shift: 31, width: 1, meaning: 'the discovery log changed; discovery controllers only' },
} as const;

export interface AsyncEventRow {
  readonly type: number;
  readonly info: number;
  readonly lid: number;
  /** The bit of the configuration (and, for notices, of OAES) that switches it on. */
  readonly configurationBit: number;
  readonly name: string;
}

export const asyncEvents = {
  reliability: { type: 1, info: 0, lid: 0x02, configurationBit: 2, name: 'NVM subsystem reliability' },
  temperature: { type: 1, info: 1, lid: 0x02, configurationBit: 1, name: 'temperature threshold' },
  spare: { type: 1, info: 2, lid: 0x02, configurationBit: 0, name: 'spare below threshold' },
  namespaceAttributes: { type: 2, info: 0x00, lid: 0x04, configurationBit: 8, name: 'namespace attribute changed' },
  discoveryLog: { type: 2, info: 0xf0, lid: 0x70, configurationBit: 31, name: 'discovery log page change' },
} as const satisfies Record<string, AsyncEventRow>;

export type AsyncEventName = keyof typeof asyncEvents;

/** Bits of `criticalWarning` in the SMART log: those of the configuration. */
export const criticalWarningBits = {
  spare: { shift: 0, width: 1, meaning: 'available spare below its threshold' },
  temperature: { shift: 1, width: 1, meaning: 'temperature beyond a threshold' },
  reliability: { shift: 2, width: 1, meaning: 'reliability degraded' },
  readOnly: { shift: 3, width: 1, meaning: 'media read only' },
  backup: { shift: 4, width: 1, meaning: 'volatile memory backup failed' },
} as const;
