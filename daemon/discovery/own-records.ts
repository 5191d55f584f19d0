import type { DiscoveryRecord, DiscoverySource, NetworkAddress } from '../commands/contract.ts';

/** Addresses that stand for all of a machine's. */
const wildcards = new Set(['0.0.0.0', '::']);

export const isWildcard = (host: string): boolean => wildcards.has(host);

export interface OwnRecordsOptions {
  readonly nqn: string;
  /** What hosts are to be told instead of the address that a connection came in at. */
  readonly advertisedHost: string | undefined;
}

/** What a drive's own discovery controller tells: the drive, at each address that it listens on. */
export class OwnRecords implements DiscoverySource {
  readonly #options: OwnRecordsOptions;
  readonly #listeners: () => readonly NetworkAddress[];
  readonly generation = 1;
  readonly registrations = undefined;

  constructor(options: OwnRecordsOptions, modules: { listeners: () => readonly NetworkAddress[] }) {
    this.#options = options;
    this.#listeners = modules.listeners;
  }

  records(local: NetworkAddress | undefined): readonly DiscoveryRecord[] {
    const { nqn } = this.#options;
    return this.#listeners().map(({ host, port }) => ({
      subtype: 'nvm',
      nqn,
      address: { host: this.#hostFor(host, local), port },
    }));
  }

  /** A wildcard is the address that the asking host reached us at; over a Unix socket it is on this machine. */
  #hostFor(host: string, local: NetworkAddress | undefined): string {
    if (this.#options.advertisedHost !== undefined) return this.#options.advertisedHost;
    if (!isWildcard(host)) return host;
    return local?.host ?? (host === '::' ? '::1' : '127.0.0.1');
  }
}
