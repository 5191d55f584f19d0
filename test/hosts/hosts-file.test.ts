import assert from 'node:assert/strict';
import { createSecretKey } from 'node:crypto';
import { test } from 'node:test';
import { standardQuotas } from '../../spec/host-quotas.ts';
import type { HostSecret } from '../../daemon/hosts/contract.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import { parseHosts } from '../../daemon/hosts/hosts-file.ts';

const a = 'nqn.2026-11.dev.attndrive.test:a';
const b = 'nqn.2026-11.dev.attndrive.test:b';

/** The secret of a reference is made of its text. */
const readSecret = (reference: string): HostSecret => {
  if (reference === 'open.key') throw new Error('secret: open.key: mode 0644 lets others in; allowed: 0600, 0400');
  return { transform: undefined, key: createSecretKey(Buffer.from(reference.padEnd(32, '.'))) };
};
const parse = (value: unknown) => parseHosts(JSON.stringify(value), 'hosts.json', readSecret);
const directoryOf = (value: unknown) => new HostDirectory(parse(value));

test('hosts that are listed may connect, others may not unless the file says so', () => {
  const closed = directoryOf({ hosts: [{ nqn: a }] });
  assert.deepEqual(closed.rulesOf(a, 'tcp'), { authentication: undefined, quotas: standardQuotas, isConfined: true });
  assert.equal(closed.rulesOf(b, 'tcp'), undefined);
  const open = directoryOf({ hosts: [{ nqn: a, secret: 'a.key' }], otherHosts: 'allowed' });
  assert.deepEqual(open.rulesOf(b, 'tcp'), { authentication: undefined, quotas: standardQuotas, isConfined: true });
  assert.notEqual(open.rulesOf(a, 'tcp')?.authentication, undefined, 'who has a secret has to show it');
  assert.equal(directoryOf({ hosts: [] }).rulesOf(a, 'tcp'), undefined);
  assert.notEqual(new HostDirectory().rulesOf(a, 'tcp'), undefined, 'without a file every host may');
});

test('the Unix socket is a matter of permissions unless the file says otherwise', () => {
  const hosts = [{ nqn: a, secret: 'a.key' }];
  assert.deepEqual(directoryOf({ hosts }).rulesOf(b, 'unix'), {
    authentication: undefined,
    quotas: standardQuotas,
    isConfined: false,
  });
  assert.deepEqual(directoryOf({ hosts }).rulesOf(a, 'unix'), {
    authentication: undefined,
    quotas: standardQuotas,
    isConfined: false,
  });
  const covered = directoryOf({ hosts, unix: 'hosts' });
  assert.equal(covered.rulesOf(b, 'unix'), undefined);
  assert.notEqual(covered.rulesOf(a, 'unix')?.authentication, undefined);
});

test('secrets and algorithms', () => {
  const entry = { nqn: a, secret: 'a.key', controllerSecret: 'drive.key', hashes: ['sha512'], dhGroups: ['null'] };
  const { authentication } = directoryOf({ hosts: [entry] }).rulesOf(a, 'tcp') ?? {};
  assert.equal(authentication?.secret.key.equals(readSecret('a.key').key), true);
  assert.equal(authentication?.controllerSecret?.key.equals(readSecret('drive.key').key), true);
  assert.deepEqual([authentication?.hashes, authentication?.dhGroups], [['sha512'], ['null']]);
  const { hashes, dhGroups } = directoryOf({ hosts: [{ nqn: a, secret: 'a.key' }] }).rulesOf(a, 'tcp')!.authentication!;
  assert.deepEqual(
    [hashes.length, hashes[0], dhGroups.length, dhGroups[0], dhGroups.at(-1)],
    [3, 'sha512', 6, 'ffdhe3072', 'null'],
  );
});

