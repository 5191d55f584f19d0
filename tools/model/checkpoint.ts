/**
 * Reads version-0 checkpoints of karpathy/llama2.c: seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads,
 * vocab_size, seq_len), then float32 tensors, little-endian. A negative vocab_size says that a classifier of its own
 * follows; otherwise it is the embedding. Two tables of rotary frequencies are in the file and not used.
 */
import { readWholeFile } from './file.ts';
import { ModelError } from './model-error.ts';

export interface ModelShape {
  /** Width of the residual stream. */
  readonly dim: number;
  /** Width of the feed-forward layer. */
  readonly hiddenDim: number;
  readonly layerCount: number;
  readonly headCount: number;
  readonly kvHeadCount: number;
  readonly headDim: number;
  readonly vocabularySize: number;
  /** Positions that the model was made for. */
  readonly contextLength: number;
}

/** Tensors of one layer; matrices are [rows][columns] as named. */
export interface LayerWeights {
  /** [dim] */
  readonly attentionNorm: Float32Array;
  /** [headCount * headDim][dim] */
  readonly query: Float32Array;
  /** [kvHeadCount * headDim][dim] */
  readonly key: Float32Array;
  /** [kvHeadCount * headDim][dim] */
  readonly value: Float32Array;
  /** [dim][headCount * headDim] */
  readonly output: Float32Array;
  /** [dim] */
  readonly feedForwardNorm: Float32Array;
  /** [hiddenDim][dim] */
  readonly gate: Float32Array;
  /** [dim][hiddenDim] */
  readonly down: Float32Array;
  /** [hiddenDim][dim] */
  readonly up: Float32Array;
}

export interface Model {
  readonly name: string;
  readonly shape: ModelShape;
  /** [vocabularySize][dim] */
  readonly embedding: Float32Array;
  readonly layers: readonly LayerWeights[];
  /** [dim] */
  readonly finalNorm: Float32Array;
  /** [vocabularySize][dim] */
  readonly classifier: Float32Array;
}

const HEADER_BYTES = 28;
const CHECKPOINT_BYTES_MAX = 2 ** 32 - 4;
/** "ak42": the start of the later checkpoint versions. */
const VERSIONED_MAGIC = 0x616b3432;

const bounds = {
  dim: 65_536,
  hidden_dim: 1_048_576,
  n_layers: 512,
  n_heads: 4096,
  n_kv_heads: 4096,
  vocab_size: 4_194_304,
  seq_len: 4_194_304,
} as const;

/** ModelError: unreadable, truncated, too long, or dimensions that no model has. */
export function readCheckpoint(path: string): Model {
  return parseCheckpoint(readWholeFile(path, 'model', CHECKPOINT_BYTES_MAX), path);
}

/** `bytes` must start at a multiple of 4 in its buffer; the tensors are views of it. */
export function parseCheckpoint(bytes: Uint8Array<ArrayBuffer>, path: string): Model {
  const { shape, sharedClassifier } = parseHeader(bytes, path);
  const sizeBytes = HEADER_BYTES + 4 * elementCount(shape, sharedClassifier);
  if (bytes.length !== sizeBytes) {
    const problem = bytes.length < sizeBytes ? 'truncated' : 'too long';
    throw new ModelError(
      `model ${path}: ${problem}: ${bytes.length} bytes, its header (${describeShape(shape)}) asks for ${sizeBytes}`,
    );
  }
  let next = bytes.byteOffset + HEADER_BYTES;
  const take = (count: number): Float32Array => {
    const tensor = new Float32Array(bytes.buffer, next, count);
    next += 4 * count;
    return tensor;
  };
  const { dim, hiddenDim, layerCount, headDim } = shape;
  const kvDim = shape.kvHeadCount * headDim;
  const takePerLayer = (count: number) => Array.from({ length: layerCount }, () => take(count));
  const embedding = take(shape.vocabularySize * dim);
  const attentionNorm = takePerLayer(dim);
  const query = takePerLayer(dim * dim);
  const key = takePerLayer(dim * kvDim);
  const value = takePerLayer(dim * kvDim);
  const output = takePerLayer(dim * dim);
  const feedForwardNorm = takePerLayer(dim);
  const gate = takePerLayer(dim * hiddenDim);
  const down = takePerLayer(hiddenDim * dim);
  const up = takePerLayer(dim * hiddenDim);
  const finalNorm = take(dim);
  take(shape.contextLength * headDim);
  const layers = attentionNorm.map((norm, i) => ({
    attentionNorm: norm,
    query: query[i]!,
    key: key[i]!,
    value: value[i]!,
    output: output[i]!,
    feedForwardNorm: feedForwardNorm[i]!,
    gate: gate[i]!,
    down: down[i]!,
    up: up[i]!,
  }));
  const classifier = sharedClassifier ? embedding : take(shape.vocabularySize * dim);
  return { name: path, shape, embedding, layers, finalNorm, classifier };
}

export function describeShape(shape: ModelShape): string {
  return (
    `dim ${shape.dim}, hidden_dim ${shape.hiddenDim}, n_layers ${shape.layerCount}, n_heads ${shape.headCount}, ` +
    `n_kv_heads ${shape.kvHeadCount}, vocab_size ${shape.vocabularySize}, seq_len ${shape.contextLength}`
  );
}

function elementCount(shape: ModelShape, sharedClassifier: boolean): number {
  const { dim, hiddenDim, layerCount, vocabularySize } = shape;
  const kvDim = shape.kvHeadCount * shape.headDim;
  const perLayer = 2 * dim + 2 * dim * dim + 2 * dim * kvDim + 3 * dim * hiddenDim;
  const tables = (sharedClassifier ? 1 : 2) * vocabularySize * dim + dim;
  return tables + layerCount * perLayer + shape.contextLength * shape.headDim;
}

function parseHeader(bytes: Uint8Array, path: string): { shape: ModelShape; sharedClassifier: boolean } {
  const fail = (text: string): never => {
    throw new ModelError(`model ${path}: ${text}`);
  };
  if (bytes.length < HEADER_BYTES) fail(`truncated: ${bytes.length} bytes, the header alone has ${HEADER_BYTES}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (view.getUint32(0, true) === VERSIONED_MAGIC) {
    fail(`checkpoint version ${view.getInt32(4, true)}; only version 0 is read (llama2.c export.py --version 0)`);
  }
  const names = Object.keys(bounds) as (keyof typeof bounds)[];
  const header = {} as Record<keyof typeof bounds, number>;
  for (const [i, name] of names.entries()) header[name] = view.getInt32(4 * i, true);
  const sharedClassifier = header.vocab_size > 0;
  header.vocab_size = Math.abs(header.vocab_size);
  for (const name of names) {
    const value = header[name];
    if (value < 1 || value > bounds[name]) fail(`${name} ${value}; 1 to ${bounds[name]} is allowed`);
  }
  const { dim, n_heads: headCount, n_kv_heads: kvHeadCount } = header;
  if (dim % headCount !== 0) fail(`dim ${dim} is not a multiple of n_heads ${headCount}`);
  if (headCount % kvHeadCount !== 0) fail(`n_heads ${headCount} is not a multiple of n_kv_heads ${kvHeadCount}`);
  const headDim = dim / headCount;
  if (headDim % 2 !== 0) fail(`dim / n_heads is ${headDim}; rotary embedding takes pairs, so it must be even`);
  const shape = {
    dim,
    hiddenDim: header.hidden_dim,
    layerCount: header.n_layers,
    headCount,
    kvHeadCount,
    headDim,
    vocabularySize: header.vocab_size,
    contextLength: header.seq_len,
  };
  return { shape, sharedClassifier };
}
