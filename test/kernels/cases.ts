/** Attention problems for the kernel tests, drawn from a seed. */
import { elementTypeNames, type ElementType, floatTypeNames, type FloatType } from '../../spec/element-type.ts';
import type { QueryBounds } from './oracle.ts';
import { patternTypeOf } from './stored-rows.ts';

export interface AttentionCase {
  readonly label: string;
  readonly headDimK: number;
  readonly headDimV: number;
  readonly typeK: ElementType;
  readonly typeV: ElementType;
  readonly outputType: FloatType;
  readonly scale: number;
  readonly softCap: number;
  readonly sinkCount: number;
  readonly firstToken: number;
  readonly tokenCount: number;
  /** Query rows. */
  readonly queries: Float32Array;
  readonly bounds: readonly QueryBounds[];
  /** Bit patterns (patternTypeOf their types) of K and V, [token][element]. */
  readonly keys: Uint32Array;
  readonly values: Uint32Array;
  /** Whether the job says that its rows are not read again. Default: no. */
  readonly isReadOnce?: boolean;
  /** Token counts of the frames, in order. */
  readonly frames: readonly number[];
}

export interface Random {
  /** 0 <= x < 1. */
  next(): number;
  integer(low: number, high: number): number;
  normal(): number;
  pick<T>(list: readonly T[]): T;
}

/** mulberry32. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return {
    next,
    integer: (low, high) => low + Math.floor(next() * (high - low + 1)),
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    pick: (list) => list[Math.floor(next() * list.length)]!,
  };
}

const bitsScratch = new Uint32Array(1);
const floatScratch = new Float32Array(bitsScratch.buffer);

/** A bit pattern of `type` near `x`: truncated, since any pattern will do for a test. */
export function patternOf(type: FloatType, x: number): number {
  floatScratch[0] = x;
  const bits = bitsScratch[0]!;
  if (type === 'f32') return bits;
  if (type === 'bf16') return bits >>> 16;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = Math.abs(x);
  if (magnitude >= 65504) return sign | 0x7bff;
  if (magnitude < 2 ** -14) return sign | Math.floor(magnitude * 2 ** 24);
  return sign | (((bits >>> 13) & 0x3_ffff) - (112 << 10));
}

export interface CaseOptions {
  readonly headDimK?: number;
  readonly headDimV?: number;
  readonly typeK?: ElementType;
  readonly typeV?: ElementType;
  readonly outputType?: FloatType;
  readonly rowCount?: number;
  readonly queryTokenCount?: number;
  readonly tokenCount?: number;
  readonly magnitude?: number;
  readonly softCap?: number;
  readonly window?: number;
  readonly sinkCount?: number;
  readonly frameTokens?: number;
}

const dims = [8, 9, 16, 31, 33, 40, 64, 80, 96, 100, 112, 127, 128, 160, 192, 255, 256];

const drawn = new Map<string, AttentionCase>();

/** A problem with everything not named in `options` drawn at random. The same arguments give the same object. */
export function randomCase(seed: number, options: CaseOptions = {}): AttentionCase {
  const key = JSON.stringify([seed, options]);
  const problem = drawn.get(key) ?? drawCase(seed, options);
  drawn.set(key, problem);
  return problem;
}

function drawCase(seed: number, options: CaseOptions): AttentionCase {
  const random = randomFrom(seed);
  const headDimK = options.headDimK ?? random.pick(dims);
  const headDimV = options.headDimV ?? (random.next() < 0.5 ? headDimK : random.pick(dims));
  const typeK = options.typeK ?? random.pick(elementTypeNames);
  const typeV = options.typeV ?? random.pick(elementTypeNames);
  const tokenCount = options.tokenCount ?? random.integer(1, random.pick([3, 70, 300]));
  const groupSize = options.rowCount ?? random.integer(1, 16);
  const queryTokenCount = options.queryTokenCount ?? (random.next() < 0.4 ? random.integer(2, 5) : 1);
  const magnitude = options.magnitude ?? random.pick([1, 1, 4]);
  const firstToken = random.pick([0, 0, 7]);
  const last = firstToken + tokenCount;
  const window = options.window ?? (random.next() < 0.3 ? random.integer(1, tokenCount) : 0);
  const sinkCount = options.sinkCount ?? (window > 0 && random.next() < 0.6 ? firstToken + random.integer(0, 5) : 0);
  const bounds = Array.from({ length: groupSize * queryTokenCount }, (_, row) => {
    const end = Math.max(0, last - (queryTokenCount - 1 - Math.floor(row / groupSize)));
    return { start: window > 0 ? Math.max(0, end - window) : 0, end };
  });
  const draw = (type: ElementType, count: number, factor: number): Uint32Array =>
    Uint32Array.from({ length: count }, () => patternOf(patternTypeOf(type), random.normal() * factor));
  const queries = Float32Array.from({ length: bounds.length * headDimK }, () => random.normal() * magnitude);
  const frames: number[] = [];
  for (let left = tokenCount; left > 0; left -= frames.at(-1)!) {
    frames.push(Math.min(left, options.frameTokens ?? random.pick([1, random.integer(1, 70), 64, 16])));
  }
  const softCap = options.softCap ?? (random.next() < 0.2 ? random.pick([30, 50]) : 0);
  return {
    label:
      `seed ${seed}: dims ${headDimK}/${headDimV} ${typeK}/${typeV} rows ${bounds.length} tokens ${tokenCount}` +
      ` window ${window} sinks ${sinkCount} cap ${softCap} magnitude ${magnitude}`,
    headDimK,
    headDimV,
    typeK,
    typeV,
    outputType: options.outputType ?? random.pick(floatTypeNames),
    scale: 1 / Math.sqrt(headDimK),
    softCap,
    sinkCount,
    firstToken,
    tokenCount,
    queries,
    bounds,
    frames,
    keys: draw(typeK, tokenCount * headDimK, magnitude),
    values: draw(typeV, tokenCount * headDimV, 1),
  };
}
