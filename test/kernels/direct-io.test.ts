import assert from 'node:assert/strict';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { DirectRange } from '../../daemon/base/direct-file.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { createSlab, DirectIo } from '../../daemon/kernels/native/direct-io.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { createRandom } from '../attention/random.ts';

const BLOCK = 4096;
const unavailable = nativeUnavailable();
const skip = unavailable !== undefined && `SKIPPED: ${unavailable}`;

interface Rig {
  readonly path: string;
  readonly io: DirectIo;
  transfer(kind: 'read' | 'write', range: DirectRange): Promise<void>;
}

/** In the working tree, since a temporary folder may be on a file system that knows no direct I/O. */
async function withFile(bytes: Uint8Array, slabBytes: number, work: (rig: Rig) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(import.meta.dirname, 'direct-'));
  const path = join(folder, 'file');
  writeFileSync(path, bytes);
  const descriptor = openSync(path, constants.O_RDWR | constants.O_DIRECT);
  const io = new DirectIo(descriptor, createSlab(slabBytes));
  try {
    await work({
      path,
      io,
      transfer: (kind, range) =>
        new Promise((resolve, reject) => {
          io.transfer(kind, range, (error) => (error ? reject(error) : resolve()));
        }),
    });
  } finally {
    io.close();
    closeSync(descriptor);
    rmSync(folder, { recursive: true });
  }
}

test('requests of any size, in any order, move what they say and nothing else', { skip }, async () => {
  const random = createRandom(3);
  const blockCount = 64;
  const file = Uint8Array.from({ length: blockCount * BLOCK }, () => random.below(256));
  await withFile(file, blockCount * BLOCK, async ({ path, io, transfer }) => {
    const memory = io.memory.slice();
    assert.deepEqual(new Set(memory), new Set([0]), 'a slab begins as zeros');
    for (let round = 0; round < 20; round++) {
      const kind = round % 3 === 2 ? 'write' : 'read';
      // Ranges of one round do not overlap, neither in the file nor in memory.
      let [position, offset] = [0, 0];
      const ranges: DirectRange[] = [];
      for (;;) {
        const sizeBytes = (1 + random.below(6)) * BLOCK;
        position += random.below(3) * BLOCK;
        offset += random.below(3) * BLOCK;
        if (Math.max(position, offset) + sizeBytes > file.length) break;
        ranges.push({ position, offset, sizeBytes });
        position += sizeBytes;
        offset += sizeBytes;
      }
      await Promise.all(ranges.map((range) => transfer(kind, range)));
      for (const range of ranges) {
        const inFile = file.subarray(range.position, range.position + range.sizeBytes);
        const inMemory = memory.subarray(range.offset, range.offset + range.sizeBytes);
        if (kind === 'read') inMemory.set(inFile);
        else inFile.set(inMemory);
      }
      assert.ok(Buffer.compare(io.memory, memory) === 0, `memory after ${kind}s`);
      assert.ok(Buffer.compare(readFileSync(path), file) === 0, `file after ${kind}s`);
      const at = random.below(blockCount) * BLOCK;
      io.memory.fill(round + 1, at, at + BLOCK);
      memory.fill(round + 1, at, at + BLOCK);
    }
  });
});

test('a request that fails says why, and others go on', { skip }, async () => {
  await withFile(new Uint8Array(2 * BLOCK), 8 * BLOCK, async ({ io, transfer }) => {
    const beyond = transfer('read', { position: BLOCK, offset: 0, sizeBytes: 2 * BLOCK });
    const fine = transfer('read', { position: 0, offset: 4 * BLOCK, sizeBytes: BLOCK });
    await assert.rejects(beyond, /too short/);
    await fine;
    const slab = createSlab(BLOCK);
    const onlyRead = openSync(import.meta.filename, constants.O_RDONLY);
    const other = new DirectIo(onlyRead, slab);
    const refused = new Promise((resolve) => {
      other.transfer('write', { position: 0, offset: 0, sizeBytes: BLOCK }, resolve);
    });
    assert.equal(((await refused) as NodeJS.ErrnoException).code, 'EBADF');
    other.close();
    closeSync(onlyRead);
    const misplaced = { position: 512, offset: 0, sizeBytes: BLOCK };
    assert.throws(() => io.transfer('read', misplaced, () => undefined), /aligned/);
    const outside = { position: 0, offset: 8 * BLOCK, sizeBytes: BLOCK };
    assert.throws(() => io.transfer('read', outside, () => undefined), /outside of the slab/);
  });
});

test('who drains waits for one request, who closes for all', { skip }, async () => {
  await withFile(new Uint8Array(16 * BLOCK), 16 * BLOCK, async ({ io }) => {
    let done = 0;
    for (let i = 0; i < 16; i++) {
      io.transfer('read', { position: i * BLOCK, offset: i * BLOCK, sizeBytes: BLOCK }, () => done++);
    }
    io.drain();
    assert.ok(done >= 1);
    io.close();
    assert.equal(done, 16);
    io.drain();
  });
});

test('more requests than are taken at once', { skip }, async () => {
  await withFile(new Uint8Array(BLOCK), BLOCK, async ({ transfer }) => {
    const range = { position: 0, offset: 0, sizeBytes: BLOCK };
    await Promise.all(Array.from({ length: 2000 }, () => transfer('read', range)));
  });
});

test('a process whose requests are on their way waits for them, and for nothing else', { skip }, async () => {
  // A worker ends by itself when nothing keeps it alive.
  const script = `
    const { DirectIo, createSlab } = await import(process.env.DIRECT_IO);
    const { openSync } = await import('node:fs');
    const { parentPort } = await import('node:worker_threads');
    const io = new DirectIo(openSync(process.env.FILE, 'r'), createSlab(4096));
    io.transfer('read', { position: 0, offset: 0, sizeBytes: 4096 }, () => parentPort.postMessage('done'));`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), {
    env: {
      DIRECT_IO: new URL('../../daemon/kernels/native/direct-io.js', import.meta.url).href,
      FILE: process.execPath,
    },
  });
  const messages: unknown[] = [];
  worker.on('message', (message) => messages.push(message));
  const code = await new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', resolve);
  });
  assert.equal(code, 0);
  assert.deepEqual(messages, ['done']);
});

test('kernels of another thread see a slab by its number, and not beyond its end', { skip }, async () => {
  const slab = createSlab(2 * BLOCK);
  slab.bytes.set([1, 2, 3, 4], BLOCK);
  const kernels = loadKernels('native', { memory: createArena(1 << 20).memory, slab: slab.id });
  assert.equal(kernels.canMapMedia, true);
  assert.equal(kernels.crc32cMedia(BLOCK, 4), kernels.crc32cOf(Uint8Array.of(1, 2, 3, 4)));
  assert.throws(() => kernels.crc32cMedia(2 * BLOCK - 2, 4), /outside its arena/);
  const memory = createArena(1 << 20).memory;
  assert.throws(() => loadKernels('native', { memory, slab: 255 }), /no such slab/);
});
