/** The SDK against the drive's own transport, controller and command handlers. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import {
  type AttendPath,
  dequantise,
  DriveClient,
  DriveDisconnectedError,
  fromF32,
  quantise,
  toF32,
} from '../../client/index.ts';
import { createRig, type Rig } from '../controller/rig.ts';
import { randomArray, randomBytes } from './random.ts';

async function connect(t: TestContext, address: string, options: object = {}): Promise<DriveClient> {
  const client = await DriveClient.connect(address, options);
  t.after(() => client.close());
  return client;
}

const addresses = (rig: Rig): string[] => [rig.unix, rig.tcp];
const shape = { layerCount: 2, kvHeadCount: 2, headDimK: 32, headDimV: 24, elementTypeK: 'f32' } as const;

test("connects, identifies and reads logs and features, by the drive's name or by none", async (t) => {
  const rig = await createRig(t);
  for (const address of addresses(rig)) {
    for (const options of [{}, { subsystemNqn: rig.nqn, ioQueueCount: 3, queueDepth: 16 }]) {
      const client = await connect(t, address, options);
      assert.equal(client.identity.subnqn, rig.nqn);
      assert.deepEqual(await client.controller.activeNamespaces(), [1, 2]);
      assert.equal((await client.controller.identifyNamespace()).nsze, 4096);
      assert.equal((await client.controller.identifyKvNamespace()).pageCount, 100);
      assert.equal((await client.controller.smartLog()).availSpare, 100);
      assert.equal((await client.controller.driveStatistics()).uptimeSeconds, 5);
      assert.equal(await client.controller.getFeature('volatileWriteCache'), 1);
    }
    await assert.rejects(connect(t, address, { subsystemNqn: 'nqn.2026-11.dev.attndrive:other' }), {
      code: 'connectInvalidParameters',
    });
  }
});

test('blocks go and come whole, and out-of-range ones are named', async (t) => {
  const rig = await createRig(t);
  for (const address of addresses(rig)) {
    const client = await connect(t, address);
    const bytes = randomBytes(700 * 4096, 3);
    await client.block.write(11, bytes, { fua: true });
    assert.ok(Buffer.from(await client.block.read(11, 700)).equals(bytes));
    await client.block.deallocate([{ lba: 12, blockCount: 2 }]);
    await client.block.writeZeroes(20, 2);
    const after = await client.block.read(11, 11);
    assert.deepEqual(after.subarray(4096, 3 * 4096), new Uint8Array(8192));
    assert.deepEqual(after.subarray(9 * 4096), new Uint8Array(8192));
    assert.deepEqual(after.subarray(0, 4096), bytes.subarray(0, 4096));
    await client.block.flush();
    await assert.rejects(client.block.read(4090, 7), { code: 'lbaRange', message: /blocks 4090 to 4097/ });
  }
  assert.ok(rig.durability.flushCount > 0);
});

test('a quantised sequence is given floats, in appends and by attends, and gives back floats or its rows', async (t) => {
  const rig = await createRig(t);
  for (const address of addresses(rig)) {
    const client = await connect(t, address);
    for (const type of ['int8', 'int4'] as const) {
      const sequence = await client.kv.create({ layerCount: 1, kvHeadCount: 2, headDimK: 40, elementTypeK: type });
      const keys = randomArray(200 * 80, 6);
      const values = randomArray(200 * 80, 7);
      await sequence.append(0, 0, keys.subarray(80), values.subarray(80));
      await sequence.truncate(0);
      const append = { position: 0, keys, values };
      const queries = randomArray(4 * 40, 8);
      const entry = { sequence, layer: 0, queryHeadsPerKvHead: 2, queries, append };
      const [result] = await client.attend([entry], { statistics: true });
      const back = await sequence.readBack({ layer: 0 });
      assert.deepEqual(back.keys, quantise(keys, type, 40));
      const floats = await sequence.readBack({ layer: 0, part: 'values', elementType: 'f32' });
      assert.deepEqual(floats.values, dequantise(quantise(values, type, 40), type, 40));
      const exact = await client.kv.create({ layerCount: 1, kvHeadCount: 2, headDimK: 40, elementTypeK: 'f32' });
      // Rows of one sequence can be appended to another, of its type or not.
      const rows = [back.keys ?? keys, back.values ?? values] as const;
      await exact.append(0, 0, ...rows, { elementType: type });
      await sequence.append(0, 0, ...rows);
      await assert.rejects(exact.append(0, 0, ...rows), TypeError);
      const [same] = await client.attend([{ ...entry, sequence: exact, append: undefined }], { statistics: true });
      result?.output.forEach((x, i) => assert.ok(Math.abs(x - (same?.output[i] ?? 0)) < 1e-5, `output ${i}`));
      result?.statistics.forEach((x, i) => assert.ok(Math.abs(x - (same?.statistics[i] ?? 0)) < 1e-5));
    }
    await client.close();
  }
});

test('sequences live in the drive: append, read back, fork, truncate, list, reclaim', async (t) => {
  const rig = await createRig(t);
  for (const address of addresses(rig)) {
    const client = await connect(t, address);
    const sequence = await client.kv.create({ ...shape, elementTypeV: 'bf16', groupTokens: 16 }, { label: 'front' });
    const tokens = 3000;
    const keys = randomArray(tokens * 64, 4);
    const values = randomArray(tokens * 48, 5);
    assert.equal(await sequence.append(1, 0, keys, values), tokens);
    assert.equal(await sequence.append(1, tokens - 5, keys.subarray(-5 * 64), values.subarray(-5 * 48)), tokens);
    const back = await sequence.readBack({ layer: 1, elementType: 'f32' });
    assert.deepEqual(back.keys, keys);
    assert.deepEqual(back.values, toF32(fromF32(values, 'bf16'), 'bf16'));
    const { lengths, label, shape: told } = await sequence.info();
    assert.deepEqual([lengths, label], [[0, tokens], 'front']);
    assert.deepEqual(told, sequence.shape);
    const fork = await sequence.fork({ tokenCount: 100, label: 'branch' });
    assert.deepEqual((await fork.info()).lengths, [0, 100]);
    await fork.truncate(40, { layer: 1 });
    const tail = await fork.readBack({ layer: 1, tokenStart: 30, part: 'keys' });
    assert.deepEqual(tail.keys, keys.slice(30 * 64, 40 * 64));
    assert.ok((await client.kv.list()).includes(fork.id));
    await fork.reclaim();
    await assert.rejects(fork.info(), { code: 'unknownSequence' });
    await assert.rejects(sequence.append(0, 1, keys.subarray(0, 64), values.subarray(0, 48)), { code: 'appendGap' });
    const other = keys.slice(0, 64).fill(9);
    await assert.rejects(sequence.append(1, 0, other, values.subarray(0, 48)), { code: 'appendConflict' });
    await client.kv.flush();
    await sequence.reclaim();
  }
});

test('attention is the same through regions, exchange and result slots, and with carried tokens', async (t) => {
  const rig = await createRig(t);
  const results = new Map<AttendPath, unknown>();
  for (const path of ['region', 'exchange', 'slot'] as const) {
    const client = await connect(t, path === 'region' ? rig.unix : rig.tcp);
    const sequence = await client.kv.create(shape);
    await sequence.append(0, 0, randomArray(20 * 64, 6), randomArray(20 * 48, 7));
    const entries = [
      { sequence, layer: 0, queryHeadsPerKvHead: 2, appendTokenCount: 1, appendPosition: 20 },
      { sequence, layer: 0, queryHeadsPerKvHead: 2, queryHeadCount: 1, firstQueryHead: 3, tokenStart: 2, tokenEnd: 9 },
    ];
    const request = await client.prepareAttend(entries, { statistics: true, path });
    const outputs: unknown[] = [];
    for (let step = 0; step < 3; step++) {
      request.entries.forEach(({ queries, keys, values }, index) => {
        queries.set(randomArray(queries.length, 10 + step + index));
        keys.set(randomArray(keys.length, 20 + step));
        values.set(randomArray(values.length, 30 + step));
      });
      if (request.entries[0]) request.entries[0].appendPosition = 20 + step;
      const { flashTokenCount, bufferedTokenCount = 0 } = await request.post();
      assert.equal(flashTokenCount + bufferedTokenCount, 21 + step + 7);
      outputs.push(request.entries.map(({ output, statistics }) => [output.slice(), statistics.slice()]));
    }
    assert.equal((await sequence.info()).lengths[0], 23);
    request.release();
    results.set(path, outputs);
    await sequence.reclaim();
    await assert.rejects(client.attend([{ sequence, layer: 0, queryHeadsPerKvHead: 1, queries: randomArray(64, 1) }]), {
      code: 'unknownSequence',
    });
  }
  assert.deepEqual(results.get('exchange'), results.get('region'));
  assert.deepEqual(results.get('slot'), results.get('region'));
});

test('a region dies with its client, and the drive goes on serving others', async (t) => {
  const rig = await createRig(t);
  const first = await connect(t, rig.unix);
  const second = await connect(t, rig.unix);
  assert.equal(first.sharesMemory, true);
  const region = await first.createRegion(1_000_000);
  const stranger = second.passThrough({ queue: 'admin', opcode: 0xc4, cdw10: region.key });
  await assert.rejects(stranger, { code: 'sglDataBlock' });
  await first.close();
  assert.throws(() => region.read(0, 1), { code: 'regionUnavailable' });
  await assert.rejects(first.flush(), DriveDisconnectedError);
  await second.flush();
});
