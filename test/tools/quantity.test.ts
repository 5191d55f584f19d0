import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bytesText,
  countText,
  durationText,
  integerWithin,
  median,
  parseIntervalSeconds,
  parseSequenceId,
  parseSize,
} from '../../tools/cli/quantity.ts';

test('sizes are bytes, binary or decimal units', () => {
  assert.equal(parseSize('4096'), 4096);
  assert.equal(parseSize('16KiB'), 16_384);
  assert.equal(parseSize('256 MiB'), 268_435_456);
  assert.equal(parseSize('1.5G'), 1_610_612_736);
  assert.equal(parseSize('10GB'), 1e10);
  for (const wrong of ['', 'x', '-1', '1.5B', '1e9', '12 parsecs', '99999999TiB', '0x10']) {
    assert.throws(() => parseSize(wrong), { code: 'commander.invalidArgument' }, wrong);
  }
});

test('intervals are seconds to days, or off', () => {
  assert.deepEqual(['90s', '30m', '12h', '7d', 'off'].map(parseIntervalSeconds), [90, 1800, 43_200, 604_800, 0]);
  for (const wrong of ['', '7', 'd', '0s', '1.5h', '-1d', '367d', '1w', '7 d', 'Off']) {
    assert.throws(() => parseIntervalSeconds(wrong), /A time is 1s to 366d/, wrong);
  }
});

test('numbers and ids are checked', () => {
  assert.equal(integerWithin(1, 8)('8'), 8);
  for (const wrong of ['0', '9', '1.5', '', 'NaN', '1e0', ' ']) {
    assert.throws(() => integerWithin(1, 8)(wrong), /Whole numbers from 1 to 8/, wrong);
  }
  assert.equal(parseSequenceId('18446744073709551615'), 2n ** 64n - 1n);
  assert.equal(parseSequenceId('0x10'), 16n);
  for (const wrong of ['0', '-1', '18446744073709551616', 'one', '']) {
    assert.throws(() => parseSequenceId(wrong), /A sequence id/, wrong);
  }
});

test('quantities read well', () => {
  assert.equal(bytesText(0), '0 B');
  assert.equal(bytesText(1536), '1.5 KiB');
  assert.equal(bytesText(256 * 2 ** 20), '256 MiB');
  assert.equal(countText(1_234_567), '1,234,567');
  assert.equal(countText(999), '999');
  assert.equal(durationText(0.1234), '123 µs');
  assert.equal(durationText(3.14159), '3.14 ms');
  assert.equal(durationText(12_000), '12.0 s');
  assert.equal(median([5, 1, 3]), 3);
  assert.equal(median([4, 1, 3, 2]), 2.5);
});
