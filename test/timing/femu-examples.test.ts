/**
 * Worked examples that FEMU's documentation prints as what its own engine returns (hw/femu/docs/design/nand-timing.md):
 * two models that were written apart must agree on what they both model.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { latencyOf, PAGE_BYTES, pageOf, smallModel } from './model.ts';

const us = (microseconds: number): number => 1000 * microseconds;
const bus = { commandNs: us(1), channelBytesPerSecond: (PAGE_BYTES / us(10)) * 1e9 };
const twoByTwo = { channelCount: 2, diesPerChannel: 2 };

/** P: program on channel 0, die 0. R1: read, channel 0, die 1. R2: read, same die as P. R3: read, channel 1, die 0. */
function fourOperations(options: Parameters<typeof smallModel>[0]): number[] {
  const model = smallModel({ shape: twoByTwo, ...options });
  const unit = { p: 0, r1: 2, r2: 0, r3: 1 };
  return [
    latencyOf(model, 0, (job) => job.program(pageOf(model, unit.p, 0))),
    latencyOf(model, 0, (job) => job.read(pageOf(model, unit.r1, 0), PAGE_BYTES)),
    latencyOf(model, 0, (job) => job.read(pageOf(model, unit.r2, 1), PAGE_BYTES)),
    latencyOf(model, 0, (job) => job.read(pageOf(model, unit.r3, 0), PAGE_BYTES)),
  ];
}

test('operations that overlap across dies and channels, with the bus', () => {
  assert.deepEqual(fourOperations(bus), [us(211), us(62), us(261), us(51)]);
});

test('the same without the bus', () => {
  assert.deepEqual(fourOperations({}), [us(200), us(40), us(240), us(40)]);
});

test('the same with program suspend: the read goes first, and its transfer waits for the one booked before', () => {
  assert.deepEqual(fourOperations({ ...bus, flash: { suspendNs: us(5) } }), [us(211), us(62), us(72), us(51)]);
});

test('a program that is suspended twice, and the program behind it', () => {
  const model = smallModel({ flash: { suspendNs: us(5) } });
  const done = (arrivalUs: number, work: Parameters<typeof latencyOf>[2]): number =>
    us(arrivalUs) + latencyOf(model, us(arrivalUs), work);
  assert.equal(
    done(0, (job) => job.program(0)),
    us(200),
    'P was told its end',
  );
  assert.equal(
    done(50, (job) => job.read(0, PAGE_BYTES)),
    us(95),
    'R1 suspends it',
  );
  assert.equal(
    done(60, (job) => job.read(0, PAGE_BYTES)),
    us(135),
    'R2 follows at once',
  );
  assert.equal(
    done(150, (job) => job.read(0, PAGE_BYTES)),
    us(195),
    'R3 suspends it again',
  );
  assert.equal(
    done(160, (job) => job.program(1)),
    us(530),
    'W2 waits until P has really ended, at 330',
  );
});
