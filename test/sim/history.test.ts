/** The simulator at a size for every run of the tests. `npm run sim` plays more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { playHistory } from './history.ts';
import { type Mutation, type MutationName, mutations } from './mutations.ts';
import { play, type Outcome, replayLine } from './player.ts';
import { drawOptions } from './options.ts';
import { parseSeed, formatSeed, Prng } from './prng.ts';
import { regressions } from './regressions.ts';
import { Trace } from './trace.ts';

/** Power cuts of the smoke run; more with ATTNDRIVE_CUTS. */
const CUTS = Number(process.env['ATTNDRIVE_CUTS'] ?? 600);
/** A planted bug must be found within so many. */
const CANARY_CUTS = 4000;
/** Histories of a canary are short: most bugs are found early in some history. */
const CANARY_HISTORY_CUTS = 40;

/** Seeds from which each bug is found soon, as the drive is now. */
const canaries: Readonly<Record<MutationName, bigint>> = {
  mediaSync: 2n,
  stagingSync: 2n,
  commitBeforeSync: 10n,
  commitUnseen: 3n,
  earlyErase: 179n,
  earlyNumber: 49n,
  truncateUnrecorded: 31n,
  sameGeneration: 20n,
  tagUnchecked: 296n,
  fuaUnsynced: 3n,
  flushJoins: 41n,
  logCutEarly: 3n,
  formatUnflushed: 68n,
  eraseShallow: 25n,
  pinsIgnored: 26n,
  nameUnsynced: 1n,
  openingUnwaited: 12n,
  heldForgotten: 4n,
  deallocateUnrecorded: 4n,
  tailsUnstaged: 70n,
};

const failureOf = ({ seed, failure }: Outcome, bug?: string): string =>
  failure === undefined ? '' : `${failure.stack}\nagain by: ${replayLine(seed, failure.cuts, bug)}`;

test('nothing durable is lost, and nothing comes back, over power cuts at every step', {
  timeout: 280_000,
}, async () => {
  let cuts = 0;
  let seed = 1n;
  while (cuts < CUTS) {
    const outcome = await play({ seed: String(seed++), cutsMax: CUTS - cuts });
    assert.equal(failureOf(outcome), '');
    cuts += outcome.tally.powerCuts;
  }
});

test('histories that once failed', async () => {
  for (const { seed, cuts, found } of regressions) {
    const outcome = await play({ seed: String(seed), cutsMax: cuts });
    assert.equal(failureOf(outcome), '', found);
  }
});

test('the same seed plays the same history, whatever was played before', async () => {
  const hashOf = async (seed: bigint): Promise<string> => {
    const report = await playHistory({ seed, cutsMax: 12, trace: new Trace() });
    return report.traceHash;
  };
  const first = await hashOf(6n);
  assert.notEqual(await hashOf(7n), first);
  assert.equal(await hashOf(6n), first);
});

for (const [bug, mutation] of Object.entries(mutations)) {
  const { what, suits }: Mutation = mutation;
  test(`a planted bug is found: ${what}`, async () => {
    let cuts = 0;
    for (let seed = canaries[bug as MutationName]; cuts < CANARY_CUTS; seed++) {
      if (suits?.(drawOptions(Prng.of(seed, 'options'))) === false) continue;
      const outcome = await play({ seed: String(seed), cutsMax: CANARY_HISTORY_CUTS, bug });
      if (outcome.failure) return;
      cuts += outcome.tally.powerCuts;
    }
    assert.fail(`not found within ${cuts} power cuts`);
  });
}

test('seeds are numbers or commits, and print so that they are read back', () => {
  for (const text of [
    '0',
    '18446744073709551615',
    '0xffffffffffffffffff',
    '782b0b9a782b0b9a782b0b9a782b0b9a782b0b9a',
  ]) {
    assert.equal(parseSeed(formatSeed(parseSeed(text))), parseSeed(text));
  }
  for (const text of ['', '-1', '1.5', 'seed', '0x', `0x1${'0'.repeat(40)}`])
    assert.throws(() => parseSeed(text), /seed/);
});

test('seeds differ in what they play', () => {
  const kinds = Array.from({ length: 40 }, (_, i) => JSON.stringify(drawOptions(Prng.of(BigInt(i), 'options'))));
  assert.equal(new Set(kinds).size, kinds.length);
});
