/** Whether two runs wrote the same, and if not, from where on. */
import type { ElementType } from '../../spec/element-type.ts';
import { createCpuBackend } from './cpu-backend.ts';
import { type DecodedToken, decodeGreedily } from './decode.ts';
import { createMemoryAttention } from './memory-attention.ts';
import type { LoadedModel } from './source.ts';

/** Tokens of a run of its own with attention in memory and KV rounded to `elementType`. */
export async function decodeInMemory(
  { model, tokenizer }: LoadedModel,
  prompt: Uint8Array,
  stepCount: number,
  elementType: ElementType,
): Promise<DecodedToken[]> {
  const attention = createMemoryAttention(model.shape, elementType);
  const tokens: DecodedToken[] = [];
  const modules = { model, tokenizer, backend: createCpuBackend(model), attention };
  for await (const token of decodeGreedily(prompt, stepCount, modules)) tokens.push(token);
  return tokens;
}

export interface Comparison {
  /** What it was compared with: "attention in memory, f32". */
  readonly against: string;
  readonly tokenCount: number;
  /** null: all equal. A run that ends early differs where it ends. */
  readonly firstDifference: null | {
    /** Position of the token that differs; BOS is at 0. */
    readonly position: number;
    /** Texts; "" where that run has no token. */
    readonly token: string;
    readonly expected: string;
  };
}

export function compareTokens(
  against: string,
  tokens: readonly DecodedToken[],
  expected: readonly DecodedToken[],
): Comparison {
  const length = Math.max(tokens.length, expected.length);
  for (let i = 0; i < length; i++) {
    if (tokens[i]?.token === expected[i]?.token) continue;
    const text = (token: DecodedToken | undefined): string => (token ? Buffer.from(token.bytes).toString('utf8') : '');
    const firstDifference = { position: i + 1, token: text(tokens[i]), expected: text(expected[i]) };
    return { against, tokenCount: length, firstDifference };
  }
  return { against, tokenCount: length, firstDifference: null };
}

export function comparisonText({ against, tokenCount, firstDifference }: Comparison): string {
  if (firstDifference === null) return `all ${tokenCount} tokens equal those of ${against}`;
  const { position, token, expected } = firstDifference;
  const texts = `${JSON.stringify(token)} instead of ${JSON.stringify(expected)}`;
  return `first token that differs from ${against}: token ${position}, ${texts}`;
}
