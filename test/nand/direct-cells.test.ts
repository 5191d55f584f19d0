import assert from 'node:assert/strict';
import { closeSync, constants, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MEDIA_HEADER_BYTES } from '../../spec/media-format/drive-superblock.ts';
import { createSlab, DirectIo } from '../../daemon/kernels/native/direct-io.ts';
import { DIRECT_BUFFER_BYTES, DirectCells } from '../../daemon/nand/direct-cells.ts';
import { createRandom } from '../attention/random.ts';
import { LateFile, skipDirect } from './direct-file.ts';

const PAGE = 16_384;
const PAGES = 700;
const CACHE_PAGES = 40;

interface Rig {
  readonly cells: DirectCells;
  readonly file: LateFile;
  /** What the file holds, without the header. */
  onDisk(): Buffer;
}

async function withCells(seed: number, work: (rig: Rig) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-direct-'));
  const path = join(folder, 'cells');
  const descriptor = openSync(path, constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT);
  ftruncateSync(descriptor, MEDIA_HEADER_BYTES + PAGES * PAGE);
  const io = new DirectIo(descriptor, createSlab(DIRECT_BUFFER_BYTES + CACHE_PAGES * PAGE));
  const file = new LateFile(io, createRandom(seed));
  const cells = new DirectCells(file, PAGE);
  try {
    await work({ cells, file, onDisk: () => readFileSync(path).subarray(MEDIA_HEADER_BYTES) });
  } finally {
    cells.close();
    closeSync(descriptor);
    rmSync(folder, { recursive: true });
  }
}

const filled = (sizeBytes: number, seed: number): Uint8Array =>
  new Uint8Array(sizeBytes).map((_, i) => seed * 31 + (i >>> 8) * 7 + i);

for (let seed = 1; seed <= 3; seed++) {
  const title = `reads and loads see what was written before them, wherever it is by then (seed ${seed})`;
  test(title, { skip: skipDirect }, async () => {
    await withCells(seed, async ({ cells, file, onDisk }) => {
      const random = createRandom(seed);
      const model = new Uint8Array(PAGES * PAGE);
      const running = new Set<Promise<void>>();
      const start = (work: Promise<void>): void => {
        running.add(work);
        void work.then(() => running.delete(work));
      };
      const cacheUsed = new Set<number>();
      let next = 0;
      const write = (byteOffset: number, bytes: Uint8Array): void => {
        cells.write(byteOffset, bytes);
        model.set(bytes, byteOffset);
      };
      const check = async (byteOffset: number, length: number): Promise<void> => {
        const expected = model.slice(byteOffset, byteOffset + length);
        const target = new Uint8Array(length);
        await cells.read(byteOffset, target);
        assert.ok(Buffer.compare(target, expected) === 0, `read of ${length} at ${byteOffset}`);
      };
      const load = async (page: number, pageCount: number, slot: number): Promise<void> => {
        const expected = model.slice(page * PAGE, (page + pageCount) * PAGE);
        const offset = DIRECT_BUFFER_BYTES + slot * 4 * PAGE;
        await new Promise<void>((resolve, reject) => {
          cells.load(page, pageCount, offset, (error) => (error ? reject(error) : resolve()));
        });
        const loaded = file.memory.subarray(offset, offset + expected.length);
        assert.ok(Buffer.compare(loaded, expected) === 0, `load of ${pageCount} pages from ${page}`);
        cacheUsed.delete(slot);
      };
      for (let step = 0; step < 300; step++) {
        const what = random.below(10);
        if (what < 5) {
          // As programs go: page after page, now and then from the start again.
          const count = 1 + random.below(24);
          if (next + count > PAGES - 60) next = random.below(100);
          // Nothing reads what is being written anew, as on a drive.
          await Promise.all(running);
          for (let i = 0; i < count; i++) write((next + i) * PAGE, filled(PAGE, step + i));
          next += count;
        } else if (what === 5) {
          await Promise.all(running);
          const at = (PAGES - 50 + random.below(49)) * PAGE + random.below(4) * 4096;
          write(at, filled(4096, step));
        } else if (what < 8) {
          const length = 1 + random.below(random.below(4) === 0 ? 700_000 : 40_000);
          start(check(random.below(PAGES * PAGE - length), length));
        } else if (what === 8) {
          const slot = random.below(CACHE_PAGES / 4);
          if (cacheUsed.has(slot)) continue;
          cacheUsed.add(slot);
          start(load(random.below(PAGES - 4), 1 + random.below(4), slot));
        } else {
          const expected = model.slice();
          await cells.settle();
          if (random.below(4) === 0) assert.ok(Buffer.compare(onDisk(), expected) === 0, 'settled means with the disk');
        }
      }
      await Promise.all(running);
      await cells.settle();
      assert.ok(Buffer.compare(onDisk(), model) === 0);
    });
  });
}

test('more programs in one turn than there are frames', { skip: skipDirect }, async () => {
  await withCells(9, async ({ cells, onDisk }) => {
    for (let page = 0; page < PAGES; page++) cells.write(page * PAGE, filled(PAGE, page));
    await cells.settle();
    const disk = onDisk();
    for (let page = 0; page < PAGES; page++) {
      assert.ok(
        Buffer.compare(disk.subarray(page * PAGE, (page + 1) * PAGE), filled(PAGE, page)) === 0,
        `page ${page}`,
      );
    }
  });
});

test('what the disk refuses is not settled, can still be read, and is written once the disk takes it', {
  skip: skipDirect,
}, async () => {
  await withCells(10, async ({ cells, file, onDisk }) => {
    const full = Object.assign(new Error('no room'), { code: 'ENOSPC' });
    file.refuse = (kind, { position }) =>
      kind === 'write' && position === MEDIA_HEADER_BYTES + 20 * PAGE ? full : undefined;
    for (let page = 0; page < 4; page++) cells.write((20 + page) * PAGE, filled(PAGE, page));
    cells.write(0, filled(PAGE, 7));
    const unwritten = { message: 'no room', cause: full };
    await assert.rejects(cells.settle(), unwritten);
    await assert.rejects(cells.settle(), unwritten);
    const target = new Uint8Array(2 * PAGE);
    await cells.read(20 * PAGE, target);
    assert.ok(Buffer.compare(target.subarray(0, PAGE), filled(PAGE, 0)) === 0);
    assert.ok(Buffer.compare(target.subarray(PAGE), filled(PAGE, 1)) === 0);
    cells.write(20 * PAGE, filled(PAGE, 8));
    // The ring comes round to the frame that is not given back.
    assert.throws(() => {
      for (let page = 30; page < PAGES; page++) cells.write(page * PAGE, filled(PAGE, page));
    }, full);
    file.refuse = () => undefined;
    await cells.settle();
    assert.ok(Buffer.compare(onDisk().subarray(20 * PAGE, 21 * PAGE), filled(PAGE, 8)) === 0);
  });
});

test('a read that fails says so, and its memory is used again', { skip: skipDirect }, async () => {
  await withCells(11, async ({ cells, file }) => {
    const failure = Object.assign(new Error('bad sector'), { code: 'EIO' });
    file.refuse = (kind) => (kind === 'read' ? failure : undefined);
    for (let i = 0; i < 20; i++) await assert.rejects(cells.read(0, new Uint8Array(4096)), failure);
    await new Promise<void>((resolve, reject) => {
      cells.load(3, 2, DIRECT_BUFFER_BYTES, (error) => (error === failure ? resolve() : reject(new Error('loaded'))));
    });
    file.refuse = () => undefined;
    await cells.read(0, new Uint8Array(4096));
  });
});
