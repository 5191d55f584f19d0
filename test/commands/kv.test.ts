import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { describe, test, type TestContext } from 'node:test';
import { ALL_LAYERS, ALL_TOKENS, BLOCK_NSID, KV_CACHE_NSID, sequenceInfo } from '../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import type { CommandFields, RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig, type RigOptions } from '../controller/rig.ts';
import {
  append,
  appendFields,
  bytesOf,
  type CreateFields,
  createBytes,
  createRegion,
  createSequence,
  floatsOf,
  idFields,
  idOf,
  rows,
  statusOf,
  transfer,
} from './kv-host.ts';

async function open(t: TestContext, options: RigOptions = {}): Promise<{ rig: Rig; io: RawHost; admin: RawHost }> {
  const rig = await createRig(t, options);
  const { cntlid, host } = await rig.admin();
  return { rig, io: await rig.io(cntlid), admin: host };
}

const query = (id: bigint, selector = 0): CommandFields => ({
  opcode: kvOpcodes.query.opcode,
  ...idFields(id),
  cdw12: selector,
});
const readBack = (id: bigint, tokenStart: number, tokenCount: number, cdw12: number, cdw15 = 0): CommandFields => ({
  opcode: kvOpcodes.readBack.opcode,
  ...idFields(id),
  cdw12,
  cdw13: tokenStart,
  cdw14: tokenCount,
  cdw15,
});

async function lengthsOf(io: RawHost, id: bigint): Promise<number[]> {
  const { data, status } = await io.read(query(id), 256 + 8);
  assert.equal(status, 0);
  return [data.readUInt32LE(256), data.readUInt32LE(260)];
}

describe('create', () => {
  test('gives the asked id, shows shape and label, and refuses the same id again', async (t) => {
    const { io } = await open(t);
    const id = 0x1234_5678_9abc_def0n;
    const fields = { sequenceId: id, label: 'prompt α', groupTokens: 16, leaseSeconds: 60 };
    assert.equal(await createSequence(io, fields), id);
    const { data } = await io.read(query(id), 256);
    const info = sequenceInfo.decode(data);
    assert.equal(info.label, 'prompt α');
    assert.equal(info.sequenceId, id);
    assert.deepEqual(
      [
        info.layerCount,
        info.kvHeadCount,
        info.headDimK,
        info.headDimV,
        info.elementTypeK,
        info.groupTokens,
        info.leaseSeconds,
      ],
      [2, 2, 8, 8, 1, 16, 60],
    );
    assert.notEqual(info.owner, 0n);
    const again = await io.run({ opcode: kvOpcodes.create.opcode, nsid: KV_CACHE_NSID }, createBytes(fields));
    assert.equal(again.status, statusOf('sequenceExists'));
  });

  const bad: readonly (readonly [
    string,
    CreateFields | ((bytes: Uint8Array) => void),
    Parameters<typeof statusOf>[0],
  ])[] = [
    ['version 0', { version: 0 }, 'unsupportedVersion'],
    ['version 2', { version: 2 }, 'unsupportedVersion'],
    ['no layers', { layerCount: 0 }, 'invalidShape'],
    ['too many layers', { layerCount: 513 }, 'invalidShape'],
    ['no heads', { kvHeadCount: 0 }, 'invalidShape'],
    ['narrow K', { headDimK: 7 }, 'invalidShape'],
    ['wide V', { headDimV: 257 }, 'invalidShape'],
    ['element type 0', { elementTypeK: 0 }, 'invalidField'],
    ['element type 9', { elementTypeV: 9 }, 'invalidField'],
    ['groups larger than a page', { groupTokens: 100_000 }, 'invalidShape'],
    ['first reserved byte', (bytes) => (bytes[28] = 1), 'invalidField'],
    ['last reserved byte', (bytes) => (bytes[255] = 1), 'invalidField'],
    ['label that is no UTF-8', (bytes) => (bytes[64] = 0xff), 'invalidField'],
    ['label with something behind its end', (bytes) => (bytes[80] = 65), 'invalidField'],
    ['label with a line feed', { label: 'a\nb' }, 'invalidField'],
  ];
  for (const [what, change, code] of bad) {
    test(`refuses ${what}`, async (t) => {
      const { io } = await open(t);
      const bytes = createBytes(typeof change === 'function' ? {} : change);
      if (typeof change === 'function') change(bytes);
      assert.equal(
        (await io.run({ opcode: kvOpcodes.create.opcode, nsid: KV_CACHE_NSID }, bytes)).status,
        statusOf(code),
      );
      assert.deepEqual((await io.read(query(0n, 1), 8)).data, Buffer.alloc(8));
    });
  }

  test('data of another length', async (t) => {
    const { io } = await open(t);
    for (const data of [createBytes().subarray(0, 252), Buffer.alloc(260), undefined]) {
      const completion = await io.run({ opcode: kvOpcodes.create.opcode, nsid: KV_CACHE_NSID }, data);
      assert.equal(completion.status, statusOf('sglDataLength'));
    }
  });
});

