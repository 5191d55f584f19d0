/** kill -9 of a real daemon, in the middle of commands: what callers see, and what is there afterwards. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { DriveDisconnectedError } from '../../client/index.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { BLOCK_BYTES, blocks, connectTo, rows, shape, Witness } from './served-drive.ts';

let daemon: DaemonProcess;

before(async () => {
  daemon = new DaemonProcess('16MiB');
  // Nothing becomes durable by itself here.
  await daemon.start(['--checkpoint-interval', '3600000']);
});

after(() => daemon?.remove());

test('commands under way fail with a stable code; flushed data is all there, an unflushed block old or new', async () => {
  const client = await connectTo(daemon, { ioQueueCount: 2 });
  const witness = await Witness.write(client);
  const unflushed = { first: 1000, count: 300 };
  await client.block.write(unflushed.first, blocks(unflushed.first, unflushed.count, 1));
  const forked = await witness.sequence.fork({ tokenCount: 20, label: 'forked' });
  await client.flush();
  const sequence = await client.kv.create(shape, { label: 'not flushed' });
  await sequence.append(0, 0, rows(0, 100), rows(0, 100));
  for (let lba = unflushed.first; lba < unflushed.first + 100; lba++) await client.block.write(lba, blocks(lba, 1, 2));

  const stop = new AbortController();
  const failures: unknown[] = [];
  const loop = async (work: (i: number) => Promise<unknown>): Promise<void> => {
    try {
      for (let i = 0; !stop.signal.aborted; i++) await work(i);
    } catch (error) {
      failures.push(error);
    }
  };
  const entry = { sequence: witness.sequence, layer: 0, queryHeadsPerKvHead: 1, queries: rows(0, 1) };
  const lbaOf = (i: number): number => unflushed.first + 100 + (i % 200);
  const loops = [
    loop((i) => client.block.write(lbaOf(i), blocks(lbaOf(i), 1, 2))),
    loop((i) => sequence.append(1, i, rows(i, 1), rows(i, 1))),
    loop(() => client.attend([entry])),
    loop(() => witness.sequence.readBack({ layer: 1 })),
  ];
  await client.block.read(0, 1);
  await daemon.end('SIGKILL');
  const reason = await client.disconnected;
  stop.abort();
  await Promise.all(loops);
  assert.ok(reason instanceof DriveDisconnectedError);
  assert.equal(failures.length, loops.length);
  for (const error of failures) {
    assert.ok(error instanceof DriveDisconnectedError, String(error));
    assert.deepEqual([error.code, error.retry], ['disconnected', true]);
  }
  await assert.rejects(client.block.read(0, 1), { code: 'disconnected' });

  await daemon.start();
  const again = await connectTo(daemon);
  await (await witness.through(again)).check();
  const { keys } = await (await again.kv.open(forked.id)).readBack({ layer: 1 });
  assert.deepEqual(keys, rows(0, 20, 1));
  const found = await again.block.read(unflushed.first, unflushed.count);
  for (let i = 0; i < unflushed.count; i++) {
    const block = found.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
    const whole = [1, 2].some((round) => Buffer.compare(block, blocks(unflushed.first + i, 1, round)) === 0);
    assert.ok(whole, `block ${unflushed.first + i} is neither old nor new`);
  }
  // What was not flushed is gone or a prefix; the same append may simply be repeated.
  const rest = (await again.kv.list()).includes(sequence.id) ? await again.kv.open(sequence.id) : undefined;
  if (rest) assert.equal(await rest.append(0, 0, rows(0, 100), rows(0, 100)), 100);
  const { unsafeShutdowns } = await again.controller.smartLog();
  assert.ok(Number(unsafeShutdowns) >= 1);
  await again.close();
});
