import { assert } from '../../base/assert.ts';
import { elementTypeOf } from '../../../spec/element-type.ts';
import { rowSizeBytes } from '../../../spec/quantised-row.ts';
import { attendJob, boundsStruct, frameArenas, frameStruct, partialSizeBytes } from '../contract.ts';
import { readRow, type MemoryViews } from './float-conversion.ts';

/** Running softmax of one query row: `weighted` and `sum` are relative to `maximum`. */
interface Row {
  readonly start: number;
  readonly end: number;
  readonly query: Float32Array;
  maximum: number;
  sum: number;
  readonly weighted: Float64Array;
  /** A logit was NaN or +Infinity: everything about this row is NaN. */
  poisoned: boolean;
}

type Job = ReturnType<typeof attendJob.decode>;

/**
 * The contract's formula, token by token. Dot products and sums are binary64, a logit is rounded to binary32 before
 * its exponential: it overflows where the other kernel sets' logits do.
 */
export function attend(views: MemoryViews, jobOffset: number): void {
  const job = attendJob.decode(views.bytes, jobOffset);
  const rows = readRows(views, job);
  const key = new Float32Array(job.headDimK);
  const value = new Float32Array(job.headDimV);
  const typeK = elementTypeOf(job.elementTypeK);
  const typeV = elementTypeOf(job.elementTypeV);
  assert(typeK !== undefined && typeV !== undefined, 'known element types');
  const keyBytes = rowSizeBytes(typeK, job.headDimK);
  const valueBytes = rowSizeBytes(typeV, job.headDimV);
  for (let f = 0; f < job.frameCount; f++) {
    const frame = frameStruct.decode(views.bytes, job.frames + f * frameStruct.sizeBytes);
    assert(frame.kArena === frameArenas.memory && frame.vArena === frameArenas.memory, 'frames lie in the arena');
    for (let t = 0; t < frame.tokenCount; t++) {
      const position = frame.firstToken + t;
      if (!rows.some((row) => sees(row, position, job.sinkCount))) continue;
      readRow(views, typeK, frame.kOffset + t * keyBytes, key);
      readRow(views, typeV, frame.vOffset + t * valueBytes, value);
      for (const row of rows) {
        if (sees(row, position, job.sinkCount)) addToken(row, logitOf(job, row.query, key), value);
      }
    }
  }
  const recordSize = partialSizeBytes(job.headDimV) / 4;
  rows.forEach((row, i) => {
    const at = job.partials / 4 + i * recordSize;
    views.f32[at] = row.poisoned ? Number.NaN : row.maximum;
    views.f32[at + 1] = row.poisoned ? Number.NaN : row.sum;
    for (let d = 0; d < job.headDimV; d++) views.f32[at + 2 + d] = row.poisoned ? Number.NaN : row.weighted[d]!;
  });
}

function readRows(views: MemoryViews, job: Job): Row[] {
  return Array.from({ length: job.queryCount }, (_, i) => {
    const bounds = boundsStruct.decode(views.bytes, job.bounds + i * boundsStruct.sizeBytes);
    const at = job.queries / 4 + i * job.headDimK;
    return {
      start: bounds.start,
      end: bounds.end,
      query: views.f32.slice(at, at + job.headDimK),
      maximum: Number.NEGATIVE_INFINITY,
      sum: 0,
      weighted: new Float64Array(job.headDimV),
      poisoned: false,
    };
  });
}

const sees = (row: Row, position: number, sinkCount: number): boolean =>
  position < row.end && (position >= row.start || position < sinkCount);

function logitOf(job: Job, query: Float32Array, key: Float32Array): number {
  let dot = 0;
  for (let d = 0; d < key.length; d++) dot += query[d]! * key[d]!;
  const logit = Math.fround(job.scale * dot);
  return job.softCap > 0 ? Math.fround(job.softCap * Math.tanh(logit / job.softCap)) : logit;
}

function addToken(row: Row, logit: number, value: Float32Array): void {
  if (Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY) row.poisoned = true;
  if (row.poisoned || logit === Number.NEGATIVE_INFINITY) return;
  const { weighted } = row;
  if (logit > row.maximum) {
    const factor = Math.exp(row.maximum - logit);
    row.sum *= factor;
    // Nothing stands there before the first token, and 0 times nothing is nothing.
    if (row.maximum !== Number.NEGATIVE_INFINITY) for (let d = 0; d < weighted.length; d++) weighted[d]! *= factor;
    row.maximum = logit;
  }
  const weight = Math.exp(logit - row.maximum);
  row.sum += weight;
  for (let d = 0; d < weighted.length; d++) weighted[d]! += weight * value[d]!;
}
