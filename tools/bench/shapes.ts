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

/** 32 query heads on 8 KV heads (grouped-query) and 40 on 40 (multi-head), f16, 4K and 32K tokens. */
export function benchShapes(quick: boolean): BenchShape[] {
  const heads = [
    [32, 8],
    [40, 40],
  ] as const;
  const tokenCounts = quick ? [1024] : [4096, 32_768];
  return heads.flatMap(([queryHeadCount, kvHeadCount]) =>
    tokenCounts.map((tokenCount) => {
      const base = { queryHeadCount, kvHeadCount, headDim: HEAD_DIM, tokenCount };
      const layerCount = Math.ceil((quick ? QUICK_CYCLE_BYTES : CYCLE_BYTES) / layerBytes(base));
      return { ...base, layerCount, name: `${queryHeadCount}/${kvHeadCount} heads, ${tokenCount} tokens, f16` };
    }),
  );
}
