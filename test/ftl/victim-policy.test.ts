import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { type VictimContext, victimPolicy, type VictimPolicyName } from '../../daemon/ftl/victim-policy.ts';

const SLOTS = 64;

/** Superblocks 0, 1, ... with these valid slots, which became full at these operations. */
function context(validSlotCount: number[], closedAt: number[]): VictimContext {
  return {
    candidates: validSlotCount.map((_, superblock) => superblock),
    statistics: { slotsPerSuperblock: SLOTS, validSlotCount, closedAt },
    operation: 1000,
    random: createSeededRandom(1),
  };
}

const choose = (policy: VictimPolicyName, choiceCount: number, windowSuperblocks: number, from: VictimContext) =>
  victimPolicy({ policy, choiceCount, windowSuperblocks })(from);

test('greedy takes the fewest valid slots; of equals, what has been full longest', () => {
  assert.equal(choose('greedy', 1, 1, context([9, 3, 7], [1, 2, 3])), 1);
  assert.equal(choose('greedy', 1, 1, context([3, 9, 3, 3], [5, 1, 4, 6])), 2);
});

test('cost-benefit weighs what is gained against its cost, and by age', () => {
  // (1000 - 989) * 32 / 64 against (1000 - 499) * 16 / 96: old and colder wins.
  assert.equal(choose('cost-benefit', 1, 1, context([32, 48], [990, 500])), 1);
  assert.equal(choose('cost-benefit', 1, 1, context([32, 48], [500, 500])), 0);
  // Equal scores would not do: age 4 * 48 / 32 = 6 against age 12 * 32 / 64 = 6 takes the older.
  assert.equal(choose('cost-benefit', 1, 1, context([16, 32], [997, 989])), 1);
});

test('first in, first out takes the oldest; with a window, the best of the oldest', () => {
  const full = context([60, 50, 10, 40, 1], [4, 2, 3, 1, 9]);
  assert.equal(choose('fifo', 1, 1, full), 3);
  assert.equal(choose('fifo', 1, 2, full), 3);
  assert.equal(choose('fifo', 1, 3, full), 2);
  assert.equal(choose('fifo', 1, 4, full), 2);
  assert.equal(choose('fifo', 1, 5, full), 4);
  assert.equal(choose('fifo', 1, 99, full), 4);
});

test('windows agree with sorting, whatever the order', () => {
  const random = createSeededRandom(7);
  const draw = (count: number, below: number) => Array.from({ length: count }, () => random.nextUint32() % below);
  for (let round = 0; round < 200; round++) {
    const from = context(
      draw(40, SLOTS).map((valid) => Math.max(1, valid)),
      draw(40, 1_000_000),
    );
    const { validSlotCount, closedAt } = from.statistics;
    const window = 1 + (random.nextUint32() % 40);
    const oldest = [...from.candidates].sort((a, b) => closedAt[a]! - closedAt[b]!).slice(0, window);
    const expected = oldest.sort((a, b) => validSlotCount[a]! - validSlotCount[b]! || closedAt[a]! - closedAt[b]!)[0];
    assert.equal(choose('fifo', 1, window, from), expected);
  }
});

test('d choices take the best of d draws: one is chance, many are greedy', () => {
  const valid = Array.from({ length: 32 }, (_, i) => 1 + i);
  const meanRank = (d: number): number => {
    const from = context(valid, valid);
    const policy = victimPolicy({ policy: 'd-choices', choiceCount: d, windowSuperblocks: 1 });
    const draws = Array.from({ length: 4000 }, () => policy(from));
    return draws.reduce((sum, rank) => sum + rank, 0) / draws.length;
  };
  // The least of d uniform draws from 0 to 31: 15.5, and about 32 / (d + 1) - 1/2.
  assert.ok(Math.abs(meanRank(1) - 15.5) < 0.6, String(meanRank(1)));
  assert.ok(Math.abs(meanRank(4) - 5.9) < 0.4, String(meanRank(4)));
  assert.ok(meanRank(200) < 0.1, String(meanRank(200)));
});
