import assert from 'node:assert/strict';
import { test } from 'node:test';
import { profileOf, profiles } from '../../daemon/profiles/profiles.ts';
import { cellTypes } from '../../daemon/profiles/timing-profile.ts';
import { planGeometry } from '../../daemon/nand/geometry.ts';

const isWhole = (value: number): boolean => Number.isInteger(value) && value >= 0;

test('profiles have names that the superblock can hold, sources, and are found by name', () => {
  assert.equal(new Set(profiles.map(({ name }) => name)).size, profiles.length);
  for (const profile of profiles) {
    assert.match(profile.name, /^[a-z0-9-]{1,32}$/);
    assert.ok(profile.sources.length > 0 && profile.sources.every((source) => source.length > 0), profile.name);
    assert.equal(profileOf(profile.name), profile);
  }
  assert.throws(() => profileOf('970-evo'), /profile 970-evo; allowed: ideal, nvmevirt-970-pro, /);
});

test('times are whole nanoseconds for every page type, rates are positive, error budgets fit the rated error rate', () => {
  for (const { name, timing, errors } of profiles) {
    if (timing === undefined) continue;
    const { flash, channel, controller, writeBuffer, link, compute } = timing;
    const bits = cellTypes[flash.cell];
    for (const times of [flash.readNs, flash.programNs, flash.shortRead?.readNs ?? flash.readNs]) {
      assert.equal(times.length, bits, `${name}: one time for each page type`);
      assert.ok(times.every((time) => isWhole(time) && time > 0));
    }
    const { readNs, writeNs, writeBlockNs, attendNs, otherNs } = controller;
    for (const time of [flash.eraseNs, channel.commandNs, readNs, writeNs, writeBlockNs, attendNs, otherNs]) {
      assert.ok(isWhole(time), `${name}: ${time} ns`);
    }
    assert.ok(isWhole(link.completionNs) && isWhole(compute.headNs) && isWhole(flash.suspendNs ?? 0));
    for (const rate of [channel.bytesPerSecond, link.bytesPerSecond, compute.bytesPerSecond, compute.flopsPerSecond]) {
      assert.ok(rate > 0, `${name}: rate ${rate}`);
    }
    assert.ok(isWhole(writeBuffer.pagesPerPlane) && compute.unitCount >= 1);
    const ratedBits = errors.rawBitErrorRateRated * errors.codewordBytes * 8;
    assert.ok(
      errors.correctableBits >= ratedBits + 4 * Math.sqrt(ratedBits),
      `${name}: ${ratedBits} errors a codeword`,
    );
    assert.ok(errors.rawBitErrorRateFresh < errors.rawBitErrorRateRated);
  }
});

test('a drive can be made with the geometry that a profile suggests', () => {
  for (const { geometry } of profiles) {
    if (geometry === undefined) continue;
    const planned = planGeometry({
      ...geometry,
      blockCapacityBytes: 2 ** 20,
      kvCapacityBytes: 2 ** 20,
      overProvisioning: 0.125,
    });
    assert.equal(planned.planesPerDie, geometry.planesPerDie);
  }
});
