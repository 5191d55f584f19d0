/** How blocks of a chip differ: shares of a large sample, against the distribution that the nature states. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Chip } from '../../daemon/nand/chip.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { natureOf } from '../../daemon/nand/chip-nature.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { planGeometry, ppnOf } from '../../daemon/nand/geometry.ts';
import { ideal } from '../../daemon/profiles/ideal.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 28,
  kvCapacityBytes: 2 ** 28,
  pageSizeBytes: 4096,
  channelCount: 8,
  diesPerChannel: 1,
  overProvisioning: 0.07,
});
const { unitCount, superblockCount, pagesPerBlock } = geometry;
const RATED = 3000;

function makeChip(seed: number): Chip {
  const endurance = { ratedCycles: RATED, factoryBadPerMillion: 5000, spareBlocksPerMillion: 20_000 };
  return { profile: { ...ideal, endurance }, seed, spareBlocksPerUnit: 16 };
}

/** Share of all blocks of which it is true. */
function shareOf(isTrue: (unit: number, block: number) => boolean): number {
  let count = 0;
  const blockCount = superblockCount + 16;
  for (let unit = 0; unit < unitCount; unit++) {
    for (let block = 0; block < blockCount; block++) if (isTrue(unit, block)) count++;
  }
  return count / (unitCount * blockCount);
}

function assertNear(share: number, expected: number, what: string): void {
  const sampleCount = unitCount * (superblockCount + 16);
  const deviation = Math.sqrt((expected * (1 - expected)) / sampleCount);
  assert.ok(Math.abs(share - expected) <= 4 * deviation, `${what}: ${share}, expected ${expected} +- ${deviation}`);
}

test('factory marks, early failures and the median life are those of the distribution', () => {
  const nature = natureOf(makeChip(1), geometry);
  const lastPage = (unit: number): number => ppnOf(geometry, 0, pagesPerBlock - 1, unit);
  const hasFailedBy = (cycle: number) => (unit: number, block: number) =>
    nature.eraseFails(0, unit, block, cycle) || nature.programFails(lastPage(unit), block, cycle);
  assertNear(
    shareOf((unit, block) => nature.isFactoryBad(unit, block)),
    0.005,
    'factory',
  );
  assertNear(shareOf(hasFailedBy(RATED)), 0.01, 'failed by the rating');
  assertNear(shareOf(hasFailedBy(2 * RATED)), 0.5, 'failed by twice the rating');
  assert.equal(shareOf(hasFailedBy(4 * RATED)), 1);
  assertNear(
    shareOf((unit, block) => nature.eraseFails(0, unit, block, 4 * RATED)),
    0.25,
    'refuse to be erased',
  );
});

test('a block that has failed fails again at every cycle that follows, and never before', () => {
  const nature = natureOf(makeChip(2), geometry);
  for (let block = 0; block < 50; block++) {
    const cycles = Array.from({ length: 4 * RATED }, (_, cycle) => nature.eraseFails(0, 1, block, cycle));
    const first = cycles.indexOf(true);
    if (first >= 0) assert.ok(cycles.slice(first).every(Boolean), `block ${block} from cycle ${first} on`);
  }
});

test('the same chip is the same again, another seed is another chip', () => {
  const marks = (seed: number): boolean[] => {
    const nature = natureOf(makeChip(seed), geometry);
    return Array.from({ length: superblockCount }, (_, block) => nature.isFactoryBad(0, block));
  };
  assert.deepEqual(marks(3), marks(3));
  assert.notDeepEqual(marks(3), marks(4));
  assert.equal(natureOf(idealChip, geometry), noFailures);
});
