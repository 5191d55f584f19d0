/** The SDK and a real daemon over TCP and a Unix socket: queues, transfers, cancellation, control plane, metrics. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { AdminClient, DriveClient, type Sequence } from '../../client/index.ts';
import { adminRoutes } from '../../spec/admin-api.ts';
import { limits } from '../../spec/limits.ts';
import { metrics } from '../../spec/metrics.ts';
import { nvmOpcodes } from '../../spec/opcodes.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { BLOCK_BYTES, blocks, connectTo, rows, runningDrive, shape, Witness } from './served-drive.ts';

let daemon: DaemonProcess;
const clients: { close(): Promise<void> }[] = [];

const kept = <C extends { close(): Promise<void> }>(client: C): C => {
  clients.push(client);
  return client;
};

before(async () => {
  daemon = new DaemonProcess('16MiB');
  const token = join(daemon.runtimeFolder, 'token');
  writeFileSync(token, 'a-token-for-the-control-plane-over-tcp', { mode: 0o600 });
  await daemon.start(['--tcp', '127.0.0.1:0', '--http', '127.0.0.1:0', '--http-token-file', token]);
});

after(async () => {
  for (const client of clients) await client.close();
  await daemon?.remove();
});

const overTcp = async (options = {}): Promise<DriveClient> =>
  kept(await DriveClient.connect(`tcp:${runningDrive(daemon).tcp}`, options));

describe('NVMe/TCP', () => {
  test('namespace 1 by R2T and C2HData, over several queues, without keep alive', async () => {
    const client = await overTcp({ ioQueueCount: 4, keepAliveMs: 0 });
    assert.equal(client.sharesMemory, false);
    const lba = 64;
    const count = (3 * limits.transferBytesMax) / BLOCK_BYTES + 5;
    await client.block.write(lba, blocks(lba, count), { fua: true });
    assert.ok(Buffer.compare(await client.block.read(lba, count), blocks(lba, count)) === 0);
    const { sqes } = client.identity;
    assert.equal(sqes, 0x66);
    await client.block.writeZeroes(lba, 7);
    assert.ok((await client.block.read(lba, 7)).every((byte) => byte === 0));
    await client.block.deallocate([{ lba: lba + 7, blockCount: 3 }]);
    await client.flush(1);
    assert.ok(Buffer.compare(await client.block.read(lba + 10, 9), blocks(lba + 10, 9)) === 0);
  });

  test('MDTS is stated, and what is larger is refused', async () => {
    const client = await overTcp({ regions: 'off' });
    assert.equal(client.identity.mdts, limits.mdtsExponent);
    const read = (blockCount: number) =>
      client.passThrough({
        queue: 'io',
        opcode: nvmOpcodes.read.opcode,
        namespaceId: 1,
        cdw12: blockCount - 1,
        receiveBytes: blockCount * BLOCK_BYTES,
      });
    const most = limits.transferBytesMax / BLOCK_BYTES;
    assert.equal((await read(most)).data.length, limits.transferBytesMax);
    await assert.rejects(read(most + 1), { code: 'invalidField' });
  });

  test('many connections at once, each with its own queues, all right', async () => {
    const work = async (index: number): Promise<void> => {
      const client = await overTcp({ ioQueueCount: 3, queueDepth: 8 });
      const sequence = await client.kv.create(shape, { label: `of ${index}` });
      await sequence.append(0, 0, rows(0, 60, index), rows(0, 60, index));
      const lba = 2000 + index * 50;
      await Promise.all(Array.from({ length: 50 }, (_, i) => client.block.write(lba + i, blocks(lba + i, 1, index))));
      const { keys } = await sequence.readBack({ layer: 0 });
      assert.deepEqual(keys, rows(0, 60, index));
      assert.ok(Buffer.compare(await client.block.read(lba, 50), blocks(lba, 50, index)) === 0);
      await sequence.reclaim();
    };
    await Promise.all(Array.from({ length: 8 }, (_, index) => work(index)));
  });
});

describe('the SDK', () => {
  let client: DriveClient;
  let sequence: Sequence;
  before(async () => {
    client = kept(await connectTo(daemon));
    sequence = await client.kv.create(shape);
    await sequence.append(0, 0, rows(0, 200), rows(0, 200, 3));
  });

  test('several commands in flight give what they give one by one', async () => {
    const entry = (i: number) => ({ sequence, layer: 0, queryHeadsPerKvHead: 2, queries: rows(i, 2), tokenEnd: 9 + i });
    const alone: Float32Array[] = [];
    const outputOf = async (i: number) => (await client.attend([entry(i)]))[0]?.output as Float32Array;
    for (let i = 0; i < 40; i++) alone.push(await outputOf(i));
    const together = Promise.all(Array.from({ length: 40 }, (_, i) => outputOf(i)));
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(client.inFlightCount > 1, `${client.inFlightCount} in flight`);
    assert.deepEqual(await together, alone);
  });

  test('an aborted command is given up at once, its neighbours and the connection go on', async () => {
    const stop = new AbortController();
    const reads = Array.from({ length: 30 }, (_, i) =>
      client.block.read(i, 200, i % 2 === 0 ? { signal: stop.signal } : {}),
    );
    stop.abort(new Error('enough'));
    const results = await Promise.allSettled(reads);
    results.forEach(({ status }, i) => assert.equal(status, i % 2 === 0 ? 'rejected' : 'fulfilled', `read ${i}`));
    for (const result of results) if (result.status === 'rejected') assert.equal(result.reason.message, 'enough');
    const signal = AbortSignal.abort(new Error('before'));
    await assert.rejects(
      client.attend([{ sequence, layer: 0, queryHeadsPerKvHead: 2, queries: rows(0, 2) }], { signal }),
      {
        message: 'before',
      },
    );
    assert.equal((await sequence.info()).lengths[0], 200);
  });
});

describe('the control plane', () => {
  test('every route answers over socket and TCP, and tells of the real drive', async () => {
    const { adminSocket, http, serial } = runningDrive(daemon);
    const client = kept(await connectTo(daemon));
    const witness = await Witness.write(client);
    const token = join(daemon.runtimeFolder, 'token');
    for (const [address, options] of [
      [`unix:${adminSocket}`, {}],
      [`http://${http}`, { tokenFile: token }],
    ] as const) {
      const admin = kept(new AdminClient(address, options));
      assert.deepEqual(await admin.health(), { state: 'ready', live: true, ready: true, readOnly: false, detail: '' });
      const drive = await admin.drive();
      assert.equal(drive.serial, serial);
      assert.ok(drive.geometry.superblockCount >= limits.superblockCountMin);
      assert.deepEqual(
        (await admin.namespaces()).map(({ namespaceId }) => namespaceId),
        [1, 2],
      );
      const { items } = await admin.sequences();
      const listed = items.find(({ id }) => id === String(witness.sequence.id));
      assert.equal(listed?.tokenCountMin, Witness.tokenCount);
      const detail = await admin.sequence(witness.sequence.id);
      assert.deepEqual(detail.lengths, [Witness.tokenCount, Witness.tokenCount]);
      // 16 tokens of 64 bytes in a page of 4 KiB.
      assert.deepEqual([detail.blockTable.groupCount, detail.blockTable.paddingBytesPerPageK], [4, 3072]);
      assert.equal(
        detail.blockTable.pagesPerChannel.reduce((sum, n) => sum + n, 0),
        detail.pageCount,
      );
      const connections = await admin.connections();
      assert.ok(connections.some(({ transport, queueId }) => transport === 'unix' && queueId === 1));
      assert.ok(connections.some(({ transport }) => transport === 'tcp'));
      const { summary, items: superblocks } = await admin.blocks({ limit: 5 });
      assert.equal(
        Object.values(summary.byState).reduce((sum, n) => sum + n, 0),
        summary.superblockCount,
      );
      assert.equal(superblocks.length, 5);
      assert.deepEqual(await admin.faults(), []);
      const notAllowed = { code: 'faultsNotAllowed', httpStatus: 403 };
      await assert.rejects(admin.addFault({ kind: 'read-failure' }), notAllowed);
      await assert.rejects(admin.removeFault('1'), notAllowed);
      assert.equal((await admin.scrub()).badPageCount, 0);
      assert.equal((await admin.startScrub()).badPageCount, 0);
      assert.ok((await admin.flush()).durationSeconds >= 0);
      await assert.rejects(admin.sequence(4711n), { code: 'unknownSequence', httpStatus: 404 });
      const mine = await client.kv.create(shape);
      await admin.reclaim(mine.id);
      await assert.rejects(mine.info(), { code: 'unknownSequence' });
    }
    assert.equal(Object.keys(adminRoutes).length, 15, 'a route that this test does not know');
    await witness.check();
  });

  test('the metrics of a drive that worked are there, and promtool accepts them', async (t) => {
    const admin = kept(new AdminClient(`unix:${runningDrive(daemon).adminSocket}`));
    const client = kept(await connectTo(daemon));
    const witness = await Witness.write(client);
    await client.attend([{ sequence: witness.sequence, layer: 0, queryHeadsPerKvHead: 1, queries: rows(0, 1) }]);
    await assert.rejects(client.kv.open(4711n), { code: 'unknownSequence' });
    const text = await admin.metrics();
    const valueOf = (pattern: RegExp): number => Number(pattern.exec(text)?.[1] ?? Number.NaN);
    assert.ok(valueOf(/^attndrive_commands_total\{.*opcode="ATTN".*status="success".*\} (\S+)$/m) >= 1);
    assert.ok(valueOf(/^attndrive_commands_total\{.*status="unknownSequence".*\} (\S+)$/m) >= 1);
    assert.ok(valueOf(/^attndrive_attend_tokens_total\{source="flash"\} (\S+)$/m) >= 32);
    assert.ok(valueOf(/^attndrive_superblocks\{state="free"\} (\S+)$/m) > 0);
    // Those of device time: test/tools/device-time.test.ts.
    const isTimed = /^attndrive_(device_|completions_|hold_)/;
    const withoutSamples = Object.values(metrics)
      .map(({ name }) => name)
      .filter((name) => !isTimed.test(name))
      .filter((name) => !new RegExp(`^${name}(_count)?(\\{| )`, 'm').test(text));
    assert.deepEqual(withoutSamples, []);
    assert.ok(text.includes('nodejs_eventloop_lag_seconds'));
    const run = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
    if (run.error) t.skip('SKIPPED: promtool is not installed (Debian: prometheus)');
    else assert.equal(run.status, 0, run.stdout + run.stderr);
  });

  test('a drive that stops takes its control plane with it, and says where to start it again', async () => {
    const { adminSocket, nvmeSocket } = runningDrive(daemon);
    for (const client of clients.splice(0)) await client.close();
    assert.equal(await daemon.end('SIGTERM'), 0);
    const admin = new AdminClient(`unix:${adminSocket}`);
    await assert.rejects(admin.health(), { code: 'unreachable' });
    await admin.close();
    await assert.rejects(DriveClient.connect(`unix:${nvmeSocket}`), { code: 'unreachable' });
    assert.throws(() => runningDrive(daemon), { code: 'unreachable', message: /attndrive start/ });
  });
});
