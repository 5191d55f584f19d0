/** What inspect shows of a drive, against what the drive that wrote it knew. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { UNMAPPED } from '../../daemon/ftl/segmented-map.ts';
import type { Pool } from '../../daemon/ftl/superblocks.ts';
import { DriveImage } from '../../daemon/image/image.ts';
import { inspectDrive } from '../../daemon/image/inspect-drive.ts';
import { inspectMap, inspectStaging } from '../../daemon/image/inspect-map.ts';
import { inspectLba, inspectPage } from '../../daemon/image/inspect-page.ts';
import { inspectBlockTable, inspectSequence } from '../../daemon/image/inspect-sequence.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { MemoryDriveStores } from '../ftl/memory-stores.ts';
import { appendRows, createSequence, tokenRange } from '../kv/fixture.ts';
import { openWorkingDrive, work, type WorkingDrive } from './working-drive.ts';

const request = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 * 2 ** 20, pageSizeBytes: 8192, channelCount: 2 };
const arena = createArena(2 ** 20);
const kernels = loadKernels('wasm', { memory: arena.memory });

/** Random work, a known sequence, and a flush; then the drive ends as it is told. */
async function workedDrive(seed: number, how: 'clean' | 'killed') {
  const random = createSeededRandom(seed);
  const drive = new MemoryDriveStores(request);
  const opened = await openWorkingDrive(drive.stores(), random);
  await work(opened, random, 200);
  for (const id of opened.store.list(0n, 100)) await opened.store.reclaim(id);
  const id = createSequence(opened, { layerCount: 2, groupTokens: 8 });
  await appendRows(opened, id, 0, 0, tokenRange(0, 29));
  await appendRows(opened, id, 1, 0, tokenRange(0, 16));
  await opened.ftl.durability.flush();
  const known = { id, ...knowledgeOf(opened) };
  await opened.end(how);
  return { drive, known, image: await DriveImage.load(drive.stores(), { arena, kernels }) };
}

function knowledgeOf({ ftl, store }: WorkingDrive) {
  return {
    slots: ftl.blocks.map.entries.slice(),
    pages: ftl.kv.map.entries.slice(),
    summaries: store.list(0n, 100).map((id) => store.summary(id)),
    superblocks: ftl.superblocks(),
  };
}

for (const how of ['clean', 'killed'] as const) {
  test(`every LBA and every page of a sequence is where the drive had it, and right; it was ${how}`, async () => {
    const { known, image } = await workedDrive(5, how);
    if (how === 'killed') {
      for (const [lba, slot] of known.slots.entries()) {
        const found = await inspectLba(image, lba);
        if (found.where === 'stagingLog') continue;
        assert.deepEqual([found.where, found.slot], slot === UNMAPPED ? ['nowhere', undefined] : ['page', slot]);
      }
    }
    let mapped = 0;
    for (let lba = 0; lba < image.lbaCount; lba++) {
      const { slot, page } = await inspectLba(image, lba);
      if (page === undefined) continue;
      mapped++;
      const one = page.slots[slot! % image.geometry.slotsPerPage]!;
      assert.deepEqual(
        [one.entryState, one.owner, one.isMapped, one.isIntact],
        ['present', `LBA ${lba}`, true, true],
        page.place,
      );
    }
    assert.ok(mapped > 50, `${mapped} LBAs`);
    const [summary] = known.summaries;
    const sequence = inspectSequence(image, known.id);
    assert.deepEqual(sequence.shape, summary!.shape);
    assert.deepEqual([sequence.layers.map(({ tokenCount }) => tokenCount), [29, 16]], [[29, 16], summary!.lengths]);
    assert.deepEqual(
      sequence.layers.map(({ groupCount, tailTokenCount, pageCount }) => [groupCount, tailTokenCount, pageCount]),
      [
        [3, 5, 12],
        [2, 0, 8],
      ],
    );
    for (const layer of [0, 1]) {
      const rows = inspectBlockTable(image, known.id, layer);
      const places = rows.map(({ page }) => page!);
      const runs = [0, 1, 2, 3].map((stream) => runCount(places.filter((_, i) => i % 4 === stream)));
      const { runCount: told, pagesPerChannel, superblockCount } = sequence.layers[layer]!;
      assert.equal(
        told,
        runs.reduce((sum, count) => sum + count),
      );
      assert.deepEqual(
        pagesPerChannel,
        [0, 1].map((channel) => places.filter((page) => page % 2 === channel).length),
      );
      const { pagesPerSuperblock } = image.geometry;
      assert.equal(superblockCount, new Set(places.map((page) => Math.floor(page / pagesPerSuperblock))).size);
      for (const { group, head, part, page, logicalPage } of rows) {
        const [one, ...more] = (await inspectPage(image, page!)).slots;
        const owner = `group ${group} of ${part}, head ${head}, layer ${layer}, sequence ${known.id}`;
        assert.deepEqual([one!.owner, more], [`${owner}; logical page ${logicalPage}`, []]);
        assert.deepEqual([one!.entryState, one!.isMapped, one!.isIntact], ['present', true, true]);
      }
    }
    image.close();
  });
}

const runCount = (pages: readonly number[]): number => pages.filter((page, i) => page !== pages[i - 1]! + 1).length;

