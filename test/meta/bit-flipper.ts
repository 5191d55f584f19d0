// A process that flips bits of an LMDB file, one at a time, and opens it. Arguments: the folder, a seed, a count. It
// prints where it flips before it opens, and what came of it: the parent sees what a crash was about.
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { LmdbStore } from '../../daemon/meta/store.ts';

const [, , folder = '', seed = '1', count = '1'] = process.argv;
const path = `${folder}/data.mdb`;
const whole = readFileSync(path);
const random = createSeededRandom(Number(seed));

function* records(store: LmdbStore): Iterable<string> {
  for (const namespace of [1, 2, 3, 16, 17, 18]) {
    for (const { key, value } of store.range(namespace)) yield `${key.join('/')} ${crc32c(value as Uint8Array)}`;
  }
}

async function everything(): Promise<string> {
  const store = LmdbStore.open(folder);
  try {
    const before = [...records(store)];
    // What it thinks is free must be free.
    await store.commit(
      Array.from({ length: 40 }, (_, i) => ({ kind: 'put', namespace: 99, key: [i], value: new Uint8Array(4000) })),
    );
    return JSON.stringify([before, [...records(store)]]);
  } finally {
    await store.close();
  }
}

const expected = await everything();
for (let i = 0; i < Number(count); i++) {
  // Half of the flips hit headers, offsets and the beginnings of nodes.
  const page = random.nextUint32() % (whole.length / 4096);
  const at = page * 4096 + (random.nextUint32() % (i % 2 === 0 ? 160 : 4096));
  writeFileSync(path, whole);
  const descriptor = openSync(path, 'r+');
  writeSync(descriptor, new Uint8Array([whole[at]! ^ (1 << (random.nextUint32() % 8))]), 0, 1, at);
  closeSync(descriptor);
  process.stdout.write(`${at} `);
  try {
    process.stdout.write((await everything()) === expected ? 'same\n' : 'WRONG\n');
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    process.stdout.write(`${error.code} ${error.message}\n`);
  }
}
