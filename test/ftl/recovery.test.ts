import assert from 'node:assert/strict';
import { test } from 'node:test';
import { superblockHeader } from '../../spec/media-format/oob.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { SEGMENT_ENTRIES } from '../../daemon/ftl/segmented-map.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { LBA_BYTES, lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const random: Random = createSeededRandom(3);
const open = (stores: MemoryDriveStores): Promise<OpenDrive> => openDrive(stores.stores(), random);
const write = ({ ftl }: OpenDrive, lba: number, version: number, fua = false): Promise<void> =>
  ftl.blocks.write(lba, 1, lbaContent(lba, version), fua);

/** A drive with one page of blocks, one block that is only in the log, two KV pages, everything flushed. */
async function written(): Promise<MemoryDriveStores> {
  const stores = new MemoryDriveStores();
  const drive = await open(stores);
  for (let lba = 0; lba < 5; lba++) await write(drive, lba, 1);
  await drive.keeper.put(0, 1);
  await drive.keeper.put(1, 1);
  await drive.ftl.durability.flush();
  return stores;
}

async function checkWritten({ ftl, keeper }: OpenDrive): Promise<void> {
  for (let lba = 0; lba < 6; lba++) assert.equal(await lbaVersion(ftl, lba), lba < 5 ? 1 : 0);
  assert.equal(await keeper.check(0), 1);
  assert.equal(await keeper.check(1), 1);
}

test('flushed data is there after a kill, and after another before anything was written', async () => {
  const stores = await written();
  for (let life = 0; life < 3; life++) {
    const drive = await open(stores);
    await checkWritten(drive);
    assert.equal(drive.ftl.unsafeShutdownCount, 1 + life);
    assert.equal(drive.ftl.startCount, 2 + life);
  }
});

test('a clean shutdown leaves nothing to recover, and open superblocks go on where they were', async () => {
  const stores = await written();
  const drive = await open(stores);
  for (let lba = 10; lba < 16; lba++) await write(drive, lba, 1);
  await drive.keeper.put(2, 1);
  await drive.ftl.close();
  const openBefore = drive.ftl.superblocks().filter(({ state }) => state === 'open');
  const again = await open(stores);
  await checkWritten(again);
  assert.deepEqual(again.keeper.events, []);
  assert.equal(again.ftl.unsafeShutdownCount, 1, 'the one before');
  assert.equal(openBefore.length, 2);
  for (const { superblock } of openBefore) assert.equal(again.ftl.flash.superblocks.state(superblock), 'open');
  for (let lba = 0; lba < 5; lba++) await write(again, lba, 2);
  await again.keeper.put(2, 2);
  const { superblocksErased } = again.ftl.flash.array.counters;
  assert.equal(superblocksErased, 0, 'no other superblock was opened');
});

test('a flush that was interrupted at any step leaves the old state or the new one', async () => {
  let steps = 0;
  for (let stopAt = 0; stopAt <= steps; stopAt++) {
    const stores = await written();
    const drive = await open(stores);
    for (let lba = 0; lba < 6; lba++) await write(drive, lba, 2);
    await drive.keeper.put(0, 2);
    drive.keeper.remove(1, 2);
    let left: MemoryDriveStores | undefined;
    let step = 0;
    const cut = (): void => {
      if (step++ === stopAt) left = stores.afterPowerCut(random);
    };
    for (const store of [stores.media, stores.staging, stores.meta]) store.onStep = cut;
    await drive.ftl.durability.flush();
    const flushed = left === undefined;
    steps = step;
    const again = await open(left ?? stores.afterPowerCut(random));
    for (let lba = 0; lba < 6; lba++) {
      const version = await lbaVersion(again.ftl, lba);
      assert.ok(flushed ? version === 2 : version === 2 || version === (lba < 5 ? 1 : 0), `step ${stopAt} LBA ${lba}`);
    }
    for (const key of [0, 1])
      assert.ok((await again.keeper.check(key)) >= (flushed ? 2 : 1), `step ${stopAt} key ${key}`);
  }
  assert.ok(steps >= 4, `staging, media and metadata took part: ${steps} steps`);
});

test('what was deallocated and flushed does not come back, nor does what was written after go', async () => {
  const stores = await written();
  const drive = await open(stores);
  await drive.ftl.blocks.deallocate(1, 2);
  await write(drive, 2, 7);
  await drive.ftl.durability.syncStaging();
  const again = await open(stores.afterPowerCut(random));
  const versions = await Promise.all([0, 1, 2, 3, 4].map((lba) => lbaVersion(again.ftl, lba)));
  assert.deepEqual(versions, [1, 0, 7, 1, 1]);
});

test('pages of an opening that a power cut undid do not count in the next one', async () => {
  const stores = await written();
  const headers = stores.media.headers.slice();
  const first = await open(stores);
  const segments = [...stores.staging.segments.keys()];
  for (let version = 2; version <= 8; version++) for (let lba = 0; lba < 4; lba++) await write(first, lba, version);
  // The pages reached the disk, the header of their superblock did not.
  stores.media.headers.set(headers);
  const second = await open(stores);
  assert.equal(await lbaVersion(second.ftl, 0), 1);
  for (let lba = 0; lba < 4; lba++) await write(second, lba, 9, lba === 3);
  const third = await open(stores);
  for (let lba = 0; lba < 4; lba++) assert.equal(await lbaVersion(third.ftl, lba), 9);
  assert.ok(
    segments.every((segment) => !stores.staging.segments.has(segment)),
    'old segments are removed',
  );
});

test('only superblocks opened since the last checkpoint, or open then, are read', async () => {
  const stores = new MemoryDriveStores();
  const first = await open(stores);
  const { pagesPerSuperblock, slotsPerPage } = first.ftl.geometry;
  const fill = async (drive: OpenDrive, superblocks: number): Promise<void> => {
    const count = superblocks * pagesPerSuperblock * slotsPerPage;
    for (let i = 0; i < count; i++) await write(drive, i % drive.ftl.blocks.lbaCount, 1);
  };
  await fill(first, 6);
  await first.ftl.durability.flush();
  const read: number[] = [];
  const { readOob } = stores.media;
  stores.media.readOob = (ppn, target) => {
    if (target.length > 1000) read.push(Math.floor(ppn / pagesPerSuperblock));
    return readOob.call(stores.media, ppn, target);
  };
  const second = await open(stores);
  const wasOpen = read.splice(0);
  assert.ok(wasOpen.length <= 1, `${wasOpen.length} were open at the checkpoint`);
  await fill(second, 3);
  read.length = 0;
  await open(stores);
  assert.ok(read.length >= 3 && read.length <= 5, `${read.length} of 9 superblocks`);
});

test('a drive that nobody flushes makes checkpoints by itself', async () => {
  const stores = new MemoryDriveStores();
  const unflushedFlashBytesMax = 20 * stores.geometry.pageSizeBytes;
  const drive = await openDrive(stores.stores(), random, { unflushedFlashBytesMax });
  const before = drive.ftl.durability.checkpointCount;
  const { slotsPerPage } = drive.ftl.geometry;
  for (let i = 0; i < 100 * slotsPerPage; i++) {
    await write(drive, i % 400, 1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const count = drive.ftl.durability.checkpointCount - before;
  assert.ok(count >= 3 && count <= 5, `${count} checkpoints in 100 pages`);
});

test('a damaged superblock header is had back from the pages', async () => {
  const stores = await written();
  for (let at = 0; at < stores.media.headers.length; at += superblockHeader.sizeBytes) {
    if (stores.media.headers[at] !== 0) stores.media.headers[at + 9]! ^= 1;
  }
  const drive = await open(stores);
  await checkWritten(drive);
  for (let i = 0; i < 200; i++) await write(drive, 10 + i, 1);
  await checkWritten(drive);
});

test('a page whose header and entries are lost is an error, never other bytes, and its block is not reused', async () => {
  const stores = await written();
  stores.media.headers.fill(0);
  const drive = await open(stores);
  await assert.rejects(lbaVersion(drive.ftl, 0), { code: 'unrecoveredRead', message: /physical page \d+ .*LBA 0/ });
  await assert.rejects(drive.keeper.check(0), { code: 'unrecoveredRead', message: /KV page/ });
  assert.equal(await lbaVersion(drive.ftl, 4), 1, 'what was in the log');
  for (let i = 0; i < 2000; i++) await write(drive, 100 + (i % 500), i);
  await assert.rejects(lbaVersion(drive.ftl, 0), { code: 'unrecoveredRead' });
  await write(drive, 0, 9);
  assert.equal(await lbaVersion(drive.ftl, 0), 9, 'until it is written again');
});

test('every bit of a page and of its entry counts', async () => {
  const stores = await written();
  const { cells, oob } = stores.media;
  const first = cells.findIndex((byte) => byte !== 0);
  for (const [area, position] of [
    [cells, first],
    [cells, first + LBA_BYTES - 1],
    [oob, oob.findIndex((byte) => byte !== 0) + 12],
    [oob, oob.findIndex((byte) => byte !== 0) + 24],
  ] as const) {
    area[position]! ^= 4;
    const { ftl } = await open(stores);
    const failed = await Promise.allSettled([0, 1, 2, 3].map((lba) => lbaVersion(ftl, lba)));
    const codes = failed.map((result) =>
      result.status === 'rejected' ? (result.reason as { code: string }).code : 'read',
    );
    assert.equal(codes.filter((code) => code === 'unrecoveredRead').length, 1, codes.join(' '));
    assert.equal(codes.filter((code) => code === 'read').length, 3, 'the other slots of the page are all right');
    assert.equal(ftl.snapshot().counters.unrecoveredReads, 1);
    area[position]! ^= 4;
  }
});

test('metadata that is gone, or that does not fit the flash, is told from a new drive', async () => {
  const refused = async (spoil: (stores: MemoryDriveStores) => void, message: RegExp): Promise<void> => {
    const stores = await written();
    spoil(stores);
    await assert.rejects(open(stores), { code: 'mediaFormat', message });
  };
  await refused((stores) => stores.meta.clear(), /metadata: nothing is there, but pages were programmed/);
  await refused((stores) => stores.staging.segments.clear(), /staging segment \d+ is missing/);
  await refused((stores) => {
    for (const segment of stores.staging.segments.values()) segment.bytes = segment.bytes.slice(0, 100);
  }, /is damaged at byte \d+; it was synced up to byte/);
  const mapped = (stores: MemoryDriveStores, lba: number, slot: number): void => {
    const key = [Math.floor(lba / SEGMENT_ENTRIES)];
    const bytes = stores.meta.get(metaNamespaces.blockMap, key) as Uint8Array;
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(4 * (lba % SEGMENT_ENTRIES), slot, true);
    stores.meta.set(metaNamespaces.blockMap, key, bytes);
  };
  await refused(
    (stores) => mapped(stores, 9, 2 ** 31),
    /map of block names slot 2147483648, which is outside the media/,
  );
  await refused((stores) => {
    const map = stores.meta.get(metaNamespaces.blockMap, [0]) as Uint8Array;
    mapped(stores, 9, new DataView(map.buffer, map.byteOffset).getUint32(0, true));
  }, /which has two owners/);
  await refused((stores) => {
    stores.meta.set(metaNamespaces.stagedBlocks, ['list'], [[4, 999_999]]);
  }, /the staging log has lost the record of LBA 4/);
});
