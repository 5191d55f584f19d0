/** CRC32C: Castagnoli polynomial, reflected (82F63B78h), initial value and final exclusive-or all ones (RFC 3720 B.4). */

const POLYNOMIAL = 0x82f6_3b78;
const SLICE_COUNT = 8;

/** Table k maps a byte to its effect on the remainder k bytes later ("slicing by 8"). */
const tables = makeTables();

function makeTables(): Uint32Array[] {
  const made = Array.from({ length: SLICE_COUNT }, () => new Uint32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let remainder = byte;
    for (let bit = 0; bit < 8; bit++) {
      remainder = remainder & 1 ? (remainder >>> 1) ^ POLYNOMIAL : remainder >>> 1;
    }
    made[0]![byte] = remainder;
  }
  for (let slice = 1; slice < SLICE_COUNT; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const before = made[slice - 1]![byte]!;
      made[slice]![byte] = (before >>> 8) ^ made[0]![before & 0xff]!;
    }
  }
  return made;
}

/** CRC32C of `sizeBytes` bytes from `offset`, continuing from `seed` (the result for what came before; 0 to start). */
export function crc32c(bytes: Uint8Array, offset: number, sizeBytes: number, seed = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  let remainder = ~seed;
  let at = offset;
  const end = offset + sizeBytes;
  for (; at + 8 <= end; at += 8) {
    remainder ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    remainder =
      t7[remainder & 0xff]! ^
      t6[(remainder >>> 8) & 0xff]! ^
      t5[(remainder >>> 16) & 0xff]! ^
      t4[remainder >>> 24]! ^
      t3[bytes[at + 4]!]! ^
      t2[bytes[at + 5]!]! ^
      t1[bytes[at + 6]!]! ^
      t0[bytes[at + 7]!]!;
  }
  for (; at < end; at++) remainder = (remainder >>> 8) ^ t0[(remainder ^ bytes[at]!) & 0xff]!;
  return ~remainder >>> 0;
}
