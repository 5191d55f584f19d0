import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { attendJob, boundsStruct, frameStruct, partialSizeBytes } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';

const reason = nativeUnavailable();
const skip = reason === undefined ? false : `NOT TESTED: native kernels: ${reason}`;
const folder = mkdtempSync(join(tmpdir(), 'attndrive-media-'));
const path = join(folder, 'cells.bin');
const descriptor = openSync(path, 'w+');
after(() => {
  closeSync(descriptor);
  rmSync(folder, { recursive: true });
});

const MEDIA_BYTES = 65_536;
const DIM = 16;
const TOKENS = 40;
const K_AT = 8192;
const V_AT = 32_768;
const floats = Float32Array.from({ length: MEDIA_BYTES / 4 }, (_, i) => Math.sin(i));
writeSync(descriptor, new Uint8Array(floats.buffer));

/** One query over TOKENS f32 tokens; its frame names `arenaCode`. Gives the job's and the partial's offsets. */
function writeJob(
  arena: ReturnType<typeof createArena>,
  frame: { kOffset: number; vOffset: number; arenaCode: number },
): { job: number; partials: number } {
  const frames = arena.allocate(32);
  const queries = arena.allocate(DIM * 4);
  const bounds = arena.allocate(8);
  const partials = arena.allocate(partialSizeBytes(DIM));
  const job = arena.allocate(64);
  new Float32Array(arena.buffer, queries, DIM).fill(0.5);
  boundsStruct.encode({ start: 0, end: TOKENS }, arena.bytes, bounds);
  frameStruct.encode(
    {
      kOffset: frame.kOffset,
      vOffset: frame.vOffset,
      firstToken: 0,
      tokenCount: TOKENS,
      kArena: frame.arenaCode,
      vArena: frame.arenaCode,
    },
    arena.bytes,
    frames,
  );
  attendJob.encode(
    {
      queryCount: 1,
      headDimK: DIM,
      headDimV: DIM,
      elementTypeK: 1,
      elementTypeV: 1,
      frameCount: 1,
      frames,
      queries,
      bounds,
      sinkCount: 0,
      scale: 1,
      softCap: 0,
      partials,
    },
    arena.bytes,
    job,
  );
  return { job, partials };
}

test('native: frames in the media mapping give what they give in the arena', { skip }, () => {
  const arena = createArena(1 << 20);
  const kernels = loadKernels('native', {
    memory: arena.memory,
    media: { fileDescriptor: descriptor, sizeBytes: MEDIA_BYTES },
  });
  assert.ok(kernels.canMapMedia);
  const copy = arena.allocate(MEDIA_BYTES);
  arena.bytes.set(new Uint8Array(floats.buffer), copy);
  const inArena = writeJob(arena, { kOffset: copy + K_AT, vOffset: copy + V_AT, arenaCode: 0 });
  const inMedia = writeJob(arena, { kOffset: K_AT, vOffset: V_AT, arenaCode: 1 });
  kernels.attend(inArena.job);
  kernels.attend(inMedia.job);
  const size = partialSizeBytes(DIM);
  const result = arena.view(inMedia.partials, size).slice();
  assert.deepEqual(result, arena.view(inArena.partials, size).slice());
  assert.ok(new Float32Array(result.buffer).some((x) => x !== 0));
  for (const [at, bytes] of [
    [0, MEDIA_BYTES],
    [4096, 16_384],
    [5, 99],
  ] as const) {
    assert.equal(kernels.crc32cMedia(at, bytes), kernels.crc32c(copy + at, bytes));
  }
});

test('native: what is written to the file later is seen', { skip }, () => {
  const arena = createArena(1 << 20);
  const media = { fileDescriptor: descriptor, sizeBytes: MEDIA_BYTES };
  const kernels = loadKernels('native', { memory: arena.memory, media });
  const before = kernels.crc32cMedia(0, 4096);
  writeSync(descriptor, Uint8Array.of(1, 2, 3), 0, 3, 100);
  assert.notEqual(kernels.crc32cMedia(0, 4096), before);
  writeSync(descriptor, new Uint8Array(floats.buffer, 100, 3), 0, 3, 100);
  assert.equal(kernels.crc32cMedia(0, 4096), before);
});

