/** The fuzzers at a size for every run of the tests. `npm run fuzz` plays more. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inputsText, parseInputs } from './inputs.ts';
import { playInputs, playSession } from './player.ts';
import { regressions } from './regressions.ts';
import { replayLine } from './report.ts';
import { targetNamed, targets } from './registry.ts';
import type { Target } from './target.ts';
import { Tally } from './tally.ts';

/** At least so much of what is played must come through framing: what does not is not looked at by anything behind. */
const FRAMED_SHARE_MIN = 0.3;
/** A planted bug must be found within so many sessions. */
const CANARY_SESSIONS = 40;
const SEED = 1n;

/** Plays sessions of consecutive seeds; what went wrong in one of them, or undefined. */
async function play(target: Target, cases: number, tally: Tally, bug?: string): Promise<string | undefined> {
  for (let seed = SEED; tally.cases < cases; seed++) {
    const casesMax = Math.min(target.casesPerSession, cases - tally.cases);
    const outcome = await playSession(target, { seed, casesMax, bug });
    tally.add(outcome.tally);
    if (outcome.failure) return `${outcome.failure.stack}\nagain by: ${replayLine(outcome, bug)}`;
  }
  return undefined;
}

for (const target of targets) {
  describe(target.name, () => {
    test('nothing goes wrong, and enough comes through framing', async () => {
      const tally = new Tally();
      assert.equal(await play(target, target.smokeCases, tally), undefined);
      const share = tally.framed / tally.cases;
      assert.ok(share >= FRAMED_SHARE_MIN, `${(100 * share).toFixed(1)} % of the cases passed framing`);
    });

    for (const [bug, what] of Object.entries(target.bugs)) {
      test(`a planted bug is found: ${what}`, async () => {
        const cases = CANARY_SESSIONS * target.casesPerSession;
        assert.notEqual(await play(target, cases, new Tally(), bug), undefined, `not found within ${cases} cases`);
      });
    }
  });
}

for (const { name, target, seed, found, inputs } of regressions()) {
  test(`once failed: ${name}: ${found}`, () => playInputs(targetNamed(target), seed, inputs));
}

test('a failure leaves a list of inputs that fails again, and is as short as it can be made', async () => {
  const target = targetNamed('pdu');
  const bug = 'digestOfBeginning';
  const { failure } = await playSession(target, { seed: SEED, casesMax: 2000, bug, shrinkPlaysMax: 200 });
  const inputs = parseInputs(failure!.inputs);
  assert.equal(inputs.length, 1);
  assert.equal(inputsText(inputs), failure!.inputs);
  await assert.rejects(playInputs(target, SEED, inputs, bug));
  await playInputs(target, SEED, inputs);
});
