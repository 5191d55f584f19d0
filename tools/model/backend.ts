/** Keys, values and queries of one token in one layer, after rotary embedding. Valid until the next `project`. */
export interface Projections {
  /** [headCount][headDim] */
  readonly query: Float32Array;
  /** [kvHeadCount][headDim] */
  readonly key: Float32Array;
  /** [kvHeadCount][headDim] */
  readonly value: Float32Array;
}

/**
 * Everything of a decoder but attention. The cut is where a drive stands: per layer, projections come out and the
 * attention output goes in; weights and the residual stream stay with the backend, so that one on a GPU moves nothing
 * else. Calls come in the order begin, then project and finish for each layer, then logits (only where needed).
 */
export interface DecoderBackend {
  readonly name: string;
  /** The token's embedding becomes the residual stream. */
  begin(token: number, position: number): void | Promise<void>;
  project(layer: number): Projections | Promise<Projections>;
  /** `attention` is [headCount][headDim]. */
  finish(layer: number, attention: Float32Array): void | Promise<void>;
  /** One per token of the vocabulary. Valid until the next `begin`. */
  logits(): Float32Array | Promise<Float32Array>;
}
