/**
 * A changed bit, or a cut, anywhere in a drive's files: a clear error, or right bytes; never wrong ones, never the end of
 * the process. `ATTNDRIVE_FLIPS` damages for each kind of end, `ATTNDRIVE_SEED` to try others.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { emptyFolder, temporaryFolder } from './temporary.ts';

const FLIPS = process.env['ATTNDRIVE_FLIPS'] ?? '200';
const SEED = process.env['ATTNDRIVE_SEED'] ?? '1';
const parent = temporaryFolder();
const script = fileURLToPath(new URL('./damage-run.js', import.meta.url));

for (const how of ['stopped', 'killed']) {
  test(`damage anywhere in the files of a drive that was ${how} is found, or harmless`, { timeout: 3_600_000 }, (t) => {
    const args = ['--enable-source-maps', script, emptyFolder(parent, how), SEED, FLIPS, how];
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    const lines = stdout.trim().split('\n');
    assert.deepEqual([status, signal], [0, null], `${lines.at(-1)}\n${stderr}`);
    t.diagnostic(lines.slice(lines.indexOf('{')).join(''));
  });
}
