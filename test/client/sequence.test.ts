import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriveCommandError, type ElementArray, type ElementType, fromF32, toF32 } from '../../client/index.ts';
import { adminOpcodes, keyedSglDescriptor, kvOpcodes } from '../../spec/index.ts';
import type { FakeCommand, FakeDriveOptions } from './fake-drive.ts';
import { randomArray } from './random.ts';
import { withDrive } from './support.ts';

const ways: readonly FakeDriveOptions[] = [
  { inCapsuleBytes: 4096, mdts: 2, r2tBytes: 3000, c2hBytes: 5000 },
  { regions: true },
];
const shape = { layerCount: 2, kvHeadCount: 3, headDimK: 24, headDimV: 16, groupTokens: 16 } as const;

for (const way of ways) {
  test(`tokens come back as stored, whatever their order and type: ${JSON.stringify(way)}`, async () => {
    await withDrive(way, async ({ client }) => {
      for (const stored of ['f32', 'f16', 'bf16'] as const) {
        const sequence = await client.kv.create({ ...shape, elementTypeK: stored }, { label: `of ${stored}` });
        const tokens = 133;
        const keys = randomArray(tokens * 3 * 24, 1);
        const values = randomArray(tokens * 3 * 16, 2);
        assert.equal(await sequence.append(1, 0, keys, values), tokens);
        const round = (array: Float32Array) => toF32(fromF32(array, stored), stored);
        const back = await sequence.readBack({ layer: 1, elementType: 'f32' });
        assert.deepEqual(back.keys, round(keys));
        assert.deepEqual(back.values, round(values));

        const window = { layer: 1, tokenStart: 5, tokenEnd: 130, firstHead: 1, headCount: 2, headMajor: true } as const;
        const part = await sequence.readBack({ ...window, part: 'values', elementType: 'f32' });
        assert.equal(part.keys, undefined);
        assert.deepEqual(part.values, pickHeadMajor(round(values), 16, window));
        const asStored = await sequence.readBack({ ...window, part: 'keys' });
        assert.deepEqual(
          toF32((asStored.keys ?? new Float32Array()) as ElementArray, stored),
          pickHeadMajor(round(keys), 24, window),
        );
      }
    });
  });

  test(`head-major appends are cut by tokens like token-major ones: ${JSON.stringify(way)}`, async () => {
    await withDrive(way, async ({ client, drive }) => {
      const sequence = await client.kv.create({ ...shape, elementTypeK: 'f32' });
      const tokens = 150;
      const keys = randomArray(tokens * 3 * 24, 3);
      const values = randomArray(tokens * 3 * 16, 4);
      const whole = { tokenStart: 0, tokenEnd: tokens, firstHead: 0, headCount: 3 };
      const headMajor = { headMajor: true };
      await sequence.append(0, 0, pickHeadMajor(keys, 24, whole), pickHeadMajor(values, 16, whole), headMajor);
      const back = await sequence.readBack({ layer: 0 });
      assert.deepEqual(back.keys, keys);
      assert.deepEqual(back.values, values);
      const appends = drive.log.filter(({ opcode, queueId }) => queueId > 0 && opcode === kvOpcodes.append.opcode);
      const starts = way.regions ? [0] : [0, 32, 64, 96, 128];
      assert.deepEqual(
        appends.map(({ cdw13 }) => cdw13),
        starts,
        'whole groups of 16, of which two fit 16 KiB',
      );
    });
  });
}

function pickHeadMajor(
  rows: Float32Array,
  dimension: number,
  {
    tokenStart,
    tokenEnd,
    firstHead,
    headCount,
  }: { tokenStart: number; tokenEnd: number; firstHead: number; headCount: number },
): Float32Array {
  const picked: number[] = [];
  for (let head = firstHead; head < firstHead + headCount; head++) {
    for (let token = tokenStart; token < tokenEnd; token++) {
      const at = (token * 3 + head) * dimension;
      picked.push(...rows.subarray(at, at + dimension));
    }
  }
  return Float32Array.from(picked);
}

