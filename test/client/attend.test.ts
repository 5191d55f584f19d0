import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type AttendPath,
  DriveCommandError,
  f32ToF16,
  mergePartials,
  type Sequence,
  toF32,
} from '../../client/index.ts';
import { kvOpcodes } from '../../spec/index.ts';
import type { FakeDriveOptions } from './fake-drive.ts';
import { randomArray } from './random.ts';
import { type Bench, withDrive } from './support.ts';

const ways: readonly (FakeDriveOptions & { readonly path: AttendPath })[] = [
  { path: 'region', regions: true },
  { path: 'exchange', inCapsuleBytes: 16_384, c2hBytes: 700 },
  { path: 'slot', inCapsuleBytes: 256, r2tBytes: 1000, mdts: 1 },
];
const shape = { layerCount: 2, kvHeadCount: 2, headDimK: 16, headDimV: 24, elementTypeK: 'f32' } as const;

async function filled({ client }: Bench, tokens: number, seed: number): Promise<Sequence> {
  const sequence = await client.kv.create(shape);
  await sequence.append(1, 0, randomArray(tokens * 32, seed), randomArray(tokens * 48, seed + 1));
  return sequence;
}

/** Attention of one query head over rows of one KV head, in float64. */
function oracle(query: Float32Array, keys: Float32Array[], values: Float32Array[], scale: number): Float64Array {
  const logits = keys.map((key) => scale * key.reduce((sum, k, i) => sum + k * (query[i] as number), 0));
  const top = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - top));
  const total = weights.reduce((a, b) => a + b, 0);
  return Float64Array.from({ length: 24 }, (_, i) =>
    values.reduce((sum, value, token) => sum + ((weights[token] as number) / total) * (value[i] as number), 0),
  );
}

function closeTo(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-5): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    assert.ok(difference <= tolerance, `element ${i}: ${actual[i]} where ${expected[i]} was expected`);
  }
}

for (const way of ways) {
  test(`one-shot attend gives grouped-query attention by way of ${way.path}`, async () => {
    await withDrive(way, async (bench) => {
      const sequence = await filled(bench, 40, 10);
      const queries = randomArray(2 * 6 * 16, 5);
      const [result] = await bench.client.attend([{ sequence, layer: 1, queryHeadsPerKvHead: 3, queries }], way);
      const keys = randomArray(40 * 32, 10);
      const values = randomArray(40 * 48, 11);
      for (let row = 0; row < 12; row++) {
        const head = Math.floor((row % 6) / 3);
        const rowsOf = (flat: Float32Array, dimension: number) =>
          Array.from({ length: 40 }, (_, token) => {
            const at = (token * 2 + head) * dimension;
            return flat.subarray(at, at + dimension);
          });
        const expected = oracle(queries.subarray(row * 16, row * 16 + 16), rowsOf(keys, 16), rowsOf(values, 24), 0.25);
        closeTo(result?.output.subarray(row * 24, row * 24 + 24) ?? [], expected);
      }
    });
  });

  test(`a prepared request is posted again and again by way of ${way.path}, carrying new tokens`, async () => {
    await withDrive(way, async (bench) => {
      const { client, kv, drive } = bench;
      const sequence = await filled(bench, 3, 20);
      const other = await filled(bench, 3, 20);
      const request = await client.prepareAttend(
        [
          { sequence, layer: 1, queryHeadsPerKvHead: 2, appendTokenCount: 1 },
          { sequence: other, layer: 1, queryHeadsPerKvHead: 2, queryHeadCount: 1, firstQueryHead: 3, tokenEnd: 2 },
        ],
        { statistics: true, path: way.path },
      );
      assert.equal(request.path, way.path);
      const [first, second] = request.entries;
      assert.ok(first && second);
      assert.equal(second.queries.length, 16);
      for (let step = 0; step < 5; step++) {
        const query = randomArray(64, 30 + step);
        first.queries.set(query);
        first.keys.set(randomArray(32, 40 + step));
        first.values.set(randomArray(48, 50 + step));
        first.appendPosition = 3 + step;
        second.queries.set(query.subarray(48));
        second.tokenEnd = 3;
        drive.log.length = 0;
        await request.post();
        const attends = drive.log.filter(({ opcode }) => opcode !== kvOpcodes.attendResult.opcode);
        assert.equal(attends.length, 1, 'one command per step');
        assert.equal(kv.sequences.get(sequence.id)?.keys[1]?.length, 4 + step);
        assert.deepEqual(kv.sequences.get(sequence.id)?.values[1]?.[3 + step], randomArray(48, 50 + step));
        const [again] = await client.attend([{ sequence, layer: 1, queryHeadsPerKvHead: 2, queries: query }], {
          statistics: true,
        });
        assert.deepEqual(first.output, again?.output);
        assert.deepEqual(first.statistics, again?.statistics);
        const [tail] = await client.attend([
          { sequence: other, layer: 1, queryHeadsPerKvHead: 2, firstQueryHead: 3, queries: query.subarray(48) },
        ]);
        assert.deepEqual(second.output, tail?.output);
      }
      request.release();
      await assert.rejects(request.post(), /was released/);
      if (way.path === 'slot') assert.equal(kv.slots.size, 0, 'every slot was read');
    });
  });
}

