import assert from 'node:assert/strict';
import { test } from 'node:test';
import { floatTypeNames, type FloatType } from '../../spec/element-type.ts';
import { patternOf, randomCase, type AttentionCase } from './cases.ts';
import { kernelsUnderTest, runCase } from './harness.ts';

const { sets, missing } = kernelsUnderTest();
for (const what of missing) test(`NaN and infinity by ${what}`, { skip: `NOT TESTED: ${what}` });

const infinityOf = (type: FloatType): number => ({ f32: 0x7f80_0000, f16: 0x7c00, bf16: 0x7f80 })[type];
const nanOf = (type: FloatType): number => ({ f32: 0x7fc0_0001, f16: 0x7e01, bf16: 0x7fc1 })[type];
const signOf = (type: FloatType): number => ({ f32: 0x8000_0000, f16: 0x8000, bf16: 0x8000 })[type];

const TOKENS = 100;
const DIM = 37;

interface Rows {
  readonly headCount: number;
  /** Several query tokens: some rows don't see the last tokens. */
  readonly queryTokenCount: number;
  readonly dim: number;
}

/** Odd and even tiles, and one row alone at dimensions that kernels may treat apart. */
const everyRows: readonly Rows[] = [
  { headCount: 1, queryTokenCount: 3, dim: DIM },
  { headCount: 3, queryTokenCount: 3, dim: DIM },
  { headCount: 1, queryTokenCount: 1, dim: 64 },
  { headCount: 1, queryTokenCount: 1, dim: 128 },
];

function plainCase(type: FloatType, rows: Rows, seed = 11): AttentionCase {
  return randomCase(seed, {
    headDimK: rows.dim,
    headDimV: rows.dim,
    typeK: type,
    typeV: type,
    outputType: 'f32',
    rowCount: rows.headCount,
    queryTokenCount: rows.queryTokenCount,
    tokenCount: TOKENS,
    window: 0,
    softCap: 0,
    magnitude: 1,
    frameTokens: 30,
  });
}

interface Change {
  readonly token: number;
  readonly element: number;
  readonly pattern: number;
}

function withKeys(problem: AttentionCase, ...changes: Change[]): AttentionCase {
  const keys = problem.keys.slice();
  for (const { token, element, pattern } of changes) keys[token * problem.headDimK + element] = pattern;
  return { ...problem, keys };
}

function withValues(problem: AttentionCase, ...changes: Change[]): AttentionCase {
  const values = problem.values.slice();
  for (const { token, element, pattern } of changes) values[token * problem.headDimV + element] = pattern;
  return { ...problem, values };
}

const seesToken = (problem: AttentionCase, row: number, token: number): boolean =>
  problem.firstToken + token < problem.bounds[row]!.end;

