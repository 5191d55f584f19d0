/** A daemon that reads and writes flash pages past the page cache, against one that maps them: the same outputs, bit for bit. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { AdminClient, DriveClient, locateDrive } from '../../client/index.ts';
import { fillSequence, prepareQuery } from '../../tools/bench/drive-layers.ts';
import { layerBytes } from '../../tools/bench/shapes.ts';
import { skipDirect } from '../nand/direct-file.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';

const MIB = 2 ** 20;
/** 96 MiB of keys and values. */
const shape = {
  name: 'direct I/O',
  queryHeadCount: 4,
  kvHeadCount: 2,
  headDim: 64,
  tokenCount: 24_576,
  layerCount: 8,
};
const PAGES = (layerBytes(shape) * shape.layerCount) / 4096;
const direct = ['--kernels', 'native', '--workers', '2', '--io', 'direct', '--cache-size', '64MiB'];

/** What ATTN gives for each layer, over and over. */
async function attendAll(daemon: DaemonProcess, sequenceId: bigint, cycles: number): Promise<string[]> {
  const client = await DriveClient.connect(locateDrive(daemon.folder).address);
  const request = await prepareQuery(client, await client.kv.open(sequenceId), shape);
  const outputs: string[] = [];
  for (let cycle = 0; cycle < cycles; cycle++) {
    for (let layer = 0; layer < shape.layerCount; layer++) {
      request.entries[0]!.layer = layer;
      await request.post();
      outputs[layer] = Buffer.from(request.entries[0]!.output.buffer).toString('base64');
    }
  }
  request.release();
  await client.close();
  return outputs;
}

async function withAdmin<T>(daemon: DaemonProcess, work: (admin: AdminClient) => Promise<T>): Promise<T> {
  const admin = new AdminClient(locateDrive(daemon.folder).adminAddress!);
  try {
    return await work(admin);
  } finally {
    await admin.close();
  }
}

describe('direct I/O', { skip: skipDirect }, () => {
  const daemon = new DaemonProcess('128MiB');
  let sequenceId: bigint;

  before(async () => {
    await daemon.start(direct);
    const client = await DriveClient.connect(locateDrive(daemon.folder).address);
    sequenceId = (await fillSequence(client, shape, () => undefined)).id;
    await client.close();
  });
  after(() => daemon.remove());

  test('more pages than the cache holds, layer after layer', async () => {
    const outputs = await attendAll(daemon, sequenceId, 4);
    const { cache } = await withAdmin(daemon, (admin) => admin.drive());
    assert.equal(cache.kind, 'direct');
    assert.equal(cache.capacityBytes, 64 * MIB);
    assert.equal(cache.hitPages + cache.missPages, 4 * PAGES);
    // An LRU would have none.
    assert.ok(cache.hitPages > 0.4 * PAGES, `${cache.hitPages} hits`);
    assert.ok(cache.missPages >= PAGES && cache.loadCount < cache.missPages / 8, `${cache.loadCount} loads`);
    assert.ok(cache.evictedPages > 0 && cache.residentBytes <= cache.capacityBytes);
    const metrics = await withAdmin(daemon, (admin) => admin.metrics());
    assert.match(metrics, new RegExp(`attndrive_cache_pages_total\\{result="hit"\\} ${cache.hitPages}\n`));
    assert.match(metrics, /attndrive_cache_bytes\{what="capacity"\} 67108864\n/);
    assert.equal(await daemon.end('SIGTERM'), 0, daemon.said);
    await daemon.start(['--kernels', 'native', '--io', 'mapped']);
    assert.deepEqual(await attendAll(daemon, sequenceId, 1), outputs);
    assert.equal((await withAdmin(daemon, (admin) => admin.drive())).cache.kind, 'mapping');
    await daemon.end('SIGKILL');
    await daemon.start(direct);
    assert.deepEqual(await attendAll(daemon, sequenceId, 1), outputs);
  });

  test('many commands at once, of many clients', async () => {
    const outputs = await attendAll(daemon, sequenceId, 1);
    const all = await Promise.all(Array.from({ length: 6 }, () => attendAll(daemon, sequenceId, 2)));
    for (const each of all) assert.deepEqual(each, outputs);
  });
});
