/** The thread of background-load.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { DriveClient } from '../../client/index.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { LoadSetup } from './background-load.ts';
import { prepareBatch } from './stored-drive.ts';

const { address, kind, queryHeadsPerKvHead, blockCount, stop } = workerData as LoadSetup;
const flag = new Int32Array(stop);
const client = await DriveClient.connect(address);
const command = kind === 'attend' ? await attends() : blockReads();
await command();
parentPort?.postMessage('started');
const startMs = performance.now();
let commandCount = 0;
while (Atomics.load(flag, 0) === 0) {
  await command();
  commandCount++;
}
const elapsedMs = performance.now() - startMs;
await client.close();
parentPort?.postMessage({ commandCount, elapsedMs });

/** All tokens of the only sequence's first layer. */
async function attends(): Promise<() => Promise<unknown>> {
  const [id] = await client.kv.list();
  const sequence = await client.kv.open(id!);
  const request = await prepareBatch({ client, sequence }, queryHeadsPerKvHead, 1);
  return () => request.post();
}

function blockReads(): () => Promise<unknown> {
  const random = createSeededRandom(7);
  return () => client.block.read(random.nextUint32() % blockCount, 1);
}
