import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Arena, createArena } from '../../daemon/base/arena.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { type KvPageRun, type KvRunPages, type Lpn, PROGRAM_PAGES_MAX } from '../../daemon/ftl/contract.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { openDrive } from './open-drive.ts';
import { programPage } from './program-page.ts';

const PAGE_BYTES = 4096;
const RUNS = 40;
const GROUP_COUNT = 5;
const request = { blockCapacityBytes: 2 ** 18, kvCapacityBytes: 2 ** 24, pageSizeBytes: PAGE_BYTES, channelCount: 4 };

/** Programs runs of many lengths on a drive of which some programs fail, whole or page by page. What its files hold then. */
async function programRuns(whole: boolean, failureEvery: number) {
  const chip = { ...idealChip, spareBlocksPerUnit: 50 };
  const stores = new MemoryDriveStores(request, chip);
  let writes = 0;
  stores.media.onStep = (what) => void (what === 'program' && writes++);
  const arena = createArena(2 ** 22);
  const frames = arena.allocate(PROGRAM_PAGES_MAX * PAGE_BYTES);
  const programFails = (ppn: number): boolean => (ppn + 1) % failureEvery === 0;
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(1), {
    failures: { ...noFailures, programFails },
    arena,
    kvRecovery: { recover: (_, count) => new Uint16Array(count), settle: () => Promise.resolve() },
  });
  const lengths = createSeededRandom(2);
  const lpns = new Uint32Array(PROGRAM_PAGES_MAX);
  const all: Lpn[] = [];
  for (let i = 0; i < RUNS; i++) {
    const pageCount = 1 + (lengths.nextUint32() % PROGRAM_PAGES_MAX);
    const place = { layer: 3, firstGroup: 2 * i, groupCount: GROUP_COUNT, firstIndex: i % 7, pageCount };
    const run: KvPageRun = { sequenceId: 9n, generation: i, ...place };
    const channel = all.length % 4;
    arena.view(frames, pageCount * PAGE_BYTES).forEach((_, at, bytes) => (bytes[at] = at * 7 + (at >>> 12) + i));
    const reservation = await ftl.kv.reserve(pageCount);
    const pages = pagesAt(arena, frames, pageCount);
    if (whole) ftl.kv.program(reservation, run, pages, { channel, placement: 0 }, lpns);
    for (let page = 0; page < pageCount && !whole; page++) {
      const index = run.firstIndex + page;
      const stream = Math.floor(index / GROUP_COUNT);
      const group = run.firstGroup + (index % GROUP_COUNT);
      const tag = { ...run, head: stream >> 1, part: (stream & 1) as 0 | 1, group };
      const target = { channel: (channel + page) % 4, placement: 0 };
      lpns[page] = programPage(ftl.kv, reservation, tag, arena.view(frames + page * PAGE_BYTES, PAGE_BYTES), target);
    }
    assert.equal(reservation.remaining, 0);
    all.push(...(lpns.subarray(0, pageCount) as Iterable<number> as Iterable<Lpn>));
  }
  const ppns = all.map((lpn) => ftl.kv.locate(lpn));
  for (const lpn of all) await ftl.kv.read(lpn, frames);
  await ftl.abandon();
  return { ppns, writes, pageCount: all.length, cells: stores.media.cells, oob: stores.media.oob };
}

const pagesAt = (arena: Arena, offset: number, pageCount: number): KvRunPages => ({
  offset,
  checksums: Uint32Array.from({ length: pageCount }, (_, i) => crc32c(arena.view(offset + i * PAGE_BYTES, PAGE_BYTES))),
});

const sameFiles = async (failureEvery: number) => {
  const runs = await programRuns(true, failureEvery);
  const pages = await programRuns(false, failureEvery);
  assert.deepEqual(runs.ppns, pages.ppns);
  assert.equal(Buffer.compare(runs.cells, pages.cells), 0, 'cells');
  assert.equal(Buffer.compare(runs.oob, pages.oob), 0, 'out-of-band areas');
  return { runs, pages };
};

test('a run of pages leaves what its pages would one by one, wherever programs fail', async () => {
  await sameFiles(97);
});

test('pages of a run that come to lie side by side are written together', async () => {
  const { runs, pages } = await sameFiles(Number.MAX_SAFE_INTEGER);
  assert.equal(pages.writes, pages.pageCount);
  assert.ok(runs.writes < 3 * RUNS, `${runs.writes} writes for ${runs.pageCount} pages`);
});

test('a disk that refuses a run leaves none of its pages, and their numbers wait for a checkpoint', async () => {
  const stores = new MemoryDriveStores(request);
  const arena = createArena(2 ** 22);
  const frames = arena.allocate(16 * PAGE_BYTES);
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(1), {
    arena,
    kvRecovery: { recover: (_, count) => new Uint16Array(count), settle: () => Promise.resolve() },
  });
  const free = ftl.kv.freePageCount;
  const lpns = new Uint32Array(16);
  const run = { sequenceId: 9n, generation: 1, layer: 0, firstGroup: 0, groupCount: 16, firstIndex: 0, pageCount: 16 };
  const reservation = await ftl.kv.reserve(16);
  stores.media.onStep = () => {
    throw new Error('the disk is full');
  };
  const target = { channel: 0, placement: 0 };
  const pages = pagesAt(arena, frames, 16);
  assert.throws(() => ftl.kv.program(reservation, run, pages, target, lpns), /the disk is full/);
  stores.media.onStep = () => undefined;
  reservation.release();
  assert.equal(ftl.kv.freePageCount, free);
  assert.throws(() => ftl.kv.locate(lpns[0] as Lpn), /is mapped/);
  const again = await ftl.kv.reserve(16);
  const taken = new Uint32Array(16);
  ftl.kv.program(again, run, pages, target, taken);
  assert.ok(taken.every((lpn) => !lpns.includes(lpn)));
  await ftl.abandon();
});
