import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

/** The numbers in attention.md, computed by the formula that stands above them. */
test('the example in attention.md follows from its formula', () => {
  const keys: number[][] = [0, 1].map((hot) => Array.from({ length: 8 }, (_, d) => (d === hot ? 1 : 0)));
  const values = [Array.from({ length: 8 }, (_, d) => d + 1), Array.from({ length: 8 }, (_, d) => 8 - d)];
  const query = [0, 1, 0, 0, 0, 0, 0, 0];
  const logits = keys.map((key) => key.reduce((sum, k, d) => sum + k * (query[d] ?? 0), 0));
  const maximum = Math.max(...logits);
  const sum = logits.reduce((total, x) => total + Math.exp(x - maximum), 0);
  const weights = logits.map((x) => Math.exp(x - maximum) / sum);
  const output = Array.from({ length: 8 }, (_, d) =>
    weights.reduce((total, weight, t) => total + weight * (values[t]?.[d] ?? 0), 0),
  );
  const numbers = [...weights, ...output, maximum + Math.log(sum)].map((value) => value.toFixed(6));
  const page = readFileSync(new URL('../../../spec/attention.md', import.meta.url), 'utf8').replaceAll(/\s+/g, ' ');
  const start = page.indexOf('With q = (0, 1, 0, ...)');
  const example = page.slice(start, page.indexOf('## Merging'));
  assert.deepEqual(example.match(/\d+\.\d{6}/g), numbers);
});
