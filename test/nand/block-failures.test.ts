/** Blocks that fail: what the array makes of it, with dies that fail where a test says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NandArray } from '../../daemon/nand/array.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { type NandFailures, noFailures } from '../../daemon/nand/failures.ts';
import { oobBytesPerPage, planGeometry, ppnOf } from '../../daemon/nand/geometry.ts';
import { MediaMemory } from '../../daemon/nand/media-memory.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 16,
  kvCapacityBytes: 2 ** 16,
  pageSizeBytes: 4096,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.07,
});
const { superblockCount, pagesPerBlock } = geometry;
const page = new Uint8Array(4096).fill(1);
const oob = new Uint8Array(oobBytesPerPage(geometry));
const header = new Uint8Array(64);

function makeArray(failures: Partial<NandFailures>, spareBlocksPerUnit = 2): NandArray {
  const dies = { chip: { ...idealChip, spareBlocksPerUnit }, failures: { ...noFailures, ...failures } };
  return new NandArray(geometry, new MediaMemory(geometry), dies);
}

const program = (array: NandArray, superblock: number, number: number, unit: number): boolean =>
  array.program(ppnOf(geometry, superblock, number, unit), page, oob, 'kv');

test('a program that fails closes its block: what it held is read, nothing more is programmed until the erase', async () => {
  const array = makeArray({ programFails: (ppn) => ppn === ppnOf(geometry, 3, 1, 0) });
  array.erase(3, header);
  assert.equal(program(array, 3, 0, 0), true);
  assert.equal(program(array, 3, 0, 1), true);
  assert.equal(program(array, 3, 1, 0), false);
  assert.throws(() => program(array, 3, 2, 0), /out of order/);
  assert.equal(program(array, 3, 1, 1), true);
  assert.equal(array.freePages(3), pagesPerBlock - 2, 'what the other unit has left');
  await array.read(ppnOf(geometry, 3, 0, 0) * 4096, new Uint8Array(4096), 'kv');
  assert.deepEqual([...array.blocks.failing], [3]);
  assert.deepEqual([...array.blocks.badBlocks()], [{ unit: 0, block: 3, reason: 'program', eraseCount: 1 }]);
  assert.equal(array.counters.programs.kv, 3);

  array.erase(3, header);
  assert.deepEqual([array.blocks.blockAt(3, 0), array.blocks.blockAt(3, 1)], [superblockCount, 3]);
  assert.deepEqual([array.blocks.eraseCountAt(3, 0), array.blocks.eraseCountAt(3, 1)], [1, 2]);
  assert.equal(array.freePages(3), geometry.pagesPerSuperblock);
  assert.deepEqual([...array.blocks.failing], []);
});

test('an erase that fails takes the next spare, and the next if that one fails too', () => {
  const failing = new Set([4, superblockCount]);
  const asked: number[][] = [];
  const array = makeArray({
    eraseFails: (superblock, unit, block, cycle) => {
      asked.push([superblock, unit, block, cycle]);
      return unit === 1 && failing.has(block);
    },
  });
  assert.equal(array.erase(4, header), true);
  assert.deepEqual(asked, [
    [4, 0, 4, 1],
    [4, 1, 4, 1],
    [4, 1, superblockCount, 1],
    [4, 1, superblockCount + 1, 1],
  ]);
  assert.equal(array.blocks.blockAt(4, 1), superblockCount + 1);
  assert.deepEqual([array.blocks.spareCount(0), array.blocks.spareCount(1)], [2, 0]);
  assert.deepEqual([array.blocks.goodCount(0), array.blocks.goodCount(1)], [superblockCount + 2, superblockCount]);
});

test('without a spare the superblock is retired, and its good blocks are spares', () => {
  const failures = { eraseFails: (_: number, unit: number, block: number) => unit === 1 && block === 5 };
  const array = makeArray(failures, 0);
  for (let life = 0; life < 3; life++) assert.equal(array.erase(2, header), true);
  assert.equal(array.erase(5, header), false);
  assert.equal(array.blocks.retired.has(5), true);
  assert.equal(array.counters.superblocksErased, 3);
  assert.equal(array.freePages(5), 0);
  assert.deepEqual([array.blocks.spareCount(0), array.blocks.spareCount(1)], [1, 0]);
  // Block 5 of unit 0 was never erased: it goes on in another superblock.
  array.blocks.fail(2, 0, 'program', 3);
  assert.equal(array.erase(2, header), true);
  assert.deepEqual([array.blocks.blockAt(2, 0), array.blocks.eraseCountAt(2, 0)], [5, 1]);
  assert.deepEqual([array.blocks.blockAt(2, 1), array.blocks.eraseCountAt(2, 1)], [2, 4]);
});

test('the least worn spare is taken first', () => {
  const array = makeArray({ eraseFails: (superblock, unit) => superblock === 7 && unit === 1 }, 0);
  for (let life = 0; life < 4; life++) array.erase(6, header);
  for (const [superblock, lives] of [
    [7, 0],
    [8, 2],
  ] as const) {
    for (let life = 0; life < lives; life++) array.erase(superblock, header);
    array.blocks.retire(superblock);
  }
  array.blocks.fail(6, 0, 'program', 4);
  array.erase(6, header);
  assert.equal(array.blocks.blockAt(6, 0), 7);
});

test('blocks that the maker has marked are never erased', () => {
  const array = makeArray({
    isFactoryBad: (unit, block) => unit === 0 && (block === 1 || block === superblockCount),
    eraseFails: (_, unit, block) => {
      assert.ok(unit !== 0 || (block !== 1 && block !== superblockCount), `block ${block} is erased`);
      return false;
    },
  });
  array.markFactoryBad();
  assert.equal(array.blocks.spareCount(0), 1);
  assert.equal(array.erase(1, header), true);
  assert.equal(array.blocks.blockAt(1, 0), superblockCount + 1);
});
