/** What is kept apart when it is written. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { PlacementTable } from '../../daemon/ftl/placement-table.ts';
import { temperatures } from '../../daemon/ftl/temperature.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive } from './open-drive.ts';

test('as many placements as there are write points have one each, whatever their numbers', () => {
  const table = new PlacementTable(4);
  const numbers = [7, 11, 15, 19];
  const given = numbers.map((placement) => table.writePointOf(placement));
  assert.deepEqual([...given].sort(), [0, 1, 2, 3]);
  for (let round = 0; round < 3; round++) {
    numbers.forEach((placement, i) => assert.equal(table.writePointOf(placement), given[i], 'it stays'));
  }
  // A new one takes the write point that was not used for longest: that of 7.
  for (const placement of [11, 15, 19]) table.writePointOf(placement);
  assert.equal(table.writePointOf(23), given[0]);
});

test('more placements than write points share them, each with the same few', () => {
  const table = new PlacementTable(4);
  const random = createSeededRandom(2);
  const given = new Map<number, number>();
  for (let i = 0; i < 2000; i++) {
    const placement = random.nextUint32() % 20;
    const writePoint = table.writePointOf(placement);
    assert.equal(writePoint, given.get(placement) ?? writePoint);
    given.set(placement, writePoint);
  }
  const loads = [0, 1, 2, 3].map((writePoint) => [...given.values()].filter((one) => one === writePoint).length);
  assert.ok(Math.min(...loads) >= 2, loads.join(' '));
  // It forgets: memory is bounded by the write points, not by the sequences there ever were.
  for (let placement = 100; placement < 1000; placement++) table.writePointOf(placement);
  for (const placement of given.keys()) assert.ok(table.writePointOf(placement) < 4);
});

test('blocks that are written over again and again are apart from those that are not', async () => {
  const drive = await openDrive(new MemoryDriveStores().stores(), createSeededRandom(4));
  const { ftl } = drive;
  const { lbaCount } = ftl.blocks;
  const versions = new Uint32Array(lbaCount);
  const write = (lba: number): Promise<void> => ftl.blocks.write(lba, 1, lbaContent(lba, ++versions[lba]!), false);
  for (let lba = 0; lba < lbaCount; lba++) await write(lba);
  const random = createSeededRandom(5);
  const hotCount = lbaCount >> 4;
  for (let i = 0; i < 4 * lbaCount; i++) {
    const isHot = random.nextUint32() % 10 < 9;
    await write(isHot ? random.nextUint32() % hotCount : hotCount + (random.nextUint32() % (lbaCount - hotCount)));
  }
  const { superblocks } = ftl.flash;
  const share = (from: number, to: number): number => {
    let hot = 0;
    let mapped = 0;
    for (let lba = from; lba < to; lba++) {
      const slot = ftl.blocks.map.get(lba);
      if (slot === 0xffff_ffff) continue;
      mapped++;
      if (superblocks.hostWritePoint(superblocks.superblockOfSlot(slot)) === temperatures.hot) hot++;
    }
    return hot / mapped;
  };
  assert.ok(share(0, hotCount) > 0.8, `${share(0, hotCount)} of the hot ones`);
  assert.ok(share(hotCount, lbaCount) < 0.2, `${share(hotCount, lbaCount)} of the others`);
  for (let lba = 0; lba < lbaCount; lba++) assert.equal(await lbaVersion(ftl, lba), versions[lba]);
  await ftl.close();
});