describe('append and read back', () => {
  test('token by token and many at once, by capsule and by R2T', async (t) => {
    const { rig, io } = await open(t);
    const id = await createSequence(io);
    assert.equal((await append(io, id, 0, 1)).dw0, 1);
    assert.equal((await append(io, id, 1, 300)).dw0, 301);
    assert.deepEqual(await lengthsOf(io, id), [301, 0]);
    const length = 301 * 2 * 8 * 4 * 2;
    const back = await io.read(readBack(id, 0, 301, transfer({ part: 3 })), length);
    assert.equal(back.status, 0);
    assert.deepEqual(floatsOf(back.data), rows(0, 301));
    assert.equal(rig.arena.freeBytes > 0, true);
    const { counters } = rig.subsystem.snapshot();
    assert.deepEqual([counters.kvAppendedBytes, counters.kvReadBackBytes], [length, length]);
  });

  for (const mapsRegions of [true, false]) {
    test(`V rows apart from K rows, in a region that is ${mapsRegions ? 'mapped' : 'not mapped'}`, async (t) => {
      const { rig, io, admin } = await open(t, { mapsRegions });
      const id = await createSequence(io);
      const { key, path } = await createRegion(admin, 65_536);
      const all = bytesOf(rows(0, 40));
      const half = all.length / 2;
      const file = Buffer.alloc(65_536, 0xee);
      file.set(all.subarray(0, half), 100);
      file.set(all.subarray(half), 9000);
      writeFileSync(path, file, { flag: 'r+' });
      const run = async (distance: number, offset = 100, length = all.length) => {
        const sgl = { kind: 'keyed', key, offset, length } as const;
        return (await io.run({ ...appendFields(id, 0, 40), cdw15: distance, sgl })).status;
      };
      assert.equal(await run(half - 1), statusOf('invalidField'), 'V rows in K rows');
      assert.equal(await run(65_536 - 100 - half + 1), statusOf('sglDataBlock'), 'V rows outside the region');
      assert.equal(await run(0xffff_ffff), statusOf('sglDataBlock'));
      assert.equal(await run(8900, 100, all.length - 64), statusOf('sglDataLength'));
      const inCapsule = await io.run({ ...appendFields(id, 0, 40), cdw15: half }, all);
      assert.equal(inCapsule.status, statusOf('invalidField'));
      assert.deepEqual(await lengthsOf(io, id), [0, 0]);
      assert.equal(await run(8900), 0);
      const back = await io.read(readBack(id, 0, 40, transfer({ part: 3 })), all.length);
      assert.deepEqual(Buffer.from(back.data), Buffer.from(all));
      assert.equal(await run(8900), 0, 'a repeat');
      assert.equal(rig.arena.freeBytes > 0, true);
    });
  }

  test('from a region that is deleted while the command waits for its turn: a status', async (t) => {
    const { rig, io, admin } = await open(t, { limits: { connectionDataBytesMax: 65_536 } });
    const id = await createSequence(io);
    const all = bytesOf(rows(0, 40));
    const [first, second] = [await createRegion(admin, 65_536), await createRegion(admin, 65_536)];
    rig.blocks.gate.shut();
    const write = { opcode: nvmOpcodes.write.opcode, nsid: BLOCK_NSID, cdw12: 15 };
    io.send({ ...write, sgl: { kind: 'keyed', key: first.key, offset: 0, length: 65_536 } });
    io.send({ ...appendFields(id, 0, 40), sgl: { kind: 'keyed', key: second.key, offset: 0, length: all.length } });
    while (rig.blocks.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal((await admin.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: second.key })).status, 0);
    rig.blocks.gate.open();
    const statuses = [(await io.completion()).status, (await io.completion()).status];
    assert.deepEqual(statuses, [0, statusOf('sglDataBlock')]);
    assert.deepEqual(rig.fatals, []);
    assert.deepEqual(await lengthsOf(io, id), [0, 0]);
  });

  test('one head, one part, converted', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    await append(io, id, 0, 10);
    const values = await io.read(readBack(id, 4, 3, transfer({ part: 2, headMajor: true }), 1 | (1 << 16)), 3 * 8 * 4);
    const all = rows(0, 10);
    const wanted = [4, 5, 6].flatMap((token) => [
      ...all.subarray(160 + (token * 2 + 1) * 8, 160 + (token * 2 + 1) * 8 + 8),
    ]);
    assert.deepEqual([...floatsOf(values.data)], wanted);
    const half = await io.read(readBack(id, 0, 10, transfer({ part: 1, elementType: 'f16' })), 10 * 2 * 8 * 2);
    assert.equal(half.status, 0);
  });

  test('a repeat succeeds, different bytes are a conflict, a gap is a gap', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    await append(io, id, 0, 5);
    const repeat = await append(io, id, 0, 5);
    assert.deepEqual([repeat.status, repeat.dw0], [0, 5]);
    assert.equal((await io.run(appendFields(id, 4, 1), bytesOf(rows(9, 1)))).status, statusOf('appendConflict'));
    assert.equal((await append(io, id, 6, 1)).status, statusOf('appendGap'));
    assert.deepEqual(await lengthsOf(io, id), [5, 0]);
  });

  test('FUA syncs the staging log before it completes', async (t) => {
    const { rig, io } = await open(t);
    const id = await createSequence(io);
    const fields = { ...appendFields(id, 0, 1), cdw12: transfer({ fua: true }) };
    assert.equal((await io.run(fields, bytesOf(rows(0, 1)))).status, 0);
    assert.equal(rig.durability.stagingSyncCount, 1);
  });

  const bad: readonly (readonly [
    string,
    (id: bigint) => CommandFields,
    Uint8Array | number,
    Parameters<typeof statusOf>[0],
  ])[] = [
    ['unknown sequence', () => appendFields(99n, 0, 1), bytesOf(rows(0, 1)), 'unknownSequence'],
    ['layer beyond the shape', (id) => appendFields(id, 0, 1, 2), bytesOf(rows(0, 1)), 'layerRange'],
    ['no tokens', (id) => appendFields(id, 0, 0), bytesOf(rows(0, 1)), 'tokenRange'],
    ['tokens beyond the limit', (id) => appendFields(id, 0x7fff_ffff, 1), bytesOf(rows(0, 1)), 'tokenRange'],
    ['position FFFFFFFFh', (id) => appendFields(id, 0xffff_ffff, 1), bytesOf(rows(0, 1)), 'tokenRange'],
    ['too little data', (id) => appendFields(id, 0, 2), bytesOf(rows(0, 1)), 'sglDataLength'],
    ['too much data', (id) => appendFields(id, 0, 1), bytesOf(rows(0, 2)), 'sglDataLength'],
    ['element type', (id) => ({ ...appendFields(id, 0, 1), cdw12: 7 << 16 }), bytesOf(rows(0, 1)), 'invalidField'],
    ['part in append', (id) => ({ ...appendFields(id, 0, 1), cdw12: 1 << 25 }), bytesOf(rows(0, 1)), 'invalidField'],
    ['read back: unknown sequence', () => readBack(99n, 0, 1, transfer({ part: 1 })), 64, 'unknownSequence'],
    ['read back: no part', (id) => readBack(id, 0, 1, 0), 64, 'invalidField'],
    ['read back: FUA', (id) => readBack(id, 0, 1, transfer({ part: 1, fua: true })), 64, 'invalidField'],
    ['read back: no tokens', (id) => readBack(id, 0, 0, transfer({ part: 1 })), 64, 'tokenRange'],
    ['read back: beyond the length', (id) => readBack(id, 5, 1, transfer({ part: 1 })), 64, 'tokenRange'],
    ['read back: layer', (id) => readBack(id, 0, 1, transfer({ part: 1, layer: 2 })), 64, 'layerRange'],
    ['read back: first head', (id) => readBack(id, 0, 1, transfer({ part: 1 }), 2), 64, 'headRange'],
    ['read back: heads', (id) => readBack(id, 0, 1, transfer({ part: 1 }), 1 | (2 << 16)), 64, 'headRange'],
    ['read back: too little room', (id) => readBack(id, 0, 1, transfer({ part: 1 })), 60, 'sglDataLength'],
    ['read back: too much room', (id) => readBack(id, 0, 1, transfer({ part: 1 })), 68, 'sglDataLength'],
  ];
  for (const [what, fields, data, code] of bad) {
    test(`refuses ${what}`, async (t) => {
      const { rig, io } = await open(t);
      const id = await createSequence(io);
      await append(io, id, 0, 5);
      const used = rig.arena.freeBytes;
      const completion = typeof data === 'number' ? await io.read(fields(id), data) : await io.run(fields(id), data);
      assert.equal(completion.status, statusOf(code));
      assert.deepEqual(await lengthsOf(io, id), [5, 0]);
      assert.equal(rig.arena.freeBytes, used);
    });
  }
});

