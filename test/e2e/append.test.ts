/** Appends that take several commands, some of them in flight together, through the regions of a drive of its own. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { connectTo } from './served-drive.ts';

const daemon = new DaemonProcess('64MiB');
before(() => daemon.start());
after(() => daemon.remove());

const shape = { layerCount: 1, kvHeadCount: 2, headDimK: 64, elementTypeK: 'f32' } as const;
const TOKEN_ELEMENTS = 2 * 64;
/** Of a token: K and V of both heads. */
const TOKEN_BYTES = 2 * TOKEN_ELEMENTS * 4;

const rows = (tokenCount: number, seed: number): Float32Array =>
  Float32Array.from({ length: tokenCount * TOKEN_ELEMENTS }, (_, i) => seed + i);

test('what takes many commands arrives whole and in order, from whatever position and however its rows lie', async () => {
  const client = await connectTo(daemon);
  const sequence = await client.kv.create(shape);
  const first = { keys: rows(5, 0.5), values: rows(5, 1.5) };
  const tokenCount = (20 * 2 ** 20) / TOKEN_BYTES + 3;
  const more = { keys: rows(tokenCount, 2), values: rows(tokenCount, 3) };
  await sequence.append(0, 0, first.keys, first.values);
  assert.equal(await sequence.append(0, 5, more.keys, more.values), 5 + tokenCount);
  assert.equal(await sequence.append(0, 5, more.keys, more.values), 5 + tokenCount, 'a repeat');
  const back = await sequence.readBack({ layer: 0, tokenStart: 5 });
  assert.deepEqual(back.keys, more.keys);
  assert.deepEqual(back.values, more.values);
  await sequence.reclaim();
  await client.close();
});

test('nothing is added behind a conflict, even where what follows it repeats what is there', async () => {
  const client = await connectTo(daemon);
  const sequence = await client.kv.create(shape);
  const tokenCount = (10 * 2 ** 20) / TOKEN_BYTES;
  const stored = rows(tokenCount, 1);
  await sequence.append(0, 0, stored, stored);
  const more = rows(tokenCount + 100, 1);
  // In the last but one of the longest pieces.
  more[(TOKEN_ELEMENTS * (6 * 2 ** 20)) / TOKEN_BYTES]! += 1;
  await assert.rejects(sequence.append(0, 0, more, rows(tokenCount + 100, 1)), { code: 'appendConflict' });
  assert.deepEqual((await sequence.info()).lengths, [tokenCount]);
  await sequence.reclaim();
  await client.close();
});

test('the command that fails is told, not those behind it', async () => {
  const client = await connectTo(daemon);
  const sequence = await client.kv.create(shape);
  const tokenCount = (80 * 2 ** 20) / TOKEN_BYTES;
  const keys = new Float32Array(tokenCount * TOKEN_ELEMENTS);
  await assert.rejects(sequence.append(0, 0, keys, keys), { code: 'capacityExceeded' });
  const [length = 0] = (await sequence.info()).lengths;
  assert.ok(length > 0 && length < tokenCount && (length * TOKEN_BYTES) % 2 ** 19 === 0, `${length} tokens`);
  await sequence.reclaim();
  await client.close();
});