test('options travel: causal, window, sinks, scale, soft-cap, types', async () => {
  await withDrive({}, async (bench) => {
    const { client } = bench;
    const sequence = await filled(bench, 30, 60);
    const queries = randomArray(3 * 2 * 16, 61);
    const entry = { sequence, layer: 1, queryHeadsPerKvHead: 1, queries };
    const run = async (options: object, extra: object = {}) => {
      const [result] = await client.attend([{ ...entry, ...extra }], options);
      return result?.output as Float32Array;
    };
    const causal = await run({ causal: true }, { queryPosition: 9 });
    for (let token = 0; token < 3; token++) {
      const alone = { queries: queries.subarray(token * 32, token * 32 + 32), tokenEnd: 10 + token };
      closeTo(causal.subarray(token * 48, token * 48 + 48), await run({}, alone));
    }
    await assert.rejects(run({ causal: true }), /queryPosition/);
    await assert.rejects(run({ slidingWindow: 4 }), /queryPosition/);
    const oneQuery = { queries: queries.subarray(0, 32), queryPosition: 20 };
    const window = await run({ slidingWindow: 4, causal: true }, oneQuery);
    closeTo(window, await run({}, { ...oneQuery, tokenStart: 17, tokenEnd: 21 }));
    const sinks = await run({ slidingWindow: 4, causal: true, sinkCount: 2 }, oneQuery);
    assert.notDeepEqual(sinks, window);
    assert.notDeepEqual(await run({ scale: 2 }), await run({}));
    assert.notDeepEqual(await run({ softCap: 0.5, scale: 2 }), await run({ scale: 2 }));
    const [half] = await client.attend([{ ...entry, queries: f32ToF16(queries) }], { outputType: 'bf16' });
    assert.ok(half?.output instanceof Uint16Array);
    closeTo(toF32(half.output, 'bf16'), await run({}), 0.02);
  });
});

test('a batch too large for one command goes as several, in order', async () => {
  await withDrive({ inCapsuleBytes: 2048 }, async (bench) => {
    const sequence = await filled(bench, 12, 70);
    const entries = Array.from({ length: 40 }, (_, index) => ({
      sequence,
      layer: 1,
      queryHeadsPerKvHead: 1,
      queries: randomArray(32, index),
    }));
    bench.drive.log.length = 0;
    const results = await bench.client.attend(entries);
    assert.ok(bench.drive.log.length > 4);
    for (const [index, entry] of entries.entries()) {
      const [alone] = await bench.client.attend([entry]);
      assert.deepEqual(results[index]?.output, alone?.output);
    }
  });
});

test('an output of odd length in 16 bits is followed by statistics at a multiple of 4', async () => {
  for (const way of ways) {
    await withDrive(way, async ({ client }) => {
      const odd = { layerCount: 1, kvHeadCount: 1, headDimK: 9, headDimV: 9 };
      const sequence = await client.kv.create(odd);
      await sequence.append(0, 0, randomArray(27, 1), randomArray(27, 2));
      const entry = { sequence, layer: 0, queryHeadsPerKvHead: 1, queries: randomArray(9, 3) };
      const [wide] = await client.attend([entry], { statistics: true });
      const [narrow] = await client.attend([entry], { statistics: true, outputType: 'f16' });
      const [bare] = await client.attend([entry], { outputType: 'f16' });
      assert.deepEqual(narrow?.statistics, wide?.statistics);
      assert.deepEqual(narrow?.output, f32ToF16(wide?.output as Float32Array));
      assert.deepEqual(bare?.output, narrow?.output);
    });
  }
});

test('parts with statistics merge into the whole', async () => {
  await withDrive({ regions: true }, async (bench) => {
    const sequence = await filled(bench, 50, 80);
    const entry = { sequence, layer: 1, queryHeadsPerKvHead: 4, queries: randomArray(8 * 16, 81) };
    const options = { statistics: true, scale: 3 };
    const [whole] = await bench.client.attend([entry], options);
    const parts = await bench.client.attend(
      [
        { ...entry, tokenEnd: 17 },
        { ...entry, tokenStart: 17, tokenEnd: 17 },
        { ...entry, tokenStart: 17 },
      ],
      options,
    );
    const merged = mergePartials(
      parts.map(({ output, statistics }) => ({ output: output as Float32Array, statistics })),
    );
    closeTo(merged.output, whole?.output ?? []);
    closeTo(merged.statistics, whole?.statistics ?? [], 1e-5);
  });
});