describe('fork, truncate, reclaim', () => {
  const fork = (id: bigint, tokenCount: number): CommandFields => ({
    opcode: kvOpcodes.fork.opcode,
    ...idFields(id),
    cdw12: tokenCount,
  });
  const forkBytes = (fields: CreateFields = {}) =>
    createBytes({
      layerCount: 0,
      kvHeadCount: 0,
      headDimK: 0,
      headDimV: 0,
      elementTypeK: 0,
      elementTypeV: 0,
      ...fields,
    });

  test('a fork shares a prefix', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    await append(io, id, 0, 20);
    const child = idOf(await io.run(fork(id, 7), forkBytes({ label: 'child' })));
    const whole = idOf(await io.run(fork(id, ALL_TOKENS), forkBytes()));
    assert.deepEqual(await lengthsOf(io, child), [7, 0]);
    assert.deepEqual(await lengthsOf(io, whole), [20, 0]);
    assert.equal(sequenceInfo.decode((await io.read(query(child), 256)).data).parentSequenceId, id);
  });

  test('a fork inherits its shape: any shape field is refused', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    for (const name of [
      'layerCount',
      'kvHeadCount',
      'headDimK',
      'headDimV',
      'elementTypeK',
      'elementTypeV',
      'groupTokens',
    ]) {
      const completion = await io.run(fork(id, 0), forkBytes({ [name]: 1 }));
      assert.equal(completion.status, statusOf('invalidField'), name);
    }
    assert.equal((await io.run(fork(99n, 0), forkBytes())).status, statusOf('unknownSequence'));
  });

  test('truncate of one layer and of all', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    await append(io, id, 0, 20, 0);
    await append(io, id, 0, 20, 1);
    const truncate = (layer: number, length: number) =>
      io.run({ opcode: kvOpcodes.truncate.opcode, ...idFields(id), cdw12: layer, cdw13: length });
    assert.equal((await truncate(1, 9)).status, 0);
    assert.deepEqual(await lengthsOf(io, id), [20, 9]);
    assert.equal((await truncate(1, 10)).status, statusOf('tokenRange'));
    assert.equal((await truncate(2, 0)).status, statusOf('layerRange'));
    assert.equal((await truncate(0x1_0000, 0)).status, statusOf('invalidField'));
    assert.equal((await truncate(ALL_LAYERS, 5)).status, 0);
    assert.deepEqual(await lengthsOf(io, id), [5, 5]);
  });

  test('reclaim', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    const reclaim = () => io.run({ opcode: kvOpcodes.reclaim.opcode, ...idFields(id) });
    assert.equal((await reclaim()).status, 0);
    assert.equal((await reclaim()).status, statusOf('unknownSequence'));
  });

  test('flush', async (t) => {
    const { rig, io } = await open(t);
    assert.equal((await io.run({ opcode: kvOpcodes.flush.opcode, nsid: KV_CACHE_NSID })).status, 0);
    assert.equal(rig.durability.flushCount, 1);
  });
});

