/** Attention in the drive: each step is one ATTN per layer, which carries the new token's key and value. */
import type { DriveClient, PreparedAttend, PreparedEntry, Sequence } from '../../client/index.ts';
import type { DecodeAttention } from './attention.ts';
import type { ModelShape } from './checkpoint.ts';

interface LayerRequest {
  readonly request: PreparedAttend;
  readonly entry: PreparedEntry;
}

export interface DriveAttentionOptions {
  readonly shape: ModelShape;
  /** Tokens that every layer of the sequence holds already. */
  readonly storedTokenCount: number;
}

export class DriveAttention implements DecodeAttention {
  readonly name: string;
  readonly storedTokenCount: number;
  /** Wall time of each ATTN, in milliseconds. */
  readonly attendMs: number[] = [];
  /** Tokens attended to so far, over all layers, by where their keys and values lay. */
  flashTokens = 0;
  bufferedTokens = 0;
  readonly #append: readonly LayerRequest[];
  /** For tokens that are stored: the same without keys and values. */
  readonly #replay: readonly LayerRequest[];

  /** Requests are prepared once, one per layer, and posted once per token. */
  static async prepare(
    options: DriveAttentionOptions,
    modules: { client: DriveClient; sequence: Sequence },
  ): Promise<DriveAttention> {
    const prepare = async (appendTokenCount: 0 | 1): Promise<LayerRequest[]> => {
      const requests: LayerRequest[] = [];
      for (let layer = 0; layer < options.shape.layerCount; layer++) {
        const request = await prepareLayer(layer, appendTokenCount, options.shape, modules);
        requests.push({ request, entry: request.entries[0]! });
      }
      return requests;
    };
    const append = await prepare(1);
    const replay = options.storedTokenCount > 0 ? await prepare(0) : [];
    return new DriveAttention(options, { append, replay, sequence: modules.sequence });
  }

  private constructor(
    options: DriveAttentionOptions,
    modules: { append: readonly LayerRequest[]; replay: readonly LayerRequest[]; sequence: Sequence },
  ) {
    this.storedTokenCount = options.storedTokenCount;
    this.name = `drive, ${modules.sequence.shape.elementTypeK}`;
    this.#append = modules.append;
    this.#replay = modules.replay;
  }

  async step(
    layer: number,
    position: number,
    query: Float32Array,
    key: Float32Array,
    value: Float32Array,
  ): Promise<Float32Array> {
    const stored = position < this.storedTokenCount;
    const { request, entry } = (stored ? this.#replay : this.#append)[layer]!;
    entry.queries.set(query);
    entry.queryPosition = position;
    entry.tokenEnd = position + 1;
    if (!stored) {
      entry.appendPosition = position;
      entry.keys.set(key);
      entry.values.set(value);
    }
    const startMs = performance.now();
    const { flashTokenCount, bufferedTokenCount = 0 } = await request.post();
    this.attendMs.push(performance.now() - startMs);
    this.flashTokens += flashTokenCount;
    this.bufferedTokens += bufferedTokenCount;
    return entry.output as Float32Array;
  }

  release(): void {
    for (const { request } of [...this.#append, ...this.#replay]) request.release();
  }
}

function prepareLayer(
  layer: number,
  appendTokenCount: 0 | 1,
  shape: ModelShape,
  { client, sequence }: { client: DriveClient; sequence: Sequence },
): Promise<PreparedAttend> {
  const queryHeadsPerKvHead = shape.headCount / shape.kvHeadCount;
  return client.prepareAttend([{ sequence, layer, queryHeadsPerKvHead, appendTokenCount }], {
    scale: 1 / Math.sqrt(shape.headDim),
    queryType: 'f32',
    outputType: 'f32',
    appendType: 'f32',
  });
}
