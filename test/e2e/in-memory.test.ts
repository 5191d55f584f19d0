/** A drive in memory: one that never touches a disk, and says so. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isInMemory } from '../../daemon/volatile-folder.ts';
import { attndrive, startAttndrive } from '../tools/command-line.ts';

const MEMORY = '/dev/shm';
const skip = !(existsSync(MEMORY) && isInMemory(MEMORY)) && `SKIPPED: ${MEMORY} is not memory`;
const parent = skip === false ? mkdtempSync(join(MEMORY, 'attndrive-memory-')) : '';
after(() => rmSync(parent, { recursive: true, force: true }));

test('a drive in memory warns of what it is', { skip }, async () => {
  const folder = join(parent, 'drive');
  const { status, stderr } = attndrive(['format', folder, '--block-capacity', '4MiB', '--kv-capacity', '4MiB']);
  assert.equal(status, 0, stderr);
  const listen = ['--tcp', 'off', '--http', 'off', '--runtime-dir', parent, '--log-level', 'warn'];
  const child = startAttndrive(['start', folder, ...listen]);
  const [said] = (await once(child.stderr, 'data')) as [Buffer];
  assert.match(said.toString(), /the drive lies in memory: when the machine stops, all it stores is lost/);
  child.kill('SIGTERM');
  await once(child, 'exit');
});

test('a folder on a disk is not memory', () => {
  assert.equal(isInMemory('/proc'), false);
});
