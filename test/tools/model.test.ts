import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createBuiltInModel } from '../../tools/model/built-in.ts';
import { type Model, parseCheckpoint, readCheckpoint } from '../../tools/model/checkpoint.ts';
import { createCpuBackend } from '../../tools/model/cpu-backend.ts';
import { decodeGreedily, stepCountOf } from '../../tools/model/decode.ts';
import { createMemoryAttention } from '../../tools/model/memory-attention.ts';
import { parseTokenizer, type Tokenizer } from '../../tools/model/tokenizer.ts';
import { logitsOfText } from './float64-model.ts';
import { checkpointBytes, headerBytes, joined, tinyHeader, tokenizerBytes } from './tiny-model.ts';

const tinyTokenizer = (): Tokenizer => {
  const pieces = [' ', ...'abcdefghijklmnopqrstuvwxyz'].map((text) => ({ text, score: -1 }));
  while (pieces.length < tinyHeader.vocabularySize - 259) pieces.push({ text: `#${pieces.length}`, score: -2 });
  return parseTokenizer(tokenizerBytes(pieces), tinyHeader.vocabularySize, 'tiny');
};

async function tokensOf(model: Model, tokenizer: Tokenizer, prompt: string, steps: number): Promise<number[]> {
  const attention = createMemoryAttention(model.shape, 'f32');
  const modules = { model, tokenizer, backend: createCpuBackend(model), attention };
  const tokens: number[] = [];
  for await (const { token } of decodeGreedily(Buffer.from(prompt), steps, modules)) tokens.push(token);
  return tokens;
}

for (const ownClassifier of [false, true]) {
  test(`logits agree with a float64 model written apart, ${ownClassifier ? 'own' : 'shared'} classifier`, async () => {
    const model = parseCheckpoint(checkpointBytes({ ...tinyHeader, ownClassifier }, 11), 'tiny');
    const backend = createCpuBackend(model);
    const attention = createMemoryAttention(model.shape, 'f32');
    const text = [1, 260, 17, 299, 4, 260, 280, 33, 90, 150];
    const expected = logitsOfText(model, text);
    for (const [position, token] of text.entries()) {
      await backend.begin(token, position);
      for (let layer = 0; layer < model.shape.layerCount; layer++) {
        const { query, key, value } = await backend.project(layer);
        await backend.finish(layer, await attention.step(layer, position, query, key, value));
      }
      const logits = await backend.logits();
      const row = expected[position]!;
      const scale = Math.max(...row.map(Math.abs));
      const worst = Math.max(...row.map((value, i) => Math.abs(value - logits[i]!)));
      assert.ok(worst < 1e-5 * scale, `position ${position}: ${worst} of ${scale}`);
    }
  });
}

test("steps count the prompt's tokens too; 0 and too many mean the whole context", async () => {
  const model = parseCheckpoint(checkpointBytes(tinyHeader, 5), 'tiny');
  const tokenizer = tinyTokenizer();
  assert.equal(stepCountOf(model, 0), 32);
  assert.equal(stepCountOf(model, 33), 32);
  assert.equal(stepCountOf(model, 3), 3);
  const prompt = tokenizer.encode(Buffer.from('abcd'));
  assert.deepEqual(await tokensOf(model, tokenizer, 'abcd', 3), prompt.slice(1, 4));
  const longer = await tokensOf(model, tokenizer, 'abcd', 12);
  assert.deepEqual(longer.slice(0, prompt.length - 1), prompt.slice(1));
});

test('a text ends before BOS', async () => {
  const model = parseCheckpoint(checkpointBytes(tinyHeader, 5), 'tiny');
  const tokenizer = tinyTokenizer();
  const backend = { ...facade(createCpuBackend(model)), logits: bosLogits };
  const modules = { model, tokenizer, backend, attention: createMemoryAttention(model.shape, 'f32') };
  const tokens: number[] = [];
  for await (const { token } of decodeGreedily(Buffer.from('ab'), 20, modules)) tokens.push(token);
  assert.deepEqual(tokens, tokenizer.encode(Buffer.from('ab')).slice(1));
});

function facade(backend: ReturnType<typeof createCpuBackend>): ReturnType<typeof createCpuBackend> {
  return {
    name: backend.name,
    begin: (token, position) => backend.begin(token, position),
    project: (layer) => backend.project(layer),
    finish: (layer, attention) => backend.finish(layer, attention),
    logits: () => backend.logits(),
  };
}

function bosLogits(): Float32Array {
  const logits = new Float32Array(tinyHeader.vocabularySize);
  logits[1] = 1;
  return logits;
}

test('files that are no model are refused, with the value and what is allowed', () => {
  const good = checkpointBytes(tinyHeader, 1);
  const refused = (bytes: Uint8Array<ArrayBuffer>, message: RegExp) =>
    assert.throws(() => parseCheckpoint(bytes, 'm.bin'), { name: 'ModelError', message });
  const withHeader = (change: Partial<typeof tinyHeader>) =>
    joined(headerBytes({ ...tinyHeader, ...change }), good.subarray(28));
  refused(good.slice(0, 20), /model m.bin: truncated: 20 bytes, the header alone has 28/);
  refused(good.slice(0, good.length - 4), /truncated: \d+ bytes, its header .* asks for \d+/);
  refused(joined(good, Uint8Array.of(0, 0, 0, 0)), /too long/);
  refused(withHeader({ dim: 0 }), /dim 0; 1 to 65536 is allowed/);
  refused(withHeader({ dim: 2 ** 31 - 1 }), /dim 2147483647; 1 to 65536/);
  refused(withHeader({ layerCount: -3 }), /n_layers -3; 1 to 512/);
  refused(withHeader({ headCount: 3 }), /dim 16 is not a multiple of n_heads 3/);
  refused(withHeader({ headCount: 8, kvHeadCount: 3 }), /n_heads 8 is not a multiple of n_kv_heads 3/);
  refused(withHeader({ headCount: 16, kvHeadCount: 2 }), /dim \/ n_heads is 1; .* even/);
  refused(withHeader({ contextLength: 0 }), /seq_len 0/);
  refused(withHeader({ vocabularySize: 0 }), /vocab_size 0/);
  const versioned = good.slice();
  new DataView(versioned.buffer).setUint32(0, 0x616b3432, true);
  new DataView(versioned.buffer).setUint32(4, 2, true);
  refused(versioned, /checkpoint version 2; only version 0/);
});

test('paths that cannot be read are named', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-model-'));
  try {
    const path = join(folder, 'm.bin');
    assert.throws(() => readCheckpoint(path), { name: 'ModelError', message: `model ${path}: no such file` });
    assert.throws(() => readCheckpoint(folder), { message: `model ${folder}: not a regular file` });
    writeFileSync(path, checkpointBytes(tinyHeader, 1));
    assert.equal(readCheckpoint(path).shape.headDim, 4);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the built-in model writes the same text every time, and does not circle', async () => {
  const { model, tokenizer } = createBuiltInModel();
  const tokens = await tokensOf(model, tokenizer, 'the drive', 96);
  const text = tokens.map((token, i) => Buffer.from(tokenizer.decode(tokens[i - 1] ?? 1, token)).toString()).join('');
  assert.equal(text.slice(0, 60), 'the drive noshe she fuvi thi ni lunepa zu nai sho koshu te r');
  const fourGrams = new Set(tokens.map((_, i) => tokens.slice(i, i + 4).join()));
  assert.ok(fourGrams.size > 80, `${fourGrams.size} different runs of four tokens`);
});
