/** Wear is spread over all superblocks, whatever hosts write over and whatever they leave. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { Ftl } from '../../daemon/ftl/ftl.ts';
import { Superblocks } from '../../daemon/ftl/superblocks.ts';
import { OPENINGS_PER_MOVE, spreadMaxOf, WearLeveller } from '../../daemon/ftl/wear-levelling.ts';
import { BlockTable } from '../../daemon/nand/block-table.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { superblockOf } from '../../daemon/nand/geometry.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const MIB = 2 ** 20;
const request = { blockCapacityBytes: 2 * MIB, kvCapacityBytes: 2 * MIB, channelCount: 1, overProvisioning: 0.1 };
const HOT_SHARE = 0.1;

/** Erases by which superblocks differ; those that stand open wait for hosts to fill them. */
function spreadOf(ftl: Ftl): number {
  const counts = ftl.superblocks().flatMap(({ state, eraseCount }) => (state === 'open' ? [] : [eraseCount]));
  return Math.max(...counts) - Math.min(...counts);
}

/** A drive that is full, of which a tenth is written over `rounds` times as much as it holds. */
async function writeOverHot(
  { ftl, keeper }: OpenDrive,
  rounds: number,
): Promise<{ spread: number; check: () => Promise<void> }> {
  const random = createSeededRandom(3);
  const { lbaCount } = ftl.blocks;
  const keyCount = ftl.kv.pageCount - 2;
  const versions = new Uint32Array(lbaCount);
  let version = 0;
  const writeBlock = async (lba: number): Promise<void> => {
    versions[lba] = ++version;
    await ftl.blocks.write(lba, 1, lbaContent(lba, version), false);
  };
  for (let lba = 0; lba < lbaCount; lba++) await writeBlock(lba);
  for (let key = 0; key < keyCount; key++) await keeper.put(key, ++version, key);
  let spread = 0;
  for (let i = 0; i < rounds * lbaCount; i++) {
    await writeBlock(random.nextUint32() % Math.floor(HOT_SHARE * lbaCount));
    if (i % 4 === 0) {
      const key = random.nextUint32() % Math.floor(HOT_SHARE * keyCount);
      await keeper.put(key, ++version, key);
    }
    if (i % 200 === 0) spread = Math.max(spread, spreadOf(ftl));
  }
  const check = async (): Promise<void> => {
    for (const [lba, expected] of versions.entries()) assert.equal(await lbaVersion(ftl, lba), expected, `LBA ${lba}`);
    for (let key = 0; key < keyCount; key++) assert.ok((await keeper.check(key)) > 0, `key ${key}`);
  };
  return { spread, check };
}

test('with 90 % cold data in both namespaces erase counts stay within the bound; without levelling they do not', {
  timeout: 60_000,
}, async () => {
  const spreadMax = 8;
  const bound = spreadMax + OPENINGS_PER_MOVE;
  const levelled = await openDrive(new MemoryDriveStores(request).stores(), createSeededRandom(1), {
    wearSpreadMax: spreadMax,
  });
  const { spread, check } = await writeOverHot(levelled, 30);
  assert.ok(spread > spreadMax / 2 && spread <= bound, `a spread of ${spread}, at most ${bound}`);
  await check();
  const { programs } = levelled.ftl.flash.array.counters;
  const all = programs.block + programs.kv + programs.gc + programs.wear;
  const { pagesPerSuperblock } = levelled.ftl.geometry;
  assert.ok(
    programs.wear > 0 && programs.wear <= all / OPENINGS_PER_MOVE + pagesPerSuperblock,
    `${programs.wear} moved`,
  );
  assert.equal(levelled.ftl.snapshot().counters.wearPagesProgrammed, programs.wear);
  await levelled.ftl.close();

  const stores = new MemoryDriveStores(request);
  const unlevelled = await openDrive(stores.stores(), createSeededRandom(1), {
    wearSpreadMax: Number.POSITIVE_INFINITY,
  });
  const without = await writeOverHot(unlevelled, 30);
  assert.ok(without.spread > bound, `${without.spread} without levelling`);
  assert.equal(unlevelled.ftl.flash.array.counters.programs.wear, 0);
  await unlevelled.ftl.close();
});

test('where everything is written over alike, nothing is moved for the sake of wear', { timeout: 60_000 }, async () => {
  const { ftl } = await openDrive(new MemoryDriveStores(request).stores(), createSeededRandom(1), {
    wearSpreadMax: 16,
  });
  const random = createSeededRandom(2);
  for (let i = 0; i < 12 * ftl.blocks.lbaCount; i++) {
    const lba = random.nextUint32() % ftl.blocks.lbaCount;
    await ftl.blocks.write(lba, 1, lbaContent(lba, i), false);
  }
  assert.ok(ftl.snapshot().counters.gcPagesProgrammed > 0);
  assert.equal(ftl.snapshot().counters.wearPagesProgrammed, 0);
  await ftl.close();
});

test('what lies beside a failed block is moved soon, without any need of room', async () => {
  let failAt = -1;
  const failures = { ...noFailures, programFails: (ppn: number) => ppn === failAt };
  const stores = new MemoryDriveStores({ ...request, channelCount: 2 }, { ...idealChip, spareBlocksPerUnit: 2 });
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(1), { failures });
  const { slotsPerPage, pagesPerSuperblock } = ftl.geometry;
  const write = async (lba: number): Promise<void> => ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  for (let lba = 0; lba < slotsPerPage; lba++) await write(lba);
  const superblock = superblockOf(ftl.geometry, Math.floor(ftl.blocks.map.get(0) / slotsPerPage));
  failAt = superblock * pagesPerSuperblock + 3;
  for (let lba = slotsPerPage; lba < 2 * pagesPerSuperblock * slotsPerPage; lba++) await write(lba);
  for (let i = 0; i < 100 && ftl.flash.superblocks.validSlotCount[superblock]! > 0; i++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(ftl.flash.superblocks.validSlotCount[superblock], 0);
  assert.ok(ftl.snapshot().counters.wearPagesProgrammed > 0);
  await ftl.durability.flush();
  assert.equal(ftl.flash.superblocks.state(superblock), 'free');
  for (let lba = 0; lba < 2 * pagesPerSuperblock * slotsPerPage; lba++) assert.equal(await lbaVersion(ftl, lba), 1);
  await ftl.close();
});

