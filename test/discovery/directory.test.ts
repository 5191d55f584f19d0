import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { DiscoveryRecord } from '../../daemon/commands/contract.ts';
import { DiscoveryDirectory } from '../../daemon/discovery/directory.ts';
import { OwnRecords } from '../../daemon/discovery/own-records.ts';
import { parseRecords } from '../../daemon/discovery/records-file.ts';

const record = (index: number): DiscoveryRecord => ({
  subtype: 'nvm',
  nqn: `nqn.2026-11.dev.attndrive:D${index % 3}`,
  address: { host: '192.0.2.1', port: 4420 + Math.floor(index / 3) },
});
const keys = (records: readonly DiscoveryRecord[]): string[] =>
  records.map(({ nqn, address }) => `${nqn} ${address.port}`).sort();

type Action =
  | { kind: 'fixed'; records: number[] }
  | { kind: 'register'; owner: number; entity: number; records: number[] }
  | { kind: 'deregister'; owner: number; entity: number }
  | { kind: 'ended'; owner: number };
const indices = fc.array(fc.nat(8), { maxLength: 4 });
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ kind: fc.constant('fixed' as const), records: indices }),
  fc.record({ kind: fc.constant('register' as const), owner: fc.nat(2), entity: fc.nat(1), records: indices }),
  fc.record({ kind: fc.constant('deregister' as const), owner: fc.nat(2), entity: fc.nat(1) }),
  fc.record({ kind: fc.constant('ended' as const), owner: fc.nat(2) }),
);

describe('the directory', () => {
  test('tells what a plain list would, once each, and of every change and no other', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        let changes = 0;
        const directory = new DiscoveryDirectory(
          { limits: { discoveryEntryCountMax: 1000 } },
          { onChange: () => changes++ },
        );
        const owners = [{}, {}, {}];
        let fixed: number[] = [];
        const registered = new Map<string, number[]>();
        for (const step of actions) {
          const before = { keys: keys(directory.records()), generation: directory.generation, changes };
          switch (step.kind) {
            case 'fixed':
              fixed = step.records;
              directory.setFixed(fixed.map(record));
              break;
            case 'register':
              registered.set(`${step.owner} ${step.entity}`, step.records);
              directory.register(owners[step.owner]!, `nqn ${step.entity}`, step.records.map(record));
              break;
            case 'deregister': {
              const known = registered.delete(`${step.owner} ${step.entity}`);
              assert.equal(directory.deregister(owners[step.owner]!, `nqn ${step.entity}`), known);
              break;
            }
            case 'ended':
              for (const entity of [0, 1]) registered.delete(`${step.owner} ${entity}`);
              directory.ended(owners[step.owner]!);
              break;
          }
          const wanted = [...new Set([...fixed, ...[...registered.values()].flat()])].map(record);
          assert.deepEqual(keys(directory.records()), keys(wanted));
          if (keys(wanted).join() !== before.keys.join()) {
            assert.deepEqual([directory.generation, changes], [before.generation + 1, before.changes + 1]);
          }
        }
      }),
      { numRuns: 300, seed: 11 },
    );
  });

  test('is bounded, and a refused registration changes nothing', () => {
    const directory = new DiscoveryDirectory({ limits: { discoveryEntryCountMax: 3 } }, { onChange: () => undefined });
    const owner = {};
    directory.setFixed([record(0)]);
    directory.register(owner, 'one', [record(1), record(2)]);
    assert.throws(() => directory.register({}, 'two', [record(3)]), { code: 'discoveryLimit' });
    assert.throws(() => directory.register({}, 'empty', []), { code: 'discoveryLimit' });
    assert.throws(() => directory.setFixed([record(0), record(4)]), { code: 'discoveryLimit' });
    directory.register(owner, 'one', [record(3), record(4)]);
    assert.deepEqual(keys(directory.records()), keys([record(0), record(3), record(4)]));
  });
});

describe("a drive's own records", () => {
  const nqn = 'nqn.2026-11.dev.attndrive:ONE';
  const hosts = (listening: string, local?: string, advertisedHost?: string) => {
    const own = new OwnRecords({ nqn, advertisedHost }, { listeners: () => [{ host: listening, port: 4420 }] });
    return own
      .records(local === undefined ? undefined : { host: local, port: 4420 })
      .map(({ address }) => address.host);
  };

  test('are its addresses, or what stands for all of them as the host sees it', () => {
    assert.deepEqual(hosts('192.0.2.1', '192.0.2.1'), ['192.0.2.1']);
    assert.deepEqual(hosts('192.0.2.1'), ['192.0.2.1']);
    assert.deepEqual(hosts('0.0.0.0', '192.0.2.7'), ['192.0.2.7']);
    assert.deepEqual(hosts('::', '2001:db8::7'), ['2001:db8::7']);
    assert.deepEqual(hosts('0.0.0.0'), ['127.0.0.1'], 'over a Unix socket');
    assert.deepEqual(hosts('::'), ['::1']);
    assert.deepEqual(hosts('127.0.0.1', '127.0.0.1', '10.0.2.2'), ['10.0.2.2'], 'advertised');
  });
});

describe('the records file', () => {
  const parse = (value: unknown) => parseRecords(typeof value === 'string' ? value : JSON.stringify(value), 'FILE');
  const nqn = 'nqn.2026-11.dev.attndrive:ONE';

  test('lists subsystems and referrals', () => {
    assert.deepEqual(parse({}), []);
    const subsystems = [
      { nqn, address: '192.0.2.1:4420' },
      { nqn, address: '[2001:db8::1]:4421' },
    ];
    assert.deepEqual(parse({ subsystems, referrals: [{ address: '192.0.2.9:8009' }] }), [
      { subtype: 'nvm', nqn, address: { host: '192.0.2.1', port: 4420 } },
      { subtype: 'nvm', nqn, address: { host: '2001:db8::1', port: 4421 } },
      {
        subtype: 'referral',
        nqn: 'nqn.2014-08.org.nvmexpress.discovery',
        address: { host: '192.0.2.9', port: 8009 },
      },
    ]);
  });

  const wrong: readonly (readonly [string, unknown, RegExp])[] = [
    ['not JSON', '{', /FILE: /],
    ['a list', [], /allowed: an object/],
    ['another key', { drives: [] }, /"drives"; allowed: subsystems, referrals/],
    ['no list', { subsystems: {} }, /are lists/],
    ['an entry that is a text', { subsystems: ['x'] }, /subsystems\[0\]: allowed/],
    ['an entry with more', { subsystems: [{ nqn, address: '192.0.2.1:1', x: 1 }] }, /subsystems\[0\]: allowed/],
    ['no NQN', { subsystems: [{ address: '192.0.2.1:1' }] }, /"nqn" is a text/],
    ['a bad NQN', { subsystems: [{ nqn: 'x', address: '192.0.2.1:1' }] }, /NQN "x": not of the form/],
    ['a name', { referrals: [{ address: 'rack:8009' }] }, /referrals\[0\]: address "rack:8009", allowed/],
    ['port 0', { referrals: [{ address: '192.0.2.1:0' }] }, /port 1 to 65535/],
    ['port 65536', { referrals: [{ address: '192.0.2.1:65536' }] }, /port 1 to 65535/],
    ['a number', { referrals: [{ address: 8009 }] }, /address 8009, allowed/],
    ['a referral with an NQN', { referrals: [{ nqn, address: '192.0.2.1:1' }] }, /referrals\[0\]: allowed/],
  ];
  for (const [what, value, message] of wrong) {
    test(`refuses ${what}, saying where`, () => {
      assert.throws(() => parse(value), { code: 'invalidField', message });
    });
  }
});
