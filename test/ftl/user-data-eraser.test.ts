/** What a namespace gave up is gone from the media, wherever it lies; what others hold stays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { LBA_BYTES, openDrive, type OpenDrive } from './open-drive.ts';

const MIB = 2 ** 20;
const MARK = Buffer.from('blocks were here');
const marked = Buffer.alloc(4 * LBA_BYTES, MARK);
const KEY_COUNT = 40;

/** Places of the media, by superblock, where blocks once were. */
function markedSuperblocks({ media, geometry }: MemoryDriveStores): Set<number> {
  const bytesPerSuperblock = geometry.pagesPerSuperblock * geometry.pageSizeBytes;
  const found = new Set<number>();
  for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
    const start = superblock * bytesPerSuperblock;
    if (
      Buffer.from(media.cells.buffer)
        .subarray(start, start + bytesPerSuperblock)
        .includes(MARK)
    )
      found.add(superblock);
  }
  return found;
}

/** Every superblock has held blocks; then there are none, durably. */
async function fillAndClear({ ftl }: OpenDrive, stores: MemoryDriveStores): Promise<void> {
  for (let lba = 0; markedSuperblocks(stores).size < stores.geometry.superblockCount; ) {
    for (let i = 0; i < 64; i++) {
      await ftl.blocks.write(lba, 4, marked, false);
      lba = (lba + 4) % ftl.blocks.lbaCount;
    }
    await ftl.durability.flush();
  }
  ftl.blocks.clear();
  await ftl.durability.flush();
}

async function putKeys({ keeper, ftl }: OpenDrive, version: number): Promise<void> {
  for (let key = 0; key < KEY_COUNT; key++) await keeper.put(key, version);
  await ftl.durability.flush();
}

async function eraseAndCheck(drive: OpenDrive, stores: MemoryDriveStores, version: number): Promise<void> {
  const { ftl, keeper } = drive;
  await ftl.userData.erase(['block']);
  assert.deepEqual([...markedSuperblocks(stores)], []);
  for (const { bytes } of stores.staging.segments.values()) assert.equal(Buffer.from(bytes).includes(MARK), false);
  for (let key = 0; key < KEY_COUNT; key++) assert.equal(await keeper.check(key), version);
}

const newStores = (): MemoryDriveStores =>
  new MemoryDriveStores(
    { blockCapacityBytes: 4 * MIB, kvCapacityBytes: 4 * MIB },
    { ...idealChip, spareBlocksPerUnit: 8 },
  );

test('behind what another namespace has programmed, while its superblock is open and once a crash has closed it', async () => {
  for (const isKilled of [false, true]) {
    const random = createSeededRandom(1);
    const stores = newStores();
    const drive = await openDrive(stores.stores(), random);
    await fillAndClear(drive, stores);
    await putKeys(drive, 1);
    const left = isKilled ? stores.afterKill() : stores;
    const later = isKilled ? await openDrive(left.stores(), random) : drive;
    const { superblocks } = later.ftl.flash;
    const shared = [...markedSuperblocks(left)].filter((superblock) => superblocks.pool(superblock) === 'kv');
    const state = isKilled ? 'full' : 'open';
    assert.ok(
      shared.some((superblock) => superblocks.state(superblock) === state),
      `a superblock of the other namespace, ${state}`,
    );
    await eraseAndCheck(later, left, 1);
    // And again: all is there after a crash, and works.
    const again = await openDrive(left.afterPowerCut(random).stores(), random);
    for (let key = 0; key < KEY_COUNT; key++) assert.equal(await again.keeper.check(key), 1);
    await putKeys(again, 2);
    await again.ftl.blocks.write(0, 4, marked, true);
    const bytes = new Uint8Array(marked.length);
    await again.ftl.blocks.read(0, 4, bytes);
    assert.deepEqual(Buffer.from(bytes), marked);
    await again.ftl.close();
  }
});

test('in the rest of an erase block that failed', async () => {
  const random = createSeededRandom(2);
  const stores = newStores();
  let isBroken = false;
  let failureCount = 0;
  // Every page in the middle of a block, once.
  const programFails = (ppn: number): boolean => {
    const fails = isBroken && failureCount < 4 && ppn % stores.geometry.pagesPerSuperblock === 2;
    if (fails) failureCount++;
    return fails;
  };
  const failures = { ...noFailures, programFails };
  const drive = await openDrive(stores.stores(), random, { failures });
  await fillAndClear(drive, stores);
  isBroken = true;
  for (let version = 1; failureCount === 0; version++) await putKeys(drive, version);
  isBroken = false;
  await putKeys(drive, 100);
  await eraseAndCheck(drive, stores, 100);
  await drive.ftl.close();
});

test('what is zeros is not written, so holes stay holes', async () => {
  const stores = newStores();
  const drive = await openDrive(stores.stores(), createSeededRandom(3));
  await drive.ftl.blocks.write(0, 4, marked, true);
  drive.ftl.blocks.clear();
  await drive.ftl.durability.flush();
  const wiped: number[] = [];
  const wipe = stores.media.wipe.bind(stores.media);
  stores.media.wipe = (ppn, pageCount) => {
    for (let i = 0; i < pageCount; i++) wiped.push(ppn + i);
    wipe(ppn, pageCount);
  };
  await drive.ftl.userData.erase(['block', 'kv']);
  assert.equal(wiped.length, 1);
  await drive.ftl.userData.erase(['block', 'kv']);
  assert.equal(wiped.length, 1);
  await drive.ftl.close();
});