test('a superblock with a page that cannot be read is tried once, not for ever', async () => {
  let failAt = -1;
  const failures = { ...noFailures, programFails: (ppn: number) => ppn === failAt };
  const stores = new MemoryDriveStores({ ...request, channelCount: 2 }, { ...idealChip, spareBlocksPerUnit: 2 });
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(1), { failures, verify: 'always' });
  const { slotsPerPage, pagesPerSuperblock, pageSizeBytes } = ftl.geometry;
  const write = async (lba: number): Promise<void> => ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  for (let lba = 0; lba < slotsPerPage; lba++) await write(lba);
  const ppn = Math.floor(ftl.blocks.map.get(0) / slotsPerPage);
  stores.media.cells[ppn * pageSizeBytes + 100]! ^= 1;
  failAt = superblockOf(ftl.geometry, ppn) * pagesPerSuperblock + 3;
  for (let lba = slotsPerPage; lba < 12 * pagesPerSuperblock * slotsPerPage; lba++) await write(lba);
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(ftl.flash.superblocks.validSlotCount[superblockOf(ftl.geometry, ppn)], 1, 'all else has moved');
  const { wear } = ftl.flash.array.counters.reads;
  assert.ok(wear <= pagesPerSuperblock, `${wear} pages read`);
  await ftl.close();
});

// --- Choices ---

function leveller(spreadMax: number) {
  const { geometry } = new MemoryDriveStores(request);
  const blocks = new BlockTable(geometry, 2);
  const superblocks = new Superblocks(geometry, blocks.eraseCounts);
  return { blocks, superblocks, leveller: new WearLeveller({ superblocks, blocks }, spreadMax) };
}

test('hosts and garbage collection open the least worn superblock, data that is moved for wear goes into the most worn', () => {
  const { blocks, superblocks, leveller: chosen } = leveller(16);
  blocks.eraseCounts.fill(10);
  blocks.eraseCounts[7] = 3;
  blocks.eraseCounts[9] = 30;
  superblocks.restore(4, 'full', 'kv');
  blocks.eraseCounts[4] = 1;
  assert.deepEqual([chosen.chooseFree('host'), chosen.chooseFree('gc'), chosen.chooseFree('wear')], [7, 7, 9]);
  // A spare that was worn elsewhere counts.
  blocks.eraseCounts[8] = 60;
  blocks.retire(8);
  superblocks.setState(8, 'bad');
  blocks.markBad({ unit: 0, block: superblocks.geometry.superblockCount, reason: 'erase', eraseCount: 1 });
  blocks.markBad({ unit: 0, block: superblocks.geometry.superblockCount + 1, reason: 'erase', eraseCount: 1 });
  blocks.fail(7, 0, 'program', 3);
  blocks.replace(7, 0);
  assert.equal(blocks.wearOf(7), 60);
  assert.deepEqual([chosen.chooseFree('host'), chosen.chooseFree('wear')], [0, 7]);
});

test('of equally worn superblocks the next in a circle is opened', () => {
  const { superblocks, leveller: chosen } = leveller(16);
  for (let i = 0; i < superblocks.geometry.superblockCount + 2; i++) {
    assert.equal(chosen.chooseFree('host'), i % superblocks.geometry.superblockCount);
    chosen.opened(i % superblocks.geometry.superblockCount);
  }
});

test('a laggard is moved once it is behind by more than the spread, and not more often than so many openings', () => {
  const { blocks, superblocks, leveller: chosen } = leveller(16);
  const choose = (pool: 'block' | 'kv') => chosen.chooseToMove(pool);
  superblocks.restore(4, 'full', 'kv');
  superblocks.markValid(4 * superblocks.slotsPerSuperblock, 1);
  blocks.eraseCounts.fill(16);
  blocks.eraseCounts[4] = 0;
  const openMany = (): void => {
    for (let i = 0; i < OPENINGS_PER_MOVE; i++) chosen.opened(5);
  };
  openMany();
  assert.equal(choose('kv'), undefined, 'just within');
  blocks.eraseCounts[6] = 17;
  openMany();
  assert.deepEqual([choose('block'), choose('kv')], [undefined, 4]);
  chosen.isLeftAlone = (superblock) => superblock === 4;
  assert.equal(choose('kv'), undefined);
  chosen.isLeftAlone = () => false;
  openMany();
  assert.equal(choose('kv'), 4);
  chosen.moved();
  assert.equal(choose('kv'), undefined, 'too soon');
  for (let i = 1; i < OPENINGS_PER_MOVE; i++) chosen.opened(5);
  assert.equal(choose('kv'), undefined);
  chosen.opened(5);
  assert.equal(choose('kv'), 4);
});

test('the spread follows from what blocks are rated for', () => {
  const spread = (ratedCycles: number | undefined) =>
    spreadMaxOf({ ratedCycles, factoryBadPerMillion: 0, spareBlocksPerMillion: 0 });
  assert.deepEqual([300, 3000, 100_000, undefined].map(spread), [16, 60, 1000, 64]);
});
