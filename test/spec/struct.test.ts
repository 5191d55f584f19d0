import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bytes,
  defineStruct,
  f32,
  type Fields,
  type FieldTable,
  reserved,
  text,
  u8,
  u16,
  u24,
  u32,
  u64,
  uint64,
  uint128,
} from '../../spec/struct.ts';

const SEED = 20_261_120;
const scalars = { u8, u16, u24, u32, u64, uint64, uint128, f32 } as const;

/** A field of some kind and a value that fits it. */
const fieldArbitrary = fc.oneof(
  fc
    .constantFrom(...(Object.keys(scalars) as (keyof typeof scalars)[]))
    .chain((kind) =>
      fc.record({ make: fc.constant((at: number): FieldTable => scalars[kind](at, 'a field')), value: valueOf(kind) }),
    ),
  fc.uint8Array({ minLength: 1, maxLength: 20 }).map((value) => ({
    make: (at: number): FieldTable => bytes(at, value.length, 'raw'),
    value: value as unknown,
  })),
  fc.string({ unit: fc.constantFrom(...'azäß€'), minLength: 1, maxLength: 7 }).map((value) => ({
    make: (at: number): FieldTable => text(at, 24, 'text', value.length % 2 === 0 ? 0x20 : 0),
    value: value as unknown,
  })),
  fc.integer({ min: 1, max: 9 }).map((width) => ({
    make: (at: number): FieldTable => reserved(at, width),
    value: undefined as unknown,
  })),
);

function valueOf(kind: keyof typeof scalars): fc.Arbitrary<unknown> {
  switch (kind) {
    case 'u64':
      return fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
    case 'f32':
      return fc.float();
    case 'uint64':
    case 'uint128':
      return fc.maxSafeNat();
    default:
      return fc.nat(2 ** Number(kind.slice(1)) - 1);
  }
}

function layOut(chosen: readonly { make(at: number): FieldTable; value: unknown }[]): {
  fields: Record<string, FieldTable>;
  value: Record<string, unknown>;
  sizeBytes: number;
} {
  const fields: Record<string, FieldTable> = {};
  const value: Record<string, unknown> = {};
  let at = 0;
  chosen.forEach((one, index) => {
    const field = one.make(at);
    fields[`f${index}`] = field;
    if (field.kind !== 'reserved') value[`f${index}`] = one.value;
    at += field.width;
  });
  return { fields, value, sizeBytes: at };
}

const layouts = fc.array(fieldArbitrary, { minLength: 1, maxLength: 12 }).map(layOut);

test('what is encoded decodes to itself, at any offset, and nothing outside is touched', () => {
  fc.assert(
    fc.property(layouts, fc.nat(17), ({ fields, value, sizeBytes }, at) => {
      const struct = defineStruct('random', sizeBytes, fields as Fields);
      const target = new Uint8Array(sizeBytes + at + 5).fill(0xa5);
      struct.encode(value as never, target, at);
      assert.deepEqual(struct.decode(target, at), value);
      assert(target.subarray(0, at).every((byte) => byte === 0xa5));
      assert(target.subarray(at + sizeBytes).every((byte) => byte === 0xa5));
      assert.equal(struct.firstNonZeroReserved(target, at), undefined);
    }),
    { seed: SEED, endOnFailure: true },
  );
});

test('a table with a gap, an overlap, or another total size is refused', () => {
  fc.assert(
    fc.property(layouts, fc.constantFrom(-1, 1, 3), fc.nat(), ({ fields, sizeBytes }, shift, pick) => {
      assert.throws(() => defineStruct('odd', sizeBytes + shift, fields as Fields), /cover/);
      const names = Object.keys(fields);
      const name = names[pick % names.length] ?? '';
      const moved = {
        ...fields,
        [name]: { ...(fields[name] as FieldTable), offset: (fields[name]?.offset ?? 0) + shift },
      };
      assert.throws(() => defineStruct('odd', sizeBytes, moved as Fields), /gap or overlap/);
    }),
    { seed: SEED, endOnFailure: true },
  );
  assert.throws(() => defineStruct('odd', 1, { a: reserved(0, 0), b: u8(0, 'b') }), /width 0/);
});

test('values that do not fit their field are refused, naming structure and field', () => {
  const struct = defineStruct('sample', 47, {
    a: u8(0, 'a'),
    b: u16(1, 'b'),
    c: u24(3, 'c'),
    d: u32(6, 'd'),
    e: u64(10, 'e'),
    f: uint64(18, 'f'),
    g: uint128(26, 'g'),
    h: text(42, 3, 'h'),
    i: bytes(45, 2, 'i'),
  });
  const refused = [
    { a: 256 },
    { a: -1 },
    { a: 1.5 },
    { a: Number.NaN },
    { b: 65_536 },
    { c: 2 ** 24 },
    { d: 2 ** 32 },
    { e: 2n ** 64n },
    { e: -1n },
    { f: 2 ** 53 },
    { g: 2 ** 53 },
    { h: 'ääx'.slice(0, 2) },
    { i: new Uint8Array(3) },
  ];
  for (const value of refused) {
    assert.throws(
      () => struct.encode(value),
      (error) => {
        assert(error instanceof RangeError, String(error));
        return error.message.startsWith(`sample.${Object.keys(value)[0]}`);
      },
    );
  }
});

test('a buffer that is too short is refused', () => {
  const struct = defineStruct('four', 4, { a: u32(0, 'a') });
  assert.throws(() => struct.decode(new Uint8Array(3)), RangeError);
  assert.throws(() => struct.encode({ a: 1 }, new Uint8Array(8), 5), RangeError);
});

test('64-bit quantities of 2^53 and above stay there, so that range checks refuse them', () => {
  const struct = defineStruct('wide', 24, { a: uint64(0, 'a'), b: uint128(8, 'b') });
  fc.assert(
    fc.property(fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), (value) => {
      const source = new Uint8Array(24);
      new DataView(source.buffer).setBigUint64(0, value, true);
      assert(struct.decode(source).a >= 2 ** 53);
    }),
    { seed: SEED, endOnFailure: true },
  );
  const source = new Uint8Array(24);
  source[16] = 1;
  assert.equal(struct.decode(source).b, 2 ** 64);
});

test('the first reserved byte that is not zero is named', () => {
  const struct = defineStruct('gaps', 10, { a: u8(0, 'a'), r0: reserved(1, 3), b: u16(4, 'b'), r1: reserved(6, 4) });
  const source = new Uint8Array(12).fill(0xff);
  // At offset 2 of the buffer: bytes 1 to 3 and 6 to 9 of the structure are reserved.
  source.fill(0, 3, 6);
  assert.equal(struct.firstNonZeroReserved(source, 2), 6);
  source.fill(0, 8, 11);
  assert.equal(struct.firstNonZeroReserved(source, 2), 9);
  source.fill(0);
  assert.equal(struct.firstNonZeroReserved(source, 2), undefined);
});
