import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ElementType, elementTypes, floatTypeNames, type QuantisedType } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { randomCase, randomFrom } from './cases.ts';
import { kernelsUnderTest, type KernelUnderTest, runCase } from './harness.ts';
import { quantisedRow } from './stored-rows.ts';

const { sets, missing } = kernelsUnderTest();
for (const what of missing) test(`quantisation by ${what}`, { skip: `NOT TESTED: ${what}` });

const quantisedTypes: readonly QuantisedType[] = ['int8', 'int4'];
const GUARD = 0xee;

function converted(
  set: KernelUnderTest,
  from: ElementType,
  to: ElementType,
  rows: Uint8Array,
  dim: number,
): Uint8Array {
  const { arena, kernels } = set;
  const rowCount = rows.length / rowSizeBytes(from, dim);
  const sizeBytes = rowCount * rowSizeBytes(to, dim);
  const source = arena.allocate(rows.length);
  const target = arena.allocate(sizeBytes + 64);
  arena.bytes.set(rows, source);
  arena.view(target, sizeBytes + 64).fill(GUARD);
  kernels.convert(source, elementTypes[from].code, target, elementTypes[to].code, rowCount, dim);
  const result = arena.view(target, sizeBytes).slice();
  const behind = arena.view(target + sizeBytes, 64);
  assert.ok(
    behind.every((byte) => byte === GUARD),
    'nothing is written beyond the end',
  );
  arena.free(source);
  arena.free(target);
  return result;
}

const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
const floatsOf = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Rows of every kind, as f32. */
function someRows(dim: number): Float32Array[] {
  const random = randomFrom(dim);
  const row = (element: (d: number) => number): Float32Array =>
    Float32Array.from({ length: dim }, (_, d) => element(d));
  const special = (value: number): Float32Array => {
    const normal = row(() => random.normal());
    normal[random.integer(0, dim - 1)] = value;
    return normal;
  };
  return [
    ...Array.from({ length: 6 }, () => row(() => random.normal())),
    row(() => 1000 + random.next()),
    row(() => -1000 - random.next()),
    row(() => random.normal() * 1e-6),
    row(() => random.normal() * 1e-30),
    row(() => random.normal() * 30_000),
    row(() => 0),
    row(() => -0),
    row((d) => (d % 2 === 0 ? 0 : -0)),
    row(() => 0.1),
    row(() => -1e-9),
    row((d) => d % 256),
    row((d) => (d % 2 === 0 ? -65_504 : 65_504)),
    ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 65_520, -65_520, 1e20, -1e20].map(special),
    row(() => 70_000),
    row(() => 3e38),
    row(() => Number.POSITIVE_INFINITY),
    row(() => 1e-45),
  ];
}

const dims = [1, 2, 8, 9, 15, 31, 63, 64, 65, 100, 127, 128, 129, 192, 255, 256];

