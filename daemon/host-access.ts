import { isIP } from 'node:net';
import { dirname } from 'node:path';
import { readDhChapSecret, readTrustedFile } from '../client/secret-file.ts';
import { DriveError } from './base/errors.ts';
import type { Logger } from './base/logger.ts';
import { HostDirectory } from './hosts/host-directory.ts';
import { type HostsFile, parseHosts } from './hosts/hosts-file.ts';

/** Reads a hosts file and the secrets that it names, beside it or as credentials. DriveError invalidField. */
export function readHosts(path: string): HostsFile {
  let text: string;
  try {
    text = readTrustedFile(path, 'hosts file');
  } catch (error) {
    throw new DriveError('invalidField', (error as Error).message, { cause: error });
  }
  return parseHosts(text, path, (reference, what) => readDhChapSecret(reference, what, { folder: dirname(path) }));
}

/** The hosts that may connect, by the file that says so if there is one. */
export class HostAccess {
  readonly directory: HostDirectory;
  readonly #path: string | undefined;
  readonly #logger: Logger;

  /** DriveError invalidField for a file that is no good. */
  constructor({ path }: { path: string | undefined }, { logger }: { logger: Logger }) {
    this.#path = path;
    this.#logger = logger;
    this.directory = new HostDirectory(path === undefined ? undefined : readHosts(path));
  }

  /** Reads the file again; what is wrong with it is said, and what it said before stays. True: it was read. */
  reload(): boolean {
    if (this.#path === undefined) return false;
    try {
      const file = readHosts(this.#path);
      this.directory.replace(file);
      this.#logger.info({ path: this.#path, hostCount: file.hosts.length }, 'hosts read again');
      return true;
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      this.#logger.error({ reason: error.message }, 'hosts not read again');
      return false;
    }
  }

  /** Says so if any host may come from the network and do what it likes. */
  warnIfOpen(tcp: { readonly host: string } | undefined): void {
    if (this.#path !== undefined || tcp === undefined || isLoopback(tcp.host)) return;
    this.#logger.warn({ host: tcp.host }, 'listens beyond this machine without --hosts: any host may connect');
  }
}

/** Names are not resolved: one that is not `localhost` counts as a place on the network. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
