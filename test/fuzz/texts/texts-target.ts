/**
 * Files that people write: hosts files and the records of a discovery service, nearly right.
 *
 * Whatever comes: it is refused as `invalidField`, which says where it is wrong, or what comes of it holds what the pages of
 * spec/ allow and nothing else; no secret stands in what is said.
 */
import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { nqnProblem } from '../../../spec/fabrics.ts';
import { hostQuotaNames } from '../../../spec/host-quotas.ts';
import { DriveError } from '../../../daemon/base/errors.ts';
import { parseRecords } from '../../../daemon/discovery/records-file.ts';
import { parseHosts } from '../../../daemon/hosts/hosts-file.ts';
import { secretOf } from '../../controller/chap-host.ts';
import type { Prng } from '../../sim/prng.ts';
import { mutateBytes } from '../mutate.ts';
import type { Session, SessionContext, Target } from '../target.ts';

export interface TextInput {
  readonly file: 'hosts' | 'records';
  readonly text: string;
}

const nqns = [
  'nqn.2014-08.org.example:a',
  'nqn.2014-08.org.example:b',
  'nqn',
  '',
  'nqn.2014-13.org:x',
  'nqn.2026-11.dev.x:ü',
] as const;
const odd = [null, 0, -1, 1.5, 1e300, true, '', 'own', [], {}, ['x'], { a: 1 }] as const;
const SECRET = 'credential:holds-what-nobody-may-see';

const drawHost = (random: Prng): Record<string, unknown> => ({
  nqn: random.pick(nqns),
  ...(random.chance(0.5) && { secret: random.chance(0.8) ? SECRET : 'wrong' }),
  ...(random.chance(0.2) && { controllerSecret: SECRET }),
  ...(random.chance(0.3) && { hashes: random.pick([['sha256'], ['sha512', 'sha384'], [], ['md5']]) }),
  ...(random.chance(0.3) && { dhGroups: random.pick([['null'], ['ffdhe2048'], ['x']]) }),
  ...(random.chance(0.4) && { sequences: random.pick(['own', 'all', 'some']) }),
  ...(random.chance(0.4) && { quotas: { [random.pick(hostQuotaNames)]: random.pick([0, 1, 5, -1, 1.5, 'x']) } }),
});

const drawAddress = (random: Prng): unknown =>
  random.pick(['192.0.2.1:4420', '[fe80::1]:1', 'host:1', '192.0.2.1:0', '1:2:3', 5]);

function drawFile(random: Prng, file: TextInput['file']): Record<string, unknown> {
  if (file === 'hosts') {
    return {
      hosts: Array.from({ length: random.below(4) }, () => drawHost(random)),
      ...(random.chance(0.3) && { otherHosts: random.pick(['refused', 'allowed', 'x']) }),
      ...(random.chance(0.3) && { unix: random.pick(['permissions', 'hosts', 1]) }),
    };
  }
  const subsystems = Array.from({ length: random.below(4) }, () => ({
    nqn: random.pick(nqns),
    address: drawAddress(random),
  }));
  return { subsystems, ...(random.chance(0.4) && { referrals: [{ address: drawAddress(random) }] }) };
}

/** Puts something else somewhere. */
function spoil(random: Prng, value: Record<string, unknown>): void {
  const keys = [...Object.keys(value), 'more', '__proto__', 'constructor'];
  const key = random.pick(keys);
  const inner = value[key];
  const list = Array.isArray(inner) ? (inner as unknown[]) : [];
  const object = list.find((one): one is Record<string, unknown> => typeof one === 'object' && one !== null);
  if (object !== undefined && random.chance(0.7)) spoil(random, object);
  else
    Object.defineProperty(value, key, {
      value: random.pick(odd),
      enumerable: true,
      configurable: true,
      writable: true,
    });
}

class TextSession implements Session<TextInput> {
  readonly #context: SessionContext;

  constructor(context: SessionContext) {
    this.#context = context;
  }

  draw(random: Prng): TextInput {
    const file = random.pick(['hosts', 'records'] as const);
    const value = drawFile(random, file);
    for (let i = random.below(3); i > 0; i--) spoil(random, value);
    const bytes = Buffer.from(JSON.stringify(value));
    if (random.chance(0.15)) mutateBytes(random, bytes);
    return { file, text: bytes.toString('utf8') };
  }

  play({ file, text }: TextInput): void {
    let isRead = false;
    try {
      if (file === 'hosts') checkHosts(text, this.#context.bug);
      else checkRecords(text);
      isRead = true;
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      assert.equal(error.code, 'invalidField');
      assert.ok(
        !error.message.includes('nobody-may-see') || !text.includes(SECRET) || text.includes('nqn'),
        'a secret is told',
      );
    }
    this.#context.tally.count(isRead || isJson(text));
    assert.equal(Object.keys(Object.prototype).length, 0, 'nothing is put into all objects');
  }

  close(): void {}
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function checkHosts(text: string, bug: string | undefined): void {
  const { hosts } = parseHosts(text, 'hosts.json', (reference) => {
    if (reference !== SECRET) throw new Error('no such credential');
    return secretOf(1);
  });
  for (const { nqn, quotas, authentication } of hosts) {
    assert.equal(nqnProblem(nqn), undefined, `a host named ${nqn}`);
    for (const name of hostQuotaNames) {
      const isCount = quotas[name] === Number.POSITIVE_INFINITY || Number.isSafeInteger(quotas[name]);
      assert.ok(isCount && quotas[name] >= 0, `${name} ${quotas[name]}`);
    }
    if (authentication === undefined) continue;
    assert.ok(authentication.hashes.length > 0 && authentication.dhGroups.length > 0, 'something to authenticate by');
    assert.notEqual(bug, 'takesSecrets', 'a planted bug');
  }
  assert.equal(new Set(hosts.map(({ nqn }) => nqn)).size, hosts.length, 'no host twice');
}

function checkRecords(text: string): void {
  for (const { nqn, address } of parseRecords(text, 'records.json')) {
    assert.equal(nqnProblem(nqn), undefined, `a subsystem named ${nqn}`);
    assert.ok(isIP(address.host) !== 0 && Number.isInteger(address.port), `an address ${address.host}:${address.port}`);
    assert.ok(address.port > 0 && address.port < 65_536);
  }
}

export const textsTarget: Target<TextInput> = {
  name: 'texts',
  what: 'hosts files, and records files of discovery services',
  framing: 'the text is JSON',
  share: 3,
  casesPerSession: 5000,
  smokeCases: 5000,
  bugs: { takesSecrets: 'any host with a secret is wrong' },
  open: (context) => new TextSession(context),
};
