/** When LMDB says that a transaction is on disk, is it? What its process writes and syncs is looked at from outside. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const COMMITS = 30;
/** Two pages, written as a whole when the file is made. */
const META_BYTES = 8192;
const source = fileURLToPath(new URL('../../../test/meta/write-log.c', import.meta.url));
const script = fileURLToPath(new URL('./committer.js', import.meta.url));

test('a commit that is done has synced its pages, then its meta page', (t) => {
  const folder = mkdtempSync(`${tmpdir()}/attndrive-commit-`);
  t.after(() => rmSync(folder, { recursive: true }));
  const library = `${folder}/write-log.so`;
  const compiled = spawnSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl'], { encoding: 'utf8' });
  if (compiled.error !== undefined || compiled.status !== 0) {
    t.skip(`no C compiler for the library that listens: ${compiled.error?.message ?? compiled.stderr}`);
    return;
  }
  const store = `${folder}/store`;
  mkdirSync(store);
  const log = openSync(`${folder}/log`, 'a');
  const environment = { LD_PRELOAD: library, WRITE_LOG_FOLDER: store, WRITE_LOG_FD: '3' };
  const child = spawnSync(process.execPath, [script, store, String(COMMITS)], {
    stdio: ['ignore', 'inherit', 'inherit', log],
    env: { ...process.env, ...environment },
  });
  closeSync(log);
  assert.equal(child.status, 0);
  const lines = readFileSync(`${folder}/log`, 'utf8').trim().split('\n');
  let unsynced = 0;
  let metaWrites = 0;
  let commits = 0;
  for (const line of lines) {
    const [what, path = '', offset, bytes] = line.split(' ');
    if (what === 'committed') {
      assert.equal(unsynced, 0, `${line}: ${unsynced} writes are not synced`);
      assert.equal(metaWrites, ++commits, `${line}: its meta page is written`);
    } else if (path.endsWith('data.mdb')) {
      if (what === 'sync') unsynced = 0;
      else if (Number(offset) >= META_BYTES || Number(bytes) === META_BYTES) unsynced++;
      else {
        assert.equal(unsynced, 0, `the meta page of commit ${commits} is written before its pages are synced`);
        assert.equal(what, 'synced', `the meta page of commit ${commits} is not synced`);
        metaWrites++;
      }
    }
  }
  assert.equal(commits, COMMITS);
});
