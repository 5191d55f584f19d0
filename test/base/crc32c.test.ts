import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { createSeededRandom, systemRandom } from '../../daemon/base/random.ts';

test('CRC32C agrees with the sums of RFC 3720 and RFC 7143', () => {
  const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
  assert.equal(crc32c(new TextEncoder().encode('123456789')), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  const readCommand =
    '01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000';
  assert.equal(crc32c(bytes(readCommand)), 0xd9963a56);
  assert.equal(crc32c(new Uint8Array(0)), 0);
});

test('a sum goes on from an earlier one, wherever it was cut', () => {
  const whole = createSeededRandom(4).bytes(67);
  for (let cut = 0; cut <= whole.length; cut++) {
    assert.equal(crc32c(whole.subarray(cut), crc32c(whole.subarray(0, cut))), crc32c(whole), `cut at ${cut}`);
  }
});

test('seeded chance is the same again, and differs between seeds', () => {
  const numbers = (seed: number): number[] => {
    const random = createSeededRandom(seed);
    return Array.from({ length: 100 }, () => random.nextUint32());
  };
  assert.deepEqual(numbers(1), numbers(1));
  assert.notDeepEqual(numbers(1), numbers(2));
  assert.equal(new Set(numbers(3)).size, 100);
});

test("the system's chance fills more than one call of it gives", () => {
  const bytes = systemRandom.bytes(200_000);
  for (let at = 0; at < bytes.length; at += 1000) assert.ok(bytes.subarray(at, at + 1000).some((byte) => byte !== 0));
});
