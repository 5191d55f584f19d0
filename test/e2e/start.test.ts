/** What keeps a daemon from starting: one line that names it, exit status 1, and nothing of any drive is touched. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { connectTo, Witness } from './served-drive.ts';

let daemon: DaemonProcess;
let witness: Witness;

before(async () => {
  daemon = new DaemonProcess('16MiB');
  await daemon.start();
  witness = await Witness.write(await connectTo(daemon));
});

after(async () => {
  await witness?.client.close();
  await daemon?.remove();
});

function refusedStart(folder: string, message: RegExp, more: readonly string[] = []): void {
  const listen = ['--tcp', 'off', '--http', 'off', '--runtime-dir', daemon.runtimeFolder, '--log-level', 'warn'];
  const { status, stdout, stderr } = attndrive(['start', folder, ...listen, ...more], {}, 30_000);
  assert.match(stderr, message);
  assert.match(stderr, /^attndrive: [^\n]*\n$/, `one line: ${stderr}`);
  assert.equal(stdout, '');
  assert.equal(status, 1);
}

test('a second daemon on the same folder; the first goes on', async () => {
  refusedStart(daemon.folder, /in use/);
  const { status, stderr } = attndrive([
    'format',
    daemon.folder,
    '--force',
    '--block-capacity',
    '16MiB',
    '--kv-capacity',
    '16MiB',
  ]);
  assert.match(stderr, /in use/);
  assert.equal(status, 1);
  await witness.check();
});

test('a copy of a running drive, which has its serial number; the first goes on', async () => {
  const copy = `${daemon.folder}-copy`;
  cpSync(daemon.folder, copy, { recursive: true, filter: (path) => !path.endsWith('/lock') });
  refusedStart(copy, /in use: .* is served by process \d+/);
  rmSync(copy, { recursive: true });
  await witness.check();
  const another = await connectTo(daemon);
  await (await witness.through(another)).check();
  await another.close();
});

test('folders that hold no drive, a drive without its media, media of another format or length', async () => {
  await witness.client.close();
  assert.equal(await daemon.end('SIGTERM'), 0);
  refusedStart('/nowhere/at/all', /\/nowhere\/at\/all/);
  const copy = `${daemon.folder}-copy`;
  cpSync(daemon.folder, copy, { recursive: true });
  const cells = join(copy, 'media/cells.bin');
  renameSync(cells, `${cells}.away`);
  refusedStart(copy, /cells\.bin/);
  renameSync(`${cells}.away`, cells);
  for (const [file, at] of [
    ['media/cells.bin', 0],
    ['superblock', 0],
    ['superblock', 60],
  ] as const) {
    const path = join(copy, file);
    const bytes = readFileSync(path);
    const spoiled = Uint8Array.from(bytes);
    spoiled[at]! ^= 0xff;
    writeFileSync(path, spoiled);
    refusedStart(copy, /attndrive: .*(format|superblock|cells\.bin)/);
    writeFileSync(path, bytes);
  }
  truncateSync(cells, 1_000_000);
  refusedStart(copy, /cells\.bin.*1000000/);
  rmSync(copy, { recursive: true });
});

test('ports in use, a runtime folder that cannot be, wrong options; then it starts, with all it had', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  try {
    const place = `127.0.0.1:${address.port}`;
    refusedStart(daemon.folder, new RegExp(place), ['--tcp', place]);
    refusedStart(daemon.folder, new RegExp(place), ['--http', place]);
  } finally {
    server.close();
  }
  refusedStart(daemon.folder, /\/dev\/null\/nowhere/, ['--runtime-dir', '/dev/null/nowhere']);
  refusedStart(daemon.folder, /tcp "nonsense"; allowed: HOST:PORT/, ['--tcp', 'nonsense']);
  await daemon.start();
  const client = await connectTo(daemon);
  await (await witness.through(client)).check();
  await client.close();
});
