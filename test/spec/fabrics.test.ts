import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packBits, packBits64, strayBits, unpackBits, unpackBits64 } from '../../spec/bits.ts';
import * as spec from '../../spec/index.ts';

const good = [
  'nqn.2014-08.org.nvmexpress:uuid:01234567-89ab-cdef-0123-456789abcdef',
  'nqn.2026-11.dev.attndrive:AD0001',
  'nqn.2026-11.dev.attndrive',
  spec.DISCOVERY_NQN,
  `nqn.2020-01.com.example:${'x'.repeat(223 - 24)}`,
];
const bad = [
  '',
  'nqn',
  'nqn.2026-13.dev.attndrive:a',
  'nqn.26-11.dev:a',
  'iqn.2026-11.dev:a',
  'nqn.2026-11.dev attndrive:a',
  'nqn.2026-11.dev:a\u0007b',
  'nqn.2014-08.org.nvmexpress:uuid:0123',
  `nqn.2020-01.com.example:${'x'.repeat(224 - 24)}`,
  `nqn.2020-01.com.example:${'ü'.repeat(100)}`,
];

test('NVMe qualified names', () => {
  for (const nqn of good) assert.equal(spec.nqnProblem(nqn), undefined, nqn);
  for (const nqn of bad) assert.notEqual(spec.nqnProblem(nqn), undefined, nqn);
  assert.equal(new TextEncoder().encode(good.at(-1)).length, spec.NQN_BYTES_MAX);
});

test('CC and CAP as the Linux host reads and writes them', () => {
  assert.equal(packBits(spec.ccBits, { en: 1, css: 6, iosqes: 6, iocqes: 4 }), 0x460061);
  assert.deepEqual(unpackBits(spec.ccBits, 0x464001).shn, 1);
  const cap = packBits64(spec.capBits, { mqes: 127, cqr: 1, to: 20, cssNvm: 1, cssIocs: 1 });
  assert.equal(cap, (1n << 43n) | (1n << 37n) | (20n << 24n) | (1n << 16n) | 127n);
  assert.deepEqual(unpackBits64(spec.capBits, cap).cssIocs, 1);
});

test('bit fields: what does not fit is refused, what is not covered is found', () => {
  const table = { low: { shift: 0, width: 4, meaning: '' }, high: { shift: 31, width: 1, meaning: '' } };
  assert.throws(() => packBits(table, { low: 16 }), RangeError);
  assert.throws(() => packBits(table, { low: -1 }), RangeError);
  assert.throws(() => packBits(table, { low: 0.5 }), RangeError);
  assert.equal(packBits(table, { low: 3, high: 1 }), 0x8000_0003);
  assert.equal(strayBits(table, 0x8000_001f), 0x10);
  assert.equal(strayBits(table, 0xffff_ffff), 0x7fff_fff0);
});

type Table = Record<string, { shift: number; width: number; meaning: string }>;
const isBitTable = (value: unknown): value is Table =>
  typeof value === 'object' && value !== null && Object.values(value).every((row) => typeof row?.shift === 'number');

test('no bit table of the contract has fields that overlap', () => {
  let tableCount = 0;
  for (const [name, value] of Object.entries(spec)) {
    if (!isBitTable(value)) continue;
    tableCount++;
    let covered = 0n;
    for (const [field, { shift, width }] of Object.entries(value)) {
      const mask = ((1n << BigInt(width)) - 1n) << BigInt(shift);
      assert.equal(covered & mask, 0n, `${name}.${field} overlaps`);
      covered |= mask;
    }
  }
  assert(tableCount > 10);
});

test('opcodes: one meaning each in a command set, ours where the standard leaves room', () => {
  for (const table of [spec.adminOpcodes, spec.nvmOpcodes, spec.kvOpcodes, spec.fabricsTypes]) {
    const values = Object.values(table).map((row) => row.opcode);
    assert.equal(new Set(values).size, values.length);
  }
  for (const row of [spec.adminOpcodes.regionCreate, spec.adminOpcodes.regionDelete]) assert(row.opcode >= 0xc0);
  for (const [name, row] of Object.entries(spec.kvOpcodes)) {
    assert(name === 'flush' || row.opcode >= 0x80, `${name} is no vendor opcode`);
  }
});

test('namespace lists and descriptors', () => {
  assert.deepEqual(spec.decodeNamespaceList(spec.encodeNamespaceList([1, 2, 77])), [1, 2, 77]);
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  const list = spec.encodeNamespaceDescriptors({ uuid, csi: 0x30 });
  assert.equal(
    Buffer.from(list.subarray(0, 26)).toString('hex'),
    `03100000${Buffer.from(uuid).toString('hex')}0401000030` + '00',
  );
  assert.deepEqual(spec.decodeNamespaceDescriptors(list), { uuid, csi: 0x30 });
  assert.deepEqual(spec.decodeNamespaceDescriptors(Uint8Array.of(3, 200, 0, 0, 1)), {});
});
