/** A small seeded generator (mulberry32): the same seed gives the same test. */
export interface Random {
  /** 0 <= x < 1. */
  next(): number;
  /** Integer from 0 to bound - 1. */
  below(bound: number): number;
  /** About normal, mean 0, deviation 1. */
  normal(): number;
  pick<T>(values: readonly T[]): T;
}

export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (bound: number): number => Math.floor(next() * bound);
  return {
    next,
    below,
    normal: () => next() + next() + next() + next() + next() + next() - 3,
    pick: (values) => values[below(values.length)]!,
  };
}
