/** Attention in float64, straight from its definition; shares no code with the kernels. */
import { errorBudget, integerBudget, outputRounding } from '../../daemon/kernels/error-budget.ts';
import { type ElementType, elementTypes, isQuantised } from '../../spec/element-type.ts';
import type { AttentionCase } from './cases.ts';
import { type StoredRows, storedRows } from './stored-rows.ts';

export interface QueryBounds {
  readonly start: number;
  readonly end: number;
}

/** What one query row gives, with the error allowed in each number. */
export interface OracleRow {
  readonly output: Float64Array;
  readonly outputError: Float64Array;
  readonly maximum: number;
  readonly maximumError: number;
  readonly logSumExp: number;
  readonly logSumExpError: number;
}

/** float32 throughout; integer dot products on quantised rows; those with fewer bits for queries, and bf16 dot products. */
export type Arithmetic = 'float' | 'integer' | 'fast';

const known = new Map<Arithmetic, WeakMap<AttentionCase, OracleRow[]>>(
  (['float', 'integer', 'fast'] as const).map((arithmetic) => [arithmetic, new WeakMap()]),
);

/** Which errors a kernel set may make. */
export const arithmeticOf = ({ isa }: { readonly isa: string }): Arithmetic =>
  isa === 'avx512fast' ? 'fast' : isa === 'avx512dp' ? 'integer' : 'float';

/** Computed once for each problem, with the errors of `arithmetic`. */
export function oracle(problem: AttentionCase, arithmetic: Arithmetic = 'float'): OracleRow[] {
  const cache = known.get(arithmetic)!;
  let rows = cache.get(problem);
  if (rows === undefined) {
    const keys = storedRows(problem.typeK, problem.keys, problem.headDimK);
    const values = storedRows(problem.typeV, problem.values, problem.headDimV);
    rows = problem.bounds.map((bounds, row) => oracleRow(problem, { keys, values, arithmetic }, bounds, row));
    cache.set(problem, rows);
  }
  return rows;
}

/** What a query's integers may move its logit with a key by. */
function integerLogitError(
  problem: AttentionCase,
  query: Float32Array,
  { keys, arithmetic }: { readonly keys: StoredRows; readonly arithmetic: Arithmetic },
  token: number,
): number {
  const { typeK, headDimK } = problem;
  if (!isQuantised(typeK)) return 0;
  const queryLargest = (arithmetic === 'fast' ? integerBudget.fastQueryLargest : integerBudget.queryLargest)[typeK];
  const largestInteger = 2 ** elementTypes[typeK].bits - 1;
  let error = 0;
  for (let first = 0; first < headDimK; first += 64) {
    let largest = 0;
    let reach = 0;
    for (let d = first; d < Math.min(headDimK, first + 64); d++) {
      largest = Math.max(largest, Math.abs(query[d]!));
      const at = token * headDimK + d;
      reach += Math.abs(keys.values[at]! - keys.minima[at]! - (keys.scales[at]! * largestInteger) / 2);
    }
    error += (largest / (2 * queryLargest)) * reach;
  }
  return Math.abs(problem.scale) * error;
}

/** What the integer of a weight may move an output by, in steps of an element of V times the largest weight. */
const stepsOff = (typeV: ElementType): number =>
  isQuantised(typeV) ? (2 ** elementTypes[typeV].bits - 1) / (2 * integerBudget.weightLargest[typeV]) : 0;

/** What rounding is relative to: integer dot products take an element apart into its minimum and the rest. */
const sizeOf = ({ values, minima }: StoredRows, at: number, isInteger: boolean): number =>
  isInteger ? Math.abs(minima[at]!) + Math.abs(values[at]! - minima[at]!) : Math.abs(values[at]!);

function oracleRow(
  problem: AttentionCase,
  { keys, values, arithmetic }: { keys: StoredRows; values: StoredRows; arithmetic: Arithmetic },
  bounds: QueryBounds,
  row: number,
): OracleRow {
  const { headDimK, headDimV, softCap } = problem;
  const isInteger = arithmetic !== 'float';
  const logits: number[] = [];
  const tokens: number[] = [];
  let reach = 0;
  let integerError = 0;
  for (let t = 0; t < problem.tokenCount; t++) {
    const position = problem.firstToken + t;
    if (!(position < bounds.end && (position >= bounds.start || position < problem.sinkCount))) continue;
    let dot = 0;
    let size = 0;
    for (let d = 0; d < headDimK; d++) {
      const query = problem.queries[row * headDimK + d]!;
      dot += query * keys.values[t * headDimK + d]!;
      size += Math.abs(query) * sizeOf(keys, t * headDimK + d, isInteger);
    }
    if (isInteger) {
      const queries = problem.queries.subarray(row * headDimK, (row + 1) * headDimK);
      integerError = Math.max(integerError, integerLogitError(problem, queries, { keys, arithmetic }, t));
    }
    const scaled = Math.fround(problem.scale) * dot;
    reach = Math.max(reach, Math.abs(problem.scale) * size);
    tokens.push(t);
    logits.push(softCap > 0 ? softCap * Math.tanh(scaled / softCap) : scaled);
  }
  const output = new Float64Array(headDimV);
  const outputError = new Float64Array(headDimV);
  const maximum = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - maximum));
  const sum = weights.reduce((a, b) => a + b, 0);
  const { epsilon } = errorBudget;
  const isBrain = arithmetic === 'fast' && problem.typeK === 'bf16';
  const logitError =
    epsilon * (errorBudget.logit * reach + errorBudget.softCap * softCap) +
    integerError +
    (isBrain ? integerBudget.fastQueryRounding * reach : 0);
  const softmaxError = epsilon * (errorBudget.softmax + Math.sqrt(tokens.length));
  const rounding = outputRounding[problem.outputType];
  for (let d = 0; d < headDimV; d++) {
    let size = 0;
    let largest = 0;
    let step = 0;
    tokens.forEach((t, i) => {
      const at = t * headDimV + d;
      const weight = weights[i]! / sum;
      output[d]! += weight * values.values[at]!;
      size += weight * sizeOf(values, at, isInteger);
      largest = Math.max(largest, Math.abs(values.values[at]!));
      step = Math.max(step, weight * values.scales[at]!);
    });
    const computed =
      (Math.expm1(2 * logitError) + softmaxError) * size +
      tokens.length * errorBudget.smallestWeight * largest +
      (isInteger ? tokens.length * step * stepsOff(problem.typeV) : 0);
    outputError[d] = computed + rounding.relative * (Math.abs(output[d]!) + computed) + rounding.absolute;
  }
  const logSumExp = tokens.length === 0 ? Number.NEGATIVE_INFINITY : maximum + Math.log(sum);
  return {
    output,
    outputError,
    maximum,
    logSumExp,
    maximumError: logitError + epsilon * Math.abs(maximum),
    logSumExpError: logitError + softmaxError + epsilon * Math.abs(logSumExp),
  };
}
