/** Clients that die, stop or crawl while they hold the drive's memory: all of it comes back, and nobody else notices. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { AdminClient, type DriveClient } from '../../client/index.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { connectTo, runningDrive, Witness } from './served-drive.ts';

const daemon = new DaemonProcess('64MiB');
let admin: AdminClient;
let witness: Witness;
let bystander: DriveClient;
const children: ChildProcess[] = [];

before(async () => {
  await daemon.start(['--tcp', '127.0.0.1:0']);
  admin = new AdminClient(`unix:${runningDrive(daemon).adminSocket}`);
  bystander = await connectTo(daemon);
  witness = await Witness.write(bystander);
});
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await bystander?.close();
  await admin?.close();
  await daemon.remove();
});

async function gauge(name: string): Promise<number> {
  const text = await admin.metrics();
  return [...text.matchAll(new RegExp(`^(?:attndrive_)?${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce(
    (sum, [, value]) => sum + Number(value),
    0,
  );
}
const usedBytes = async (): Promise<number> =>
  Number(/attndrive_buffer_bytes\{state="used"\} (\d+)/.exec(await admin.metrics())?.[1]);

/** Attends over and over through a region of memory; says when it has begun. */
const client = `
  import { DriveClient } from ${JSON.stringify(new URL('../../client/index.js', import.meta.url).href)};
  const drive = await DriveClient.connect(process.argv[1], { ioQueueCount: 4 });
  const shape = { layerCount: 1, kvHeadCount: 2, headDimK: 64, elementTypeK: 'f32' };
  const sequence = await drive.kv.create(shape);
  const rows = new Float32Array(256 * 2 * 64).fill(0.5);
  await sequence.append(0, 0, rows, rows);
  const loops = Array.from({ length: 8 }, async () => {
    const request = await drive.prepareAttend([{ sequence, queryHeadsPerKvHead: 4, queryTokenCount: 64 }]);
    request.entries[0].layer = 0;
    for (;;) await request.post();
  });
  setTimeout(() => console.log('busy', drive.sharesMemory), 300);
  await Promise.all(loops);`;

async function startClient(): Promise<ChildProcess> {
  const address = `unix:${runningDrive(daemon).nvmeSocket}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', client, address], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  assert.equal(said.toString(), 'busy true\n');
  return child;
}

test('killed with its region in use, again and again: region, memory and queues come back', async () => {
  const regions = join(dirname(runningDrive(daemon).nvmeSocket), 'regions');
  const filesBefore = readdirSync(regions).length;
  const before = {
    associations: await gauge('associations'),
    connections: await gauge('connections'),
    bytes: await usedBytes(),
  };
  for (let round = 0; round < 4; round++) {
    const child = await startClient();
    assert.ok(readdirSync(regions).length > filesBefore);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await witness.check();
  }
  const deadlineMs = performance.now() + 20_000;
  while ((await gauge('connections')) > before.connections || (await gauge('commands_in_flight')) > 0) {
    assert.ok(performance.now() < deadlineMs, 'connections of dead clients stay');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(await gauge('associations'), before.associations);
  assert.equal(readdirSync(regions).length, filesBefore);
  for (const id of await bystander.kv.list())
    if (id !== witness.sequence.id) await (await bystander.kv.open(id)).reclaim();
  const grownBytes = (await usedBytes()) - before.bytes;
  assert.ok(grownBytes <= 65_536, `${grownBytes} bytes are held by nobody`);
  await witness.check();
});

test('stopped (SIGSTOP) under load: others go on meanwhile', async () => {
  const child = await startClient();
  child.kill('SIGSTOP');
  await witness.check();
  const other = await connectTo(daemon);
  await (await Witness.write(other)).sequence.reclaim();
  await other.close();
  child.kill('SIGKILL');
  await once(child, 'exit');
});

test('a thousand connections that say nothing or a little: a host gets in, and memory stays', async () => {
  const { tcp } = runningDrive(daemon);
  const [host, port] = tcp.split(':') as [string, string];
  const residentBefore = await gauge('process_resident_memory_bytes');
  const flood: Socket[] = [];
  for (let i = 0; i < 1200; i++) {
    const socket = connect(Number(port), host);
    socket.on('error', () => undefined);
    socket.once('connect', () => socket.write(Buffer.alloc(i % 120, 0)));
    flood.push(socket);
    if (i % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const late = await connectTo(daemon);
  await late.flush();
  await late.close();
  await witness.check();
  assert.ok((await gauge('connections')) <= 1024);
  const grownBytes = (await gauge('process_resident_memory_bytes')) - residentBefore;
  assert.ok(grownBytes < 256 * 2 ** 20, `${grownBytes} bytes more`);
  for (const socket of flood) socket.destroy();
});
