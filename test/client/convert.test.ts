import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16, fromF32, toF32 } from '../../client/index.ts';
import { random } from './random.ts';

const allBits = Uint16Array.from({ length: 65_536 }, (_, bits) => bits);

/** Value of f16 bits by the definition of binary16. */
function f16Value(bits: number): number {
  const sign = bits >= 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

test('every f16 has the value that its bits say, and converts back to the same bits', () => {
  const values = f16ToF32(allBits);
  const back = f32ToF16(values);
  for (const bits of allBits) {
    const value = f16Value(bits);
    assert.ok(Object.is(values[bits], value), `bits ${bits.toString(16)}: ${values[bits]} where ${value} was expected`);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(f16Value(back[bits] ?? 0)), `NaN ${bits.toString(16)} stays NaN`);
    else assert.equal(back[bits], bits);
  }
});

test('every bf16 is the upper half of an f32, and converts back to the same bits', () => {
  const values = bf16ToF32(allBits);
  const f32Bits = new Uint32Array(values.buffer);
  const back = f32ToBf16(values);
  for (const bits of allBits) {
    assert.equal(f32Bits[bits], (bits << 16) >>> 0);
    if (Number.isNaN(values[bits])) assert.equal(back[bits], bits | 0x40);
    else assert.equal(back[bits], bits);
  }
});

/** The nearest of two neighbours, ties to the even one. */
function checkRounding(name: string, value: number, bits: number, valueOf: (bits: number) => number): void {
  if (bits === 0x8000 || bits === 0) {
    assert.ok(Math.abs(value) <= valueOf(1) / 2, `${name} of ${value} is zero`);
    return;
  }
  const distance = Math.abs(valueOf(bits) - value);
  for (const neighbour of [bits - 1, bits + 1]) {
    const other = Math.abs(valueOf(neighbour) - value);
    if (!Number.isFinite(valueOf(neighbour))) continue;
    assert.ok(distance <= other, `${name} of ${value}: ${bits.toString(16)}, but ${neighbour.toString(16)} is nearer`);
    if (distance === other) assert.equal(bits & 1, 0, `${name} of ${value}: tie not to even`);
  }
}

test('conversions round to nearest, ties to even', () => {
  const next = random(7);
  const values = new Float32Array(20_000);
  for (let i = 0; i < values.length; i++) {
    // All magnitudes of f16; every third value a tie between neighbours.
    const value = (next() < 0.5 ? -1 : 1) * (1 + next()) * 2 ** Math.floor(next() * 38 - 24);
    values[i] = value;
    if (i % 3 === 0) {
      const low = f32ToF16(Float32Array.of(value))[0] ?? 0;
      if (Number.isFinite(f16Value(low + 1))) values[i] = (f16Value(low) + f16Value(low + 1)) / 2;
    }
  }
  const halves = f32ToF16(values);
  const brains = f32ToBf16(values);
  const brainValue = (bits: number): number => bf16ToF32(Uint16Array.of(bits))[0] ?? 0;
  values.forEach((value, i) => {
    if (Math.abs(value) < 65_520) checkRounding('f16', value, halves[i] ?? 0, f16Value);
    checkRounding('bf16', value, brains[i] ?? 0, brainValue);
  });
});

test('overflow becomes infinity, and what rounds below it does not', () => {
  const values = Float32Array.of(65_504, 65_519.996, 65_520, -1e30, Number.NEGATIVE_INFINITY);
  assert.deepEqual([...f32ToF16(values)], [0x7bff, 0x7bff, 0x7c00, 0xfc00, 0xfc00]);
  const largest = Float32Array.of(3.4028234663852886e38, -3.4028234663852886e38, 3.38953139e38);
  assert.deepEqual([...f32ToBf16(largest)], [0x7f80, 0xff80, 0x7f7f]);
  assert.deepEqual([...f32ToF16(Float32Array.of(2 ** -25, 2 ** -25 * 1.001, -0))], [0, 1, 0x8000]);
});

test('fromF32 and toF32 name the types; f32 is passed through', () => {
  const values = Float32Array.of(1.5, -2, 0.1);
  assert.equal(fromF32(values, 'f32'), values);
  assert.equal(toF32(values, 'f32'), values);
  assert.deepEqual(toF32(fromF32(values, 'f16'), 'f16'), Float32Array.of(1.5, -2, f16Value(0x2e66)));
  assert.deepEqual([...fromF32(values, 'bf16')], [0x3fc0, 0xc000, 0x3dcd]);
});
