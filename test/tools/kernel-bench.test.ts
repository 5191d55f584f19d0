import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { frameArenas, partialSizeBytes } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { elementTypes } from '../../spec/element-type.ts';
import { type Frame, writeJobs } from '../../tools/bench/attend-jobs.ts';
import { type Contestant, contest, readContestant, statesOf } from '../../tools/bench/contest.ts';
import { randomHalves } from '../../tools/bench/drive-layers.ts';
import { layerBytes, shapeOf } from '../../tools/bench/shapes.ts';
import { StoredLayers } from '../../tools/bench/stored-layers.ts';
import { ThreadTeam } from '../../tools/bench/thread-team.ts';

const reason = nativeUnavailable();
const skip = reason === undefined ? false : `NOT TESTED: native kernels: ${reason}`;

const HEAD_DIM = 16;
const FRAME_TOKENS = 8;

/** Frames of random rows in a new arena, and the jobs over them. */
function jobsInArena(frameCount: number) {
  const arena = createArena(1 << 21);
  const rows = randomHalves(2 * frameCount * FRAME_TOKENS * HEAD_DIM, 3);
  const at = arena.allocate(rows.byteLength);
  arena.bytes.set(new Uint8Array(rows.buffer), at);
  const frameBytes = FRAME_TOKENS * HEAD_DIM * 2;
  const frames = Array.from({ length: frameCount }, (_, i): Frame => {
    const kOffset = at + 2 * i * frameBytes;
    return { kOffset, vOffset: kOffset + frameBytes, arena: frameArenas.memory, tokenCount: FRAME_TOKENS };
  });
  const shape = {
    queryCount: 3,
    headDim: HEAD_DIM,
    elementType: elementTypes.f16.code,
    groupsPerJob: 1,
    isLong: false,
  };
  const jobs = writeJobs(arena, frames, shape);
  const partials = jobs.map((job) => new DataView(arena.buffer, job).getUint32(48, true));
  const results = (): Buffer[] =>
    partials.map((offset) => Buffer.from(arena.view(offset, 3 * partialSizeBytes(HEAD_DIM)).slice()));
  return { arena, jobs, partials, results };
}

test('a team runs every job once, on one thread or several, task after task', async () => {
  const { arena, jobs, partials, results } = jobsInArena(200);
  const kernels = loadKernels('wasm', { memory: arena.memory });
  for (const job of jobs) kernels.attend(job);
  const expected = results();
  const team = await ThreadTeam.open({ memory: arena.memory }, { sets: ['wasm'], threadCountMax: 3 });
  try {
    for (const threadCount of [3, 1, 2, 3]) {
      for (const offset of partials) arena.view(offset, 3 * partialSizeBytes(HEAD_DIM)).fill(0);
      const milliseconds = team.run({ kind: 'attend', set: 'wasm', items: jobs }, threadCount);
      assert.ok(milliseconds > 0);
      assert.deepEqual(results(), expected);
    }
  } finally {
    await team.close();
  }
});

test('contestants take turns at different places, and every round has all of them', async () => {
  const { arena, jobs } = jobsInArena(16);
  const team = await ThreadTeam.open({ memory: arena.memory }, { sets: ['wasm'], threadCountMax: 2 });
  try {
    const range = { offset: 2 ** 20, sizeBytes: 2 ** 20, media: false };
    const read = readContestant('wasm', 2, range);
    const task = { kind: 'attend', set: 'wasm' } as const;
    const kernel: Contestant = { name: 'kernel', task, threadCount: 1, items: jobs, itemBytes: 512 };
    const rounds = contest(team, [read, kernel], 3);
    assert.equal(rounds.length, 3);
    for (const rates of rounds) assert.ok(rates.get(read.name)! > 0 && rates.get('kernel')! > 0);
  } finally {
    await team.close();
  }
});

test('rounds are sorted by whether more threads read faster than one', () => {
  const one = readContestant('wasm', 1, { offset: 0, sizeBytes: 2 ** 20, media: false });
  const many = readContestant('wasm', 2, { offset: 0, sizeBytes: 2 ** 20, media: false });
  const round = (a: number, b: number): Map<string, number> =>
    new Map([
      [one.name, a],
      [many.name, b],
    ]);
  const bound = Array.from({ length: 9 }, () => round(30, 38));
  const unbound = [round(30, 40), round(30, 60)];
  const states = statesOf([...bound, ...unbound], one, many);
  assert.deepEqual(
    states.map(({ name, rounds }) => [name, rounds.length]),
    [
      ['bus-bound', 9],
      ['not bus-bound', 2],
    ],
  );
  // One round of twenty may be chance.
  assert.deepEqual(
    statesOf([...bound, ...bound, round(30, 60)], one, many).map(({ name }) => name),
    ['bus-bound'],
  );
  assert.equal(statesOf(bound, undefined, many)[0]!.rounds.length, 9);
});

test('layers on flash: every order has all bytes, each page once, where the mapping has them', { skip }, async () => {
  const shape = shapeOf('32/8', 256, 2 * 2 ** 20);
  const orders = ['prefill', 'decode', 'shuffled'] as const;
  const layers = await StoredLayers.open(shape, { pageSizeBytes: 4096, storages: [...orders, 'int8', 'int4'] });
  try {
    const kernels = loadKernels('native', layers.resources);
    const bytes = Buffer.from(layers.resources.memory.buffer as ArrayBuffer);
    for (const order of orders) {
      const jobs = layers.jobs(order);
      assert.equal(jobs.length * layers.jobBytes(order), layerBytes(shape) * shape.layerCount);
      const offsets = jobs.flatMap((job) => {
        const frames = Array.from(
          { length: bytes.readUInt32LE(job + 20) },
          (_, i) => bytes.readUInt32LE(job + 24) + i * 32,
        );
        // Pages that lie side by side are one frame.
        return frames.flatMap((frame) =>
          Array.from({ length: bytes.readUInt32LE(frame + 20) / 16 }, (_, page) => [
            bytes.readBigUInt64LE(frame) + BigInt(4096 * page),
            bytes.readBigUInt64LE(frame + 8) + BigInt(4096 * page),
          ]).flat(),
        );
      });
      assert.equal(new Set(offsets).size, offsets.length);
      assert.equal(offsets.length * 4096, jobs.length * layers.jobBytes(order));
      for (const job of jobs) kernels.attend(job);
      // Weights sum to something, and no page is empty: its rows are neither NaN nor all zero.
      const sums = jobs.map((job) => bytes.readFloatLE(bytes.readUInt32LE(job + 48) + 4));
      assert.ok(sums.every((sum) => sum >= 1 && sum < 256));
      for (const offset of offsets) assert.notEqual(kernels.crc32cMedia(Number(offset), 4096), 0x98f94189);
    }
    // Rows of 136 and 72 bytes: 30 and 56 tokens a page, whole pages only, 8 KV heads of each layer.
    for (const [type, tokenCount] of [
      ['int8', 240],
      ['int4', 224],
    ] as const) {
      const jobs = layers.jobs(type);
      const f16Bytes = 2 * tokenCount * 8 * 128 * 2 * shape.layerCount;
      assert.equal(jobs.length * layers.jobBytes(type), f16Bytes);
      for (const job of jobs) kernels.attend(job);
    }
  } finally {
    await layers.close();
  }
});
