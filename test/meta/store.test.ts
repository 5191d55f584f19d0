import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import type { MetaChange } from '../../daemon/meta/contract.ts';
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

test('records come back after a restart: values, bytes, namespaces in key order', async () => {
  const folder = temporaryFolder();
  const bytes = new Uint8Array(16_384).map((_, i) => i * 7);
  const store = LmdbStore.open(folder);
  await store.commit([
    put(2, [10], 'ten'),
    put(2, [9, 'b'], 'nine b'),
    put(2, [9], 'nine'),
    put(2, ['text'], 'text'),
    put(3, [0], bytes),
    put(1, ['state'], { list: [1, [2, 3]], flag: true, count: 2 ** 40 }),
  ]);
  await store.commit([{ kind: 'remove', namespace: 2, key: [9] }, put(2, [10], 'ten again')]);
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
  const store = LmdbStore.open(temporaryFolder());
  await store.commit(Array.from({ length: 50 }, (_, i) => put(2, [i], new Uint8Array(5000).fill(i))));
  const values = [...store.range(2)].map(({ value }) => value as Uint8Array);
  for (const [i, value] of values.entries()) assert.ok(value.every((byte) => byte === i));
  await store.close();
});

test("a file that is not LMDB's, or was cut short, is an error and no signal", async () => {
  const folder = temporaryFolder();
  const path = `${folder}/data.mdb`;
  const store = LmdbStore.open(folder);
  await store.commit(Array.from({ length: 20 }, (_, i) => put(2, [i], new Uint8Array(16_384))));
  await store.close();
  const whole = readFileSync(path);
  const refused = (pattern: RegExp): void =>
    assert.throws(() => LmdbStore.open(folder), { name: 'DriveError', code: 'mediaFormat', message: pattern });
  truncateSync(path, whole.length >> 1);
  refused(/bytes long; it was \d+ at least/);
  truncateSync(path, 100);
  refused(/is no LMDB file/);
  writeFileSync(path, Buffer.alloc(65_536, 0x5a));
  refused(/is no LMDB file/);
  writeFileSync(path, whole);
  const again = LmdbStore.open(folder);
  assert.equal([...again.range(2)].length, 20);
  await again.close();
});
