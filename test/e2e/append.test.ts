/** Appends that take several commands, some of them in flight together, through the regions of a drive of its own. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
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

for (const kernels of ['auto', 'wasm']) {
  test(`the same is stored whoever maps regions, and wherever rows lie (kernels ${kernels})`, async (t) => {
    const other = new DaemonProcess('64MiB');
    t.after(() => other.remove());
    await other.start(['--kernels', kernels]);
    // K and V of different sizes; pages with padding; a tail to be completed.
    const mixed = { layerCount: 1, kvHeadCount: 3, headDimK: 24, headDimV: 40, elementTypeK: 'f32' } as const;
    const tokenCount = 9000;
    const noise = (length: number, seed: number) => Float32Array.from({ length }, (_, i) => Math.sin(i + seed));
    for (const mapRegions of [true, false]) {
      const client = await connectTo(other, { mapRegions });
      for (const elementType of ['f32', 'bf16'] as const) {
        const sequence = await client.kv.create({ ...mixed, elementTypeV: elementType });
        const first = [noise(5 * 72, 1), noise(5 * 120, 2)] as const;
        await sequence.append(0, 0, ...first);
        const held = await sequence.allocateRows(tokenCount, { elementType: 'f32' });
        held.keys.set(noise(tokenCount * 72, 3));
        held.values.set(noise(tokenCount * 120, 4));
        const own = [held.keys.slice(), held.values.slice()] as const;
        const before = client.linkCounts.regionBytes;
        assert.equal(await sequence.append(0, 5, held.keys, held.values), 5 + tokenCount);
        const isInPlace = client.linkCounts.regionBytes === before;
        assert.equal(isInPlace, held.keys.buffer !== own[0].buffer && held.keys.buffer.byteLength > own[0].byteLength);
        // A repeat compares: from rows in place with those that were stored, and the other way round.
        assert.equal(await sequence.append(0, 5, ...own), 5 + tokenCount);
        const copied = await client.kv.create({ ...mixed, elementTypeV: elementType });
        await copied.append(0, 0, ...first);
        await copied.append(0, 5, ...own);
        assert.equal(await copied.append(0, 5, held.keys, held.values), 5 + tokenCount);
        held.values[7 * 120]! += 1;
        await assert.rejects(copied.append(0, 5, held.keys, held.values), { code: 'appendConflict', dw0: 12 });
        assert.deepEqual(await sequence.readBack({ layer: 0 }), await copied.readBack({ layer: 0 }));
        const { keys } = await sequence.readBack({ layer: 0, tokenStart: 5, part: 'keys' });
        assert.deepEqual(keys, own[0]);
        held.release();
        await sequence.reclaim();
        await copied.reclaim();
      }
      await client.close();
    }
  });
}

test('rows outlive their client, and go when nobody has them any more', async () => {
  const client = await connectTo(daemon);
  const sequence = await client.kv.create(shape);
  const held = await sequence.allocateRows(100);
  held.keys.fill(1);
  held.values.fill(2);
  await sequence.append(0, 0, held.keys, held.values);
  await sequence.reclaim();
  await client.close();
  held.keys.fill(3);
  assert.equal(held.keys[0], 3, 'there is still memory behind them');
  await assert.rejects(sequence.append(0, 0, held.keys, held.values), { code: 'disconnected' });
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  assert.equal(held.values[99], 2);
});
