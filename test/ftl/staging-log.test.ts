import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import { crc32c } from '../../daemon/base/crc32c.ts';
import type { OperationCounter } from '../../daemon/ftl/contract.ts';
import { type LogPosition, StagingFile, StagingFolder, type StagingStore } from '../../daemon/ftl/staging-log.ts';

const uuid = new Uint8Array(16).fill(5);
const folders: string[] = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

function makeFolder(): string {
  const parent = mkdtempSync(`${tmpdir()}/attndrive-staging-`);
  folders.push(parent);
  mkdirSync(`${parent}/staging`);
  return `${parent}/staging`;
}

function openLog(folder: string, drive = uuid): StagingFile {
  let last = 0;
  const operations: OperationCounter = {
    next: () => ++last,
    get last() {
      return last;
    },
  };
  return new StagingFile({ uuid: drive }, { store: new StagingFolder(folder), operations, sum: crc32c });
}

const payload = (size: number): Uint8Array => new Uint8Array(size).map((_, i) => size + i);
const found = (folder: string, start?: LogPosition): number[] =>
  [...openLog(folder).replay(start)].map(({ operation }) => operation);

const segmentPath = (folder: string, segment: number): string => `${folder}/${String(segment).padStart(8, '0')}.log`;

test('records come back as they were, in the order written, over segments', async () => {
  const folder = makeFolder();
  const log = openLog(folder);
  log.rotate();
  assert.equal(log.append('block', payload(4104)), 1);
  assert.equal(log.append('kv', payload(0)), 2);
  log.rotate();
  assert.equal(log.append('deallocate', payload(13)), 3);
  assert.equal(log.append('block', payload(1), 1), 1, 'with the number of the write it stands for');
  await log.sync();
  log.close();
  const records = [...openLog(folder).replay(undefined)];
  assert.deepEqual(
    records.map(({ operation, kind, payload: bytes }) => [operation, kind, [...bytes]]),
    [
      [1, 'block', [...payload(4104)]],
      [2, 'kv', []],
      [3, 'deallocate', [...payload(13)]],
      [1, 'block', [...payload(1)]],
    ],
  );
  assert.equal(log.recordCount, 4);
});

test('wherever a power cut ends the log, the whole records before are there and nothing else', () => {
  const folder = makeFolder();
  const log = openLog(folder);
  log.rotate();
  const ends: number[] = [];
  for (let i = 0; i < 4; i++) {
    log.append('kv', payload(10 + 30 * i));
    ends.push(log.segmentBytes);
  }
  log.close();
  const path = segmentPath(folder, 1);
  const whole = readFileSync(path);
  // The padding behind a record is no part of it.
  const sizes = [10, 40, 70, 100];
  for (let size = whole.length; size >= 0; size--) {
    truncateSync(path, size);
    const expected = ends.filter((end, i) => size >= end - ((8 - ((32 + sizes[i]!) % 8)) % 8)).length;
    assert.equal(found(folder).length, expected, `cut at ${size}`);
  }
});

test('any byte that changes ends the log there', () => {
  const folder = makeFolder();
  const log = openLog(folder);
  log.rotate();
  for (let i = 0; i < 3; i++) log.append('kv', payload(24));
  log.close();
  const path = segmentPath(folder, 1);
  const whole = readFileSync(path);
  for (let at = 64; at < whole.length; at++) {
    const changed = Buffer.from(whole);
    changed[at] = changed[at]! ^ 0x10;
    writeFileSync(path, changed);
    assert.deepEqual(found(folder), [1, 2, 3].slice(0, Math.floor((at - 64) / 56)), `byte ${at}`);
  }
});

test('what follows a record that is not whole does not count, in later segments either', () => {
  const folder = makeFolder();
  const log = openLog(folder);
  for (let segment = 0; segment < 3; segment++) {
    log.rotate();
    log.append('kv', payload(8));
    log.append('kv', payload(8));
  }
  log.close();
  assert.deepEqual(found(folder), [1, 2, 3, 4, 5, 6]);
  truncateSync(segmentPath(folder, 2), 64 + 40 + 39);
  assert.deepEqual(found(folder), [1, 2, 3]);
  truncateSync(segmentPath(folder, 2), 0);
  assert.deepEqual(found(folder), [1, 2], 'a segment whose header was lost');
});

test('what was synced is missed', () => {
  const folder = makeFolder();
  const log = openLog(folder);
  log.rotate();
  log.rotate();
  log.append('kv', payload(8));
  const start = { segment: 2, sizeBytes: log.segmentBytes };
  log.append('kv', payload(8));
  log.close();
  assert.deepEqual(found(folder, start), [1, 2]);
  truncateSync(segmentPath(folder, 2), start.sizeBytes);
  assert.deepEqual(found(folder, start), [1], 'the second was not synced');
  truncateSync(segmentPath(folder, 2), start.sizeBytes - 1);
  const damaged = {
    code: 'mediaFormat',
    message: /staging segment 2 is damaged at byte 64; it was synced up to byte 104/,
  };
  assert.throws(() => found(folder, start), damaged);
  rmSync(segmentPath(folder, 2));
  assert.throws(() => found(folder, start), { code: 'mediaFormat', message: /staging segment 2 is missing/ });
  rmSync(folder, { recursive: true });
  assert.throws(() => found(folder, start), { code: 'mediaFormat', message: /no such file/ });
});

test('segments of another drive are refused', () => {
  const folder = makeFolder();
  const log = openLog(folder, new Uint8Array(16).fill(6));
  log.rotate();
  log.append('kv', payload(8));
  log.close();
  assert.throws(() => found(folder), { code: 'mediaFormat', message: /staging segment 1 belongs to another drive/ });
});

test('old segments stay until they are removed; numbers are not used twice', () => {
  const folder = makeFolder();
  const log = openLog(folder);
  for (let i = 0; i < 3; i++) log.rotate();
  assert.deepEqual(readdirSync(folder).sort(), ['00000001.log', '00000002.log', '00000003.log']);
  log.removeBefore(3);
  assert.deepEqual(readdirSync(folder), ['00000003.log']);
  log.close();
  const again = openLog(folder);
  again.rotate();
  assert.equal(again.segmentNumber, 4);
  again.close();
});

test('a sync covers the segments before the newest, once', async () => {
  const synced: number[] = [];
  const segments: number[] = [];
  const store: StagingStore = {
    list: () => segments,
    read: () => new Uint8Array(),
    remove: () => undefined,
    create: (segment) => {
      segments.push(segment);
      return {
        append: () => undefined,
        sync: () => Promise.resolve(void synced.push(segment)),
        close: () => undefined,
      };
    },
  };
  const operations = { next: () => 1, last: 1 };
  const log = new StagingFile({ uuid }, { store, operations, sum: crc32c });
  log.rotate();
  log.append('kv', payload(8));
  log.rotate();
  await log.sync();
  assert.deepEqual(synced, [1, 2]);
  await log.sync();
  assert.deepEqual(synced, [1, 2, 2]);
});

test('a record that the disk refuses leaves the log as it was', () => {
  const folder = makeFolder();
  const log = openLog(folder);
  log.rotate();
  log.append('kv', payload(8));
  const { segmentBytes } = log;
  log.close();
  assert.throws(() => log.append('kv', payload(8)), { code: 'writeFault' });
  assert.equal(log.segmentBytes, segmentBytes);
  assert.deepEqual(found(folder), [1]);
});
