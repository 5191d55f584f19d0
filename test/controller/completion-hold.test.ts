import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../daemon/base/clock.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { CompletionHold } from '../../daemon/controller/completion-hold.ts';
import { Quantiles } from '../../daemon/controller/quantiles.ts';
import { ManualClock } from './rig.ts';

const MS = 1e6;

test('completions leave at their time, whatever the order in which they came', () => {
  const clock = new ManualClock();
  const hold = new CompletionHold({ clock });
  const random = createSeededRandom(1);
  const owner = {};
  const left: { dueNs: number; atNs: number }[] = [];
  const due = Array.from({ length: 500 }, () => (random.nextUint32() % 1000) * MS);
  for (const dueNs of due) {
    clock.advance(random.nextUint32() % 2);
    hold.hold({ dueNs, owner, release: () => left.push({ dueNs, atNs: clock.nowNs() }) });
  }
  clock.advance(2000);
  assert.equal(left.length, due.length);
  const { heldCount, lateCount, waitingCount, errorNsP99 } = hold.snapshot();
  assert.equal(heldCount + lateCount, due.length);
  assert.ok(lateCount > 0 && heldCount > 0);
  assert.equal(waitingCount, 0);
  assert.equal(errorNsP99, 1, 'exact timers, so nothing left late');
  for (const { dueNs, atNs } of left) assert.ok(atNs >= dueNs);
  const held = left.filter(({ dueNs, atNs }) => dueNs === atNs);
  assert.ok(held.length >= heldCount);
  assert.equal(clock.timerCount, 0);
});

test('what is late leaves at once and is counted with how late it is', () => {
  const clock = new ManualClock();
  const hold = new CompletionHold({ clock });
  clock.advance(10);
  let released = 0;
  hold.hold({ dueNs: 4 * MS, owner: {}, release: () => released++ });
  assert.equal(released, 1);
  const { lateCount, heldCount, latenessNsP50 } = hold.snapshot();
  assert.deepEqual({ lateCount, heldCount }, { lateCount: 1, heldCount: 0 });
  assert.ok(Math.abs(latenessNsP50 / (6 * MS) - 1) < 0.05);
});

test('an owner that goes takes its completions with it at once, and nobody else', () => {
  const clock = new ManualClock();
  const hold = new CompletionHold({ clock });
  const [gone, stays] = [{}, {}];
  const left: string[] = [];
  for (let i = 1; i <= 5; i++) {
    hold.hold({ dueNs: i * 10 * MS, owner: gone, release: () => left.push(`gone ${i}`) });
    hold.hold({ dueNs: i * 10 * MS + 1, owner: stays, release: () => left.push(`stays ${i}`) });
  }
  hold.abandon(gone);
  assert.deepEqual(left.sort(), ['gone 1', 'gone 2', 'gone 3', 'gone 4', 'gone 5']);
  clock.advance(60);
  assert.equal(left.length, 10);
  hold.hold({ dueNs: 100 * MS, owner: stays, release: () => left.push('last') });
  hold.abandon(stays);
  assert.deepEqual([left.at(-1), clock.timerCount], ['last', 0]);
});

test('a release may hold the next completion', () => {
  const clock = new ManualClock();
  const hold = new CompletionHold({ clock });
  const owner = {};
  const at: number[] = [];
  const next = (count: number): void => {
    at.push(clock.nowNs() / MS);
    if (count > 0) hold.hold({ dueNs: clock.nowNs() + 7 * MS, owner, release: () => next(count - 1) });
  };
  next(3);
  clock.advance(100);
  assert.deepEqual(at, [0, 7, 14, 21]);
});

test('on the real clock nothing leaves early, and nothing runs when nothing is held', async () => {
  let polls = 0;
  const poll = (callback: () => void) => {
    polls++;
    return systemClock.poll!(callback);
  };
  const clock = { ...systemClock, poll };
  const hold = new CompletionHold({ clock });
  // The drive's timers keep no process alive.
  const alive = setInterval(() => undefined, 1000);
  await Promise.all(
    [0.3, 1.5, 5, 9, 9.5].map((delayMs) => {
      const dueNs = clock.nowNs() + delayMs * MS;
      return new Promise<void>((resolve) => {
        const release = (): void => {
          assert.ok(clock.nowNs() >= dueNs);
          resolve();
        };
        hold.hold({ dueNs, owner: hold, release });
      });
    }),
  );
  assert.equal(hold.snapshot().waitingCount, 0);
  const before = polls;
  await new Promise((resolve) => setTimeout(resolve, 20));
  clearInterval(alive);
  assert.equal(polls, before, 'no polling while idle');
});

test('quantiles are right to a few percent', () => {
  const quantiles = new Quantiles();
  assert.equal(quantiles.at(0.5), 0);
  for (let i = 1; i <= 10_000; i++) quantiles.add(i * 100);
  for (const share of [0.01, 0.5, 0.9, 0.99, 1]) {
    assert.ok(Math.abs(quantiles.at(share) / (share * 1e6) - 1) < 0.05, `${share}: ${quantiles.at(share)}`);
  }
  quantiles.add(0);
  quantiles.add(1e30);
  assert.equal(quantiles.count, 10_002);
});