test('a sequence has a life: create, open, list, fork, truncate, reclaim', async () => {
  await withDrive({}, async ({ client, kv }) => {
    const id = 0xffff_ffff_0000_0007n;
    const sequence = await client.kv.create(shape, { id, label: 'prefix' });
    assert.equal(sequence.id, id);
    assert.deepEqual(sequence.shape, { ...shape, elementTypeK: 'f16', elementTypeV: 'f16' });
    const row = new Float32Array(3 * 24);
    await sequence.append(0, 0, row, new Float32Array(3 * 16));
    await sequence.append(0, 1, row, new Float32Array(3 * 16));
    assert.deepEqual((await client.kv.open(id)).shape, sequence.shape);
    const { label, lengths, id: told } = await sequence.info();
    assert.deepEqual({ label, lengths, told }, { label: 'prefix', lengths: [2, 0], told: id });
    const fork = await sequence.fork({ tokenCount: 1 });
    assert.deepEqual((await fork.info()).lengths, [1, 0]);
    assert.deepEqual(
      await client.kv.list(),
      [fork.id, id].sort((a, b) => (a < b ? -1 : 1)),
    );
    await sequence.truncate(0, { layer: 0 });
    assert.deepEqual((await sequence.info()).lengths, [0, 0]);
    await sequence.reclaim();
    assert.equal(kv.sequences.has(id), false);
    await assert.rejects(sequence.info(), { code: 'unknownSequence' });
    await client.kv.flush();
    await client.flush();
    assert.equal(kv.flushCount, 2);
  });
});

test('the list of sequences is complete when it is longer than one answer', async () => {
  await withDrive({ regions: true }, async ({ client, kv }) => {
    const some = await client.kv.create(shape);
    const sequence = kv.sequences.get(some.id);
    assert.ok(sequence);
    kv.sequences.clear();
    for (let id = 1n; id <= 5000n; id++) kv.sequences.set(id * 3n, sequence);
    const ids = await client.kv.list();
    assert.equal(ids.length, 5000);
    assert.equal(ids.at(-1), 15_000n);
  });
});

test('a gap says how long the layer is and where the append was to go', async () => {
  await withDrive({}, async ({ client }) => {
    const sequence = await client.kv.create(shape);
    const gap = sequence.append(1, 4, new Float32Array(3 * 24), new Float32Array(3 * 16));
    await assert.rejects(gap, (error: DriveCommandError) => {
      assert.ok(error instanceof DriveCommandError);
      assert.equal(error.code, 'appendGap');
      assert.match(error.message, /layer 1, position 4, 1 tokens/);
      return true;
    });
  });
});

test('rows that fit no whole token, or whose type is not known, are refused here', async () => {
  await withDrive({}, async ({ client }) => {
    const sequence = await client.kv.create({ ...shape, elementTypeK: 'f32' });
    const bits = (length: number) => new Uint16Array(length);
    await assert.rejects(sequence.append(0, 0, new Float32Array(25), new Float32Array(48)), /not whole tokens/);
    await assert.rejects(sequence.append(0, 0, new Float32Array(72), new Float32Array(47)), /not whole tokens/);
    await assert.rejects(sequence.append(0, 0, bits(72), bits(48)), /state elementType/);
    await assert.rejects(sequence.append(0, 0, new Float32Array(72), bits(48)), TypeError);
    const stated: { elementType: ElementType } = { elementType: 'bf16' };
    assert.equal(await sequence.append(0, 0, bits(72), bits(48), stated), 1);
    await assert.rejects(sequence.readBack({ layer: 0, tokenStart: 3 }), RangeError);
    await assert.rejects(sequence.readBack({ layer: 0, firstHead: 2, headCount: 2 }), RangeError);
  });
});

