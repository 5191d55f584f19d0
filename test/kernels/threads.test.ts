import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { createArena, type Arena } from '../../daemon/base/arena.ts';
import {
  attendJob,
  boundsStruct,
  frameStruct,
  kernelNames,
  partialSizeBytes,
  type KernelName,
} from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { elementTypes } from '../../spec/element-type.ts';
import type { Work } from './attend-worker.ts';

const DIM = 40;
const TOKENS = 256;
const ROWS = 5;
const THREADS = 4;
const JOBS = 6;

/** A job over f16 keys and values of its own, whose rows need the kernels' scratch. */
function writeJob(arena: Arena, seed: number): { job: number; partials: number } {
  const cache = arena.allocate(2 * TOKENS * DIM * 2);
  const halves = new Uint16Array(arena.buffer, cache, 2 * TOKENS * DIM);
  for (let i = 0; i < halves.length; i++) halves[i] = 0x3000 + ((i * 977 + seed * 131) % 0x0d00);
  const queries = arena.allocate(ROWS * DIM * 4);
  new Float32Array(arena.buffer, queries, ROWS * DIM).forEach((_, i, all) => {
    all[i] = Math.sin(i * (seed + 1));
  });
  const bounds = arena.allocate(ROWS * 8);
  for (let row = 0; row < ROWS; row++)
    boundsStruct.encode({ start: row * 3, end: TOKENS - row }, arena.bytes, bounds + row * 8);
  const frames = arena.allocate(32);
  frameStruct.encode(
    {
      kOffset: cache,
      vOffset: cache + TOKENS * DIM * 2,
      firstToken: 0,
      tokenCount: TOKENS,
      kArena: 0,
      vArena: 0,
    },
    arena.bytes,
    frames,
  );
  const partials = arena.allocate(ROWS * partialSizeBytes(DIM));
  const job = arena.allocate(64);
  attendJob.encode(
    {
      queryCount: ROWS,
      headDimK: DIM,
      headDimV: DIM,
      elementTypeK: elementTypes.f16.code,
      elementTypeV: elementTypes.f16.code,
      frameCount: 1,
      frames,
      queries,
      bounds,
      sinkCount: 2,
      scale: 0.2,
      softCap: 0,
      partials,
    },
    arena.bytes,
    job,
  );
  return { job, partials };
}

async function runThreads(name: KernelName): Promise<void> {
  const arena = createArena(16 << 20);
  const kernels = loadKernels(name, { memory: arena.memory });
  const ready = new Int32Array(new SharedArrayBuffer(4));
  const workers = Array.from({ length: THREADS }, (_, thread) => {
    const jobs = Array.from({ length: JOBS }, (_unused, i) => {
      const { job, partials } = writeJob(arena, thread * JOBS + i);
      kernels.attend(job);
      return { job, partials, expected: arena.view(partials, ROWS * partialSizeBytes(DIM)).slice() };
    });
    const workerData: Work = {
      name,
      memory: arena.memory,
      jobs,
      ready,
      threadCount: THREADS,
      rounds: name === 'reference' ? 3 : 400,
    };
    return new Worker(new URL('./attend-worker.js', import.meta.url), { workerData });
  });
  await Promise.all(
    workers.map(async (worker) => {
      const [[report], [status]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')]);
      assert.deepEqual(report, { name, wrong: 0 });
      assert.equal(status, 0);
    }),
  );
}

for (const name of kernelNames) {
  const reason = name === 'native' ? nativeUnavailable() : undefined;
  test(
    `${name}: threads at work on one arena don't disturb each other`,
    {
      skip: reason === undefined ? false : `NOT TESTED: native kernels: ${reason}`,
    },
    () => runThreads(name),
  );

  test(`${name}: addresses beyond 2 GiB`, {
    skip: reason === undefined ? false : `NOT TESTED: native kernels: ${reason}`,
  }, () => {
    const arena = createArena(2.5 * 2 ** 30);
    arena.allocate(2.2 * 2 ** 30);
    const high = writeJob(arena, 1);
    assert.ok(high.job > 2 ** 31);
    const kernels = loadKernels(name, { memory: arena.memory });
    kernels.attend(high.job);
    const small = createArena(1 << 20);
    const low = writeJob(small, 1);
    loadKernels(name, { memory: small.memory }).attend(low.job);
    const size = ROWS * partialSizeBytes(DIM);
    assert.deepEqual(arena.view(high.partials, size).slice(), small.view(low.partials, size).slice());
    arena.view(high.partials, 9).set(new TextEncoder().encode('123456789'));
    assert.equal(kernels.crc32c(high.partials, 9), 0xe306_9283);
  });
}
