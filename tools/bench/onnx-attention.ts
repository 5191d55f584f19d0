/** Attention by onnxruntime-node, where it is installed (`peers/README.md`): one query token over contiguous K and V. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { f16ToF32 } from '../../client/index.ts';
import { CliError } from '../cli/cli-error.ts';
import { randomHalves } from './drive-layers.ts';
import { type OnnxValue, onnxModel } from './onnx-model.ts';
import type { BenchShape } from './shapes.ts';

/** The parts of its interface that are used here. */
interface OnnxRuntime {
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<OnnxSession>;
  };
  readonly Tensor: new (type: string, data: ArrayBufferView, dims: readonly number[]) => OnnxTensor;
}

interface OnnxTensor {
  readonly data: ArrayBufferView;
}

interface OnnxSession {
  run(feeds: Readonly<Record<string, OnnxTensor>>, fetches: readonly string[]): Promise<Record<string, OnnxTensor>>;
  release(): Promise<void>;
}

type Shape = Omit<BenchShape, 'name' | 'layerCount'>;

export type OnnxElementType = 'float32' | 'float16';

const folder = new URL('../../../tools/bench/peers/', import.meta.url);
const ONLY_ERRORS = 3;
const CHECK_TOLERANCE = 1e-5;
const OUTPUT = 'output';
/** Layers are gone through in turn, so that none has just been read. */
const CYCLE_BYTES = 256 * 2 ** 20;
const LAYER_COUNT_MAX = 16;
/** Random values repeat after so many. */
const PATTERN_ELEMENTS = 2 ** 20;

/** undefined where it is not installed. */
export function findOnnxRuntime(): OnnxRuntime | undefined {
  if (!existsSync(new URL('node_modules/onnxruntime-node/package.json', folder))) return undefined;
  return createRequire(fileURLToPath(new URL('package.json', folder)))('onnxruntime-node') as OnnxRuntime;
}

/** Throws if what the runtime computes for a small shape of so many heads is not attention. */
export async function checkOnnxAttention(runtime: OnnxRuntime, heads: Pick<Shape, 'queryHeadCount' | 'kvHeadCount'>) {
  const shape = { ...heads, headDim: 16, tokenCount: 33 };
  const attention = await OnnxAttention.open(runtime, shape, { type: 'float32', threadCount: 1 });
  const output = (await attention.run(0)) as Float32Array;
  await attention.close();
  for (const [i, expected] of attention.expectedOutput(shape).entries()) {
    if (!(Math.abs(output[i]! - expected) < CHECK_TOLERANCE)) {
      throw new CliError(`${operatorOf(shape)}: output ${i} is ${output[i]}, and ${expected} by definition`);
    }
  }
}

export class OnnxAttention {
  readonly #session: OnnxSession;
  /** Of each layer. */
  readonly #feeds: readonly Readonly<Record<string, OnnxTensor>>[];

  private constructor(session: OnnxSession, feeds: readonly Readonly<Record<string, OnnxTensor>>[]) {
    this.#session = session;
    this.#feeds = feeds;
  }

  static async open(
    runtime: OnnxRuntime,
    shape: Shape,
    { type, threadCount }: { readonly type: OnnxElementType; readonly threadCount: number },
  ): Promise<OnnxAttention> {
    const operator = operatorOf(shape);
    const values = valuesOf(shape, type);
    const attributes =
      operator === 'GroupQueryAttention'
        ? { num_heads: shape.queryHeadCount, kv_num_heads: shape.kvHeadCount }
        : { num_heads: shape.queryHeadCount };
    const model = onnxModel({ operator, attributes, ...values });
    const session = await runtime.InferenceSession.create(model, {
      executionMode: 'sequential',
      intraOpNumThreads: threadCount,
      interOpNumThreads: 1,
      logSeverityLevel: ONLY_ERRORS,
    });
    const bytes = 2 * shape.kvHeadCount * shape.tokenCount * shape.headDim * (type === 'float32' ? 4 : 2);
    const layers = Array.from({ length: Math.min(LAYER_COUNT_MAX, Math.ceil(CYCLE_BYTES / bytes)) }, (_, layer) =>
      Object.fromEntries(values.inputs.map((value, i) => [value.name, tensor(runtime, value, shape, layer * 8 + i)])),
    );
    return new OnnxAttention(session, layers);
  }

  /** Of one layer. */
  async run(round: number): Promise<ArrayBufferView> {
    const outputs = await this.#session.run(this.#feeds[round % this.#feeds.length]!, [OUTPUT]);
    return outputs[OUTPUT]!.data;
  }

