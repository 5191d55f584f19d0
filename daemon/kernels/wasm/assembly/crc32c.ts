// CRC32C by slicing by 8. Every instance writes the same table to the same place: each entry once, with its final value.
import { CRC_TABLES } from './layout';

function afterByte(value: u32): u32 {
  let remainder = value;
  for (let bit = 0; bit < 8; bit++) remainder = (remainder >> 1) ^ (remainder & 1 ? 0x82f63b78 : 0);
  return remainder;
}

export function fillCrcTables(): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let remainder = byte;
    for (let slice = 0; slice < 8; slice++) {
      remainder = (slice == 0 ? 0 : remainder >> 8) ^ afterByte(slice == 0 ? byte : remainder & 0xff);
      store<u32>(CRC_TABLES + (<usize>slice << 10) + (<usize>byte << 2), remainder);
    }
  }
}

@inline
function entry(slice: usize, byte: u32): u32 {
  return load<u32>(CRC_TABLES + (slice << 10) + ((byte & 0xff) << 2));
}

export function crc32c(offset: usize, sizeBytes: usize, seed: u32): u32 {
  let remainder = ~seed;
  let at = offset;
  let left = sizeBytes;
  for (; left >= 8; left -= 8, at += 8) {
    const low = remainder ^ load<u32>(at);
    const high = load<u32>(at, 4);
    remainder =
      entry(7, low) ^ entry(6, low >> 8) ^ entry(5, low >> 16) ^ entry(4, low >> 24) ^
      entry(3, high) ^ entry(2, high >> 8) ^ entry(1, high >> 16) ^ entry(0, high >> 24);
  }
  for (; left > 0; left--, at++) remainder = (remainder >> 8) ^ entry(0, remainder ^ load<u8>(at));
  return ~remainder;
}
