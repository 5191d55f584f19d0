/** Decode attention as the decoder sees it: where the KV cache lies is the implementation's business. */
export interface DecodeAttention {
  /** For people: "memory, f32". */
  readonly name: string;
  /** Tokens that are stored already, in every layer; their keys and values are not taken again. */
  readonly storedTokenCount: number;
  /**
   * Adds the token at `position` to `layer` (unless it is stored) and attends to tokens 0 to `position`.
   * The result, [headCount][headDim], is valid until the next call.
   */
  step(
    layer: number,
    position: number,
    query: Float32Array,
    key: Float32Array,
    value: Float32Array,
  ): Float32Array | Promise<Float32Array>;
}
