// A process that commits transactions to an LMDB store and says, through the same log as its writes, when each is done.
// Arguments: the folder, how many.
import { writeSync } from 'node:fs';
import { LmdbStore } from '../../daemon/meta/store.ts';

const [, , folder = '', count = '1'] = process.argv;
const log = Number(process.env['WRITE_LOG_FD']);
const store = LmdbStore.create(folder);
for (let i = 0; i < Number(count); i++) {
  const changes = Array.from({ length: 1 + (i % 7) }, (_, j) => ({
    kind: 'put' as const,
    namespace: 2,
    key: [i % 5, j],
    value: new Uint8Array(3000 * j).fill(i),
  }));
  await store.commit(changes);
  writeSync(log, `committed ${i}\n`);
}
await store.close();
