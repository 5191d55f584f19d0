/** The only source of chance. Injected, so that a simulated drive does the same again from its seed. */
export interface Random {
  /** 0 to 2^32 - 1. */
  nextUint32(): number;
  bytes(count: number): Uint8Array;
  fill(target: Uint8Array): void;
}

/** SplitMix32. */
export function createSeededRandom(seed: number): Random {
  let state = seed >>> 0;
  const nextUint32 = (): number => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  const fill = (target: Uint8Array): void => target.forEach((_, i) => (target[i] = nextUint32() & 0xff));
  return { nextUint32, fill, bytes: (count) => filled(count, fill) };
}

/** The system gives no more in one call. */
const RANDOM_BYTES_AT_ONCE = 65_536;

export const systemRandom: Random = {
  nextUint32: () => crypto.getRandomValues(new Uint32Array(1))[0]!,
  fill(target) {
    for (let at = 0; at < target.length; at += RANDOM_BYTES_AT_ONCE) {
      crypto.getRandomValues(target.subarray(at, at + RANDOM_BYTES_AT_ONCE) as Uint8Array<ArrayBuffer>);
    }
  },
  bytes: (count) => filled(count, systemRandom.fill),
};

function filled(count: number, fill: (target: Uint8Array) => void): Uint8Array {
  const target = new Uint8Array(count);
  fill(target);
  return target;
}
