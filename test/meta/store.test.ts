import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { MetaChange } from '../../daemon/meta/contract.ts';
import { checkLmdbFile } from '../../daemon/meta/lmdb-check.ts';
import { LmdbStore } from '../../daemon/meta/store.ts';

const folders: string[] = [];
function temporaryFolder(): string {
  const folder = mkdtempSync(`${tmpdir()}/attndrive-meta-`);
  folders.push(folder);
  return folder;
}
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

const put = (namespace: number, key: readonly (number | string)[], value: unknown): MetaChange => ({
  kind: 'put',
  namespace,
  key,
  value,
});
const remove = (namespace: number, key: readonly (number | string)[]): MetaChange => ({
  kind: 'remove',
  namespace,
  key,
});

test('nobody but the owner may read the files', async () => {
  const folder = temporaryFolder();
  const store = LmdbStore.create(folder);
  await store.commit([put(1, ['label'], 'private')]);
  await store.close();
  const files = readdirSync(folder);
  assert.ok(files.length >= 2);
  for (const name of files) assert.equal(statSync(`${folder}/${name}`).mode & 0o777, 0o600, name);
});

test('records come back after a restart: values, bytes, namespaces in key order', async () => {
  const folder = temporaryFolder();
  const bytes = new Uint8Array(16_384).map((_, i) => i * 7);
  const store = LmdbStore.create(folder);
  await store.commit([
    put(2, [10], 'ten'),
    put(2, [9, 'b'], 'nine b'),
    put(2, [9], 'nine'),
    put(2, ['text'], 'text'),
    put(3, [0], bytes),
    put(1, ['state'], { list: [1, [2, 3]], flag: true, count: 2 ** 40 }),
  ]);
  await store.commit([remove(2, [9]), put(2, [10], 'ten again')]);
  await store.close();
  const again = LmdbStore.open(folder);
  assert.deepEqual(
    [...again.range(2)],
    [
      { key: [9, 'b'], value: 'nine b' },
      { key: [10], value: 'ten again' },
      { key: ['text'], value: 'text' },
    ],
  );
  assert.equal(Buffer.compare(again.get(3, [0]) as Uint8Array, bytes), 0);
  assert.deepEqual(again.get(1, ['state']), { list: [1, [2, 3]], flag: true, count: 2 ** 40 });
  assert.equal(again.get(4, [0]), undefined);
  assert.deepEqual([...again.range(4)], []);
  await again.close();
});

test('bytes read from the store stay as they are while others are read', async () => {
  const store = LmdbStore.create(temporaryFolder());
  await store.commit(Array.from({ length: 50 }, (_, i) => put(2, [i], new Uint8Array(5000).fill(i))));
  const values = [...store.range(2)].map(({ value }) => value as Uint8Array);
  for (const [i, value] of values.entries()) assert.ok(value.every((byte) => byte === i));
  await store.close();
});

test('values without checksums, of drives of an older format, are read and written as they were', async () => {
  const folder = temporaryFolder();
  const store = LmdbStore.open(folder, 'plain');
  await store.commit([put(1, ['state'], { operation: 5 })]);
  await store.close();
  const wrong = { code: 'mediaFormat', message: /record 1\/state fails its checksum/ };
  assert.throws(() => LmdbStore.open(folder), wrong);
  const again = LmdbStore.open(folder, 'plain');
  assert.deepEqual(again.get(1, ['state']), { operation: 5 });
  await again.close();
});

test('the check finds nothing wrong with what LMDB itself makes of many random transactions', async () => {
  const random = createSeededRandom(7);
  const folder = temporaryFolder();
  const store = LmdbStore.create(folder);
  const kept = new Map<number, number>();
  const below = (end: number): number => random.nextUint32() % end;
  for (let transaction = 0; transaction < 120; transaction++) {
    const changes: MetaChange[] = [];
    for (let i = below(200); i >= 0; i--) {
      const key = below(3000) ** 2;
      const sizeBytes = [10, 100, 1000, 4096, 16_384][below(5)]!;
      if (below(3) === 0) {
        changes.push(remove(1 + (key % 3), [key, 'key'.repeat(key % 40)]));
        kept.delete(key);
      } else {
        changes.push(put(1 + (key % 3), [key, 'key'.repeat(key % 40)], new Uint8Array(sizeBytes).fill(key)));
        kept.set(key, sizeBytes);
      }
    }
    await store.commit(changes);
    checkLmdbFile(`${folder}/data.mdb`);
  }
  await store.close();
  const again = LmdbStore.open(folder);
  const found = [1, 2, 3].flatMap((namespace) => [...again.range(namespace)]);
  assert.deepEqual(new Map(found.map(({ key, value }) => [key[0], (value as Uint8Array).length])), kept);
  await again.close();
});

test("a file that is missing, not LMDB's, or was cut short, is an error and no signal", async () => {
  const folder = temporaryFolder();
  const path = `${folder}/data.mdb`;
  const store = LmdbStore.create(folder);
  await store.commit(Array.from({ length: 20 }, (_, i) => put(2, [i], new Uint8Array(16_384))));
  await store.close();
  const whole = readFileSync(path);
  const refused = (pattern: RegExp): void =>
    assert.throws(() => LmdbStore.open(folder), { name: 'DriveError', code: 'mediaFormat', message: pattern });
  for (let size = whole.length - 1; size > 8192; size -= 30_011) {
    truncateSync(path, size);
    refused(/data\.mdb is damaged: page \d+ lies behind its end: it was cut short/);
  }
  truncateSync(path, 100);
  refused(/is no LMDB file/);
  truncateSync(path, 0);
  refused(/is no LMDB file/);
  writeFileSync(path, Buffer.alloc(65_536, 0x5a));
  refused(/is no LMDB file/);
  unlinkSync(path);
  refused(/data\.mdb is missing; it is part of the drive/);
  writeFileSync(path, whole);
  const again = LmdbStore.open(folder);
  assert.equal([...again.range(2)].length, 20);
  await again.close();
});
