/** Runs the programs of client/README.md, each in a process of its own, and compares what they print. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { AdminServer } from '../../daemon/admin/admin-server.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { FakeDriveView } from '../admin/fake-drive-view.ts';
import { createRig } from '../controller/rig.ts';

// Compiled tests run from .build/test/client; the programs must lie in the package to import it by name.
const page = fileURLToPath(new URL('../../../client/README.md', import.meta.url));
const expected = [
  'attended to 100 tokens: 256 values\n',
  [0, 1, 2, 3, 4]
    .flatMap((position) =>
      [0, 1].map((layer) => `layer ${layer}: ${position + 1} tokens, output ${(position / 2).toFixed(3)}\n`),
    )
    .join('') + 'lengths 5,5\n',
  'difference below 1e-5: true\n',
  'same: true\n',
  'state: ready\nmetrics: true\n',
];

test('the programs of the README print what they should', async (t) => {
  const programs = [...readFileSync(page, 'utf8').matchAll(/^```js\n([^]*?)^```$/gm)].map((match) => match[1] ?? '');
  assert.equal(programs.length, expected.length);
  const rig = await createRig(t);
  const adminSocket = join(rig.folder, 'admin.sock');
  const modules = { view: new FakeDriveView(), clock: systemClock, logger: silentLogger };
  const admin = new AdminServer({ socketPath: adminSocket }, modules);
  await admin.start();
  t.after(() => admin.close());
  const runtime = join(rig.folder, 'runtime');
  mkdirSync(join(runtime, 'TEST0001'), { recursive: true });
  const running = {
    pid: process.pid,
    folder: rig.folder,
    serial: 'TEST0001',
    nvmeSocket: join(rig.folder, 'nvme.sock'),
    adminSocket,
  };
  writeFileSync(join(runtime, 'TEST0001', 'drive.json'), JSON.stringify(running));
  const { DRIVE, ...environment } = process.env;
  for (const [index, program] of programs.entries()) {
    const file = fileURLToPath(new URL(`./readme-${process.pid}-${index}.mjs`, import.meta.url));
    writeFileSync(file, program);
    t.after(() => rmSync(file));
    const env = { ...environment, RUNTIME_DIRECTORY: runtime };
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { env, timeout: 60_000 });
    assert.equal(stdout, expected[index], `program ${index + 1}: ${stderr}`);
    assert.equal(stderr, '');
  }
});
