/** How long a host waits for garbage collection, in pages: never for a whole superblock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { defaultGcOptions, thresholdsOf } from '../../daemon/ftl/gc-options.ts';
import type { VictimPolicyName } from '../../daemon/ftl/victim-policy.ts';
import { planGeometry } from '../../daemon/nand/geometry.ts';
import { ManualClock } from '../kv/fixture.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, openDrive, type OpenDrive } from './open-drive.ts';

const MIB = 2 ** 20;
/** Superblocks of 32 pages, of which the larger namespace has 128 or more. */
const large = { pageSizeBytes: 4096, channelCount: 4, diesPerChannel: 1 };

/** What garbage collection has done so far, in pages. */
const copied = ({ ftl }: OpenDrive): number => {
  const { reads, programs } = ftl.flash.array.counters;
  return Math.max(reads.gc, programs.gc);
};

interface Waits {
  /** Most pages copied between a request and its end. */
  max: number;
  total: number;
  count: number;
}

async function measure(drive: OpenDrive, count: number, request: (i: number) => Promise<void>): Promise<Waits> {
  const waits = { max: 0, total: 0, count };
  for (let i = 0; i < count; i++) {
    const before = copied(drive);
    await request(i);
    const pages = copied(drive) - before;
    waits.max = Math.max(waits.max, pages);
    waits.total += pages;
  }
  return waits;
}

/** Fills the namespace, then writes it over at random, a block or page at a time. */
async function overwriteBlocks(drive: OpenDrive, random: Random): Promise<Waits> {
  const { blocks } = drive.ftl;
  for (let lba = 0; lba < blocks.lbaCount; lba++) await blocks.write(lba, 1, lbaContent(lba, 1), false);
  const write = (i: number): Promise<void> => {
    const lba = random.nextUint32() % blocks.lbaCount;
    return blocks.write(lba, 1, lbaContent(lba, 2 + i), false);
  };
  return measure(drive, blocks.lbaCount, write);
}

async function overwritePages(drive: OpenDrive, random: Random): Promise<Waits> {
  const { ftl, keeper } = drive;
  for (let key = 0; key < ftl.kv.pageCount; key++) await keeper.put(key, 1);
  let version = 1;
  return measure(drive, ftl.kv.pageCount, async () => {
    const key = random.nextUint32() % ftl.kv.pageCount;
    keeper.remove(key, ++version);
    await keeper.put(key, ++version);
  });
}

/** What is owed is less than a superblock, except where hardly anything is to spare. */
const cases: ['block' | 'kv', number, VictimPolicyName][] = [
  ['block', 0.28, 'greedy'],
  ['block', 0.28, 'fifo'],
  ['block', 0.01, 'greedy'],
  ['kv', 0.07, 'greedy'],
  ['kv', 0.07, 'fifo'],
  ['kv', 0.01, 'greedy'],
];
for (const [pool, overProvisioning, policy] of cases) {
  const what = `${pool}, ${Math.round(100 * overProvisioning)} % to spare, ${policy}`;
  test(`on a full drive no request waits for more copies than its pages owe: ${what}`, async () => {
    const random = createSeededRandom(3);
    const capacities = pool === 'block' ? [16, 1] : [1, 16];
    const [blockCapacityBytes, kvCapacityBytes] = capacities.map((size) => size * MIB) as [number, number];
    const stores = new MemoryDriveStores({ ...large, blockCapacityBytes, kvCapacityBytes, overProvisioning });
    const drive = await openDrive(stores.stores(), random, { gc: { ...defaultGcOptions, policy } });
    assert.equal(drive.ftl.geometry.pagesPerSuperblock, 32);
    const waits = await (pool === 'block' ? overwriteBlocks : overwritePages)(drive, random);
    const { thresholds, counters } = drive.ftl.spaces[pool];
    // A write of a block may fill a page, and find both caches full: it reserves three.
    const owed = thresholds.movesPerHostPage * (pool === 'block' ? 3 : 1);
    assert.ok(overProvisioning < 0.05 || owed < drive.ftl.geometry.pagesPerSuperblock);
    assert.ok(waits.max <= owed, `${waits.max} pages copied, ${owed} owed at most`);
    assert.equal(counters.eraseWaits, 0, 'something was always erased in advance');
    assert.ok(waits.total > 0.5 * waits.count, `garbage collection ran: ${waits.total} pages copied`);
    await drive.ftl.close();
  });
}

test('what a page owes follows from what there is to spare, not from the size of a superblock', () => {
  const gib = 2 ** 30;
  for (const sizeGib of [16, 64, 512]) {
    const geometry = planGeometry({
      blockCapacityBytes: sizeGib * gib,
      kvCapacityBytes: gib,
      pageSizeBytes: 16_384,
      channelCount: 8,
      diesPerChannel: 4,
      overProvisioning: 0.07,
    });
    const writers = { geometry, quota: geometry.blockSuperblockCount, writePointCount: 1 };
    const { movesPerHostPage } = thresholdsOf('block', writers, defaultGcOptions);
    assert.ok(movesPerHostPage <= 32, `${movesPerHostPage} pages at ${sizeGib} GiB`);
    assert.ok(movesPerHostPage < geometry.pagesPerSuperblock / 30);
  }
});

test('while hosts are idle, garbage collection goes on up to the stop threshold, and gives way at once', async () => {
  const random = createSeededRandom(5);
  const clock = new ManualClock();
  const capacities = { blockCapacityBytes: 16 * MIB, kvCapacityBytes: MIB };
  const stores = new MemoryDriveStores({ ...large, ...capacities, overProvisioning: 0.28 });
  const gc = { ...defaultGcOptions, startSuperblocks: 1, stopSuperblocks: 6 };
  const drive = await openDrive(stores.stores(), random, { clock, gc });
  const space = drive.ftl.spaces.block;
  const { startPages, stopPages } = space.thresholds;
  assert.ok(startPages === 32 && stopPages > 4 * startPages, `${startPages}, ${stopPages}`);
  await overwriteBlocks(drive, random);
  assert.ok(space.roomPages < startPages + 32, `${space.roomPages} pages of room under load`);
  assert.equal(space.counters.idleMoves, 0, 'no time has passed');
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  clock.advance(1);
  await turn();
  // The timer saw that hosts were busy; it begins anew.
  clock.advance(1);
  await turn();
  const before = space.counters.idleMoves;
  assert.ok(before > 0, 'it runs');
  // A host comes: after its write not a page more is moved.
  await drive.ftl.blocks.write(0, 1, lbaContent(0, 9), false);
  const atWrite = space.counters.idleMoves;
  for (let i = 0; i < 20; i++) await turn();
  assert.ok(space.counters.idleMoves <= atWrite + 8, 'it gave way');
  assert.ok(space.roomPages < stopPages);

  for (let i = 0; i < 400 && space.roomPages < stopPages; i++) {
    clock.advance(1);
    await turn();
  }
  assert.ok(space.roomPages >= stopPages, `${space.roomPages} of ${stopPages} pages`);
  const done = space.counters.idleMoves;
  clock.advance(10);
  for (let i = 0; i < 20; i++) await turn();
  assert.equal(space.counters.idleMoves, done, 'and no further');
  await drive.ftl.close();
});
