/** What the benchmarks attend to. */
export interface BenchShape {
  readonly name: string;
  readonly queryHeadCount: number;
  readonly kvHeadCount: number;
  readonly headDim: number;
  readonly tokenCount: number;
  /** Layers, gone through in turn, so that what is read has not just been read. */
  readonly layerCount: number;
}

const HEAD_DIM = 128;
const ELEMENT_BYTES = 2;
/** What one turn through the layers reads, at least. */
const CYCLE_BYTES = 256 * 2 ** 20;
const QUICK_CYCLE_BYTES = 16 * 2 ** 20;

/** Bytes of K and V of one layer. */
export const layerBytes = (shape: Pick<BenchShape, 'kvHeadCount' | 'headDim' | 'tokenCount'>): number =>
  2 * shape.tokenCount * shape.kvHeadCount * shape.headDim * ELEMENT_BYTES;

const headCounts = { '32/8': [32, 8], '40/40': [40, 40] } as const;
export type Heads = keyof typeof headCounts;

/** With as many layers as it takes to go through `cycleBytes` before the first comes again. */
export function shapeOf(heads: Heads, tokenCount: number, cycleBytes: number): BenchShape {
  const [queryHeadCount, kvHeadCount] = headCounts[heads];
  const base = { queryHeadCount, kvHeadCount, headDim: HEAD_DIM, tokenCount };
  const layerCount = Math.ceil(cycleBytes / layerBytes(base));
  return { ...base, layerCount, name: `${heads} heads, ${tokenCount} tokens, f16` };
}

/** 32 query heads on 8 KV heads (grouped-query) and 40 on 40 (multi-head), f16, 4K and 32K tokens. */
export function benchShapes(quick: boolean): BenchShape[] {
  const tokenCounts = quick ? [1024] : [4096, 32_768];
  const cycleBytes = quick ? QUICK_CYCLE_BYTES : CYCLE_BYTES;
  return (['32/8', '40/40'] as const).flatMap((heads) =>
    tokenCounts.map((tokenCount) => shapeOf(heads, tokenCount, cycleBytes)),
  );
}