test('a page that is damaged is told so: bytes, an entry, and what is of a former life', async () => {
  const { drive, known, image } = await workedDrive(6, 'killed');
  const rows = inspectBlockTable(image, known.id, 0);
  const [first, second] = rows.map(({ page }) => page!);
  drive.media.cells[first! * 8192 + 100]! ^= 1;
  drive.media.oob[second! * 128 + 30]! ^= 1;
  const [bytes] = (await inspectPage(image, first!)).slots;
  assert.deepEqual([bytes!.entryState, bytes!.isMapped, bytes!.isIntact], ['present', true, false]);
  const [entry] = (await inspectPage(image, second!)).slots;
  assert.deepEqual(entry, { slot: 0, entryState: 'damaged', isMapped: false });
  const states = new Set<string>();
  for (let page = 0; page < image.geometry.pageCount; page++) {
    for (const { entryState } of (await inspectPage(image, page)).slots) states.add(entryState);
  }
  assert.ok(states.has('none') && states.has('present'), [...states].join());
  image.superblocks.epoch[Math.floor(first! / image.geometry.pagesPerSuperblock)]!++;
  const [old] = (await inspectPage(image, first!)).slots;
  assert.deepEqual([old!.entryState, old!.isMapped], ['formerLife', false]);
  drive.media.readCells = () => Promise.reject(new TypeError('a bug'));
  await assert.rejects(inspectPage(image, 0), /a bug/);
  image.close();
});

test('runs are the map, no more and no less, in as few as there can be', async () => {
  const { image } = await workedDrive(7, 'clean');
  for (const pool of ['block', 'kv'] as Pool[]) {
    const { entries } = pool === 'block' ? image.blockMap : image.kvMap;
    const whole = inspectMap(image, pool);
    const rebuilt = new Uint32Array(entries.length).fill(UNMAPPED);
    for (const { first, count, address } of whole.runs) {
      for (let i = 0; i < count; i++) rebuilt[first + i] = address + i;
      assert.notEqual(entries[first + count], address + count, 'a run goes as far as it can');
    }
    assert.deepEqual(rebuilt, entries);
    assert.deepEqual(
      [whole.entryCount, whole.mappedCount, whole.runsLeftOut],
      [entries.length, entries.filter((address) => address !== UNMAPPED).length, 0],
    );
    assert.ok(whole.runs.length > 2);
    const some = inspectMap(image, pool, { from: whole.runs[1]!.first, limit: 1 });
    assert.deepEqual([some.runs, some.runsLeftOut], [[whole.runs[1]], whole.runs.length - 2]);
    assert.throws(() => inspectMap(image, pool, { from: entries.length }), /allowed: 0 to/);
  }
  image.close();
});

test('the staging log, record by record', async () => {
  const random = createSeededRandom(9);
  const drive = new MemoryDriveStores(request);
  const opened = await openWorkingDrive(drive.stores(), random);
  await opened.ftl.durability.flush();
  await opened.ftl.blocks.write(7, 1, random.bytes(4096), true);
  await opened.ftl.blocks.deallocate(20, 3);
  const id = createSequence(opened, { layerCount: 1, groupTokens: 8 });
  await appendRows(opened, id, 0, 0, tokenRange(0, 3));
  await opened.ftl.durability.syncStaging();
  await opened.end('killed');
  const image = await DriveImage.load(drive.stores(), { arena, kernels });
  const { records, recordCount, recordCounts, failure } = inspectStaging(image, { limit: 100 });
  const texts = records.map(({ kind, text }) => `${kind}: ${text}`);
  for (const wanted of [
    'block: LBA 7',
    'deallocate: LBA 20, 3 blocks',
    `kv: create sequence ${id}`,
    `kv: sequence ${id}, layer 0: 3 tokens from 0 on`,
  ]) {
    assert.ok(texts.includes(wanted), `${wanted} in\n${texts.join('\n')}`);
  }
  const sum = Object.values(recordCounts).reduce((total, count) => total + count, 0);
  assert.deepEqual([recordCount, failure], [sum, undefined]);
  assert.equal(inspectStaging(image, { limit: 1 }).records.length, 1);
  assert.deepEqual(await inspectLba(image, 7), { lba: 7, where: 'stagingLog' });
  image.close();
});

test('the drive in numbers is what it counted itself', async () => {
  const { known, image } = await workedDrive(8, 'killed');
  const { superblocks, blocks, kv, checkpoint, failures } = inspectDrive(image);
  assert.deepEqual(failures, []);
  assert.equal(checkpoint?.isClean, false);
  assert.equal(blocks.mappedCount, known.slots.filter((slot) => slot !== UNMAPPED).length);
  assert.deepEqual([kv.sequenceCount, kv.tokenCount, kv.heldPageCount], [1, 45, 20]);
  for (const pool of ['block', 'kv'] as Pool[]) {
    const own = known.superblocks.filter((one) => one.pool === pool && one.state !== 'free');
    const validSlotCount = own.reduce((sum, one) => sum + one.validSlotCount, 0);
    assert.equal(superblocks[pool].validSlotCount, validSlotCount, pool);
  }
  assert.equal(superblocks.block.used + superblocks.kv.used + superblocks.free, image.geometry.superblockCount);
  image.close();
});

test('what is not there is refused, with what is', async () => {
  const { known, image } = await workedDrive(5, 'killed');
  await assert.rejects(inspectPage(image, image.geometry.pageCount), { code: 'invalidField' });
  await assert.rejects(inspectLba(image, image.lbaCount), /LBA \d+; allowed: 0 to \d+/);
  assert.throws(() => inspectSequence(image, 999n), new RegExp(`sequence 999; the drive has ${known.id}$`));
  assert.throws(() => inspectBlockTable(image, known.id, 2), { code: 'layerRange' });
  image.close();
});
