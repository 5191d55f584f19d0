/** Outputs of ATTN as they should be: attention in binary64, and how far spec/attention.md lets a drive be off. */
import assert from 'node:assert/strict';
import { elementSizeBytes, elementTypeOf, type FloatType, isQuantised } from '../../../spec/element-type.ts';
import { ALL_TOKENS } from '../../../spec/kv-commands.ts';
import { attendOracle, type OracleRow } from '../../attention/oracle.ts';
import type { AttendEntry, AttendHeader } from './attend-rules.ts';
import { numbersOf, type SequenceModel, type Shape } from './sequence-model.ts';

const CAUSAL = 1;
const STATISTICS = 2;
const EPSILON = 2 ** -23;

export interface ExpectedOutput {
  readonly bytes: number;
  readonly type: FloatType;
  readonly headDimV: number;
  readonly hasStatistics: boolean;
  readonly rows: readonly OracleRow[];
  /** Largest that an element may be off, before it is rounded to its type; undefined: something is not finite. */
  readonly tolerance: number | undefined;
}

/** Bytes of an entry's output: rows, then, from the next multiple of 4 on, two statistics for each. */
export function outputBytes({ outputType, flags }: AttendHeader, rowCount: number, { headDimV }: Shape): number {
  const rows = rowCount * headDimV * elementSizeBytes(elementTypeOf(outputType) as FloatType);
  return (flags & STATISTICS) === 0 ? rows : Math.ceil(rows / 4) * 4 + rowCount * 8;
}

/** More work than an oracle in binary64 is worth: outputs that large are only counted. */
const PRODUCTS_MAX = 400_000;

export function expectOutput(
  header: AttendHeader,
  fields: AttendEntry,
  { shape, layers }: SequenceModel,
  queries: Uint8Array,
): ExpectedOutput {
  const layer = layers[fields.layer]!;
  const { headDimK, headDimV, kvHeadCount } = shape;
  const headCount = fields.queryHeadCount === 0 ? fields.queryHeadsPerKvHead * kvHeadCount : fields.queryHeadCount;
  const rowCount = headCount * fields.queryTokenCount;
  const common = {
    bytes: outputBytes(header, rowCount, shape),
    type: elementTypeOf(header.outputType) as FloatType,
    headDimV,
    hasStatistics: (header.flags & STATISTICS) !== 0,
  };
  const tokenEnd = fields.tokenEnd === ALL_TOKENS ? layer.length : fields.tokenEnd;
  const tokens = tokenEnd - fields.tokenStart;
  if (tokens < 0 || rowCount * tokens * (headDimK + headDimV) > PRODUCTS_MAX) {
    return { ...common, rows: [], tolerance: undefined };
  }
  const q = numbersOf(queries, elementTypeOf(header.queryType)!, rowCount, headDimK);
  const tokenRows = (part: 0 | 1, dim: number): Float32Array => {
    const type = part === 0 ? shape.elementTypeK : shape.elementTypeV;
    return numbersOf(layer.rows(part, fields.tokenStart, tokens), type, tokens * kvHeadCount, dim);
  };
  const k = tokenRows(0, headDimK);
  const v = tokenRows(1, headDimV);
  if (![q, k, v].every((values) => values.every((value) => Math.abs(value) < 1e30))) {
    return { ...common, rows: [], tolerance: undefined };
  }
  const { queryTokenCount, queryHeadsPerKvHead, firstQueryHead, queryPosition, tokenStart } = fields;
  const { slidingWindow, sinkCount, scale, softCap } = header;
  const rows = attendOracle({
    queryTokenCount,
    queryHeadsPerKvHead,
    firstQueryHead,
    queryHeadCount: headCount,
    queryPosition,
    tokenStart,
    tokenEnd,
    causal: (header.flags & CAUSAL) !== 0,
    slidingWindow,
    sinkCount,
    scale,
    softCap,
    headDimK,
    headDimV,
    q: (token, head, dim) => q[(token * headCount + head) * headDimK + dim]!,
    k: (token, head, dim) => k[((token - tokenStart) * kvHeadCount + head) * headDimK + dim]!,
    v: (token, head, dim) => v[((token - tokenStart) * kvHeadCount + head) * headDimV + dim]!,
  });
  const largest = (values: Float32Array): number => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const factor = scale === 0 ? 1 / Math.sqrt(headDimK) : Math.abs(scale);
  const logit = factor * largest(q) * largest(k) * headDimK;
  const relative = EPSILON * (8 * logit + 8 * softCap + 16 + Math.sqrt(tokens)) + quantisedError(shape, logit);
  return { ...common, rows, tolerance: relative > 0.5 ? undefined : relative * largest(v) };
}

/** Of drives that multiply integers where rows are quantised. */
const quantisedError = ({ elementTypeK, elementTypeV }: Shape, logit: number): number =>
  isQuantised(elementTypeK) || isQuantised(elementTypeV) ? 1e-2 * (1 + logit) : 0;

const TYPE_EPSILON: Readonly<Record<FloatType, number>> = { f32: 2 ** -24, f16: 2 ** -11, bf16: 2 ** -8 };

/** Fails unless `bytes` are the output, as near as they must be. */
export function checkOutput(
  { bytes: wanted, type, headDimV, hasStatistics, rows, tolerance }: ExpectedOutput,
  bytes: Uint8Array,
): void {
  assert.equal(bytes.length, wanted, 'bytes of an output');
  if (tolerance === undefined) return;
  const values = numbersOf(bytes.slice(), type, rows.length, headDimV);
  rows.forEach(({ output }, row) => {
    for (let dim = 0; dim < headDimV; dim++) {
      const exact = output[dim]!;
      const got = values[row * headDimV + dim]!;
      // Below its smallest normal number a type is coarser.
      const allowed = tolerance + TYPE_EPSILON[type] * Math.abs(exact) + (type === 'f16' ? 2 ** -24 : 1e-30);
      const isOver = type === 'f16' && Math.abs(exact) > 65_000;
      assert.ok(isOver || Math.abs(got - exact) <= allowed, `output row ${row}, element ${dim}: ${got}, not ${exact}`);
    }
  });
  if (!hasStatistics) return;
  const at = Math.ceil((rows.length * headDimV * elementSizeBytes(type)) / 4) * 4;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  rows.forEach(({ maximum }, row) => {
    const got = view.getFloat32(8 * row, true);
    if (maximum === Number.NEGATIVE_INFINITY) assert.equal(got, maximum, 'the maximum of no token');
    else
      assert.ok(
        Math.abs(got - maximum) <= 1e-3 * (1 + Math.abs(maximum)) + tolerance * 8,
        `maximum ${got}, not ${maximum}`,
      );
  });
}