  /** Of layer 0 with f32, by definition. */
  expectedOutput({ queryHeadCount, kvHeadCount, headDim, tokenCount }: Shape): number[] {
    const rows = (name: string): Float32Array => (this.#feeds[0]![name]?.data ?? new Float32Array()) as Float32Array;
    const row = (past: Float32Array, last: Float32Array, head: number, token: number): Float32Array => {
      const pastCount = past.length / headDim / kvHeadCount;
      const [from, at] = token < pastCount ? [past, head * pastCount + token] : [last, lastRow(head, token)];
      return from.subarray(at * headDim, (at + 1) * headDim);
    };
    const lastRow = (head: number, token: number): number =>
      rows('past_key').length > 0 ? head : head * tokenCount + token;
    return Array.from({ length: queryHeadCount * headDim }, (_, i) => {
      const head = Math.floor(i / headDim);
      const kvHead = Math.floor((head * kvHeadCount) / queryHeadCount);
      const query = rows('query').subarray(head * headDim, (head + 1) * headDim);
      const weights = Array.from({ length: tokenCount }, (__, token) => {
        const key = row(rows('past_key'), rows('key'), kvHead, token);
        return Math.exp(query.reduce((sum, q, j) => sum + q * key[j]!, 0) / Math.sqrt(headDim));
      });
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const value = (token: number): number => row(rows('past_value'), rows('value'), kvHead, token)[i % headDim]!;
      return weights.reduce((sum, weight, token) => sum + (weight / total) * value(token), 0);
    });
  }

  async close(): Promise<void> {
    await this.#session.release();
  }
}

export const operatorOf = ({ queryHeadCount, kvHeadCount }: Pick<Shape, 'queryHeadCount' | 'kvHeadCount'>): string =>
  queryHeadCount > kvHeadCount ? 'GroupQueryAttention' : 'MultiHeadAttention';

/**
 * GroupQueryAttention takes what came before and the new token apart, and gives back both together if it is asked to;
 * MultiHeadAttention takes them together.
 */
function valuesOf(
  { queryHeadCount, kvHeadCount, headDim, tokenCount }: Shape,
  type: OnnxElementType,
): { readonly inputs: readonly OnnxValue[]; readonly outputs: readonly OnnxValue[] } {
  const value = (name: string, ...dims: (number | string)[]): OnnxValue => ({ name, type, dims });
  const query = value('query', 1, 1, queryHeadCount * headDim);
  const output = value(OUTPUT, 1, 1, queryHeadCount * headDim);
  if (queryHeadCount === kvHeadCount) {
    const rows = [kvHeadCount, tokenCount, headDim] as const;
    return { inputs: [query, value('key', 1, ...rows), value('value', 1, ...rows)], outputs: [output] };
  }
  const past = [kvHeadCount, tokenCount - 1, headDim] as const;
  const present = [kvHeadCount, 'total', headDim] as const;
  return {
    inputs: [
      query,
      value('key', 1, 1, kvHeadCount * headDim),
      value('value', 1, 1, kvHeadCount * headDim),
      value('past_key', 1, ...past),
      value('past_value', 1, ...past),
      { name: 'seqlens_k', type: 'int32', dims: [1] },
      { name: 'total_sequence_length', type: 'int32', dims: [1] },
    ],
    outputs: [output, value('present_key', 1, ...present), value('present_value', 1, ...present)],
  };
}

function tensor(
  runtime: OnnxRuntime,
  { name, type, dims }: OnnxValue,
  { tokenCount }: Shape,
  seed: number,
): OnnxTensor {
  const sizes = dims as readonly number[];
  if (type === 'int32') {
    return new runtime.Tensor(type, Int32Array.of(name === 'seqlens_k' ? tokenCount - 1 : tokenCount), sizes);
  }
  const count = sizes.reduce((product, size) => product * size, 1);
  const halves = randomHalves(Math.min(count, PATTERN_ELEMENTS), seed);
  const data =
    type === 'float32' ? repeat(f16ToF32(halves), new Float32Array(count)) : repeat(halves, new Uint16Array(count));
  return new runtime.Tensor(type, data, sizes);
}

function repeat<T extends Float32Array | Uint16Array>(pattern: T, into: T): T {
  for (let at = 0; at < into.length; at += pattern.length) {
    into.set(pattern.subarray(0, Math.min(pattern.length, into.length - at)), at);
  }
  return into;
}
