/** Folders that a drive may not write, or not even read: one clear line, at once. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runWithMounts, whyNoMounts } from './own-mounts.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';

const parent = temporaryFolder();
chmodSync(parent, 0o777);

test('what this process may not read or write is named, with its owner', () => {
  const script = fileURLToPath(new URL('./access-run.js', import.meta.url));
  const folder = emptyFolder(parent, 'access');
  chmodSync(folder, 0o777);
  const args = ['--enable-source-maps', script, folder];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const user = process.getuid?.() === 0 ? 65_534 : process.getuid?.();
  const lines = stdout.trim().split('\n');
  const owned = String.raw`\S+ belongs to user \d+, mode \d{4}; this process runs as user ${user}`;
  const denied = (path: string): RegExp =>
    new RegExp(String.raw`folderAccess drive folder not accessible: \S+/${path}: permission denied: ${owned}$`);
  for (const [start, pattern] of [
    ['superblock 0', denied('drive/superblock')],
    ['. 555', denied('drive/lock')],
    ['media 0', denied('media/cells.bin')],
    ['media/cells.bin 444', denied('media/cells.bin')],
    ['meta/data.mdb 444', denied('meta/data.mdb')],
    ['staging 0', denied('staging')],
    ['staging 555', /writeFault write fault: \S+\/staging\/\d{8}\.log: permission denied: /],
    ['. 0', denied('drive/superblock')],
    ['all', /: done$/],
    ['format', /invalidField invalid field in command: folder \S+\/other: permission denied: /],
  ] as const) {
    const line = lines.shift() ?? 'nothing';
    assert.ok(line.startsWith(`${start}: `), `${start}: ${line}`);
    assert.match(line, pattern);
  }
});

const skip = whyNoMounts() ?? false;

test('a folder on a read-only file system is named, by the command too', { skip }, () => {
  const { status, output } = runWithMounts('./read-only-run.js', [emptyFolder(parent, 'read-only')]);
  assert.equal(status, 0, output);
});

test('a daemon on a full disk refuses what needs room, and goes on', { skip }, () => {
  const { status, output } = runWithMounts('./full-daemon-run.js', [emptyFolder(parent, 'full')]);
  assert.equal(status, 0, output);
});
