/**
 * The decoder's matrix work in float32 on one CPU thread, in the reference program's order of operations: every product
 * and every sum is rounded to float32, sums run from the first element to the last. So the logits agree with the C
 * program's, and with them the text, to the last near-tie.
 */
import type { DecoderBackend, Projections } from './backend.ts';
import type { LayerWeights, Model } from './checkpoint.ts';

const f = Math.fround;
const NORM_EPSILON = f(1e-5);
const ROTARY_BASE = 10_000;

export function createCpuBackend(model: Model): DecoderBackend {
  return new CpuBackend(model);
}

class CpuBackend implements DecoderBackend {
  readonly name = 'cpu';
  readonly #model: Model;
  /** Residual stream. */
  readonly #x: Float32Array;
  readonly #normed: Float32Array;
  readonly #projected: Float32Array;
  readonly #query: Float32Array;
  readonly #key: Float32Array;
  readonly #value: Float32Array;
  readonly #gate: Float32Array;
  readonly #up: Float32Array;
  readonly #logits: Float32Array;
  /** [headDim / 2] */
  readonly #frequencies: Float32Array;
  readonly #cosines: Float32Array;
  readonly #sines: Float32Array;

  constructor(model: Model) {
    const { dim, hiddenDim, headDim, kvHeadCount, vocabularySize } = model.shape;
    this.#model = model;
    this.#x = new Float32Array(dim);
    this.#normed = new Float32Array(dim);
    this.#projected = new Float32Array(dim);
    this.#query = new Float32Array(dim);
    this.#key = new Float32Array(kvHeadCount * headDim);
    this.#value = new Float32Array(kvHeadCount * headDim);
    this.#gate = new Float32Array(hiddenDim);
    this.#up = new Float32Array(hiddenDim);
    this.#logits = new Float32Array(vocabularySize);
    const pairCount = headDim / 2;
    this.#frequencies = Float32Array.from({ length: pairCount }, (_, pair) =>
      f(1 / f(ROTARY_BASE ** f((2 * pair) / headDim))),
    );
    this.#cosines = new Float32Array(pairCount);
    this.#sines = new Float32Array(pairCount);
  }

  begin(token: number, position: number): void {
    const { dim } = this.#model.shape;
    this.#x.set(this.#model.embedding.subarray(token * dim, (token + 1) * dim));
    for (let pair = 0; pair < this.#frequencies.length; pair++) {
      const angle = f(f(position) * this.#frequencies[pair]!);
      this.#cosines[pair] = Math.cos(angle);
      this.#sines[pair] = Math.sin(angle);
    }
  }

  project(layer: number): Projections {
    const weights = this.#layer(layer);
    normalise(this.#normed, this.#x, weights.attentionNorm);
    multiply(this.#query, weights.query, this.#normed);
    multiply(this.#key, weights.key, this.#normed);
    multiply(this.#value, weights.value, this.#normed);
    this.#rotate(this.#query);
    this.#rotate(this.#key);
    return { query: this.#query, key: this.#key, value: this.#value };
  }

  finish(layer: number, attention: Float32Array): void {
    const weights = this.#layer(layer);
    multiply(this.#projected, weights.output, attention);
    add(this.#x, this.#projected);
    normalise(this.#normed, this.#x, weights.feedForwardNorm);
    multiply(this.#gate, weights.gate, this.#normed);
    multiply(this.#up, weights.up, this.#normed);
    for (let i = 0; i < this.#gate.length; i++) {
      const value = this.#gate[i]!;
      const silu = f(value * f(1 / f(1 + f(Math.exp(-value)))));
      this.#gate[i] = f(silu * this.#up[i]!);
    }
    multiply(this.#projected, weights.down, this.#gate);
    add(this.#x, this.#projected);
  }

  logits(): Float32Array {
    normalise(this.#normed, this.#x, this.#model.finalNorm);
    multiply(this.#logits, this.#model.classifier, this.#normed);
    return this.#logits;
  }

  #layer(layer: number): LayerWeights {
    const weights = this.#model.layers[layer];
    if (weights === undefined) throw new RangeError(`layer ${layer} of ${this.#model.layers.length}`);
    return weights;
  }

  /** Turns each pair of every head by its angle. */
  #rotate(rows: Float32Array): void {
    const pairCount = this.#cosines.length;
    for (let i = 0, pair = 0; i < rows.length; i += 2, pair = (pair + 1) % pairCount) {
      const a = rows[i]!;
      const b = rows[i + 1]!;
      const cosine = this.#cosines[pair]!;
      const sine = this.#sines[pair]!;
      rows[i] = f(a * cosine) - f(b * sine);
      rows[i + 1] = f(a * sine) + f(b * cosine);
    }
  }
}

/** out = weights * x / rms(x) */
function normalise(out: Float32Array, x: Float32Array, weights: Float32Array): void {
  let squares = 0;
  for (let i = 0; i < x.length; i++) squares = f(squares + f(x[i]! * x[i]!));
  const scale = f(1 / f(Math.sqrt(f(f(squares / x.length) + NORM_EPSILON))));
  for (let i = 0; i < x.length; i++) out[i] = weights[i]! * f(scale * x[i]!);
}

function add(x: Float32Array, y: Float32Array): void {
  for (let i = 0; i < x.length; i++) x[i] = x[i]! + y[i]!;
}

/**
 * out = matrix * x, matrix [out.length][x.length]. Four rows at a time: each sum keeps its order, and the processor has
 * four independent chains of additions to overlap.
 */
function multiply(out: Float32Array, matrix: Float32Array, x: Float32Array): void {
  const columns = x.length;
  let row = 0;
  for (; row + 4 <= out.length; row += 4) {
    const r0 = row * columns;
    const r1 = r0 + columns;
    const r2 = r1 + columns;
    const r3 = r2 + columns;
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let i = 0; i < columns; i++) {
      const factor = x[i]!;
      s0 = f(s0 + f(matrix[r0 + i]! * factor));
      s1 = f(s1 + f(matrix[r1 + i]! * factor));
      s2 = f(s2 + f(matrix[r2 + i]! * factor));
      s3 = f(s3 + f(matrix[r3 + i]! * factor));
    }
    out[row] = s0;
    out[row + 1] = s1;
    out[row + 2] = s2;
    out[row + 3] = s3;
  }
  for (; row < out.length; row++) {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum = f(sum + f(matrix[row * columns + i]! * x[i]!));
    out[row] = sum;
  }
}
