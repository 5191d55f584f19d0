import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elementTypeNames, floatTypeNames } from '../../spec/element-type.ts';
import { randomCase, type AttentionCase, type CaseOptions } from './cases.ts';
import { kernelsUnderTest, runCase, type KernelUnderTest } from './harness.ts';
import { arithmeticOf, oracle } from './oracle.ts';

const { sets, missing } = kernelsUnderTest();
for (const what of missing) test(`attention by ${what}`, { skip: `NOT TESTED: ${what}` });

function checkCase(set: KernelUnderTest, problem: AttentionCase, chunkCount = 1): void {
  const results = runCase(set, problem, chunkCount);
  oracle(problem, arithmeticOf(set.kernels)).forEach((expected, row) => {
    const got = results[row]!;
    const where = `${set.label}, ${problem.label}, ${chunkCount} chunks, row ${row}`;
    near(got.maximum, expected.maximum, expected.maximumError, `maximum, ${where}`);
    near(got.logSumExp, expected.logSumExp, expected.logSumExpError, `log-sum-exp, ${where}`);
    got.output.forEach((value, d) => {
      near(value, expected.output[d]!, expected.outputError[d]!, `output ${d}, ${where}`);
    });
  });
}

function near(got: number, expected: number, error: number, what: string): void {
  if (got === expected || Math.abs(got - expected) <= error) return;
  assert.fail(`${what}: ${got}, expected ${expected}, off by ${Math.abs(got - expected)}, allowed ${error}`);
}

const families: Record<string, { count: number; options: CaseOptions }> = {
  'random shapes': { count: 60, options: {} },
  'decode with grouped queries': {
    count: 6,
    options: { headDimK: 128, headDimV: 128, queryTokenCount: 1, rowCount: 4 },
  },
  'one query per head': { count: 6, options: { headDimK: 128, headDimV: 128, queryTokenCount: 1, rowCount: 1 } },
  'logits to 10^4': { count: 10, options: { magnitude: 60, softCap: 0, headDimK: 64 } },
  'soft-cap over large logits': { count: 6, options: { magnitude: 20, softCap: 30 } },
  'a single token': { count: 8, options: { tokenCount: 1 } },
  'windows with sinks': { count: 10, options: { tokenCount: 150, window: 20, sinkCount: 4 } },
  'several query tokens': { count: 8, options: { queryTokenCount: 9, rowCount: 3, tokenCount: 140, window: 0 } },
  'thousands of tokens': {
    count: 3,
    options: { tokenCount: 3000, headDimK: 128, headDimV: 128, rowCount: 4, queryTokenCount: 1 },
  },
  'frames of one token': { count: 4, options: { frameTokens: 1, tokenCount: 90 } },
};

/** Largest share of what storing K and V in a type moved an output by that a precision may move it by. */
const shares = [
  { isa: 'avx512dp', type: 'int8', share: 0.1 },
  { isa: 'avx512dp', type: 'int4', share: 0.1 },
  { isa: 'avx512fast', type: 'int8', share: 1 },
  { isa: 'avx512fast', type: 'int4', share: 0.1 },
  { isa: 'avx512fast', type: 'bf16', share: 0.75 },
] as const;

for (const { isa, type, share } of shares) {
  const fast = sets.find(({ kernels }) => kernels.isa === isa);
  const exact = sets.find(({ kernels }) => kernels.isa === 'avx512');
  const skip = fast === undefined || exact === undefined ? `NOT TESTED: no ${isa} here` : false;
  test(`${isa} moves outputs by ${share} of what storing K and V as ${type} does, or less`, { skip }, () => {
    const options = { headDimK: 128, headDimV: 128, tokenCount: 2000, rowCount: 4, queryTokenCount: 1, magnitude: 1 };
    const problem = randomCase(3, { ...options, typeK: 'f32', typeV: 'f32', outputType: 'f32', window: 0, softCap: 0 });
    const stored = { ...problem, typeK: type, typeV: type, ...(type === 'bf16' && brainPatterns(problem)) };
    const outputOf = (set: KernelUnderTest, of: AttentionCase): number[] =>
      runCase(set, of).flatMap(({ output }) => [...output]);
    const distance = (a: readonly number[], b: readonly number[]): number =>
      Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0));
    const wanted = outputOf(exact!, stored);
    const off = distance(outputOf(fast!, stored), wanted);
    const byStoring = distance(wanted, outputOf(exact!, problem));
    assert.ok(off > 0 && off < share * byStoring, `off by ${off}, storing by ${byStoring}`);
  });
}

