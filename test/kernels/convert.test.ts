import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elementTypes, type FloatType } from '../../spec/element-type.ts';
import { randomFrom } from './cases.ts';
import { kernelsUnderTest, readPatterns, writePatterns, type KernelUnderTest } from './harness.ts';
import { valueOf } from './stored-rows.ts';

const { sets, missing } = kernelsUnderTest();
for (const what of missing) test(`conversion by ${what}`, { skip: `NOT TESTED: ${what}` });

const everyHalf = Uint32Array.from({ length: 65_536 }, (_, pattern) => pattern);

function convertAll(set: KernelUnderTest, from: FloatType, to: FloatType, patterns: Uint32Array): Uint32Array {
  const { arena, kernels } = set;
  const source = arena.allocate(patterns.length * 4 + 8);
  const target = arena.allocate(patterns.length * 4 + 8);
  writePatterns(arena, from, source, patterns);
  arena.view(target, patterns.length * 4 + 8).fill(0xee);
  kernels.convert(source, elementTypes[from].code, target, elementTypes[to].code, patterns.length, 1);
  const converted = readPatterns(arena, to, target, patterns.length);
  const end = target + patterns.length * (to === 'f32' ? 4 : 2);
  assert.ok(
    arena.view(end, 8).every((byte) => byte === 0xee),
    'nothing is written beyond the end',
  );
  arena.free(source);
  arena.free(target);
  return converted;
}

/** Round to nearest, ties to even, by comparing with both neighbours in float64. */
function nearestHalf(type: 'f16' | 'bf16', x: number): number {
  const [maximumFinite, infinity, sign] = type === 'f16' ? [0x7bff, 0x7c00, 0x8000] : [0x7f7f, 0x7f80, 0x8000];
  const signBit = x < 0 || Object.is(x, -0) ? sign : 0;
  const magnitude = Math.abs(x);
  let low = 0;
  let high: number = maximumFinite;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (valueOf(type, middle) <= magnitude) low = middle;
    else high = middle - 1;
  }
  const below = valueOf(type, low);
  // The step beyond the largest finite number is as wide as the last one below it.
  const above = low === maximumFinite ? 2 * below - valueOf(type, low - 1) : valueOf(type, low + 1);
  const up = magnitude - below > above - magnitude || (magnitude - below === above - magnitude && low % 2 === 1);
  return signBit + (up ? (low === maximumFinite ? infinity : low + 1) : low);
}

const isNanPattern = (type: 'f16' | 'bf16', pattern: number): boolean =>
  (pattern & 0x7fff) > (type === 'f16' ? 0x7c00 : 0x7f80);

const quietBit = { f16: 0x200, bf16: 0x40 };

/** Floats around every rounding boundary, and random ones. */
function interestingFloats(type: 'f16' | 'bf16'): Uint32Array {
  const bits = new Uint32Array(1);
  const float = new Float32Array(bits.buffer);
  const patterns: number[] = [
    0x7f80_0000, 0xff80_0000, 0x7f7f_ffff, 0xff7f_ffff, 1, 0x8000_0001, 0x007f_ffff, 0x477f_efff, 0x477f_f000,
    0x477f_f001, 0x3300_0000, 0x3300_0001, 0x32ff_ffff,
  ];
  for (let half = 0; half < 0x8000; half += 7) {
    if (isNanPattern(type, half) || isNanPattern(type, half + 1)) continue;
    const middle = (valueOf(type, half) + valueOf(type, half + 1)) / 2;
    if (!Number.isFinite(middle)) continue;
    float[0] = middle;
    patterns.push(bits[0]!, bits[0]! + 1, bits[0]! === 0 ? 0 : bits[0]! - 1, bits[0]! + 0x8000_0000);
  }
  const random = randomFrom(5);
  for (let i = 0; i < 20_000; i++) {
    const pattern = Math.floor(random.next() * 2 ** 32);
    if ((pattern & 0x7fff_ffff) <= 0x7f80_0000) patterns.push(pattern);
  }
  return Uint32Array.from(patterns);
}

for (const set of sets) {
  for (const type of ['f16', 'bf16'] as const) {
    test(`${set.label}: all 65,536 ${type} values widen exactly and come back as they were`, () => {
      const wide = convertAll(set, type, 'f32', everyHalf);
      wide.forEach((pattern, half) => {
        const [got, expected] = [valueOf('f32', pattern), valueOf(type, half)];
        assert.ok(Object.is(got, expected), `${type} ${half.toString(16)}: ${got}, expected ${expected}`);
      });
      const back = convertAll(set, 'f32', type, wide);
      back.forEach((pattern, half) => {
        assert.equal(pattern, isNanPattern(type, half) ? half | quietBit[type] : half);
      });
    });

    test(`${set.label}: f32 to ${type} rounds to nearest even`, () => {
      const patterns = interestingFloats(type);
      convertAll(set, 'f32', type, patterns).forEach((pattern, i) => {
        const x = valueOf('f32', patterns[i]!);
        assert.equal(pattern, nearestHalf(type, x), `${x} (${patterns[i]!.toString(16)})`);
      });
    });

    test(`${set.label}: NaN to ${type} is quiet and keeps its upper payload`, () => {
      const nans = Uint32Array.of(
        0x7f80_0001,
        0x7fc0_0000,
        0xff80_0001,
        0x7fff_ffff,
        0xffff_e000,
        0x7f80_2000,
        0x7f81_0000,
      );
      convertAll(set, 'f32', type, nans).forEach((pattern, i) => {
        const nan = nans[i]!;
        const expected =
          type === 'f16' ? ((nan >>> 16) & 0x8000) | 0x7e00 | ((nan >>> 13) & 0x3ff) : (nan >>> 16) | 0x40;
        assert.equal(pattern, expected, nan.toString(16));
      });
    });
  }

  test(`${set.label}: between the halves it goes through f32; the same type is copied`, () => {
    const reference = sets[0]!;
    for (const [from, to] of [
      ['f16', 'bf16'],
      ['bf16', 'f16'],
      ['f16', 'f16'],
      ['bf16', 'bf16'],
    ] as const) {
      assert.deepEqual(convertAll(set, from, to, everyHalf), convertAll(reference, from, to, everyHalf));
    }
    assert.deepEqual(
      convertAll(set, 'f16', 'bf16', everyHalf),
      convertAll(set, 'f32', 'bf16', convertAll(set, 'f16', 'f32', everyHalf)),
    );
    const anything = Uint32Array.of(0x7f80_0001, 1, 2, 0xffff_ffff);
    assert.deepEqual(convertAll(set, 'f32', 'f32', anything), anything);
  });

  test(`${set.label}: every count from 0 to 40`, () => {
    for (let count = 0; count <= 40; count++) {
      const halves = everyHalf.slice(0x3c00, 0x3c00 + count);
      const wide = convertAll(set, 'f16', 'f32', halves);
      wide.forEach((pattern, i) => assert.equal(valueOf('f32', pattern), valueOf('f16', halves[i]!)));
      assert.deepEqual(convertAll(set, 'f32', 'f16', wide), halves);
    }
  });
}
