/** The table of blocks: what it says after a restart is what it said before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { NandArray } from '../../daemon/nand/array.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { type BadBlock, BlockTable, type BlockTableState, type ReplacedBlock } from '../../daemon/nand/block-table.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { oobBytesPerPage, planGeometry } from '../../daemon/nand/geometry.ts';
import { MediaMemory } from '../../daemon/nand/media-memory.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 16,
  kvCapacityBytes: 2 ** 16,
  pageSizeBytes: 4096,
  channelCount: 3,
  diesPerChannel: 1,
  overProvisioning: 0.07,
});
const { unitCount, superblockCount } = geometry;
const SPARES = 3;
const page = new Uint8Array(4096);
const oob = new Uint8Array(oobBytesPerPage(geometry));

/** What `takeChanges` has told over time, as a store keeps it: the last record of each key. */
class Records {
  readonly #bad = new Map<string, BadBlock>();
  readonly #replaced = new Map<string, ReplacedBlock>();
  readonly #retired = new Set<number>();

  take({ bad, replaced, retired }: BlockTableState): void {
    for (const entry of bad) this.#bad.set(`${entry.unit} ${entry.block}`, entry);
    for (const entry of replaced) this.#replaced.set(`${entry.superblock} ${entry.unit}`, entry);
    for (const superblock of retired) this.#retired.add(superblock);
  }

  get state(): BlockTableState {
    const retired = [...this.#retired].sort((a, b) => b - a);
    return { bad: [...this.#bad.values()], replaced: [...this.#replaced.values()], retired };
  }
}

/** Everything that can be asked of a table. */
function answersOf(table: BlockTable): unknown {
  const places = Array.from({ length: superblockCount }, (_, superblock) =>
    Array.from({ length: unitCount }, (__, unit) => [
      table.blockAt(superblock, unit),
      table.eraseCountAt(superblock, unit),
    ]),
  );
  const units = Array.from({ length: unitCount }, (_, unit) => [table.spareCount(unit), table.goodCount(unit)]);
  const bad = [...table.badBlocks()].map((entry) => JSON.stringify(entry)).sort();
  return { places, units, bad, retired: [...table.retired].sort(), failing: [...table.failing].sort() };
}

test('a table that is restored from its changes answers as before, and gives the same spares from there on', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = createSeededRandom(seed);
    const chance = (oneIn: number): boolean => random.nextUint32() % oneIn === 0;
    const failures = { ...noFailures, eraseFails: () => chance(15), programFails: () => chance(15) };
    const array = new NandArray(geometry, new MediaMemory(geometry), {
      chip: { ...idealChip, spareBlocksPerUnit: SPARES },
      failures,
    });
    const records = new Records();
    for (let i = 0; i < 600 && array.blocks.retired.size < superblockCount / 2; i++) {
      const superblock = random.nextUint32() % superblockCount;
      if (array.blocks.retired.has(superblock) || !array.erase(superblock, new Uint8Array(64))) continue;
      for (let unit = 0; unit < unitCount; unit++) array.program(array.nextPpn(superblock, unit), page, oob, 'kv');
      if (chance(10)) records.take(array.blocks.takeChanges());
    }
    records.take(array.blocks.takeChanges());
    const restored = new BlockTable(geometry, SPARES);
    restored.eraseCounts.set(array.blocks.eraseCounts);
    restored.restore(records.state);
    assert.deepEqual(answersOf(restored), answersOf(array.blocks), `seed ${seed}`);
    assert.deepEqual(restored.takeChanges(), { bad: [], replaced: [], retired: [] });
    for (let unit = 0; unit < unitCount; unit++) {
      for (let superblock = 0; superblock < superblockCount; superblock++) {
        if (array.blocks.retired.has(superblock)) continue;
        assert.equal(restored.replace(superblock, unit), array.blocks.replace(superblock, unit));
      }
    }
    assert.deepEqual(answersOf(restored), answersOf(array.blocks), `seed ${seed}, with all spares in use`);
  }
});

test('a table in which a block serves twice is refused', () => {
  const restore = (replaced: readonly ReplacedBlock[], retired: readonly number[] = []): BlockTable => {
    const table = new BlockTable(geometry, SPARES);
    table.restore({ bad: [], replaced, retired });
    return table;
  };
  const entry = (superblock: number, block: number) => ({ superblock, unit: 1, block, eraseCountOffset: 0 });
  const spare = superblockCount;
  assert.throws(() => restore([entry(2, spare), entry(4, spare)]), /block \d+ of unit 1 serves superblocks 2 and 4/);
  assert.throws(() => restore([entry(2, 4)]), /block 4 of unit 1 serves superblocks 4 and 2/);
  assert.equal(restore([entry(2, 4)], [4]).blockAt(2, 1), 4, 'of one that was given up');
});
