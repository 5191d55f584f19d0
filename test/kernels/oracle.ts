/** Attention in float64, straight from its definition; shares no code with the kernels. */
import { errorBudget, outputRounding } from '../../daemon/kernels/error-budget.ts';
import type { AttentionCase } from './cases.ts';
import { storedRows } from './stored-rows.ts';

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

const known = new WeakMap<AttentionCase, OracleRow[]>();

/** Computed once for each problem. */
export function oracle(problem: AttentionCase): OracleRow[] {
  let rows = known.get(problem);
  if (rows === undefined) {
    const keys = storedRows(problem.typeK, problem.keys, problem.headDimK).values;
    const values = storedRows(problem.typeV, problem.values, problem.headDimV).values;
    rows = problem.bounds.map((bounds, row) => oracleRow(problem, { keys, values }, bounds, row));
    known.set(problem, rows);
  }
  return rows;
}

function oracleRow(
  problem: AttentionCase,
  { keys, values }: { keys: Float64Array; values: Float64Array },
  bounds: QueryBounds,
  row: number,
): OracleRow {
  const { headDimK, headDimV, softCap } = problem;
  const logits: number[] = [];
  const tokens: number[] = [];
  let reach = 0;
  for (let t = 0; t < problem.tokenCount; t++) {
    const position = problem.firstToken + t;
    if (!(position < bounds.end && (position >= bounds.start || position < problem.sinkCount))) continue;
    let dot = 0;
    let size = 0;
    for (let d = 0; d < headDimK; d++) {
      const product = problem.queries[row * headDimK + d]! * keys[t * headDimK + d]!;
      dot += product;
      size += Math.abs(product);
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
  const logitError = epsilon * (errorBudget.logit * reach + errorBudget.softCap * softCap);
  const softmaxError = epsilon * (errorBudget.softmax + Math.sqrt(tokens.length));
  const rounding = outputRounding[problem.outputType];
  for (let d = 0; d < headDimV; d++) {
    let size = 0;
    let largest = 0;
    tokens.forEach((t, i) => {
      const value = values[t * headDimV + d]!;
      output[d]! += (weights[i]! / sum) * value;
      size += (weights[i]! / sum) * Math.abs(value);
      largest = Math.max(largest, Math.abs(value));
    });
    const computed = (2 * logitError + softmaxError) * size + tokens.length * errorBudget.smallestWeight * largest;
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
