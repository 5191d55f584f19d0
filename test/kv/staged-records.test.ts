/** Bytes of the staging log's KV records: media format, so pinned here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  allocateTail,
  decodeStaged,
  encodeCreate,
  encodeFork,
  encodeReclaim,
  encodeTruncate,
} from '../../daemon/kv/staged-records.ts';
import { failsWith } from './assertions.ts';
import { plainShape } from './fixture.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const request = { id: 0x1122n, owner: 0xffee_ddcc_bbaa_9988n, label: 'ü', leaseSeconds: 60 };

test('every record has the bytes that the format says, and decodes to what it was made of', () => {
  const create = encodeCreate({ ...request, shape: { ...plainShape, elementTypeV: 'bf16' } });
  const labelled = `${'8899aabbccddeeff3c00000000000000c3bc'}${'00'.repeat(126)}`;
  assert.equal(hex(create), `0102020002002000200002030800000022110000000000${'00'}${labelled}`);
  const decoded = decodeStaged(create);
  assert.deepEqual(decoded, {
    kind: 'create',
    request: { ...request, shape: { ...plainShape, elementTypeV: 'bf16' } },
  });

  const fork = encodeFork(request, 5n, 77);
  assert.equal(hex(fork), `010300004d00000022110000000000000500000000000000${labelled}`);
  assert.deepEqual(decodeStaged(fork), { kind: 'fork', request, parentId: 5n, tokenCount: 77 });

  const truncate = encodeTruncate(3n, undefined, 9);
  assert.equal(hex(truncate), '0104ffff090000000300000000000000');
  assert.deepEqual(decodeStaged(truncate), { kind: 'truncate', sequenceId: 3n, layer: undefined, length: 9 });

  const reclaim = encodeReclaim(4n);
  assert.equal(hex(reclaim), '01050000000000000400000000000000');
  assert.deepEqual(decodeStaged(reclaim), { kind: 'reclaim', sequenceId: 4n });

  const tail = { sequenceId: 6n, layer: 1, generation: 0xffff_ffff, firstToken: 10, tokenCount: 2 };
  const { record, rows } = allocateTail(tail, 1, [2, 4]);
  rows.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  assert.equal(hex(record), '01010100ffffffff06000000000000000a0000000200000002000400010000000102030405060708090a0b0c');
  assert.deepEqual(decodeStaged(record), { kind: 'tail', ...tail, rows: record.subarray(32) });
});

test('records of another version, kind or length are refused', () => {
  const refused: [number[], RegExp][] = [
    [[], /version undefined/],
    [[2, 1], /version 2, expected 1/],
    [[1, 9], /kind 9/],
    [[1, 4, 0, 0], /kind 4 has 4 bytes, not 16/],
    [[1, 1, 0, 0], /kind 1 has 4 bytes, not 32/],
  ];
  for (const [bytes, text] of refused) {
    assert.throws(() => decodeStaged(Uint8Array.from(bytes)), failsWith('internal', text));
  }
  const { record } = allocateTail({ sequenceId: 6n, layer: 1, generation: 1, firstToken: 1, tokenCount: 2 }, 1, [2, 4]);
  assert.throws(() => decodeStaged(record.subarray(1, 40)), failsWith('internal', /KV record/));
  assert.throws(() => decodeStaged(record.subarray(0, 40)), failsWith('internal', /has 40 bytes, not 44/));
  const create = encodeCreate({ ...request, shape: plainShape });
  create[10] = 99;
  assert.throws(() => decodeStaged(create), failsWith('internal', /element types 99/));
});