test("an aborted read writes nothing into the caller's arrays any more", async () => {
  for (const way of ways) {
    await withDrive(way, async ({ client, drive }) => {
      const sequence = await client.kv.create({ ...shape, elementTypeK: 'f32' });
      await sequence.append(0, 0, randomArray(60 * 72, 1), randomArray(60 * 48, 2));
      const answer = drive.io;
      const held: (() => unknown)[] = [];
      drive.io = (command) => void held.push(() => answer(command));
      const controller = new AbortController();
      const into = { keys: new Float32Array(60 * 72) };
      const options = { layer: 0, tokenEnd: 60, part: 'keys', into, signal: controller.signal } as const;
      const reading = sequence.readBack(options);
      while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
      controller.abort(new Error('enough'));
      await assert.rejects(reading, /enough/);
      for (const release of held) release();
      while (client.inFlightCount > 0) await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(into.keys, new Float32Array(60 * 72));
    });
  }
});

test('region space of an aborted read is not used again before the drive has answered', async () => {
  await withDrive({ regions: true }, async ({ client, drive }) => {
    const held: FakeCommand[] = [];
    drive.io = (command) => void held.push(command);
    const controller = new AbortController();
    const first = client.block.read(0, 8, { signal: controller.signal });
    const place = async (index: number): Promise<number> => {
      while (held.length <= index) await new Promise((resolve) => setImmediate(resolve));
      return keyedSglDescriptor.decode(held[index]?.entry.sgl ?? new Uint8Array(16)).offset;
    };
    const taken = await place(0);
    controller.abort(new Error('enough'));
    await assert.rejects(first, /enough/);
    const second = client.block.read(0, 8);
    assert.notEqual(await place(1), taken);
    held[0]?.give(new Uint8Array(8 * 4096).fill(1));
    held[1]?.give(new Uint8Array(8 * 4096).fill(2));
    assert.deepEqual(await second, new Uint8Array(8 * 4096).fill(2));
    const third = client.block.read(0, 8);
    assert.equal(await place(2), taken);
    held[2]?.give(new Uint8Array(8 * 4096));
    await third;
  });
});

test('when the drive gives no more regions, transfers take turns with those there are', async () => {
  await withDrive({ regions: true }, async ({ client, drive }) => {
    drive.admin = (command) => {
      if (command.entry.opcode !== adminOpcodes.regionCreate.opcode) return false;
      command.fail('regionLimit');
      return true;
    };
    const sequence = await client.kv.create({ ...shape, elementTypeK: 'f32' });
    const tokens = 40_000;
    const keys = randomArray(tokens * 72, 1);
    const values = randomArray(tokens * 48, 2);
    const layers = [0, 1].map((layer) => sequence.append(layer, 0, keys, values));
    assert.deepEqual(await Promise.all(layers), [tokens, tokens]);
    const backs = await Promise.all([0, 1].map((layer) => sequence.readBack({ layer })));
    for (const back of backs) assert.ok(Buffer.from(back.keys?.buffer as ArrayBuffer).equals(Buffer.from(keys.buffer)));
    const entry = { sequence, queryHeadsPerKvHead: 1, layer: 1, queryTokenCount: 4096 };
    const large = Array.from({ length: 8 }, () => ({ ...entry }));
    const one = await client.prepareAttend(large);
    await assert.rejects(client.prepareAttend(large), { code: 'clientLimit' });
    one.release();
  });
});

test('concurrent transfers share a small region space without mixing', async () => {
  const options = { regionSpaceBytes: 1 << 20 };
  await withDrive(
    { regions: true },
    async ({ client }) => {
      const sequences = await Promise.all(
        Array.from({ length: 12 }, () => client.kv.create({ ...shape, elementTypeK: 'f32' })),
      );
      const tokens = 700;
      await Promise.all(
        sequences.map((sequence, index) =>
          sequence.append(0, 0, randomArray(tokens * 72, index), randomArray(tokens * 48, index + 50)),
        ),
      );
      const backs = await Promise.all(sequences.map((sequence) => sequence.readBack({ layer: 0 })));
      backs.forEach(({ keys, values }, index) => {
        assert.deepEqual(keys, randomArray(tokens * 72, index));
        assert.deepEqual(values, randomArray(tokens * 48, index + 50));
      });
    },
    options,
  );
});
