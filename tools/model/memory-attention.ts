/** Attention over a cache in this process's memory, in float32 and in the reference program's order of operations. */
import { dequantise, fromF32, quantise, toF32 } from '../../client/convert.ts';
import { type ElementType, isQuantised } from '../../spec/element-type.ts';
import type { DecodeAttention } from './attention.ts';
import type { ModelShape } from './checkpoint.ts';

const f = Math.fround;
const FIRST_CAPACITY_TOKENS = 64;

interface LayerCache {
  /** [token][kvHead][headDim] */
  keys: Float32Array;
  values: Float32Array;
}

/** `elementType` is what keys and values are rounded to as they are stored; the arithmetic stays float32. */
export function createMemoryAttention(shape: ModelShape, elementType: ElementType): DecodeAttention {
  return new MemoryAttention(shape, elementType);
}

class MemoryAttention implements DecodeAttention {
  readonly name: string;
  readonly storedTokenCount = 0;
  readonly #shape: ModelShape;
  readonly #elementType: ElementType;
  readonly #layers: LayerCache[];
  readonly #out: Float32Array;
  #weights = new Float32Array(FIRST_CAPACITY_TOKENS);

  constructor(shape: ModelShape, elementType: ElementType) {
    this.name = `memory, ${elementType}`;
    this.#shape = shape;
    this.#elementType = elementType;
    this.#layers = Array.from({ length: shape.layerCount }, () => ({
      keys: new Float32Array(0),
      values: new Float32Array(0),
    }));
    this.#out = new Float32Array(shape.headCount * shape.headDim);
  }

  step(layer: number, position: number, query: Float32Array, key: Float32Array, value: Float32Array): Float32Array {
    const { headCount, kvHeadCount, headDim } = this.#shape;
    const cache = this.#layers[layer]!;
    const rowSize = kvHeadCount * headDim;
    this.#reserve(cache, position, rowSize);
    cache.keys.set(this.#asStored(key), position * rowSize);
    cache.values.set(this.#asStored(value), position * rowSize);
    const groupSize = headCount / kvHeadCount;
    for (let head = 0; head < headCount; head++) {
      const kvOffset = Math.floor(head / groupSize) * headDim;
      this.#weigh(query, head * headDim, cache.keys, kvOffset, position + 1);
      this.#gather(head * headDim, cache.values, kvOffset, position + 1);
    }
    return this.#out;
  }

  /** One token's rows of all KV heads. */
  #asStored(rows: Float32Array): Float32Array {
    const type = this.#elementType;
    const { headDim } = this.#shape;
    return isQuantised(type)
      ? dequantise(quantise(rows, type, headDim), type, headDim)
      : toF32(fromF32(rows, type), type);
  }

  #reserve(cache: LayerCache, position: number, rowSize: number): void {
    const capacity = cache.keys.length / rowSize;
    if (position < capacity) return;
    const larger = Math.max(FIRST_CAPACITY_TOKENS, 2 * capacity, position + 1);
    const grow = (rows: Float32Array): Float32Array => {
      const copy = new Float32Array(larger * rowSize);
      copy.set(rows);
      return copy;
    };
    cache.keys = grow(cache.keys);
    cache.values = grow(cache.values);
    if (this.#weights.length < larger) this.#weights = new Float32Array(larger);
  }

  /** Softmax of the scaled products of one query row with `tokenCount` key rows. */
  #weigh(query: Float32Array, queryOffset: number, keys: Float32Array, kvOffset: number, tokenCount: number): void {
    const { kvHeadCount, headDim } = this.#shape;
    const weights = this.#weights;
    const divisor = f(Math.sqrt(headDim));
    let maximum = Number.NEGATIVE_INFINITY;
    for (let t = 0; t < tokenCount; t++) {
      const row = t * kvHeadCount * headDim + kvOffset;
      let score = 0;
      for (let i = 0; i < headDim; i++) score = f(score + f(query[queryOffset + i]! * keys[row + i]!));
      score = f(score / divisor);
      weights[t] = score;
      if (t === 0 || score > maximum) maximum = score;
    }
    let sum = 0;
    for (let t = 0; t < tokenCount; t++) {
      const weight = f(Math.exp(f(weights[t]! - maximum)));
      weights[t] = weight;
      sum = f(sum + weight);
    }
    for (let t = 0; t < tokenCount; t++) weights[t] = weights[t]! / sum;
  }

  #gather(outOffset: number, values: Float32Array, kvOffset: number, tokenCount: number): void {
    const { kvHeadCount, headDim } = this.#shape;
    const out = this.#out.fill(0, outOffset, outOffset + headDim);
    for (let t = 0; t < tokenCount; t++) {
      const row = t * kvHeadCount * headDim + kvOffset;
      const weight = this.#weights[t]!;
      for (let i = 0; i < headDim; i++) {
        out[outOffset + i] = out[outOffset + i]! + f(weight * values[row + i]!);
      }
    }
  }
}
