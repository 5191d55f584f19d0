/** Where a model comes from: two files, or none for the built-in one. */
import { createHash } from 'node:crypto';
import { createBuiltInModel } from './built-in.ts';
import { type Model, readCheckpoint } from './checkpoint.ts';
import { ModelError } from './model-error.ts';
import { readTokenizer, type Tokenizer } from './tokenizer.ts';

export interface LoadedModel {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
}

/** ModelError where one file is given without the other, or a file cannot be used. */
export function loadModel(modelPath: string | undefined, tokenizerPath: string | undefined): LoadedModel {
  if (modelPath === undefined && tokenizerPath === undefined) return createBuiltInModel();
  if (modelPath === undefined)
    throw new ModelError('--tokenizer without --model; give both, or neither for the built-in model');
  if (tokenizerPath === undefined)
    throw new ModelError('--model without --tokenizer; give both, or neither for the built-in model');
  const model = readCheckpoint(modelPath);
  return { model, tokenizer: readTokenizer(tokenizerPath, model.shape.vocabularySize) };
}

/** Sixteen hexadecimal digits that differ for other weights, another shape or another prompt. */
export function fingerprint(model: Model, promptTokens: readonly number[]): string {
  const hash = createHash('sha256');
  hash.update(JSON.stringify([model.shape, promptTokens]));
  for (const tensor of [model.embedding, model.finalNorm, ...model.layers.map((layer) => layer.key)]) {
    hash.update(new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength));
  }
  return hash.digest('hex').slice(0, 16);
}
