import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriveDisconnectedError } from '../../client/index.ts';
import { createBuiltInModel } from '../../tools/model/built-in.ts';
import { parseCheckpoint } from '../../tools/model/checkpoint.ts';
import { decodeInMemory } from '../../tools/model/comparison.ts';
import type { DecodedToken } from '../../tools/model/decode.ts';
import { DriveDecoding, type DriveDecodingOptions } from '../../tools/model/drive-decoding.ts';
import { type Bench, withDrive } from '../client/support.ts';
import { checkpointBytes, tinyHeader } from './tiny-model.ts';

const loaded = createBuiltInModel();
const options: DriveDecodingOptions = {
  prompt: Buffer.from('the drive'),
  stepCount: 40,
  elementType: 'f32',
  groupTokens: 16,
};
const inMemory = (steps: number) => decodeInMemory(loaded, options.prompt, steps, 'f32');

async function decode({ client }: Bench, changes: Partial<DriveDecodingOptions> = {}) {
  const decoding = await DriveDecoding.open(loaded, { ...options, ...changes }, client);
  const tokens: DecodedToken[] = [];
  for await (const token of decoding.tokens()) tokens.push(token);
  decoding.attention.release();
  return { tokens, decoding, id: decoding.sequence.id };
}

for (const regions of [true, false]) {
  test(`decoded with attention in the drive, the text is that of memory, regions ${regions ? 'on' : 'off'}`, async () => {
    await withDrive({ regions, inCapsuleBytes: 8192 }, async (bench) => {
      const { tokens, decoding } = await decode(bench);
      assert.deepEqual(tokens, await inMemory(40));
      const info = await decoding.sequence.info();
      assert.deepEqual(info.lengths, [40, 40, 40, 40]);
      assert.equal(info.shape.groupTokens, 16);
      assert.equal(decoding.attention.attendMs.length, 160);
    });
  });
}

test('a stored sequence goes on where it ended, and appends nothing twice', async () => {
  await withDrive({ regions: true }, async (bench) => {
    const { id } = await decode(bench, { stepCount: 25 });
    const again = await decode(bench, { stepCount: 40, sequenceId: id });
    assert.equal(again.decoding.storedTokenCount, 25);
    assert.deepEqual(again.tokens, await inMemory(40));
    assert.deepEqual((await again.decoding.sequence.info()).lengths, [40, 40, 40, 40]);
  });
});

test('layers of different length are cut to the shortest', async () => {
  await withDrive({ regions: true }, async (bench) => {
    const { id, decoding } = await decode(bench, { stepCount: 25 });
    await decoding.sequence.truncate(21, { layer: 2 });
    const again = await decode(bench, { stepCount: 30, sequenceId: id });
    assert.equal(again.decoding.storedTokenCount, 21);
    assert.deepEqual(again.tokens, await inMemory(30));
  });
});

test('a sequence of another prompt, model or shape is refused', async () => {
  await withDrive({ regions: true }, async (bench) => {
    const { id } = await decode(bench, { stepCount: 4 });
    const prompt = Buffer.from('another');
    await assert.rejects(decode(bench, { sequenceId: id, prompt }), {
      name: 'ModelError',
      message: `sequence ${id} was decoded from another model or prompt; give the same --model and --prompt`,
    });
    const tiny = { ...loaded, model: parseCheckpoint(checkpointBytes({ ...tinyHeader, dim: 32 }, 3), 'tiny') };
    await assert.rejects(DriveDecoding.open(tiny, { ...options, sequenceId: id }, bench.client), {
      message: `sequence ${id} does not fit this model: layers 4, the model has 2`,
    });
    await assert.rejects(decode(bench, { sequenceId: 999n }), { code: 'unknownSequence' });
  });
});

test('a drive that goes away in the middle is an error, not an end of the text', async () => {
  await withDrive({ regions: true }, async (bench) => {
    const decoding = await DriveDecoding.open(loaded, options, bench.client);
    let count = 0;
    await assert.rejects(async () => {
      for await (const token of decoding.tokens()) {
        if (++count === 10) for (const { socket } of bench.drive.connections) socket.destroy();
        assert.ok(token.token > 0);
      }
    }, DriveDisconnectedError);
    assert.equal(count, 10);
  });
});