test('quotas, and whose sequences a host may name', () => {
  const quotas = { sequences: 3, kvBytes: 1 << 20 };
  const directory = directoryOf({ hosts: [{ nqn: a, quotas, sequences: 'all' }, { nqn: b }], unix: 'hosts' });
  assert.deepEqual(directory.rulesOf(a, 'tcp')?.quotas, { ...standardQuotas, ...quotas });
  assert.deepEqual([directory.rulesOf(a, 'tcp')?.isConfined, directory.rulesOf(b, 'tcp')?.isConfined], [false, true]);
  // By the socket quotas go all the same.
  const bySocket = directoryOf({ hosts: [{ nqn: a, quotas }] }).rulesOf(a, 'unix');
  assert.deepEqual([bySocket?.quotas.sequences, bySocket?.isConfined], [3, false]);
});

test('a file that is replaced goes from then on', () => {
  const directory = directoryOf({ hosts: [{ nqn: a }] });
  directory.replace(parse({ hosts: [{ nqn: b }] }));
  assert.equal(directory.rulesOf(a, 'tcp'), undefined);
  assert.notEqual(directory.rulesOf(b, 'tcp'), undefined);
});

const wrong: readonly (readonly [unknown, RegExp])[] = [
  [[], /hosts file hosts\.json: allowed: an object with hosts/],
  [{ host: [] }, /"host"; allowed: hosts, otherHosts, unix/],
  [{ hosts: {} }, /"hosts" is a list/],
  [{ hosts: [1] }, /hosts\[0\]: allowed: an object/],
  [{ hosts: [{}] }, /hosts\[0\]: "nqn" is missing/],
  [{ hosts: [{ nqn: 'host' }] }, /hosts\[0\]: NQN "host"/],
  [{ hosts: [{ nqn: a }, { nqn: a }] }, /:a is listed twice/],
  [{ hosts: [{ nqn: a, key: 'x' }] }, /hosts\[0\]: "key"; allowed: nqn, secret/],
  [{ hosts: [{ nqn: a, secret: '' }] }, /"secret" is a text/],
  [{ hosts: [{ nqn: a, secret: 'open.key' }] }, /hosts\[0\]: secret: open\.key: mode 0644/],
  [{ hosts: [{ nqn: a, controllerSecret: 'x' }] }, /without "secret" nothing is authenticated/],
  [{ hosts: [{ nqn: a, hashes: ['sha256'] }] }, /without "secret"/],
  [{ hosts: [{ nqn: a, secret: 'x', controllerSecret: 'x' }] }, /are the same/],
  [
    { hosts: [{ nqn: a, secret: 'x', hashes: ['md5'] }] },
    /"hashes" \["md5"\]; allowed: a list of sha256, sha384, sha512/,
  ],
  [{ hosts: [{ nqn: a, secret: 'x', dhGroups: [] }] }, /"dhGroups" \[\]; allowed: a list of null, ffdhe2048/],
  [{ hosts: [{ nqn: a, quotas: { files: 1 } }] }, /hosts\[0\]: "quotas": "files"; allowed: associations, queues, /],
  [{ hosts: [{ nqn: a, quotas: { queues: -1 } }] }, /"quotas": "queues" -1; allowed: a whole number from 0 on/],
  [{ hosts: [{ nqn: a, quotas: { queues: '5' } }] }, /"queues" "5"; allowed: a whole number/],
  [{ hosts: [{ nqn: a, quotas: [] }] }, /"quotas": allowed: an object with/],
  [{ hosts: [{ nqn: a, sequences: 'mine' }] }, /"sequences" "mine"; allowed: own, all/],
  [{ hosts: [], otherHosts: 'yes' }, /"otherHosts" "yes"; allowed: refused, allowed/],
  [{ hosts: [], unix: true }, /"unix" is a text/],
];
for (const [value, message] of wrong) {
  test(`refused: ${JSON.stringify(value)}`, () => {
    assert.throws(() => parse(value), message);
  });
}

test('what is no JSON', () => {
  assert.throws(() => parseHosts('{', 'hosts.json', readSecret), /hosts file hosts\.json: .*JSON/);
});
