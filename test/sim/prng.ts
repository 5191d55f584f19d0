/** Chance of a simulation. Everything that happens follows from one seed. */
import { createHash } from 'node:crypto';
import type { Random } from '../../daemon/base/random.ts';

/** Seeds are whole numbers below 2^160: decimal, or hexadecimal with 0x, or 40 hexadecimal digits (a commit). */
export function parseSeed(text: string): bigint {
  const isCommit = /^[0-9a-f]{40}$/i.test(text);
  if (!isCommit && !/^(\d+|0x[0-9a-f]+)$/i.test(text)) {
    throw new Error(`seed ${text}: a whole number, 0x and hexadecimal digits, or 40 hexadecimal digits`);
  }
  const seed = BigInt(isCommit ? `0x${text}` : text);
  if (seed >= 2n ** 160n) throw new Error(`seed ${text}: below 2^160`);
  return seed;
}

/** As `parseSeed` reads it, in as few characters as it takes. */
export const formatSeed = (seed: bigint): string => (seed < 2n ** 64n ? String(seed) : `0x${seed.toString(16)}`);

/** sfc32 (Chris Doty-Humphrey, PractRand), its state from a hash of seed and name, so that streams don't overlap. */
export class Prng implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  private constructor(state: readonly [number, number, number]) {
    [this.#a, this.#b, this.#c] = state;
    for (let i = 0; i < 12; i++) this.nextUint32();
  }

  /** Its own stream for each purpose: what one of them draws changes nothing for the others. */
  static of(seed: bigint, stream: string): Prng {
    const hash = createHash('sha256').update(`${seed}/${stream}`).digest();
    return new Prng([hash.readUInt32LE(0), hash.readUInt32LE(4), hash.readUInt32LE(8)]);
  }

  /** A new stream, chosen by this one. */
  fork(): Prng {
    return new Prng([this.nextUint32(), this.nextUint32(), this.nextUint32()]);
  }

  nextUint32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return sum >>> 0;
  }

  bytes(count: number): Uint8Array {
    const target = new Uint8Array(count);
    this.fill(target);
    return target;
  }

  fill(target: Uint8Array): void {
    for (let i = 0; i < target.length; i++) target[i] = this.nextUint32();
  }

  /** 0 to end - 1. */
  below(end: number): number {
    return Math.floor((this.nextUint32() / 2 ** 32) * end);
  }

  /** Both ends included. */
  between(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  chance(probability: number): boolean {
    return this.nextUint32() < probability * 2 ** 32;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** A name, drawn by weight. Some weight must be above 0. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const names = Object.keys(weights) as K[];
    let left = this.below(names.reduce((sum, name) => sum + weights[name], 0));
    for (const name of names) {
      left -= weights[name];
      if (left < 0) return name;
    }
    throw new Error('no weight is above 0');
  }
}
