/** Which block is written next. */
import type { Random } from '../../../daemon/base/random.ts';

export interface Traffic {
  readonly name: string;
  /** Draws LBAs of a namespace of so many. */
  picker(lbaCount: number, random: Random): () => number;
}

const fraction = (random: Random): number => random.nextUint32() / 2 ** 32;

export const uniform: Traffic = {
  name: 'uniform',
  picker: (lbaCount, random) => () => random.nextUint32() % lbaCount,
};

/** A share of the LBAs gets a share of the writes, each part uniformly. Hot LBAs lie anywhere. */
export const hotCold = (lbaShare: number, writeShare: number): Traffic => ({
  name: `${100 * writeShare} % of writes to ${100 * lbaShare} %`,
  picker(lbaCount, random) {
    const scattered = permutation(lbaCount, random);
    const hotCount = Math.floor(lbaCount * lbaShare);
    return () => {
      const isHot = fraction(random) < writeShare;
      const among = isHot ? hotCount : lbaCount - hotCount;
      return scattered[(isHot ? 0 : hotCount) + (random.nextUint32() % among)]!;
    };
  },
});

/** The LBA of rank i with a probability in proportion to 1 / i^exponent. Ranks lie anywhere. */
export const zipf = (exponent: number): Traffic => ({
  name: `Zipf ${exponent}`,
  picker(lbaCount, random) {
    const scattered = permutation(lbaCount, random);
    const cumulative = new Float64Array(lbaCount);
    let sum = 0;
    for (let i = 0; i < lbaCount; i++) cumulative[i] = sum += (i + 1) ** -exponent;
    return () => {
      const wanted = fraction(random) * sum;
      let low = 0;
      for (let high = lbaCount - 1; low < high; ) {
        const middle = (low + high) >>> 1;
        if (cumulative[middle]! <= wanted) low = middle + 1;
        else high = middle;
      }
      return scattered[low]!;
    };
  },
});

function permutation(count: number, random: Random): Uint32Array {
  const numbers = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.nextUint32() % (i + 1);
    [numbers[i], numbers[j]] = [numbers[j]!, numbers[i]!];
  }
  return numbers;
}