test('native: bytes that are in memory are copied, and those that are not are not waited for', { skip }, () => {
  const arena = createArena(1 << 20);
  const holes = mkdtempSync(join(tmpdir(), 'holes-'));
  const sparse = openSync(join(holes, 'sparse.bin'), 'w+');
  try {
    ftruncateSync(sparse, 4 * MEDIA_BYTES);
    writeSync(sparse, new Uint8Array(floats.buffer, 0, MEDIA_BYTES), 0, MEDIA_BYTES, 2 * MEDIA_BYTES);
    const media = { fileDescriptor: sparse, sizeBytes: 4 * MEDIA_BYTES };
    const kernels = loadKernels('native', { memory: arena.memory, media });
    const target = new Uint8Array(MEDIA_BYTES);
    assert.equal(kernels.copyResidentMedia(0, target), false, 'nobody has read the hole');
    assert.equal(kernels.copyResidentMedia(3 * MEDIA_BYTES - 1, target), false, 'the last byte alone is there');
    for (const [from, bytes] of [
      [0, MEDIA_BYTES],
      [4096, 4096],
      [77, 5000],
    ] as const) {
      const part = target.subarray(0, bytes).fill(0);
      assert.equal(kernels.copyResidentMedia(2 * MEDIA_BYTES + from, part), true);
      assert.deepEqual(part, new Uint8Array(floats.buffer, from, bytes));
    }
    readSync(sparse, target, 0, MEDIA_BYTES, 0);
    assert.equal(kernels.copyResidentMedia(0, target), true);
    assert.throws(() => kernels.copyResidentMedia(4 * MEDIA_BYTES - 1, target), /within the media/);
    assert.throws(() => kernels.copyResidentMedia(0, new Uint8Array(0)), /within the media/);
  } finally {
    closeSync(sparse);
    rmSync(holes, { recursive: true });
  }
});

test('native: nothing outside arena and mapping is read', { skip }, () => {
  const arena = createArena(1 << 20);
  const bare = loadKernels('native', { memory: arena.memory });
  const mapped = loadKernels('native', {
    memory: arena.memory,
    media: { fileDescriptor: descriptor, sizeBytes: MEDIA_BYTES },
  });
  assert.equal(bare.canMapMedia, false);
  assert.throws(() => bare.crc32cMedia(0, 1), /outside/);
  assert.throws(() => mapped.crc32cMedia(MEDIA_BYTES - 3, 4), /outside/);
  assert.throws(() => mapped.crc32cMedia(2 ** 53 - 1, 1), /outside/);
  assert.throws(() => mapped.crc32c(arena.sizeBytes - 3, 4), /outside/);
  assert.throws(() => mapped.crc32c(-1, 4), /out of range/);
  assert.throws(() => mapped.crc32c(Number.NaN, 4), /out of range/);
  assert.throws(() => mapped.attend(arena.sizeBytes - 32), /outside/);
  assert.throws(() => mapped.merge(arena.sizeBytes - 32), /outside/);
  assert.throws(() => mapped.convert(arena.sizeBytes - 8, 1, 4096, 2, 3, 1), /outside/);
  assert.throws(() => mapped.convert(300_000, 9, 400_000, 2, 3, 1), /unknown element type/);
  const frameBytes = TOKENS * DIM * 4;
  for (const [kernels, frame] of [
    [bare, { kOffset: 0, vOffset: 0, arenaCode: 1 }],
    [mapped, { kOffset: MEDIA_BYTES - frameBytes + 4, vOffset: 0, arenaCode: 1 }],
    [mapped, { kOffset: 0, vOffset: 2 ** 53 - 8, arenaCode: 1 }],
    [mapped, { kOffset: arena.sizeBytes - frameBytes + 4, vOffset: 300_000, arenaCode: 0 }],
    [mapped, { kOffset: 300_000, vOffset: 300_000, arenaCode: 2 }],
  ] as const) {
    assert.throws(() => kernels.attend(writeJob(arena, frame).job), /frame lies outside/);
  }
});

test('native: a media file shorter than asked for is refused', { skip }, () => {
  const arena = createArena(1 << 20);
  const load = (fileDescriptor: number, sizeBytes: number): unknown =>
    loadKernels('native', { memory: arena.memory, media: { fileDescriptor, sizeBytes } });
  assert.throws(
    () => load(descriptor, MEDIA_BYTES + 1),
    (error: DriveError) => error instanceof DriveError && /65536 bytes, 65537 are to be mapped/.test(error.message),
  );
  assert.throws(() => load(987_654, 4096), DriveError);
});

const noMaps = skip || (process.platform === 'linux' ? false : 'needs /proc/self/maps');

test('native: mappings go with the kernels that made them', { skip: noMaps }, async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const mappingCount = (): number =>
    readFileSync('/proc/self/maps', 'utf8')
      .split('\n')
      .filter((line) => line.endsWith(path)).length;
  const arena = createArena(1 << 20);
  for (let i = 0; i < 20; i++) {
    loadKernels('native', { memory: arena.memory, media: { fileDescriptor: descriptor, sizeBytes: MEDIA_BYTES } });
  }
  assert.ok(mappingCount() >= 20);
  for (let round = 0; round < 50 && mappingCount() > 0; round++) {
    collect();
    await delay(5);
  }
  assert.equal(mappingCount(), 0);
});
