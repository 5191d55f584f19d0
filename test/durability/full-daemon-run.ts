// A daemon whose file system fills up under its clients. Argument: an empty folder. To be run with mounts of its own.
import assert from 'node:assert/strict';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { DriveCommandError } from '../../client/index.ts';
import { blocks, connectTo, rows, shape, Witness } from '../e2e/served-drive.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { run } from './own-mounts.ts';

const [, , folder = ''] = process.argv;
run('mount', '-t', 'tmpfs', '-o', 'size=24m', 'none', folder);
process.env['TMPDIR'] = folder;
const ballast = `${folder}/ballast`;

function fill(): void {
  const descriptor = openSync(ballast, 'a');
  try {
    for (;;) writeSync(descriptor, Buffer.alloc(4096, 1));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  } finally {
    closeSync(descriptor);
  }
}

const daemon = new DaemonProcess('16MiB');
try {
  await daemon.start();
  const client = await connectTo(daemon);
  const witness = await Witness.write(client);
  fill();
  let refused: unknown;
  for (let lba = 1000; refused === undefined && lba < 4000; lba += 16) {
    await client.block.write(lba, blocks(lba, 16)).catch((error: unknown) => (refused = error));
  }
  assert.ok(refused instanceof DriveCommandError, 'a full disk refuses writes');
  assert.deepEqual([refused.code, refused.retry], ['writeFault', false]);
  await assert.rejects(client.kv.flush(), { code: 'writeFault' });
  // What is there is read and attended to.
  await witness.check();
  const entry = { sequence: witness.sequence, layer: 0, queryHeadsPerKvHead: 1, queries: rows(0, 1) };
  assert.equal((await client.attend([entry])).length, 1);
  // Room again.
  rmSync(ballast);
  await client.block.write(1000, blocks(1000, 300));
  const sequence = await client.kv.create(shape);
  await sequence.append(0, 0, rows(0, 50), rows(0, 50));
  await client.kv.flush();
  await daemon.end('SIGKILL');
  await daemon.start();
  const again = await connectTo(daemon);
  await (await witness.through(again)).check();
  const found = await again.block.read(1000, 300);
  assert.equal(Buffer.compare(found, blocks(1000, 300)), 0);
  await again.close();
  await daemon.end('SIGTERM');
  // A stop whose last checkpoint finds no room says so, and loses nothing that was durable.
  await daemon.start(['--checkpoint-interval', '3600000']);
  const last = await connectTo(daemon);
  for (let i = 0; i < 20; i++) await (await last.kv.create(shape)).append(0, 0, rows(0, 15), rows(0, 15));
  fill();
  await last.close();
  assert.equal(await daemon.end('SIGTERM'), 1);
  assert.match(daemon.said, /attndrive: write fault: .*the disk is full/);
  rmSync(ballast);
  await daemon.start();
  await (await witness.through(await connectTo(daemon))).check();
  assert.equal(await daemon.end('SIGTERM'), 0);
} finally {
  await daemon.remove();
}
