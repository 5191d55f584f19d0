/** Greedy decoding, with steps counted and text printed as the reference program does. */
import type { DecodeAttention } from './attention.ts';
import type { DecoderBackend } from './backend.ts';
import type { Model } from './checkpoint.ts';
import { BOS_TOKEN, type Tokenizer } from './tokenizer.ts';

export interface DecodeModules {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  readonly backend: DecoderBackend;
  readonly attention: DecodeAttention;
}

export interface DecodedToken {
  /** Position of the token that was run; `token` is the one after it. */
  readonly position: number;
  readonly token: number;
  /** What the reference program prints for it; may be empty. */
  readonly bytes: Uint8Array;
}

/** Steps that will be run: as asked, at most the model's context; 0 asks for all of it. */
export function stepCountOf(model: Model, stepCount: number): number {
  const { contextLength } = model.shape;
  return stepCount === 0 ? contextLength : Math.min(stepCount, contextLength);
}

/**
 * Runs one token a step, from BOS through the prompt and on with the most probable token, `stepCount` steps in all
 * (the prompt's count too), and yields each next token. Ends early where that token is BOS, which ends a text.
 */
export async function* decodeGreedily(
  prompt: Uint8Array,
  stepCount: number,
  modules: DecodeModules,
): AsyncGenerator<DecodedToken> {
  const { model, tokenizer } = modules;
  const promptTokens = tokenizer.encode(prompt);
  const steps = stepCountOf(model, stepCount);
  let token = BOS_TOKEN;
  for (let position = 0; position < steps; position++) {
    const forced = promptTokens[position + 1];
    const next = await runStep(token, position, forced, modules);
    if (next === BOS_TOKEN) return;
    yield { position, token: next, bytes: tokenizer.decode(token, next) };
    token = next;
  }
}

/** One token through every layer. The classifier is left out where the prompt says what comes next. */
async function runStep(
  token: number,
  position: number,
  forced: number | undefined,
  { model, backend, attention }: DecodeModules,
): Promise<number> {
  await backend.begin(token, position);
  for (let layer = 0; layer < model.shape.layerCount; layer++) {
    const { query, key, value } = await backend.project(layer);
    await backend.finish(layer, await attention.step(layer, position, query, key, value));
  }
  return forced ?? argmax(await backend.logits());
}

/** The first of the largest. */
function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) {
    if (logits[i]! > logits[best]!) best = i;
  }
  return best;
}