test('merging parts that saw no token gives zeros, and refuses parts that do not match', () => {
  const nothing = { output: new Float32Array(4), statistics: new Float32Array(4).fill(Number.NEGATIVE_INFINITY) };
  const some = {
    output: Float32Array.of(1, 2, 3, 4),
    statistics: Float32Array.of(2, 2.5, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY),
  };
  assert.deepEqual(mergePartials([nothing, nothing]), nothing);
  assert.deepEqual(mergePartials([nothing, some]).output, Float32Array.of(1, 2, 0, 0));
  assert.deepEqual(mergePartials([nothing, some]).statistics, some.statistics);
  const nan = { output: Float32Array.of(Number.NaN, 1, 1, 1), statistics: Float32Array.of(1, 1, 1, 1) };
  assert.ok(Number.isNaN(mergePartials([nan, some]).output[0]));
  assert.throws(() => mergePartials([]), RangeError);
  assert.throws(() => mergePartials([nothing, { ...nothing, output: new Float32Array(6) }]), RangeError);
});

test('a failing entry is named by its index, and the request can be posted again', async () => {
  await withDrive({ regions: true }, async (bench) => {
    const good = await filled(bench, 4, 90);
    const bad = await filled(bench, 4, 91);
    const shapes = [good, bad].map((sequence) => ({ sequence, layer: 1, queryHeadsPerKvHead: 1 }));
    const request = await bench.client.prepareAttend(shapes);
    await bad.reclaim();
    await assert.rejects(request.post(), (error: DriveCommandError) => {
      assert.ok(error instanceof DriveCommandError);
      assert.deepEqual([error.code, error.dw0], ['unknownSequence', 1]);
      assert.match(error.message, /ATTN \(2 entries\).*result 1/);
      return true;
    });
    await bench.client.kv.create(shape, { id: bad.id });
    await request.post();
    request.release();
  });
});

for (const way of ways) {
  test(`an aborted post keeps the request busy until the drive answers: ${way.path}`, async () => {
    await withDrive(way, async (bench) => {
      const { client, drive, kv } = bench;
      const sequence = await filled(bench, 4, 95);
      const request = await client.prepareAttend([{ sequence, layer: 1, queryHeadsPerKvHead: 1 }], { path: way.path });
      const answer = drive.io;
      const held: (() => unknown)[] = [];
      drive.io = (command) => void held.push(() => answer(command));
      const controller = new AbortController();
      const posting = request.post({ signal: controller.signal });
      while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
      controller.abort(new Error('enough'));
      await assert.rejects(posting, /enough/);
      await assert.rejects(request.post(), /under way/);
      drive.io = answer;
      held[0]?.();
      for (let i = 0; i < 1000 && (client.inFlightCount > 0 || kv.slots.size > 0); i++) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      await new Promise((resolve) => setImmediate(resolve));
      await request.post();
      assert.equal(kv.slots.size, 0);
      request.release();
    });
  });
}

test('what can never be one command is refused when it is prepared', async () => {
  await withDrive({ inCapsuleBytes: 1024 }, async (bench) => {
    const sequence = await filled(bench, 4, 97);
    const entry = { sequence, queryHeadsPerKvHead: 1 };
    const { client } = bench;
    await assert.rejects(client.prepareAttend([]), /0 entries; allowed: 1 to 1024/);
    await assert.rejects(client.prepareAttend([{ ...entry, queryTokenCount: 5000 }]), /query tokens: 5000/);
    await assert.rejects(client.prepareAttend([entry], { path: 'region' }), /shares no memory/);
    await assert.rejects(client.prepareAttend([{ ...entry, queryTokenCount: 20 }], { path: 'exchange' }), /do not fit/);
    const request = await client.prepareAttend([entry]);
    const [prepared] = request.entries;
    assert.throws(() => prepared && (prepared.layer = -1), RangeError);
    assert.throws(() => prepared && (prepared.queryPosition = 1.5), RangeError);
    const slots = await Promise.all(Array.from({ length: 64 }, () => client.prepareAttend([entry], { path: 'slot' })));
    await assert.rejects(client.prepareAttend([entry], { path: 'slot' }), { code: 'clientLimit' });
    slots[0]?.release();
    (await client.prepareAttend([entry], { path: 'slot' })).release();
  });
});

test('prepared requests do not take region space that is not there', async () => {
  await withDrive(
    { regions: true },
    async (bench) => {
      const sequence = await filled(bench, 4, 98);
      const entry = { sequence, queryHeadsPerKvHead: 1, layer: 1 };
      const prepare = () => bench.client.prepareAttend([entry]);
      const requests = await Promise.all(Array.from({ length: 16 }, prepare));
      await assert.rejects(prepare(), { code: 'clientLimit' });
      for (const request of requests) request.release();
      const again = await prepare();
      await again.post();
    },
    { regionSpaceBytes: 65_536 },
  );
});
