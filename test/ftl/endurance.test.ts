/** What is told of wear: numbers that follow from a table of blocks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { takeEndurance } from '../../daemon/ftl/endurance.ts';
import { BlockTable } from '../../daemon/nand/block-table.ts';
import type { Chip } from '../../daemon/nand/chip.ts';
import { neededSuperblocks, planGeometry, superblockQuotas } from '../../daemon/nand/geometry.ts';
import { ideal } from '../../daemon/profiles/ideal.ts';

const MIB = 2 ** 20;
const geometry = planGeometry({
  blockCapacityBytes: 64 * MIB,
  kvCapacityBytes: 192 * MIB,
  pageSizeBytes: 16_384,
  channelCount: 4,
  diesPerChannel: 1,
  overProvisioning: 0.1,
});
const { superblockCount, unitCount } = geometry;
const needed = neededSuperblocks(geometry);
const SPARES = 10;
const endurance = { ratedCycles: 200, factoryBadPerMillion: 0, spareBlocksPerMillion: 0 };
const chip: Chip = { profile: { ...ideal, endurance }, seed: 1, spareBlocksPerUnit: SPARES };
const spareAtFirst = superblockCount + SPARES - needed.block - needed.kv;

test('available spare is that of the worst unit, and 0 when one more failure makes the drive read-only', () => {
  const blocks = new BlockTable(geometry, SPARES);
  const percent = (): number => takeEndurance(blocks, geometry, chip).availableSparePercent;
  assert.equal(percent(), 100);
  for (let i = 0; i < 4; i++) blocks.markBad({ unit: 2, block: superblockCount + i, reason: 'factory', eraseCount: 0 });
  assert.equal(percent(), 100, 'what the maker has marked was never there');
  blocks.markBad({ unit: 1, block: superblockCount, reason: 'erase', eraseCount: 5 });
  assert.equal(percent(), Math.floor((100 * (spareAtFirst - 1)) / spareAtFirst));
  for (let i = 0; i < SPARES; i++) {
    blocks.markBad({ unit: 3, block: superblockCount + i, reason: 'program', eraseCount: 5 });
  }
  // Unit 3 has no spare: the next failure costs a superblock, whose other blocks are spares then.
  for (let superblock = 0; !takeEndurance(blocks, geometry, chip).isReadOnly; superblock++) {
    const left = spareAtFirst - SPARES - superblock;
    assert.equal(percent(), Math.floor((100 * left) / spareAtFirst), `superblock ${superblock}`);
    blocks.fail(superblock, 3, 'erase', 1);
    assert.equal(blocks.replace(superblock, 3), false);
    blocks.retire(superblock);
  }
  assert.equal(percent(), 0);
  assert.equal(blocks.retired.size, spareAtFirst - SPARES + 1);
  const { badBlockCounts, spareBlockCount } = takeEndurance(blocks, geometry, chip);
  assert.deepEqual(badBlockCounts, { factory: 4, program: SPARES, erase: 1 + blocks.retired.size });
  assert.equal(spareBlockCount, SPARES + (SPARES - 1) + (SPARES - 4) + 3 * blocks.retired.size);
});

test('erase counts are of blocks that serve: spares that came in bring their own, retired superblocks count no more', () => {
  const blocks = new BlockTable(geometry, SPARES);
  blocks.eraseCounts.fill(100);
  const take = () => takeEndurance(blocks, geometry, chip);
  assert.deepEqual([take().eraseCountMin, take().eraseCountMax, take().eraseCountMean], [100, 100, 100]);
  assert.equal(take().percentUsed, 50);
  blocks.fail(7, 0, 'program', 100);
  blocks.replace(7, 0);
  blocks.erased(7);
  assert.deepEqual([take().eraseCountMin, take().eraseCountMax], [1, 101]);
  const sum = 100 * (superblockCount - 1) * unitCount + 101 * (unitCount - 1) + 1;
  assert.ok(Math.abs(take().eraseCountMean - sum / (superblockCount * unitCount)) < 1e-9);
  assert.deepEqual(
    blocks.unusual(),
    new Map([[7, { eraseCountMax: 101, replacedBlockCount: 1, failedBlockCount: 0 }]]),
  );
  blocks.retire(7);
  assert.deepEqual([take().eraseCountMin, take().eraseCountMax, take().eraseCountMean], [100, 100, 100]);
  const { ratedCycles, percentUsed } = takeEndurance(blocks, geometry, { ...chip, profile: ideal });
  assert.deepEqual([ratedCycles, percentUsed], [undefined, 0]);
});

test('superblocks that go bad are taken from whoever has more beyond its needs, until neither has any', () => {
  const spare = superblockCount - needed.block - needed.kv;
  let before = superblockQuotas(geometry, 0);
  assert.deepEqual(before, { block: geometry.blockSuperblockCount, kv: geometry.kvSuperblockCount });
  for (let badCount = 1; badCount <= spare; badCount++) {
    const quotas = superblockQuotas(geometry, badCount);
    assert.equal(quotas.block + quotas.kv, superblockCount - badCount);
    assert.ok(quotas.block <= before.block && quotas.kv <= before.kv);
    assert.ok(quotas.block >= needed.block && quotas.kv >= needed.kv, `${badCount} bad`);
    before = quotas;
  }
  assert.deepEqual(before, needed);
});