describe('query', () => {
  test('lists ids in ascending order, from where it is told', async (t) => {
    const { io } = await open(t);
    for (const sequenceId of [7n, 2n ** 40n, 3n]) await createSequence(io, { sequenceId });
    const list = async (after: bigint, count: number) => {
      const { data, dw0 } = await io.read(query(after, 1), count * 8);
      return { count: dw0, ids: Array.from({ length: count }, (_, i) => data.readBigUInt64LE(i * 8)) };
    };
    assert.deepEqual(await list(0n, 4), { count: 3, ids: [3n, 7n, 2n ** 40n, 0n] });
    assert.deepEqual(await list(3n, 1), { count: 1, ids: [7n] });
    assert.deepEqual(await list(2n ** 40n, 1), { count: 0, ids: [0n] });
  });

  test('bad lengths, selectors and ids', async (t) => {
    const { io } = await open(t);
    const id = await createSequence(io);
    assert.equal((await io.read(query(id), 252)).status, statusOf('sglDataLength'));
    assert.equal((await io.read(query(0n, 1), 12)).status, statusOf('sglDataLength'));
    assert.equal((await io.run(query(0n, 1))).status, statusOf('sglDataLength'));
    assert.equal((await io.read(query(0n, 1), 65_544)).status, statusOf('sglDataLength'));
    assert.equal((await io.read(query(id, 2), 256)).status, statusOf('invalidField'));
    assert.equal((await io.read(query(99n), 256)).status, statusOf('unknownSequence'));
    // More room than there are lengths: only what there is comes.
    assert.equal((await io.read(query(id), 1024)).data.length, 264);
  });
});
