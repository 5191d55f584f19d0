/**
 * CRC32C (Castagnoli, reflected 82F63B78h, initial value and final exclusive-or all ones; RFC 3720 B.4): header and data
 * digests of PDUs, and small structures on the media. The drive's bulk data goes through its kernels.
 */

const TABLE_COUNT = 8;
const tables = Array.from({ length: TABLE_COUNT }, () => new Uint32Array(256));

for (let i = 0; i < 256; i++) {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  tables[0]![i] = crc >>> 0;
}
for (let t = 1; t < TABLE_COUNT; t++) {
  for (let i = 0; i < 256; i++) {
    const previous = tables[t - 1]![i]!;
    tables[t]![i] = (tables[0]![previous & 0xff]! ^ (previous >>> 8)) >>> 0;
  }
}
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

/** Slicing by eight: about half a gigabyte a second. `seed` continues an earlier sum. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  let crc = ~seed;
  let i = 0;
  const wholeEnd = bytes.length - (bytes.length & 7);
  for (; i < wholeEnd; i += 8) {
    crc ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    crc =
      t7[crc & 0xff]! ^
      t6[(crc >>> 8) & 0xff]! ^
      t5[(crc >>> 16) & 0xff]! ^
      t4[crc >>> 24]! ^
      t3[bytes[i + 4]!]! ^
      t2[bytes[i + 5]!]! ^
      t1[bytes[i + 6]!]! ^
      t0[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) crc = t0[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
