import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Checksum } from '../../daemon/kernels/checksum.ts';
import { randomFrom } from './cases.ts';
import { kernelsUnderTest } from './harness.ts';

const { sets, missing } = kernelsUnderTest();
for (const what of missing) test(`CRC32C by ${what}`, { skip: `NOT TESTED: ${what}` });

const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);

/** RFC 3720 B.4 and the usual check value. */
const golden: [string, Uint8Array, number][] = [
  ['nothing', new Uint8Array(0), 0],
  ['123456789', new TextEncoder().encode('123456789'), 0xe306_9283],
  ['32 zeros', new Uint8Array(32), 0x8a91_36aa],
  ['32 ones', new Uint8Array(32).fill(0xff), 0x62a8_ab43],
  ['ascending', ascending, 0x46dd_794e],
  ['descending', ascending.slice().reverse(), 0x113f_db5c],
];

/** Bit by bit. */
function slowCrc(bytes: Uint8Array): number {
  let remainder = 0xffff_ffff;
  for (const byte of bytes) {
    remainder ^= byte;
    for (let bit = 0; bit < 8; bit++) remainder = remainder & 1 ? (remainder >>> 1) ^ 0x82f6_3b78 : remainder >>> 1;
  }
  return ~remainder >>> 0;
}

const random = randomFrom(9);
const noise = Uint8Array.from({ length: 70_000 }, () => random.integer(0, 255));

for (const { label, arena, kernels } of sets) {
  test(`${label}: CRC32C golden values`, () => {
    for (const [name, bytes, expected] of golden) {
      const at = arena.allocate(64);
      arena.bytes.set(bytes, at);
      assert.equal(kernels.crc32c(at, bytes.length), expected, name);
      assert.equal(kernels.crc32cOf(bytes), expected, name);
      arena.free(at);
    }
  });

  test(`${label}: CRC32C of any length at any alignment, whole and continued`, () => {
    const at = arena.allocate(noise.length);
    arena.bytes.set(noise, at);
    for (const size of [
      0, 1, 7, 8, 9, 63, 64, 255, 256, 257, 511, 512, 640, 767, 768, 769, 4096, 12_287, 12_288, 12_289, 16_384, 65_536,
    ]) {
      for (const skew of [0, 1, 5]) {
        const expected = slowCrc(noise.subarray(skew, skew + size));
        assert.equal(kernels.crc32c(at + skew, size), expected, `${size} bytes at ${skew}`);
        const first = Math.floor(size / 3);
        const seed = kernels.crc32c(at + skew, first);
        assert.equal(kernels.crc32c(at + skew + first, size - first, seed), expected);
        const elsewhere = noise.subarray(skew, skew + size);
        assert.equal(kernels.crc32cOf(elsewhere), expected, `${size} bytes elsewhere, at ${skew}`);
        assert.equal(kernels.crc32cOf(elsewhere.subarray(first), seed), expected);
        assert.equal(kernels.crc32cOf(arena.bytes.subarray(at + skew, at + skew + size)), expected);
      }
    }
    arena.free(at);
  });

  test(`${label}: CRC32C of bytes in the arena and elsewhere`, () => {
    const checksum = new Checksum({ arena, kernels });
    const at = arena.allocate(noise.length);
    for (const size of [0, 60, 1023, 1024, 16_384, 16_385, 65_536, 70_000]) {
      const bytes = noise.subarray(noise.length - size);
      arena.bytes.set(bytes, at);
      const expected = slowCrc(bytes);
      assert.equal(checksum.of(bytes), expected, `${size} bytes`);
      assert.equal(checksum.of(arena.view(at, size)), expected, `${size} bytes in the arena`);
    }
    arena.free(at);
  });
}
