import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { DISCOVERY_NQN, nqnProblem } from '../../spec/fabrics.ts';
import { DriveError } from '../base/errors.ts';
import type { DiscoveryRecord, NetworkAddress } from '../commands/contract.ts';

const FILE_BYTES_MAX = 1 << 20;

/**
 * Fixed records of a discovery service: `{"subsystems": [{"nqn": "nqn…", "address": "192.0.2.1:4420"}], "referrals":
 * [{"address": "192.0.2.9:8009"}]}`, either list may be left out. DriveError invalidField says which entry is wrong.
 */
export function readRecords(path: string): DiscoveryRecord[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new DriveError('invalidField', `records file ${path}: ${(error as Error).message}`, { cause: error });
  }
  if (text.length > FILE_BYTES_MAX) throw new DriveError('invalidField', `records file ${path} is above 1 MiB`);
  return parseRecords(text, path);
}

export function parseRecords(text: string, path: string): DiscoveryRecord[] {
  const refuse = (detail: string): DriveError => new DriveError('invalidField', `records file ${path}: ${detail}`);
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw refuse((error as Error).message);
  }
  if (!isObject(file)) throw refuse('allowed: an object with "subsystems" and "referrals"');
  const { subsystems = [], referrals = [], ...rest } = file;
  const stray = Object.keys(rest)[0];
  if (stray !== undefined) throw refuse(`"${stray}"; allowed: subsystems, referrals`);
  if (!Array.isArray(subsystems) || !Array.isArray(referrals)) throw refuse('"subsystems" and "referrals" are lists');
  return [
    ...subsystems.map((entry: unknown, index) =>
      subsystem(entry, (detail) => refuse(`subsystems[${index}]: ${detail}`)),
    ),
    ...referrals.map((entry: unknown, index) => referral(entry, (detail) => refuse(`referrals[${index}]: ${detail}`))),
  ];
}

type Refuse = (detail: string) => DriveError;

function subsystem(entry: unknown, refuse: Refuse): DiscoveryRecord {
  if (!isObject(entry) || Object.keys(entry).some((key) => key !== 'nqn' && key !== 'address')) {
    throw refuse('allowed: an object with "nqn" and "address"');
  }
  const { nqn } = entry;
  if (typeof nqn !== 'string') throw refuse('"nqn" is a text');
  const problem = nqnProblem(nqn);
  if (problem !== undefined) throw refuse(`NQN ${JSON.stringify(nqn)}: ${problem}`);
  return { subtype: 'nvm', nqn, address: addressOf(entry, refuse) };
}

function referral(entry: unknown, refuse: Refuse): DiscoveryRecord {
  if (!isObject(entry) || Object.keys(entry).some((key) => key !== 'address')) {
    throw refuse('allowed: an object with "address"');
  }
  return { subtype: 'referral', nqn: DISCOVERY_NQN, address: addressOf(entry, refuse) };
}

/** Names would mean different machines to different hosts: addresses only. */
function addressOf({ address }: Readonly<Record<string, unknown>>, refuse: Refuse): NetworkAddress {
  const match = typeof address === 'string' ? /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(address) : null;
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (isIP(host) === 0 || !(port > 0 && port <= 65_535)) {
    throw refuse(`address ${JSON.stringify(address)}, allowed: IPV4:PORT or [IPV6]:PORT with port 1 to 65535`);
  }
  return { host, port };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
