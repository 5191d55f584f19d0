import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { FolderLock } from '../../daemon/ftl/folder-lock.ts';
import { formatDrive, readSuperblock } from '../../daemon/ftl/format.ts';

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-lock-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const inUse = (error: unknown): boolean => error instanceof DriveError && error.code === 'folderInUse';

test('a folder has one holder at a time, who is named to others', (t) => {
  const folder = folderOf(t);
  const lock = FolderLock.take(folder);
  assert.throws(() => FolderLock.take(folder), inUse);
  assert.throws(() => FolderLock.take(folder), new RegExp(`served by process ${process.pid}; stop it first`));
  lock.release();
  FolderLock.take(folder).release();
  assert.deepEqual(readdirSync(folder), [], 'nothing is left behind');
});

test("another process's lock holds while it lives, and is taken over when it is dead", async (t) => {
  const folder = folderOf(t);
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: ['pipe', 'ignore', 'ignore'] });
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
  const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  writeFileSync(`${folder}/lock`, `${child.pid} ${start}\n`);
  assert.throws(() => FolderLock.take(folder), inUse);
  child.kill('SIGKILL');
  await once(child, 'exit');
  FolderLock.take(folder).release();
});

test('a lock of an earlier boot is stale, even if a process like its own runs again', (t) => {
  const folder = folderOf(t);
  const lock = FolderLock.take(folder);
  const [pid, start] = readFileSync(`${folder}/lock`, 'utf8').split(' ');
  writeFileSync(`${folder}/lock`, `${pid} ${start} 00000000-0000-4000-8000-000000000000\n`);
  FolderLock.take(folder).release();
  writeFileSync(`${folder}/lock`, `${pid} ${start}\n`);
  assert.throws(() => FolderLock.take(folder), inUse, 'of a version that did not write it');
  lock.release();
});

test('a lock whose process id is in use again by another process, or that was never written, is stale', (t) => {
  const folder = folderOf(t);
  for (const text of [`${process.pid} 1\n`, '', 'no numbers\n', '0 0\n', '-5 1\n']) {
    writeFileSync(`${folder}/lock`, text);
    const lock = FolderLock.take(folder);
    assert.match(readFileSync(`${folder}/lock`, 'utf8'), new RegExp(`^${process.pid} \\d+ [0-9a-f-]+\n$`));
    lock.release();
  }
  assert.equal(existsSync(`${folder}/lock`), false);
});

const request = {
  blockCapacityBytes: 2 ** 20,
  kvCapacityBytes: 2 ** 20,
  pageSizeBytes: 16_384,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.1,
  force: false,
};

test('format refuses folders with a drive, with something else, or in use; a changed superblock is named', async (t) => {
  const folder = folderOf(t);
  const format = (force = false) => formatDrive(folder, { ...request, force }, createSeededRandom(1));
  const lock = FolderLock.take(folder);
  await assert.rejects(format(), inUse);
  lock.release();
  await format();
  await assert.rejects(format(), /holds a drive; --force formats it/);
  await format(true);
  writeFileSync(`${folder}/letter.txt`, 'dear drive');
  await assert.rejects(format(true), /holds letter\.txt/);
  assert.equal(existsSync(`${folder}/superblock`), true, 'a refused format changes nothing');
  const right = readFileSync(`${folder}/superblock`);
  const refuses = (change: (bytes: Buffer) => Buffer, pattern: RegExp): void => {
    writeFileSync(`${folder}/superblock`, change(Buffer.from(right)));
    assert.throws(
      () => readSuperblock(folder),
      (error) => {
        assert.ok(error instanceof DriveError && error.code === 'mediaFormat');
        assert.equal(error.message.includes('\n'), false, 'one line');
        return pattern.test(error.message);
      },
    );
  };
  refuses((bytes) => bytes.subarray(0, 4095), /4095 bytes long; must be 4096/);
  refuses((bytes) => bytes.fill(0x58, 0, 1), /does not begin with ATTNDRIV/);
  refuses((bytes) => bytes.fill(9, 8, 9), /format version 9; this program reads 1/);
  refuses((bytes) => bytes.fill(1, 1000, 1001), /checksum is wrong/);
  rmSync(`${folder}/superblock`);
  assert.throws(() => readSuperblock(folder), /is no drive: .*no such file; make one with "attndrive format"/);
});
