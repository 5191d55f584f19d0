/** The SDK with digests against the drive's own transport, and a wire between them that changes a bit now and then. */
import assert from 'node:assert/strict';
import { createServer, connect as connectSocket, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { type ConnectOptions, DriveClient, DriveDigestError, DriveDisconnectedError } from '../../client/index.ts';
import { pduTypes } from '../../spec/pdu.ts';
import { createRig } from '../controller/rig.ts';

const LBA = 4096;
const bytesOf = (count: number): Uint8Array =>
  Uint8Array.from({ length: count * LBA }, (_, i) => (i * 13 + (i >> 7)) & 0xff);

/** Passes bytes on both ways; `change` may spoil what goes to the client, or to the drive. */
async function wire(t: TestContext, target: string, change: (chunk: Buffer, to: 'client' | 'drive') => void) {
  const port = Number(target.slice(target.lastIndexOf(':') + 1));
  const sockets: Socket[] = [];
  const server = createServer((near) => {
    const far = connectSocket(port, '127.0.0.1');
    sockets.push(near, far);
    near.on('data', (chunk: Buffer) => {
      change(chunk, 'drive');
      far.write(chunk);
    });
    far.on('data', (chunk: Buffer) => {
      change(chunk, 'client');
      near.write(chunk);
    });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('error', () => undefined);
      from.on('close', () => to.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const open = async (t: TestContext, address: string, options: ConnectOptions): Promise<DriveClient> => {
  const client = await DriveClient.connect(address, { keepAliveMs: 0, ...options });
  t.after(() => client.close());
  return client;
};

for (const digests of ['off', 'header', 'all'] as const) {
  test(`blocks of every size come back, digests ${digests}`, async (t) => {
    const rig = await createRig(t);
    for (const address of [rig.tcp, rig.unix]) {
      const client = await open(t, address, { digests, regions: 'off', ioQueueCount: 2 });
      for (const count of [1, 8, 9, 300]) {
        await client.block.write(count, bytesOf(count));
        assert.deepEqual(await client.block.read(count, count), bytesOf(count), `${count} blocks`);
      }
    }
  });
}

test('data that changes on its way to the client fails its command, and the next one works', async (t) => {
  const rig = await createRig(t);
  let spoil = false;
  const address = await wire(t, rig.tcp, (chunk, to) => {
    if (!spoil || to !== 'client' || chunk[0] !== pduTypes.c2hData.type || chunk.length < 1000) return;
    chunk[500]! ^= 4;
    spoil = false;
  });
  const client = await open(t, address, { digests: 'all' });
  await client.block.write(0, bytesOf(2));
  spoil = true;
  await assert.rejects(client.block.read(0, 2), (error: unknown) => {
    assert.ok(error instanceof DriveDigestError);
    assert.equal(error.retry, true);
    return true;
  });
  assert.deepEqual(await client.block.read(0, 2), bytesOf(2));
});

test('data that changes on its way to the drive fails its command there, and nothing is written', async (t) => {
  const rig = await createRig(t);
  let spoil = false;
  const address = await wire(t, rig.tcp, (chunk, to) => {
    if (!spoil || to !== 'drive' || chunk.length < 1000) return;
    chunk[chunk.length - 500]! ^= 4;
    spoil = false;
  });
  const client = await open(t, address, { digests: 'all' });
  spoil = true;
  await assert.rejects(client.block.write(0, bytesOf(2)), { code: 'transientTransport', retry: true });
  assert.ok((await client.block.read(0, 2)).every((byte) => byte === 0));
  await client.block.write(0, bytesOf(2));
  assert.deepEqual(await client.block.read(0, 2), bytesOf(2));
});

test('a header that changes ends the connection', async (t) => {
  const rig = await createRig(t);
  let spoil = false;
  const address = await wire(t, rig.tcp, (chunk, to) => {
    if (!spoil || to !== 'drive' || chunk[0] !== pduTypes.capsuleCmd.type) return;
    chunk[50]! ^= 1;
    spoil = false;
  });
  const client = await open(t, address, { digests: 'header' });
  spoil = true;
  await assert.rejects(client.block.read(0, 1), (error: unknown) => {
    return error instanceof DriveDisconnectedError || (error as { code?: string }).code === 'protocol';
  });
  assert.equal(client.isConnected, false);
});