for (const set of sets) {
  for (const type of quantisedTypes) {
    test(`${set.label}: rows to ${type} and back are as written down, bit for bit`, () => {
      for (const dim of dims) {
        for (const row of someRows(dim)) {
          const expected = quantisedRow(type, Float64Array.from(row));
          const what = `${dim} elements ${row.slice(0, 3).join(', ')} ...`;
          const stored = converted(set, 'f32', type, bytesOf(row), dim);
          assert.equal(hex(stored), hex(expected.bytes), what);
          assert.deepEqual(
            floatsOf(converted(set, type, 'f32', stored, dim)),
            Float32Array.from(expected.values),
            what,
          );
          assert.equal(hex(converted(set, type, type, stored, dim)), hex(stored));
        }
      }
    });

    test(`${set.label}: several rows at once, from and to every type through f32, are as row by row`, () => {
      for (const dim of [8, 37, 128, 200]) {
        const rows = someRows(dim).slice(0, 9);
        const wide = Buffer.concat(rows.map(bytesOf));
        const stored = converted(set, 'f32', type, wide, dim);
        assert.equal(hex(stored), rows.map((row) => hex(converted(set, 'f32', type, bytesOf(row), dim))).join(''));
        for (const other of floatTypeNames) {
          const back = converted(set, type, 'f32', stored, dim);
          assert.equal(hex(converted(set, type, other, stored, dim)), hex(converted(set, 'f32', other, back, dim)));
          const narrow = converted(set, 'f32', other, wide, dim);
          const again = converted(set, other, 'f32', narrow, dim);
          assert.equal(hex(converted(set, other, type, narrow, dim)), hex(converted(set, 'f32', type, again, dim)));
        }
        const across = type === 'int8' ? 'int4' : 'int8';
        const back = converted(set, type, 'f32', stored, dim);
        assert.equal(hex(converted(set, type, across, stored, dim)), hex(converted(set, 'f32', across, back, dim)));
      }
    });

    test(`${set.label}: an element of ${type} is off by at most half a step`, () => {
      const largest = 2 ** elementTypes[type].bits - 1;
      for (const dim of dims) {
        for (const row of someRows(dim)) {
          if (row.some((x) => !(Math.abs(x) <= 65_504))) continue;
          const values = floatsOf(converted(set, type, 'f32', converted(set, 'f32', type, bytesOf(row), dim), dim));
          for (let first = 0; first < dim; first += 64) {
            const group = row.subarray(first, first + 64);
            const [low, high] = [Math.min(...group), Math.max(...group)];
            // Minimum and scale are rounded to 11 bits, or to multiples of 2^-24.
            const reach = Math.max(Math.abs(low) * 2 ** -10, 2 ** -24);
            const step = ((high - low + reach) / largest) * (1 + 2 ** -10) + 2 ** -24;
            const rounding = 2 ** -23 * Math.max(Math.abs(low), Math.abs(high));
            group.forEach((x, i) => {
              const off = Math.abs(values[first + i]! - x);
              assert.ok(off <= step / 2 + rounding, `${x} became ${values[first + i]!}, step ${step}`);
            });
          }
        }
      }
    });

    test(`${set.label}: a group of ${type} that holds no numbers is NaN to whoever sees it`, () => {
      const problem = randomCase(4, {
        typeK: 'f32',
        typeV: type,
        headDimV: 128,
        tokenCount: 70,
        rowCount: 4,
        window: 0,
      });
      const values = problem.values.slice();
      // Token 33's second group.
      values[33 * 128 + 80] = 0x7fc0_0000;
      const bounds = [...problem.bounds.slice(1), { start: 0, end: problem.firstToken + 30 }];
      const rows = runCase(set, { ...problem, values, bounds });
      rows.forEach(({ output }, row) => {
        const sees = bounds[row]!.end > problem.firstToken + 33 && bounds[row]!.start <= problem.firstToken + 33;
        output.forEach((x, d) => assert.equal(Number.isNaN(x), sees && d >= 64, `row ${row}, column ${d}`));
      });
      const keys = { ...randomCase(4, { typeK: type, headDimK: 64, tokenCount: 50, rowCount: 2, window: 0 }) };
      const broken = keys.keys.slice();
      broken[20 * 64] = 0x7f80_0000;
      for (const { output, maximum } of runCase(set, { ...keys, keys: broken })) {
        assert.ok(Number.isNaN(maximum) && output.every(Number.isNaN));
      }
    });
  }
}

/** Made by a program of its own (NumPy). A golden row never changes: it is what drives hold. */
const golden: readonly { readonly type: QuantisedType; readonly row: readonly number[]; readonly hex: string }[] = [
  {
    type: 'int8',
    row: Array.from({ length: 70 }, (_, d) => d - 3),
    hex:
      'e83300c20625a0530004080c1014181c2024282d3135393d4145494d5155595d6165696d7175797d82868a8e92969a9ea2a6aaaeb2b6babec2' +
      'c6caced2d7dbdfe3e7ebeff3f7fbff00336699ccff0000',
  },
  {
    type: 'int4',
    row: Array.from({ length: 70 }, (_, d) => d - 3),
    hex: '344400c25635a0538090909191a1a1a2a2a2b2b3b3b3c3c4c4c4d4d5d5d5e5e5e6e6f6f6f707376798c8f800',
  },
  { type: 'int8', row: [0.5, -1.25, 3, 7.75, -2, 0, 1, 1.5], hex: 'e52800c0411483ff00344e5c' },
  { type: 'int4', row: [0.5, -1.25, 3, 7.75, -2, 0, 1, 1.5, 9], hex: 'de3900c0334157fd00000000' },
];

for (const set of sets) {
  test(`${set.label}: golden rows`, () => {
    for (const { type, row, hex: expected } of golden) {
      assert.equal(hex(converted(set, 'f32', type, bytesOf(Float32Array.from(row)), row.length)), expected);
    }
  });
}