for (const set of sets) {
  for (const type of floatTypeNames) {
    for (const rows of everyRows) {
      const problem = plainCase(type, rows);
      const { dim } = rows;
      const plain = (): ReturnType<typeof runCase> => runCase(set, problem);
      const name = `${set.label} ${type} ${rows.headCount} heads, ${rows.queryTokenCount} tokens, dimension ${dim}`;

      test(`${name}: a NaN key makes the rows that see it NaN, and no other`, () => {
        const expected = plain();
        for (const token of [0, 63, TOKENS - 2, TOKENS - 1]) {
          const changed = withKeys(problem, { token, element: dim - 1, pattern: nanOf(type) });
          for (const chunkCount of [1, 2]) {
            runCase(set, changed, chunkCount).forEach((row, i) => {
              if (!seesToken(problem, i, token)) {
                if (chunkCount === 1) assert.deepEqual(row, expected[i]);
                return;
              }
              assert.ok(row.output.every(Number.isNaN), `row ${i} sees token ${token}`);
              assert.ok(Number.isNaN(row.maximum) && Number.isNaN(row.logSumExp));
            });
          }
        }
      });

      test(`${name}: a NaN value makes its column NaN in the rows that see it, and nothing else`, () => {
        const expected = plain();
        for (const [token, element] of [
          [0, 0],
          [64, 17],
          [TOKENS - 1, dim - 1],
          [TOKENS - 2, 32],
        ] as const) {
          const changed = withValues(problem, { token, element, pattern: nanOf(type) });
          runCase(set, changed).forEach((row, i) => {
            const wanted = expected[i]!.output.slice();
            if (seesToken(problem, i, token)) wanted[element] = Number.NaN;
            assert.deepEqual(row.output, wanted);
            assert.equal(row.maximum, expected[i]!.maximum);
            assert.equal(row.logSumExp, expected[i]!.logSumExp);
          });
        }
      });

      test(`${name}: an infinite value makes its column infinite; two of unlike sign NaN`, () => {
        const plus = { token: 5, element: 3, pattern: infinityOf(type) };
        const minus = { token: 70, element: 3, pattern: infinityOf(type) + signOf(type) };
        for (const row of runCase(set, withValues(problem, plus))) {
          assert.equal(row.output[3], Number.POSITIVE_INFINITY);
          assert.ok(Number.isFinite(row.output[2]) && Number.isFinite(row.output[4]));
        }
        for (const row of runCase(set, withValues(problem, minus))) {
          assert.equal(row.output[3], Number.NEGATIVE_INFINITY);
        }
        for (const row of runCase(set, withValues(problem, plus, minus))) assert.ok(Number.isNaN(row.output[3]));
      });

      test(`${name}: an infinite key weighs nothing or makes the row NaN, by the query's sign`, () => {
        const token = 40;
        const changed = withKeys(problem, { token, element: 8, pattern: infinityOf(type) });
        const without = {
          ...changed,
          keys: changed.keys.filter((_, i) => Math.floor(i / dim) !== token),
          values: changed.values.filter((_, i) => Math.floor(i / dim) !== token),
          tokenCount: TOKENS - 1,
          frames: [30, 30, 30, 9],
          bounds: problem.bounds.map(({ start, end }) => ({ start, end: end - 1 })),
        };
        const expected = runCase(set, without);
        // Its value must not matter where it weighs nothing, not even as 0 times NaN.
        const poisonedValue = withValues(changed, { token, element: 2, pattern: nanOf(type) });
        runCase(set, poisonedValue).forEach((row, i) => {
          if (problem.queries[i * dim + 8]! > 0) {
            assert.ok(row.output.every(Number.isNaN));
            assert.ok(Number.isNaN(row.maximum) && Number.isNaN(row.logSumExp));
          } else {
            row.output.forEach((x, d) => {
              assert.ok(Math.abs(x - expected[i]!.output[d]!) < 1e-5, `row ${i} column ${d}: ${x}`);
            });
          }
        });
      });

      test(`${name}: where all logits are -Infinity the query counts as seeing no token`, () => {
        const queries = problem.queries.map((q, i) => (i % dim === 8 ? -Math.abs(q) - 0.1 : q));
        const changes = Array.from({ length: TOKENS }, (_, token) => ({
          token,
          element: 8,
          pattern: infinityOf(type),
        }));
        for (const chunkCount of [1, 3]) {
          for (const row of runCase(set, withKeys({ ...problem, queries }, ...changes), chunkCount)) {
            assert.equal(row.maximum, Number.NEGATIVE_INFINITY);
            assert.equal(row.logSumExp, Number.NEGATIVE_INFINITY);
            assert.ok(row.output.every((x) => x === 0));
          }
        }
      });
    }
  }

  test(`${set.label}: NaN outside a window and beyond the causal bound never shows`, () => {
    const options = {
      headDimK: 64,
      headDimV: 48,
      typeK: 'f16',
      typeV: 'bf16',
      outputType: 'f32',
      rowCount: 5,
      queryTokenCount: 4,
      tokenCount: 160,
      window: 30,
      sinkCount: 3,
      frameTokens: 50,
      softCap: 0,
    } as const;
    const problem = randomCase(21, options);
    const keys = problem.keys.slice();
    const values = problem.values.slice();
    const low = Math.min(...problem.bounds.map((bounds) => bounds.start));
    for (let t = 0; t < problem.tokenCount; t++) {
      const position = problem.firstToken + t;
      if (position < problem.sinkCount || position >= low) continue;
      keys.fill(nanOf('f16'), t * 64, (t + 1) * 64);
      values.fill(nanOf('bf16'), t * 48, (t + 1) * 48);
    }
    const poisoned = { ...problem, keys, values };
    for (const chunkCount of [1, 3]) {
      assert.deepEqual(runCase(set, poisoned, chunkCount), runCase(set, problem, chunkCount));
    }
  });

  test(`${set.label}: rows of a tile don't touch each other`, () => {
    const problem = plainCase('f16', { headCount: 4, queryTokenCount: 3, dim: DIM });
    const queries = problem.queries.slice();
    queries[1 * DIM] = Number.NaN;
    queries[2 * DIM] = 1e30;
    const expected = runCase(set, problem);
    runCase(set, { ...problem, queries }).forEach((row, i) => {
      if (i === 1) assert.ok(row.output.every(Number.isNaN));
      // The large query makes a kernel take another path, which may round another way.
      else if (i !== 2) row.output.forEach((x, d) => assert.ok(Math.abs(x - expected[i]!.output[d]!) < 1e-5));
    });
  });

  test(`${set.label}: subnormal and huge elements are read exactly`, () => {
    const problem = plainCase('f16', { headCount: 1, queryTokenCount: 3, dim: DIM });
    const keys = problem.keys.map((_, i) => (i % DIM === 0 ? 1 + (i % 900) : 0));
    const queries = problem.queries.map((_, i) => (i % DIM === 0 ? 2 ** 24 : 0));
    const rows = runCase(set, { ...problem, keys, queries, scale: 2 ** -10 });
    const largest = (end: number): number =>
      Math.max(...Array.from({ length: end - problem.firstToken }, (_, t) => 1 + ((t * DIM) % 900)));
    rows.forEach((row, i) => assert.equal(row.maximum, largest(problem.bounds[i]!.end) * 2 ** -10));
    const huge = problem.queries.map((_, i) => (i % DIM === 0 ? 2 ** 100 : 0));
    const one = problem.keys.map((_, i) => (i % DIM === 0 ? patternOf('f16', 1.5) : 0));
    for (const row of runCase(set, { ...problem, keys: one, queries: huge, scale: 2 ** -100 })) {
      assert.equal(row.maximum, 1.5);
    }
  });
}
