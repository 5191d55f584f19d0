import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeSgl, parseSgl, type Sgl, SGL_BYTES } from '../../spec/sgl.ts';

const SEED = 4420;
const length = fc.integer({ min: 1, max: 0xffff_ffff });
const offset = fc.maxSafeNat();
const sgls: fc.Arbitrary<Sgl> = fc.oneof(
  fc.constant<Sgl>({ kind: 'none' }),
  fc.record({ kind: fc.constant('inCapsule' as const), offset, length }),
  fc.record({ kind: fc.constant('transport' as const), length }),
  fc.record({
    kind: fc.constant('keyed' as const),
    offset,
    length: fc.integer({ min: 1, max: 0xff_ffff }),
    key: fc.integer({ min: 1, max: 0xffff_ffff }),
  }),
);

test('what is encoded parses to itself', () => {
  fc.assert(
    fc.property(sgls, fc.nat(9), (sgl, at) => {
      const target = new Uint8Array(SGL_BYTES + at + 3).fill(0xff);
      encodeSgl(sgl, target, at);
      assert.deepEqual(parseSgl(target, at), { ok: true, value: { ...sgl } });
    }),
    { seed: SEED },
  );
});

test('any sixteen bytes are parsed or refused with an SGL status, never thrown at', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      fc.constantFrom(0, 1, 0x40, 0x5a, 0x4f, 0x20),
      (bytes, type) => {
        bytes[15] = type;
        const result = parseSgl(bytes);
        if (result.ok) return;
        assert(['sglType', 'sglInvalid', 'sglDataBlock'].includes(result.error), result.error);
        assert(result.field >= 0 && result.field < SGL_BYTES);
      },
    ),
    { seed: SEED },
  );
});

const refused = [
  { what: 'data block at a host address', hex: '00100000000000000010000000000000', error: 'sglType', field: 15 },
  { what: 'last segment', hex: '00000000000000001000000000000030', error: 'sglType', field: 15 },
  { what: 'keyed, invalidate key', hex: '0000000000000000001000050000004f', error: 'sglType', field: 15 },
  { what: 'keyed without a key', hex: '00000000000000000010000000000040', error: 'sglDataBlock', field: 11 },
  { what: 'in-capsule, reserved byte', hex: '00000000000000000010000000010001', error: 'sglInvalid', field: 13 },
  { what: 'transport, reserved byte', hex: '0000000000000000001000000100005a', error: 'sglInvalid', field: 12 },
] as const;

for (const { what, hex, error, field } of refused) {
  test(`refused: ${what}`, () => {
    assert.deepEqual(parseSgl(new Uint8Array(Buffer.from(hex, 'hex'))), { ok: false, error, field });
  });
}

test('an empty descriptor of any known type is no data', () => {
  for (const type of [0x00, 0x01, 0x40, 0x5a]) {
    const bytes = new Uint8Array(SGL_BYTES);
    bytes[15] = type;
    assert.deepEqual(parseSgl(bytes), { ok: true, value: { kind: 'none' } });
  }
});
