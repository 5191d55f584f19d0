/** A Llama forward pass in float64, written from the architecture's definition: whole text at once, no cache. */
import type { Model } from '../../tools/model/checkpoint.ts';

type Rows = number[][];

const times = (matrix: Float32Array, rowCount: number, x: readonly number[]): number[] =>
  Array.from({ length: rowCount }, (_, row) =>
    x.reduce((sum, value, i) => sum + matrix[row * x.length + i]! * value, 0),
  );

function rmsNorm(x: readonly number[], weights: Float32Array): number[] {
  const scale = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + 1e-5);
  return x.map((value, i) => value * scale * weights[i]!);
}

function rotate(x: readonly number[], headDim: number, position: number): number[] {
  return x.map((value, i) => {
    const pair = Math.floor((i % headDim) / 2);
    const angle = position * 10_000 ** ((-2 * pair) / headDim);
    const partner = i % 2 === 0 ? -x[i + 1]! : x[i - 1]!;
    return value * Math.cos(angle) + partner * Math.sin(angle);
  });
}

function attend(query: readonly number[], keys: Rows, values: Rows, headDim: number, groupSize: number): number[] {
  return query.flatMap((_, start) => {
    if (start % headDim !== 0) return [];
    const kvStart = Math.floor(start / headDim / groupSize) * headDim;
    const scores = keys.map((key) => {
      let dot = 0;
      for (let i = 0; i < headDim; i++) dot += query[start + i]! * key[kvStart + i]!;
      return Math.exp(dot / Math.sqrt(headDim));
    });
    const sum = scores.reduce((a, b) => a + b, 0);
    return Array.from({ length: headDim }, (_row, i) =>
      values.reduce((total, value, t) => total + (scores[t]! / sum) * value[kvStart + i]!, 0),
    );
  });
}

/** Logits after each token of `tokens`. */
export function logitsOfText(model: Model, tokens: readonly number[]): Rows {
  const { dim, hiddenDim, headCount, kvHeadCount, headDim, vocabularySize } = model.shape;
  const kvDim = kvHeadCount * headDim;
  let stream = tokens.map((token) => [...model.embedding.subarray(token * dim, (token + 1) * dim)]);
  for (const layer of model.layers) {
    const normed = stream.map((x) => rmsNorm(x, layer.attentionNorm));
    const keys = normed.map((x, position) => rotate(times(layer.key, kvDim, x), headDim, position));
    const values = normed.map((x) => times(layer.value, kvDim, x));
    stream = stream.map((x, position) => {
      const query = rotate(times(layer.query, dim, normed[position]!), headDim, position);
      const seen = position + 1;
      const mixed = attend(query, keys.slice(0, seen), values.slice(0, seen), headDim, headCount / kvHeadCount);
      return times(layer.output, dim, mixed).map((value, i) => value + x[i]!);
    });
    stream = stream.map((x) => {
      const inner = rmsNorm(x, layer.feedForwardNorm);
      const gate = times(layer.gate, hiddenDim, inner);
      const up = times(layer.up, hiddenDim, inner);
      const hidden = gate.map((value, i) => (value / (1 + Math.exp(-value))) * up[i]!);
      return times(layer.down, dim, hidden).map((value, i) => value + x[i]!);
    });
  }
  return stream.map((x) => times(model.classifier, vocabularySize, rmsNorm(x, model.finalNorm)));
}
