/** Attention in float64, straight from its definition; shares no code with the kernels. */
import { errorBudget, outputRounding } from '../../daemon/kernels/error-budget.ts';
import type { ElementType } from '../../spec/element-type.ts';
import type { AttentionCase } from './cases.ts';

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

/** The number that a bit pattern stands for. */
export function valueOf(type: ElementType, pattern: number): number {
  const [exponentBits, mantissaBits] = type === 'f32' ? [8, 23] : type === 'f16' ? [5, 10] : [8, 7];
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = Math.floor(pattern / 2 ** (exponentBits + mantissaBits)) % 2 === 1 ? -1 : 1;
  const exponent = Math.floor(pattern / 2 ** mantissaBits) % 2 ** exponentBits;
  const mantissa = pattern % 2 ** mantissaBits;
  if (exponent === 2 ** exponentBits - 1) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias);
}

const known = new WeakMap<AttentionCase, OracleRow[]>();

/** Computed once for each problem. */
export function oracle(problem: AttentionCase): OracleRow[] {
  let rows = known.get(problem);
  if (rows === undefined) {
    const keys = Float64Array.from(problem.keys, (pattern) => valueOf(problem.typeK, pattern));
    const values = Float64Array.from(problem.values, (pattern) => valueOf(problem.typeV, pattern));
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
