import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { Timeline } from '../../daemon/timing/timeline.ts';

test('requests queue, and fill gaps that are long enough', () => {
  const timeline = new Timeline();
  assert.equal(timeline.reserve(100, 10), 110, 'idle: at once');
  assert.equal(timeline.reserve(105, 10), 120, 'busy: behind');
  assert.equal(timeline.reserve(200, 10), 210, 'a gap from 120 to 200');
  assert.equal(timeline.reserve(0, 30), 30, 'before all of them');
  assert.equal(timeline.reserve(0, 71), 191, 'too long for 30 to 100, not for 120 to 200');
  assert.equal(timeline.reserve(150, 9), 200, 'exactly what is left of the gap');
  assert.equal(timeline.reserve(150, 1), 211, 'nothing is left of it');
  assert.equal(timeline.reserve(500, 0), 500, 'nothing takes no time and leaves no trace');
  assert.equal(timeline.endNs, 211);
  assert.equal(timeline.busyNs, 10 + 10 + 10 + 30 + 71 + 9 + 1);
});

test('nothing overlaps, nothing begins too early, and no gap that was long enough is left out, whatever is asked', () => {
  const random = createSeededRandom(7);
  const timeline = new Timeline();
  const taken: { start: number; end: number }[] = [];
  let nowNs = 0;
  for (let i = 0; i < 3000; i++) {
    nowNs += random.nextUint32() % 40;
    const readyNs = nowNs + (random.nextUint32() % 400);
    const durationNs = 1 + (random.nextUint32() % 30);
    const end = timeline.reserve(readyNs, durationNs);
    const start = end - durationNs;
    assert.ok(start >= readyNs);
    assert.ok(!taken.some((other) => start < other.end && other.start < end), `${start} to ${end} is free`);
    // Earliest fit by the definition; there are never more gaps at once here than are remembered.
    let earliest = readyNs;
    for (const other of taken.sort((a, b) => a.start - b.start)) {
      if (other.start < earliest + durationNs && earliest < other.end) earliest = other.end;
    }
    assert.equal(start, earliest);
    taken.push({ start, end });
    while (taken.length > 100) taken.shift();
  }
});

test('of many gaps the oldest are given up, never one that is taken', () => {
  const timeline = new Timeline();
  for (let i = 1; i <= 100; i++) timeline.reserve(i * 100, 10);
  assert.equal(timeline.reserve(0, 50), 6860, 'the 32 last gaps are there, and the first of them begins at 6,810');
});
