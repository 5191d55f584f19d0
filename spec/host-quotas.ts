/**
 * What one host, by its NQN, may have at a time over all its associations. A hosts file may say otherwise for a host; the
 * sizes of the drive (`limits.ts`) go for all of them together.
 */
export interface HostQuotaRow {
  /** Without a word of the hosts file; undefined: as much as there is. */
  readonly standard: number | undefined;
  readonly meaning: string;
}

const row = (standard: number | undefined, meaning: string): HostQuotaRow => ({ standard, meaning });

const MIB = 2 ** 20;
const GIB = 2 ** 30;

export const hostQuotas = {
  associations: row(128, 'associations'),
  queues: row(512, 'queues, each of which is a connection'),
  commands: row(16_384, 'commands that are not complete'),
  dataBytes: row(96 * MIB, 'data of commands that run at once; more wait'),
  waitingBytes: row(48 * MIB, 'in-capsule data of commands that wait'),
  regions: row(256, 'memory regions'),
  regionBytes: row(16 * GIB, 'bytes of memory regions'),
  resultSlotBytes: row(256 * MIB, 'bytes of result slots'),
  sequences: row(24_576, 'sequences'),
  kvBytes: row(undefined, 'bytes of flash pages and tail buffers that its sequences hold, shared ones for each'),
} as const satisfies Record<string, HostQuotaRow>;

export type HostQuota = keyof typeof hostQuotas;
export const hostQuotaNames = Object.keys(hostQuotas) as HostQuota[];
/** Infinity: no bound. */
export type HostQuotas = Readonly<Record<HostQuota, number>>;

/** Infinity: no bound. */
export const standardQuotas: HostQuotas = Object.fromEntries(
  hostQuotaNames.map((name) => [name, hostQuotas[name].standard ?? Number.POSITIVE_INFINITY]),
) as HostQuotas;
