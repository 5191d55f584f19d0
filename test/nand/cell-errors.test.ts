import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NandArray } from '../../daemon/nand/array.ts';
import { BitErrors } from '../../daemon/nand/bit-errors.ts';
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { oobBytesPerPage, planGeometry } from '../../daemon/nand/geometry.ts';
import { InjectedFailures } from '../../daemon/nand/injected-failures.ts';
import { MediaMemory } from '../../daemon/nand/media-memory.ts';
import { profileOf } from '../../daemon/profiles/profiles.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 20,
  kvCapacityBytes: 2 ** 20,
  pageSizeBytes: 16_384,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.1,
});

const errors = {
  codewordBytes: 1024,
  correctableBits: 40,
  readRetryCount: 4,
  retryErrorShare: 0.75,
  rawBitErrorRateFresh: 1e-5,
  rawBitErrorRateRated: 3e-3,
};
const bitErrors = (seed: number): BitErrors =>
  new BitErrors(errors, { seed, ratedCycles: 1000, pageSizeBytes: geometry.pageSizeBytes });

/** P(at most k of n bits wrong), summed term by term. */
function atMost(k: number, n: number, p: number): number {
  let logTerm = n * Math.log1p(-p);
  let sum = 0;
  for (let i = 0; i <= k; i++) {
    sum += Math.exp(logTerm);
    logTerm += Math.log(((n - i) / (i + 1)) * (p / (1 - p)));
  }
  return sum;
}

test('the rate grows in proportion to wear, and beyond the rating', () => {
  const model = bitErrors(1);
  assert.equal(model.rate(0), 1e-5);
  assert.ok(Math.abs(model.rate(500) - 1.505e-3) < 1e-12);
  assert.ok(Math.abs(model.rate(1000) - 3e-3) < 1e-12);
  assert.ok(Math.abs(model.rate(2000) - 5.99e-3) < 1e-12);
  assert.equal(model.rate(1e9), 0.1);
});

test('worst codewords are distributed as the largest of sixteen binomial draws', () => {
  for (const cycle of [1, 300, 1000]) {
    const model = bitErrors(7);
    const pageCount = 20_000;
    const counts = new Map<number, number>();
    for (let ppn = 0; ppn < pageCount; ppn++) {
      const bits = model.worstBits(ppn, cycle);
      counts.set(bits, (counts.get(bits) ?? 0) + 1);
    }
    let cumulative = 0;
    for (const bits of [...counts.keys()].sort((a, b) => a - b)) {
      cumulative += counts.get(bits)!;
      const expected = atMost(bits, 8192, model.rate(cycle)) ** 16;
      // Four standard deviations of a share of 20,000 are below 0.015.
      assert.ok(Math.abs(cumulative / pageCount - expected) < 0.015, `cycle ${cycle}, ${bits} bits`);
    }
  }
});

test('a draw is of seed, page and cycle alone', () => {
  const draws = (model: BitErrors): number[] =>
    Array.from({ length: 200 }, (_, i) => model.worstBits(i % 50, 500 + Math.floor(i / 50)));
  assert.deepEqual(draws(bitErrors(3)), draws(bitErrors(3)));
  assert.deepEqual(draws(bitErrors(3)), draws(bitErrors(3)).slice(), 'whatever was drawn before');
  assert.notDeepEqual(draws(bitErrors(3)), draws(bitErrors(4)));
  const [first, second] = [draws(bitErrors(3)).slice(0, 50), draws(bitErrors(3)).slice(50, 100)];
  assert.notDeepEqual(first, second, 'another life is another draw');
});

test('what is corrected, read again, and lost: at the edges', () => {
  const model = bitErrors(1);
  const tell = (bits: number): [boolean, number] => {
    const { isCorrectable, retryCount } = model.correct(bits);
    return [isCorrectable, retryCount];
  };
  assert.deepEqual(tell(0), [true, 0]);
  assert.deepEqual(tell(40), [true, 0]);
  assert.deepEqual(tell(41), [true, 1], '41 * 0.75 = 30');
  assert.deepEqual(tell(54), [true, 1], '54 * 0.75 = 40.5, of which 40 count');
  assert.deepEqual(tell(55), [true, 2]);
  assert.deepEqual(tell(129), [true, 4], '129 * 0.316 = 40.8');
  assert.deepEqual(tell(130), [false, 4]);
});

const wornChip = (seed: number, rate: number): Chip => ({
  ...idealChip,
  seed,
  profile: { ...idealChip.profile, errors: { ...errors, rawBitErrorRateFresh: rate, rawBitErrorRateRated: rate } },
});

/** An array whose superblock 0 is erased. */
function openArray(chip: Chip): { array: NandArray; media: MediaMemory; failures: InjectedFailures } {
  const media = new MediaMemory(geometry);
  const failures = new InjectedFailures(noFailures, geometry);
  const array = new NandArray(geometry, media, { chip, failures });
  array.erase(0, new Uint8Array(64));
  return { array, media, failures };
}

const page = new Uint8Array(geometry.pageSizeBytes).map((_, i) => i * 7);
const oob = new Uint8Array(oobBytesPerPage(geometry));
const cellsOf = (media: MediaMemory, ppn: number): Uint8Array =>
  media.cells.subarray(ppn * page.length, (ppn + 1) * page.length);
function flippedBits(found: Uint8Array): number[] {
  const positions: number[] = [];
  found.forEach((byte, i) => {
    for (let bit = 0; bit < 8; bit++) if (((byte ^ page[i]!) >>> bit) & 1) positions.push(8 * i + bit);
  });
  return positions;
}

