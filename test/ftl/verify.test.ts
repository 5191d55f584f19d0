/** When pages are compared with their checksums, and when they are trusted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import type { VerifyPolicy } from '../../daemon/ftl/verify-policy.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const PAGE_BYTES = 16_384;
const unrecovered = { code: 'unrecoveredRead' };

async function open(verify: VerifyPolicy, drive = new MemoryDriveStores()): Promise<OpenDrive & { media: Uint8Array }> {
  const opened = await openDrive(drive.stores(), createSeededRandom(3), { verify });
  return { ...opened, media: drive.media.cells };
}

/** Flips a bit of the cells without anybody's knowledge. */
const rot = (media: Uint8Array, byteOffset: number): void => void (media[byteOffset]! ^= 0x10);

/** A page of blocks 0 to 3 and a KV page of key 5: byte offsets in the cells. */
async function fill({ ftl, keeper }: OpenDrive): Promise<{ blocks: number; kv: number }> {
  for (let lba = 0; lba < 4; lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  await keeper.put(5, 1);
  return { blocks: ftl.blocks.map.get(0) * 4096, kv: ftl.kv.map.get(keeper.holdings.get(5)!.lpn!) * PAGE_BYTES };
}

for (const verify of ['first-use', 'always'] as const) {
  test(`${verify}: a page is compared at its first use after a program and after a start`, async () => {
    const drive = new MemoryDriveStores();
    for (const start of [0, 1]) {
      const opened = await open(verify, drive);
      const at = start === 0 ? await fill(opened) : { blocks: 0, kv: 0 };
      if (start === 1) {
        at.blocks = opened.ftl.blocks.map.get(0) * 4096;
        at.kv = opened.ftl.kv.map.get(opened.keeper.holdings.get(5)!.lpn!) * PAGE_BYTES;
      }
      rot(opened.media, at.blocks + 4096 + 7);
      rot(opened.media, at.kv + 7);
      assert.equal(await lbaVersion(opened.ftl, 0), 1, 'its neighbour in the page is whole');
      await assert.rejects(lbaVersion(opened.ftl, 1), unrecovered);
      await assert.rejects(opened.keeper.check(5), unrecovered);
      assert.equal(opened.ftl.snapshot().counters.unrecoveredReads, 2);
      rot(opened.media, at.blocks + 4096 + 7);
      rot(opened.media, at.kv + 7);
      assert.equal(await lbaVersion(opened.ftl, 1), 1);
      assert.equal(await opened.keeper.check(5), 1);
      // Marks are in memory only: the next start looks anew.
      await opened.ftl.abandon();
    }
  });
}

test('a page that was seen right is trusted on first-use and compared again on always', async () => {
  for (const verify of ['first-use', 'always'] as const) {
    const opened = await open(verify);
    const at = await fill(opened);
    assert.equal(await lbaVersion(opened.ftl, 2), 1);
    assert.equal(await opened.keeper.check(5), 1);
    rot(opened.media, at.blocks + 2 * 4096);
    rot(opened.media, at.kv);
    if (verify === 'always') {
      await assert.rejects(lbaVersion(opened.ftl, 2), unrecovered);
      await assert.rejects(opened.keeper.check(5), unrecovered);
    } else {
      await assert.rejects(lbaVersion(opened.ftl, 2), /LBA 2 is no whole version/);
      await assert.rejects(opened.keeper.check(5), /does not hold version 1/);
    }
    await opened.ftl.close();
  }
});

test('garbage collection compares what it moves, also what was seen right before', async () => {
  const { ftl, keeper, media } = await open('first-use');
  await keeper.put(5, 1);
  assert.equal(await keeper.check(5), 1);
  const ppn = ftl.kv.map.get(keeper.holdings.get(5)!.lpn!);
  rot(media, ppn * PAGE_BYTES + 99);
  // The namespace nearly full, written over in any order.
  const random = createSeededRandom(4);
  const keyCount = ftl.kv.pageCount - 4;
  for (let round = 1; ftl.snapshot().counters.gcVictims < 40; round++) {
    const key = 100 + (round <= keyCount ? round : random.nextUint32() % keyCount);
    await keeper.put(key, round);
  }
  assert.equal(ftl.kv.map.get(keeper.holdings.get(5)!.lpn!), ppn, 'it stays where it is');
  await assert.rejects(keeper.check(5), /does not hold version 1/, 'a mark is of the cells, which nobody erased');
  assert.ok(ftl.snapshot().counters.unrecoveredReads > 0, 'and it was told of');
  await ftl.close();
});

test('marks go with a program, and none is made or kept for cells that nobody holds', async () => {
  const { ftl, keeper } = await open('first-use');
  const { superblocks } = ftl.flash;
  await keeper.put(5, 1);
  await keeper.check(5);
  const { lpn } = keeper.holdings.get(5)!;
  const ppn = ftl.kv.map.get(lpn!);
  assert.ok(superblocks.isVerified(ppn * 4));
  assert.throws(() => superblocks.markVerified(ppn * 4), /pinned while it is checked/);
  const pinned = ftl.kv.pin(lpn as Lpn);
  ftl.kv.markVerified(pinned);
  ftl.kv.unpin(pinned);
  // Every page is seen right in every life: a bit that stayed would be a mark of the life before.
  for (let round = 2; superblocks.epoch[superblocks.superblockOfSlot(ppn * 4)]! < 3; round++) {
    for (let key = 0; key < 200; key++) {
      await keeper.put(key, round);
      const page = ftl.kv.map.get(keeper.holdings.get(key)!.lpn!);
      assert.ok(!superblocks.isVerified(page * 4), `page ${page} was programmed anew`);
      await keeper.check(key);
    }
  }
  await ftl.close();
});