/** The problem's f32 keys and values rounded to bf16. */
function brainPatterns({ keys, values }: AttentionCase): Pick<AttentionCase, 'keys' | 'values'> {
  const round = (patterns: Uint32Array): Uint32Array =>
    patterns.map((bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
  return { keys: round(keys), values: round(values) };
}

for (const set of sets) {
  for (const [name, { count, options }] of Object.entries(families)) {
    test(`${set.label}: ${name} are within the error budget`, () => {
      for (let seed = 1; seed <= count; seed++) checkCase(set, randomCase(seed, options));
    });
  }

  test(`${set.label}: head dimensions 8 to 256, each element type`, () => {
    for (let dim = 8; dim <= 256; dim += dim < 40 ? 1 : 13) {
      for (const type of elementTypeNames) {
        const options = { headDimK: dim, headDimV: 264 - dim, typeK: type, typeV: type, tokenCount: 21, rowCount: 7 };
        checkCase(set, randomCase(dim, { ...options, queryTokenCount: 1 }));
      }
    }
  });

  test(`${set.label}: group sizes 1 to 16`, () => {
    for (let rowCount = 1; rowCount <= 16; rowCount++) {
      checkCase(set, randomCase(rowCount, { rowCount, queryTokenCount: 1, tokenCount: 80 }));
    }
  });

  test(`${set.label}: one query row or more than a pass takes, blocks of every length, K and V of one type`, () => {
    for (const type of elementTypeNames) {
      for (const dim of [64, 128]) {
        const options = { headDimK: dim, headDimV: dim, typeK: type, typeV: type, queryTokenCount: 1 };
        for (const tokenCount of [1, 2, 15, 16, 17, 31, 33, 48, 63, 64, 65, 79, 97]) {
          checkCase(set, randomCase(tokenCount, { ...options, tokenCount, rowCount: 1 }));
        }
        checkCase(set, randomCase(7, { ...options, tokenCount: 150, rowCount: 16, queryTokenCount: 9 }));
      }
    }
  });

  test(`${set.label}: whether rows are read again changes no bit of what comes out`, () => {
    for (const typeK of elementTypeNames) {
      for (const rowCount of [1, 4, 7, 65]) {
        const options = {
          headDimK: 128,
          headDimV: 128,
          typeK,
          typeV: typeK,
          queryTokenCount: 1,
          rowCount,
          tokenCount: 300,
        };
        const problem = randomCase(rowCount, options);
        assert.deepEqual(
          runCase(set, { ...problem, isReadOnce: true }),
          runCase(set, problem),
          `${typeK}, ${rowCount} rows`,
        );
      }
    }
  });

  test(`${set.label}: quantised rows of whole groups, with any tile of query rows`, () => {
    for (const type of ['int8', 'int4'] as const) {
      for (const dim of [64, 128, 192, 256]) {
        const options = { headDimK: dim, headDimV: dim, typeK: type, typeV: type, queryTokenCount: 1 };
        for (const rowCount of [1, 2, 4, 7]) {
          for (const tokenCount of [5, 83]) checkCase(set, randomCase(dim, { ...options, rowCount, tokenCount }));
        }
      }
    }
  });

  test(`${set.label}: one query row over frames of hundreds of tokens, blocks of every length, windows`, () => {
    for (const type of floatTypeNames) {
      for (const dim of [64, 128]) {
        const options = { headDimK: dim, headDimV: dim, typeK: type, typeV: type, rowCount: 1, queryTokenCount: 1 };
        for (const tokenCount of [128, 129, 143, 144, 145, 160, 191, 193]) {
          checkCase(set, randomCase(tokenCount, { ...options, tokenCount, frameTokens: 256 }));
        }
        checkCase(set, randomCase(8, { ...options, tokenCount: 500, frameTokens: 300, window: 200, sinkCount: 20 }));
      }
    }
  });

  test(`${set.label}: any split into chunks is within the budget of the whole`, () => {
    for (let seed = 100; seed < 112; seed++) {
      const problem = randomCase(seed, { tokenCount: 200, frameTokens: 16 });
      for (const chunkCount of [1, 2, 5, 13, 14]) checkCase(set, problem, chunkCount);
    }
  });

  test(`${set.label}: a query that sees no token gets zeros`, () => {
    const problem = randomCase(3, { tokenCount: 40, rowCount: 4, queryTokenCount: 1, window: 0 });
    const bounds = [
      { start: 0, end: 0 },
      { start: 90, end: 40 },
      { start: 0, end: 40 },
      { start: 500, end: 600 },
    ];
    const bounded = { ...problem, bounds };
    for (const chunkCount of [1, 3]) {
      const results = runCase(set, bounded, chunkCount);
      for (const row of [0, 1, 3]) {
        assert.equal(results[row]!.maximum, Number.NEGATIVE_INFINITY);
        assert.equal(results[row]!.logSumExp, Number.NEGATIVE_INFINITY);
        assert.ok(results[row]!.output.every((x) => x === 0));
      }
      checkCase(set, bounded, chunkCount);
    }
  });

  test(`${set.label}: no frames at all and no chunks at all give zeros`, () => {
    const problem = { ...randomCase(5, { tokenCount: 4 }), tokenCount: 0, frames: [] };
    for (const chunkCount of [0, 1, 2]) {
      for (const row of runCase(set, problem, chunkCount)) {
        assert.equal(row.maximum, Number.NEGATIVE_INFINITY);
        assert.equal(row.logSumExp, Number.NEGATIVE_INFINITY);
        assert.ok(row.output.every((x) => x === 0));
      }
    }
  });

  test(`${set.label}: the same job gives the same bits`, () => {
    const problem = randomCase(17, { tokenCount: 130 });
    const [first, second] = [runCase(set, problem, 2), runCase(set, problem, 2)];
    assert.deepEqual(first, second);
  });
}
