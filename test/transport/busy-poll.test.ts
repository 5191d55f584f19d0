import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../daemon/base/clock.ts';
import { BusyPoll } from '../../daemon/transport/busy-poll.ts';

/** Time and turns of an event loop, as told. */
class TurnClock implements Clock {
  timeNs = 0;
  readonly polls: (() => void)[] = [];
  nowNs = (): number => this.timeNs;
  wallMs = (): number => 0;
  setTimer = (): never => assert.fail('it polls and sets no timers');
  poll = (callback: () => void): { cancel(): void } => {
    this.polls.push(callback);
    return { cancel: () => assert.fail('what was begun goes on by itself') };
  };

  /** One turn, so much later. */
  turn(laterNs: number): void {
    this.timeNs += laterNs;
    for (const callback of this.polls.splice(0)) callback();
  }
}

const WINDOW_NS = 50_000;

function rig(windowNs = WINDOW_NS) {
  const clock = new TurnClock();
  const load = { isIdle: true };
  return { clock, load, poll: new BusyPoll({ windowNs }, { clock, isIdle: () => load.isIdle }) };
}

test('it stays awake for its window after the last answer, and then sleeps', () => {
  const { clock, poll } = rig();
  poll.touch();
  for (let i = 0; i < 4; i++) clock.turn(10_000);
  assert.equal(clock.polls.length, 1);
  poll.touch();
  assert.equal(clock.polls.length, 1, 'one poll at a time');
  for (let i = 0; i < 4; i++) clock.turn(10_000);
  assert.equal(clock.polls.length, 1, 'the window begins anew');
  clock.turn(10_000);
  assert.equal(clock.polls.length, 0);
  poll.touch();
  assert.equal(clock.polls.length, 1, 'and it can be woken again');
});

test('it sleeps while commands are under way: the processor is theirs', () => {
  const { clock, load, poll } = rig();
  load.isIdle = false;
  poll.touch();
  clock.turn(1000);
  assert.equal(clock.polls.length, 0);
  load.isIdle = true;
  poll.touch();
  clock.turn(1000);
  assert.equal(clock.polls.length, 1);
});

test('a window of nothing, and a clock that can not poll, are never awake', () => {
  const { clock, poll } = rig(0);
  poll.touch();
  assert.equal(clock.polls.length, 0);
  const timers: Clock = { nowNs: () => 0, wallMs: () => 0, setTimer: () => assert.fail('no timer') };
  new BusyPoll({ windowNs: WINDOW_NS }, { clock: timers, isIdle: () => true }).touch();
});
