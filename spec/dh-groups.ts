/** The primes of the finite field groups of RFC 7919 ("Named Groups"); their generator is 2. */
import type { DhGroup } from './authentication.ts';

export const DH_GENERATOR = 2;

/** A prime of b bits is 2^b - 2^(b-64) + (floor(2^(b-130) e) + X) 2^64 - 1, with e Euler's number. */
const groups = {
  ffdhe2048: { bits: 2048, x: 560_316 },
  ffdhe3072: { bits: 3072, x: 2_625_351 },
  ffdhe4096: { bits: 4096, x: 5_736_041 },
  ffdhe6144: { bits: 6144, x: 15_705_020 },
  ffdhe8192: { bits: 8192, x: 10_965_728 },
} as const satisfies Record<Exclude<DhGroup, 'null'>, { bits: number; x: number }>;

const primes = new Map<string, Uint8Array>();

/** Big-endian, as long as the group's values are. */
export function dhPrime(group: Exclude<DhGroup, 'null'>): Uint8Array {
  const known = primes.get(group);
  if (known !== undefined) return known;
  const { bits, x } = groups[group];
  const b = BigInt(bits);
  const prime = (1n << b) - (1n << (b - 64n)) + ((scaledE(bits - 130) + BigInt(x)) << 64n) - 1n;
  const text = prime.toString(16);
  const bytes = Uint8Array.from({ length: bits / 8 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
  primes.set(group, bytes);
  return bytes;
}

/** Whether a peer's value is one: from 2 to the prime less 2. With others the shared secret would be known to everybody. */
export function isDhValue(group: Exclude<DhGroup, 'null'>, value: Uint8Array): boolean {
  const number = numberOf(value);
  return number > 1n && number < numberOf(dhPrime(group)) - 1n;
}

function numberOf(bytes: Uint8Array): bigint {
  let text = '0x0';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return BigInt(text);
}

/** Bits behind the binary point beyond those that are wanted: more than all the terms' roundings together. */
const GUARD_BITS = 64n;

/** floor(2^bits e), by the sum of 1/k!. */
function scaledE(bits: number): bigint {
  let term = 1n << (BigInt(bits) + GUARD_BITS);
  let sum = 0n;
  for (let k = 1n; term > 0n; k++) {
    sum += term;
    term /= k;
  }
  return sum >> GUARD_BITS;
}