test('a page that can be corrected is stored as it is; one that cannot has its errors in the cells, in one codeword', () => {
  // 41 expected in each codeword, of which 126 can be read; then 655, which can't.
  const good = openArray(wornChip(5, 5e-3));
  const bad = openArray(wornChip(5, 0.08));
  for (let ppn = 0; ppn < 8; ppn++) {
    assert.ok(good.array.program(ppn, page, oob, 'kv') && bad.array.program(ppn, page, oob, 'kv'));
    assert.equal(good.array.errors.errorsOf(ppn).isCorrectable, true);
    assert.deepEqual(flippedBits(cellsOf(good.media, ppn)), []);
    const { isCorrectable, worstBits } = bad.array.errors.errorsOf(ppn);
    assert.equal(isCorrectable, false);
    const flipped = flippedBits(cellsOf(bad.media, ppn));
    assert.equal(flipped.length, worstBits);
    assert.equal(new Set(flipped.map((position) => position >>> 13)).size, 1, 'one codeword');
  }
  assert.ok(
    page.every((byte, i) => byte === ((i * 7) & 0xff)),
    'what was given is as it was',
  );
});

test('reads are counted by what the correction did, and say how often they were made', async () => {
  const { array } = openArray(idealChipWith(40, 4));
  for (let ppn = 0; ppn < 6; ppn++) array.program(ppn, page, oob, 'kv');
  const bits = [0, 1, 40, 41, 54, 200];
  bits.forEach((count, ppn) => array.errors.inject(ppn, count));
  const target = new Uint8Array(page.length);
  for (let ppn = 0; ppn < 6; ppn++) await array.read(ppn * page.length, target, 'kv');
  assert.deepEqual(array.errors.counters, { corrected: 4, retried: 2, retryReads: 1 + 1 + 4, uncorrectable: 1 });
  assert.deepEqual(
    bits.map((_, ppn) => array.errors.retryCount(ppn)),
    [0, 0, 0, 1, 1, 4],
  );
  array.errors.inject(5, -200);
  assert.equal(array.errors.retryCount(5), 0);
  array.erase(0, new Uint8Array(64));
  assert.equal(array.errors.retryCount(4), 0, 'an erase begins anew');
});

function idealChipWith(correctableBits: number, readRetryCount: number): Chip {
  const { profile } = idealChip;
  return {
    ...idealChip,
    profile: {
      ...profile,
      errors: {
        ...profile.errors,
        ...errors,
        correctableBits,
        readRetryCount,
        rawBitErrorRateFresh: 0,
        rawBitErrorRateRated: 0,
      },
    },
  };
}

test('the ideal chip has no errors of its own; one injected bit is one too many', () => {
  const { array, media } = openArray(idealChip);
  array.program(0, page, oob, 'kv');
  assert.deepEqual(array.errors.errorsOf(0), { worstBits: 0, isCorrectable: true, retryCount: 0 });
  const struck: number[][] = [];
  array.errors.armProgrammed({ bits: 3, remaining: 2, struck: (ppn, flipped) => struck.push([ppn, ...flipped]) });
  for (let ppn = 1; ppn < 4; ppn++) array.program(ppn, page, oob, 'kv');
  assert.deepEqual(
    struck.map(([ppn]) => ppn),
    [1, 2],
  );
  for (const [ppn, ...flipped] of struck) {
    assert.deepEqual(
      flippedBits(cellsOf(media, ppn!)),
      flipped.sort((a, b) => a - b),
    );
    assert.equal(flipped.length, 3);
  }
  assert.deepEqual(flippedBits(cellsOf(media, 3)), []);
});

test('operations fail where and as often as they are armed to', async () => {
  const { array, failures } = openArray(idealChip);
  const target = new Uint8Array(page.length);
  failures.arm({ operation: 'program', place: { unit: 1 }, remaining: 1 });
  assert.equal(array.program(0, page, oob, 'kv'), true);
  assert.equal(array.program(1, page, oob, 'kv'), false, 'unit 1');
  assert.equal(array.program(2, page, oob, 'kv'), true);
  const readFailure = { operation: 'read', place: { ppn: 0 }, remaining: 2 } as const;
  failures.arm({ ...readFailure });
  for (let i = 0; i < 2; i++)
    await assert.rejects(array.read(0, target, 'kv'), { code: 'unrecoveredRead', message: /does not answer/ });
  await array.read(0, target, 'kv');
  const armed = { ...readFailure, place: {} };
  failures.arm(armed);
  failures.disarm(armed);
  await array.read(2 * page.length, target, 'kv');
  failures.arm({ operation: 'erase', place: { superblock: 1 }, remaining: 1 });
  assert.equal(array.erase(2, new Uint8Array(64)), true);
  assert.equal(array.erase(1, new Uint8Array(64)), false, 'no spare');
  assert.equal(array.erase(3, new Uint8Array(64)), true);
});

test('published chips read without a retry when they are new, and lose nothing at their rating', () => {
  for (const name of ['femu-slc', 'femu-mlc', 'femu-tlc', 'femu-qlc', 'micron-9550']) {
    const { errors: profile, endurance } = profileOf(name);
    const model = new BitErrors(profile, { seed: 11, ratedCycles: endurance.ratedCycles, pageSizeBytes: 16_384 });
    for (let ppn = 0; ppn < 5000; ppn++) {
      assert.equal(model.correct(model.worstBits(ppn, 1)).retryCount, 0, name);
      assert.equal(model.correct(model.worstBits(ppn, endurance.ratedCycles!)).isCorrectable, true, name);
    }
  }
});
