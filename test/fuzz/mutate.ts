/** Bytes that are nearly right. */
import type { Fields, FieldTable, Struct } from '../../spec/struct.ts';
import type { Prng } from '../sim/prng.ts';

/** One behind the other, in memory of their own; no Buffer, whose slices would share it. */
export const joined = (pieces: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(pieces));

/** Values at which code that counts goes wrong. */
export const EDGES = [
  0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 4097, 8191, 8192,
  32_767, 32_768, 65_535, 65_536, 0xff_ffff, 0x100_0000, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe,
  0xffff_ffff,
] as const;

/** A number of so many bits: an edge, a small one, or any. */
export function drawNumber(random: Prng, bits = 32): number {
  const end = 2 ** Math.min(bits, 32);
  switch (random.below(4)) {
    case 0:
      return random.pick(EDGES) % end;
    case 1:
      return random.nextUint32() % end;
    default:
      return random.below(Math.min(end, 20));
  }
}

/** Puts another value into one field. */
function mutateField(random: Prng, bytes: Uint8Array, at: number, { kind, offset, width }: FieldTable): void {
  const start = at + offset;
  if (kind === 'bytes' || kind === 'text' || kind === 'reserved' || width > 8) {
    bytes[start + random.below(width)] = random.chance(0.5) ? random.below(256) : 0;
    return;
  }
  const isStep = random.chance(0.2);
  const step = random.pick([1, 0xff]);
  for (let i = 0; i < width; i += 4) {
    const value = drawNumber(random, 8 * Math.min(4, width - i));
    for (let j = i; j < Math.min(width, i + 4); j++) {
      if (!isStep) bytes[start + j] = value >>> (8 * (j - i));
    }
  }
  if (isStep) bytes[start]! += step;
}

/** Changes one of the fields of a structure that lies at `at`. */
export function mutateStruct(random: Prng, bytes: Uint8Array, { fields }: Struct<Fields>, at = 0): void {
  mutateField(random, bytes, at, random.pick(Object.values(fields)));
}

/** Flips, sets and moves bytes: `count` times one of it. The length stays. */
export function mutateBytes(random: Prng, bytes: Uint8Array, count = 1 + random.below(4)): void {
  if (bytes.length === 0) return;
  for (let i = 0; i < count; i++) {
    const at = random.below(bytes.length);
    switch (random.below(5)) {
      case 0:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        bytes[at] = random.below(256);
        break;
      case 2:
        bytes[at] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
        break;
      case 3:
        bytes.fill(random.pick([0, 0xff]), at, Math.min(bytes.length, at + 1 + random.below(16)));
        break;
      default:
        bytes.copyWithin(at, random.below(bytes.length), random.below(bytes.length));
    }
  }
}

/** Shorter, longer, or with a piece of itself once more. */
export function mutateLength(random: Prng, bytes: Uint8Array): Uint8Array {
  const cut = random.below(bytes.length + 1);
  switch (random.below(4)) {
    case 0:
      return bytes.slice(0, cut);
    case 1:
      return bytes.slice(cut);
    case 2:
      return joined([bytes, random.bytes(1 + random.below(64))]);
    default:
      return joined([bytes.subarray(0, cut), bytes.subarray(random.below(cut + 1))]);
  }
}
