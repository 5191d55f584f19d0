import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ElementType } from '../../spec/element-type.ts';
import { readCheckpoint } from '../../tools/model/checkpoint.ts';
import { createCpuBackend } from '../../tools/model/cpu-backend.ts';
import { decodeGreedily } from '../../tools/model/decode.ts';
import { createMemoryAttention } from '../../tools/model/memory-attention.ts';
import { readTokenizer } from '../../tools/model/tokenizer.ts';
import { publishedModel, publishedModelMissing } from './published-model.ts';

async function textOf(prompt: string, steps: number, elementType: ElementType): Promise<string> {
  const model = readCheckpoint(publishedModel.checkpoint);
  const tokenizer = readTokenizer(publishedModel.tokenizer, model.shape.vocabularySize);
  const attention = createMemoryAttention(model.shape, elementType);
  const modules = { model, tokenizer, backend: createCpuBackend(model), attention };
  const parts: Uint8Array[] = [];
  for await (const { bytes } of decodeGreedily(Buffer.from(prompt), steps, modules)) parts.push(bytes);
  return Buffer.concat(parts).toString();
}

const skip = publishedModelMissing;

for (const elementType of ['f32', 'f16', 'bf16'] as const) {
  test(`the published text, attention in memory, ${elementType}`, { skip }, async () => {
    assert.equal(await textOf('', 200, elementType), publishedModel.text);
  });
}

// What the reference program prints for these prompts in 48 steps.
const others: [string, string][] = [
  ['h€llo 🙂', 'h€llo . He lived to eat space. He had a big bag of candy. He was very happy. He wanted to see wh'],
  [
    'Once upon a time',
    'Once upon a time, there was a little girl named Lily. ' +
      'She loved to play outside in the park. One day, she saw a big, red ball. She wanted to',
  ],
  ['  two  spaces', '  two  spaceship. Anna was very excited. She wanted to see what was inside. She wanted to'],
  ['日本語', 's. Every day, Jack was very excited to go to the park. He was very excited to go'],
  [
    'tab\tnew\nline',
    "tab\tnew\nline was a little boy named Timmy. Timmy loved to play with his toys and run around. One day, Timmy's mom told h",
  ],
  ['<0x41>', '<0x41>. Anna was very pretty. She liked to see all the animals. She had a big box and a s'],
  ['naïve café', 'nave cafés. It was a big, red castle. It was a big, red castle. It was a big, red cast'],
];

for (const [prompt, text] of others) {
  test(`the reference program's text for ${JSON.stringify(prompt)}`, { skip }, async () => {
    assert.equal(await textOf(prompt, 48, 'f32'), text);
  });
}
