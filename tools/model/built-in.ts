/**
 * A model that needs no file: Llama architecture with grouped-query attention, weights from a seeded generator. Nothing
 * was trained, so its texts mean nothing; they are made of syllables, never repeat themselves for long, and depend on
 * every token before, which is what a check of attention needs.
 */
import type { LayerWeights, Model, ModelShape } from './checkpoint.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';

/** Chosen so that the two most probable tokens are never close in the first few hundred steps of the demo. */
const SEED = 45;

const onsets = ['b', 'd', 'f', 'g', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z', 'sh', 'th'];
const vowels = ['a', 'e', 'i', 'o', 'u', 'ai'];
const codas = ['n', 'r', 's', 'l'];
const specials = ['<unk>', '\n<s>\n', '\n</s>\n'];

/** Token pieces: specials, bytes, then what texts are made of, in the layout of llama2.c vocabularies. */
function pieces(): string[] {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const letters = ' abcdefghijklmnopqrstuvwxyz'.split('');
  const syllables = onsets.flatMap((onset) => vowels.map((vowel) => onset + vowel));
  const starts = syllables.map((syllable) => ` ${syllable}`);
  return [...specials, ...bytes, ...letters, ...syllables, ...starts].filter(
    (piece, i, all) => all.indexOf(piece) === i,
  );
}

const FIRST_LETTER = specials.length + 256;

export interface BuiltInModel {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
}

export function createBuiltInModel(seed = SEED): BuiltInModel {
  const vocabulary = pieces();
  const shape: ModelShape = {
    dim: 128,
    hiddenDim: 256,
    layerCount: 4,
    headCount: 8,
    kvHeadCount: 4,
    headDim: 16,
    vocabularySize: vocabulary.length,
    contextLength: 1024,
  };
  const scores = Float32Array.from(vocabulary, (_, token) => (token < FIRST_LETTER ? 0 : FIRST_LETTER - token));
  const tokenizer = createTokenizer(vocabulary, scores, 'built-in');
  return { model: createModel(shape, isWritten(vocabulary), seed), tokenizer };
}

/** Which tokens the model may write: syllables and codas, not bytes or specials. */
function isWritten(vocabulary: readonly string[]): (token: number) => boolean {
  const allowed = vocabulary.map(
    (piece, token) => token >= FIRST_LETTER && (piece.length > 1 || codas.includes(piece)),
  );
  return (token) => allowed[token] === true;
}

function createModel(shape: ModelShape, written: (token: number) => boolean, seed: number): Model {
  const { dim, hiddenDim, layerCount, kvHeadCount, headDim, vocabularySize } = shape;
  const random = createUniform(seed);
  const kvDim = kvHeadCount * headDim;
  /** Rows whose product with a normalised vector has about `gain` for its standard deviation. */
  const matrix = (rows: number, columns: number, gain: number): Float32Array => {
    const limit = gain * Math.sqrt(3 / columns);
    return Float32Array.from({ length: rows * columns }, () => limit * random());
  };
  const ones = (count: number): Float32Array => new Float32Array(count).fill(1);
  const layer = (): LayerWeights => ({
    attentionNorm: ones(dim),
    query: matrix(dim, dim, 1.6),
    key: matrix(kvDim, dim, 1.6),
    value: matrix(kvDim, dim, 1),
    output: matrix(dim, dim, 1.2),
    feedForwardNorm: ones(dim),
    gate: matrix(hiddenDim, dim, 1),
    down: matrix(dim, hiddenDim, 1),
    up: matrix(hiddenDim, dim, 1),
  });
  const embedding = matrix(vocabularySize, dim, Math.sqrt(dim) / 2);
  const layers = Array.from({ length: layerCount }, layer);
  const classifier = matrix(vocabularySize, dim, 1);
  for (let token = 0; token < vocabularySize; token++) {
    if (!written(token)) classifier.fill(0, token * dim, (token + 1) * dim);
  }
  return { name: 'built-in', shape, embedding, layers, finalNorm: ones(dim), classifier };
}

/** Numbers from -1 to 1, evenly: mulberry32. */
function createUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x8000_0000 - 1;
  };
}
