import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { LBA_BYTES, lbaContent, lbaVersion, openDrive } from './open-drive.ts';

test('four times the capacity written over at random, with garbage collection, leaves every byte right', async () => {
  const random = createSeededRandom(1);
  const stores = new MemoryDriveStores();
  const { ftl } = await openDrive(stores.stores(), random);
  const versions = new Uint32Array(ftl.blocks.lbaCount);
  for (let written = 0; written < 4 * ftl.blocks.lbaCount; ) {
    const lbaCount = 1 + (random.nextUint32() % 8);
    const lba = random.nextUint32() % (ftl.blocks.lbaCount - lbaCount);
    const data = new Uint8Array(lbaCount * LBA_BYTES);
    for (let i = 0; i < lbaCount; i++) data.set(lbaContent(lba + i, ++versions[lba + i]!), i * LBA_BYTES);
    await ftl.blocks.write(lba, lbaCount, data, false);
    written += lbaCount;
  }
  const { counters } = ftl.snapshot();
  assert.ok(counters.gcPagesProgrammed > 0, 'garbage collection ran');
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) assert.equal(await lbaVersion(ftl, lba), versions[lba]);
  await ftl.close();
  const { ftl: again } = await openDrive(stores.stores(), random);
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) assert.equal(await lbaVersion(again, lba), versions[lba]);
  await again.close();
});

test('clear gives up what is in pages, in the write cache, and only in the log', async () => {
  const stores = new MemoryDriveStores();
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(2));
  for (let lba = 0; lba < 9; lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  ftl.blocks.holdStaged(new Map([[20, { operation: ftl.operations.next(), data: lbaContent(20, 1) }]]));
  assert.equal(await lbaVersion(ftl, 20), 1);
  ftl.blocks.clear();
  for (let lba = 0; lba < 21; lba++) assert.equal(await lbaVersion(ftl, lba), 0);
  assert.equal(ftl.blocks.mappedCount, 0);
  await ftl.blocks.write(1, 1, lbaContent(1, 2), true);
  const { ftl: again } = await openDrive(stores.afterKill().stores(), createSeededRandom(3));
  for (let lba = 0; lba < 21; lba++) assert.equal(await lbaVersion(again, lba), lba === 1 ? 2 : 0);
  await again.close();
});

test('what can be read at once is what is read, and what can be written at once is written', async () => {
  const random = createSeededRandom(4);
  const stores = new MemoryDriveStores();
  const { media } = stores;
  const { ftl } = await openDrive(stores.stores(), random);
  const { blocks } = ftl;
  const versions = new Uint32Array(blocks.lbaCount);
  const content = (lba: number, version: number): Uint8Array =>
    new Uint8Array(LBA_BYTES).fill(version === 0 ? 0 : 1 + ((lba + 31 * version) % 255));
  const seen = { now: 0, later: 0, roomless: 0 };
  for (let step = 0; step < 6000; step++) {
    media.isResident = () => step % 3 !== 0;
    const lbaCount = 1 + (random.nextUint32() % 6);
    const lba = random.nextUint32() % (blocks.lbaCount - lbaCount);
    const data = new Uint8Array(lbaCount * LBA_BYTES);
    if (step % 2 === 0) {
      for (let i = 0; i < lbaCount; i++) data.set(content(lba + i, ++versions[lba + i]!), i * LBA_BYTES);
      if (blocks.canWriteNow(lbaCount)) blocks.writeNow(lba, lbaCount, data);
      else {
        seen.roomless++;
        await blocks.write(lba, lbaCount, data, false);
      }
      // It was copied.
      data.fill(0xee);
      continue;
    }
    if (blocks.readNow(lba, lbaCount, data)) seen.now++;
    else {
      seen.later++;
      await blocks.read(lba, lbaCount, data);
    }
    for (let i = 0; i < lbaCount; i++) {
      const expected = content(lba + i, versions[lba + i]!);
      assert.ok(Buffer.compare(data.subarray(i * LBA_BYTES, (i + 1) * LBA_BYTES), expected) === 0, `LBA ${lba + i}`);
    }
  }
  for (const [what, count] of Object.entries(seen)) assert.ok(count > 100, `${what}: ${count}`);
  assert.throws(() => blocks.readNow(blocks.lbaCount, 1, new Uint8Array(LBA_BYTES)), /lba|LBA/);
  await ftl.close();
});

test('blocks that fill no page are written at once, even where others have all the room', async () => {
  const stores = new MemoryDriveStores();
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(5));
  const { blocks } = ftl;
  const { slotsPerPage } = ftl.flash.geometry;
  const space = ftl.spaces.block;
  const reservations = [];
  while (space.hasRoomNow(1)) reservations.push(space.reserveNow(1));
  assert.ok(slotsPerPage > 1 && reservations.length > 0);
  assert.ok(!blocks.canWriteNow(slotsPerPage), 'it fills a page');
  for (let lba = 0; lba < slotsPerPage - 1; lba++) {
    assert.ok(blocks.canWriteNow(1), `LBA ${lba}`);
    blocks.writeNow(lba, 1, lbaContent(lba, 1));
  }
  assert.ok(!blocks.canWriteNow(1), 'one more fills it');
  assert.equal(ftl.snapshot().counters.hostBlockPagesProgrammed, 0);
  for (const reservation of reservations) reservation.release();
  blocks.writeNow(slotsPerPage - 1, 1, lbaContent(slotsPerPage - 1, 1));
  assert.equal(ftl.snapshot().counters.hostBlockPagesProgrammed, 1);
  for (let lba = 0; lba < slotsPerPage; lba++) assert.equal(await lbaVersion(ftl, lba), 1);
  await ftl.close();
});
