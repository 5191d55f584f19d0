import { chapHashNames, dhGroupNames } from '../../spec/authentication.ts';
import { hostQuotaNames, standardQuotas } from '../../spec/host-quotas.ts';
import { nqnProblem } from '../../spec/fabrics.ts';
import { DriveError } from '../base/errors.ts';
import type { HostAuthentication, HostRules, HostSecret } from './contract.ts';

/** One host of a hosts file. */
export interface HostEntry extends HostRules {
  readonly nqn: string;
}

/** What a hosts file says. */
export interface HostsFile {
  readonly hosts: readonly HostEntry[];
  /** Whether hosts that are not listed may connect, without authentication. */
  readonly allowsOthers: boolean;
  /** Whether the file goes for the Unix socket too; else whoever may open that may do everything. */
  readonly coversUnix: boolean;
}

/** Without a hosts file: every host may connect, and its word is believed. */
export const openDoor: HostsFile = { hosts: [], allowsOthers: true, coversUnix: false };

/** Reads the secret that a file or a credential holds. Error says what is wrong, not what it holds. */
export type SecretReader = (reference: string, what: string) => HostSecret;

const PREFERRED_HASHES = [...chapHashNames].reverse();
/** A value of 3072 bits takes a millisecond, and 128 bits of security. */
const PREFERRED_GROUPS = ['ffdhe3072', 'ffdhe4096', 'ffdhe2048', 'ffdhe6144', 'ffdhe8192', 'null'] as const;

/**
 * `{"hosts": [{"nqn": "nqn…", "secret": "PATH or credential:NAME"}]}`; the other keys stand in `spec/security.md`.
 * DriveError invalidField says which entry is wrong and what is allowed.
 */
export function parseHosts(text: string, path: string, readSecret: SecretReader): HostsFile {
  const refuse = (detail: string): DriveError => new DriveError('invalidField', `hosts file ${path}: ${detail}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw refuse((error as Error).message);
  }
  const file = new Fields(value, refuse, ['hosts', 'otherHosts', 'unix']);
  const hosts = file.list('hosts').map((entry, index) => {
    return parseHost(entry, (detail) => refuse(`hosts[${index}]: ${detail}`), readSecret);
  });
  const twice = hosts.find(({ nqn }, index) => hosts.findIndex((other) => other.nqn === nqn) !== index);
  if (twice !== undefined) throw refuse(`${twice.nqn} is listed twice`);
  return {
    hosts,
    allowsOthers: file.choice('otherHosts', ['refused', 'allowed']) === 'allowed',
    coversUnix: file.choice('unix', ['permissions', 'hosts']) === 'hosts',
  };
}

const hostKeys = ['nqn', 'secret', 'controllerSecret', 'hashes', 'dhGroups', 'sequences', 'quotas'] as const;

function parseHost(value: unknown, refuse: Refuse, readSecret: SecretReader): HostEntry {
  const entry = new Fields(value, refuse, hostKeys);
  const nqn = entry.text('nqn');
  if (nqn === undefined) throw refuse('"nqn" is missing');
  const problem = nqnProblem(nqn);
  if (problem !== undefined) throw refuse(`NQN ${JSON.stringify(nqn)}: ${problem}`);
  return {
    nqn,
    authentication: parseAuthentication(entry, refuse, readSecret),
    quotas: { ...standardQuotas, ...entry.numbers('quotas', hostQuotaNames) },
    isConfined: entry.choice('sequences', ['own', 'all']) === 'own',
  };
}

function parseAuthentication(entry: Fields, refuse: Refuse, readSecret: SecretReader): HostAuthentication | undefined {
  const read = (name: 'secret' | 'controllerSecret'): HostSecret | undefined => {
    const reference = entry.text(name);
    if (reference === undefined) return undefined;
    try {
      return readSecret(reference, name);
    } catch (error) {
      throw refuse((error as Error).message);
    }
  };
  const secret = read('secret');
  const controllerSecret = read('controllerSecret');
  const hashes = entry.choices('hashes', chapHashNames);
  const dhGroups = entry.choices('dhGroups', dhGroupNames);
  if (secret === undefined) {
    if ((controllerSecret ?? hashes ?? dhGroups) !== undefined)
      throw refuse('without "secret" nothing is authenticated');
    return undefined;
  }
  if (controllerSecret !== undefined && controllerSecret.key.equals(secret.key)) {
    throw refuse('"secret" and "controllerSecret" are the same, so that either proves the other');
  }
  return { secret, controllerSecret, hashes: hashes ?? PREFERRED_HASHES, dhGroups: dhGroups ?? PREFERRED_GROUPS };
}

type Refuse = (detail: string) => DriveError;

/** An object of a JSON file whose keys are known. */
class Fields {
  readonly #value: Readonly<Record<string, unknown>>;
  readonly #refuse: Refuse;

  constructor(value: unknown, refuse: Refuse, allowed: readonly string[]) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw refuse(`allowed: an object with ${allowed.join(', ')}`);
    }
    const stray = Object.keys(value).find((key) => !allowed.includes(key));
    if (stray !== undefined) throw refuse(`"${stray}"; allowed: ${allowed.join(', ')}`);
    this.#value = value as Record<string, unknown>;
    this.#refuse = refuse;
  }

  text(name: string): string | undefined {
    const value = this.#value[name];
    if (value === undefined || (typeof value === 'string' && value !== '')) return value;
    throw this.#refuse(`"${name}" is a text`);
  }

  /** An object of whole numbers. */
  numbers<T extends string>(name: string, allowed: readonly T[]): Partial<Record<T, number>> {
    const value = this.#value[name];
    if (value === undefined) return {};
    const refuse = (detail: string): DriveError => this.#refuse(`"${name}": ${detail}`);
    const fields = new Fields(value, refuse, allowed);
    for (const [key, number] of Object.entries(fields.#value)) {
      if (!Number.isSafeInteger(number) || (number as number) < 0) {
        throw refuse(`"${key}" ${JSON.stringify(number)}; allowed: a whole number from 0 on`);
      }
    }
    return fields.#value as Partial<Record<T, number>>;
  }

  list(name: string): readonly unknown[] {
    const value = this.#value[name] ?? [];
    if (Array.isArray(value)) return value;
    throw this.#refuse(`"${name}" is a list`);
  }

  /** The first where it is left out. */
  choice<T extends string>(name: string, allowed: readonly T[]): T {
    const value = this.text(name) ?? allowed[0];
    const found = allowed.find((candidate) => candidate === value);
    if (found === undefined) throw this.#refuse(`"${name}" ${JSON.stringify(value)}; allowed: ${allowed.join(', ')}`);
    return found;
  }

  choices<T extends string>(name: string, allowed: readonly T[]): readonly T[] | undefined {
    if (this.#value[name] === undefined) return undefined;
    const found = this.list(name).map((value) => allowed.find((candidate) => candidate === value));
    if (found.length > 0 && found.every((value) => value !== undefined)) return found;
    throw this.#refuse(`"${name}" ${JSON.stringify(this.#value[name])}; allowed: a list of ${allowed.join(', ')}`);
  }
}
