import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { f16ToF32 } from '../../client/index.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { ClientAttention } from '../../tools/bench/client-attention.ts';
import { ComputePool } from '../../tools/bench/compute-pool.ts';
import { randomHalves } from '../../tools/bench/drive-layers.ts';
import { interleave } from '../../tools/bench/measure.ts';
import { createReadSum } from '../../tools/bench/read-probe.ts';
import { compare } from '../../tools/bench/report.ts';
import { summaryLines } from '../../tools/bench/summary.ts';
import type { TargetName } from '../../tools/bench/targets.ts';
import { paintFor } from '../../tools/cli/output.ts';

const WASM_PAGE_BYTES = 65_536;

test('the read probe reads every word of its range and no other', () => {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const words = new BigUint64Array(memory.buffer);
  const readSum = createReadSum(memory);
  for (let i = 0; i < words.length; i++) words[i] = BigInt(i) * 0x1_0000_0001n;
  const sum = (from: number, to: number) => words.subarray(from / 8, to / 8).reduce((total, word) => total + word, 0n);
  for (const [offset, size] of [
    [0, 256],
    [WASM_PAGE_BYTES, WASM_PAGE_BYTES],
    [256, 2 * WASM_PAGE_BYTES - 512],
  ] as const) {
    assert.equal(readSum(offset, size), BigInt.asIntN(64, sum(offset, offset + size)));
  }
  assert.throws(() => readSum(0, 100), RangeError);
});

test('contenders run in turn, the first round does not count', async () => {
  const order: string[] = [];
  const contender = (name: string) => ({
    name,
    prepare: (round: number) => void order.push(`prepare ${name}${round}`),
    run: async (round: number) => void order.push(`${name}${round}`),
  });
  const measured = await interleave(2, [contender('a'), contender('b')]);
  assert.deepEqual(
    order.filter((entry) => !entry.startsWith('prepare')),
    ['a0', 'b0', 'a1', 'b1', 'a2', 'b2'],
  );
  assert.equal(order[0], 'prepare a0');
  assert.equal(measured.get('a')?.samples.length, 2);
});

test('a line has a ratio only where there is something to compare with', () => {
  const line = { bench: 'x', case: 'y', metric: 'z', value: 3, unit: 'GB/s', samples: 5 };
  assert.deepEqual(compare(line, { name: 'w', value: 4 }), {
    ...line,
    baseline: 'w',
    baselineValue: 4,
    ratio: 0.75,
    target: null,
  });
  assert.deepEqual(compare(line), { ...line, baseline: null, baselineValue: null, ratio: null, target: null });
});

test('a summary shows the worst case of each target, on the right side of its bound', () => {
  const paint = paintFor(process.stdout);
  const line = (target: TargetName, ratio: number | null) => ({ target, ratio });
  const lines = summaryLines(
    [line('append', 0.4), line('int8', 1.9), line('int8', 1.7), line('attendSmall', 1.2), line('attendSmall', null)],
    paint,
  );
  assert.deepEqual(
    lines.map((text) => text.replace(/^ +.*?([█·│]+)/, '$1')),
    [
      '████████████████████│█·······  ✔  1.70  ≥ 1.60 (best of 2 cases: 1.90)',
      '████████████████····│········  ✔  1.20  ≤ 1.50',
      '████████████████····│········  ✘  0.40  ≥ 0.50',
    ],
  );
});

test('the client attends as attention is defined, each KV head with its query heads, on two threads', async () => {
  const shape = { name: 'small', queryHeadCount: 6, kvHeadCount: 3, headDim: 16, tokenCount: 33, layerCount: 1 };
  const arena = createArena(1 << 20);
  const pool = new ComputePool(2, { memory: arena.memory, kernels: 'reference' });
  try {
    const attention = new ClientAttention(shape, arena, pool);
    const halves = randomHalves(attention.layer.byteLength / 2, 9);
    attention.layer.set(new Uint8Array(halves.buffer));
    for (let i = 0; i < attention.queries.length; i++) attention.queries[i] = Math.cos(i);
    await attention.run();
    const rows = f16ToF32(halves);
    const streamLength = shape.tokenCount * shape.headDim;
    for (let head = 0; head < shape.queryHeadCount; head++) {
      const kvHead = Math.floor(head / 2);
      const query = attention.queries.subarray(head * shape.headDim, (head + 1) * shape.headDim);
      const expected = attend(
        query,
        rows.subarray(kvHead * streamLength),
        rows.subarray((3 + kvHead) * streamLength),
        shape,
      );
      for (const [i, value] of expected.entries()) {
        assert.ok(Math.abs(value - attention.output[head * shape.headDim + i]!) < 1e-6, `head ${head}, element ${i}`);
      }
    }
  } finally {
    await pool.close();
  }
});

function attend(
  query: Float32Array,
  keys: Float32Array,
  values: Float32Array,
  { tokenCount, headDim }: { readonly tokenCount: number; readonly headDim: number },
): number[] {
  const weights = Array.from({ length: tokenCount }, (_, token) => {
    const dot = query.reduce((sum, q, i) => sum + q * keys[token * headDim + i]!, 0);
    return Math.exp(dot / Math.sqrt(headDim));
  });
  const total = weights.reduce((a, b) => a + b, 0);
  return Array.from({ length: headDim }, (_, i) =>
    weights.reduce((sum, weight, token) => sum + (weight / total) * values[token * headDim + i]!, 0),
  );
}

interface Line {
  readonly bench: string;
  readonly ratio: number | null;
  readonly value: number;
  readonly unit: string;
}

test('the benchmarks run, quickly, and print a JSON object a line', () => {
  const main = fileURLToPath(new URL('../../tools/bench/main.js', import.meta.url));
  const args = [main, '--quick', '--rounds', '1', '--json'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
  const native = nativeUnavailable() === undefined ? ['kernel'] : [];
  assert.deepEqual(
    [...new Set(lines.map(({ bench }) => bench))],
    [
      ...native,
      'kernel-wasm',
      ...(native.length > 0 ? ['quant', 'attend'] : []),
      'attend-small',
      ...(native.length > 0 ? ['scale', 'fairness'] : []),
      'readback',
      'append',
      ...(native.length > 0 ? ['cold'] : []),
      'block',
      'commands',
      'verify',
      'device',
      'timing',
      'waf',
      'recovery',
    ],
  );
  for (const line of lines) {
    assert.deepEqual(Object.keys(line), [
      'bench',
      'case',
      'metric',
      'value',
      'unit',
      'baseline',
      'baselineValue',
      'ratio',
      'samples',
      'target',
    ]);
    // Nothing need be late, nor stand still.
    assert.ok((line.value > 0 || line.unit === '%' || line.unit === 'ms') && (line.ratio === null || line.ratio > 0));
  }
});
