import { elementTypeOf } from '../../../spec/element-type.ts';
import { rowSizeBytes } from '../../../spec/quantised-row.ts';
import { assert } from '../../base/assert.ts';
import { mergeJob, partialSizeBytes } from '../contract.ts';
import { type MemoryViews, writeRow } from './float-conversion.ts';

/** Merges partials in chunk order. A chunk whose maximum is -Infinity saw nothing and is left out. */
export function merge(views: MemoryViews, jobOffset: number): void {
  const job = mergeJob.decode(views.bytes, jobOffset);
  const recordBytes = partialSizeBytes(job.headDimV);
  const outputType = elementTypeOf(job.outputType);
  assert(outputType !== undefined, 'known element type');
  const rowBytes = rowSizeBytes(outputType, job.headDimV);
  const output = new Float64Array(job.headDimV);
  for (let query = 0; query < job.queryCount; query++) {
    const first = job.partials + query * recordBytes;
    const records = Array.from(
      { length: job.chunkCount },
      (_, chunk) => (first + chunk * job.chunkStrideBytes) / 4,
    ).filter((record) => views.f32[record] !== Number.NEGATIVE_INFINITY);
    // Math.max gives NaN if any of them is NaN: a poisoned chunk poisons the row.
    const maximum = Math.max(...records.map((record) => views.f32[record]!));
    let sum = 0;
    output.fill(0);
    for (const record of records) {
      const factor = Math.exp(views.f32[record]! - maximum);
      sum += factor * views.f32[record + 1]!;
      for (let d = 0; d < output.length; d++) output[d]! += factor * views.f32[record + 2 + d]!;
    }
    if (records.length > 0) for (let d = 0; d < output.length; d++) output[d]! /= sum;
    const row = views.u32[job.outputRows / 4 + query]!;
    writeRow(views, outputType, job.output + row * rowBytes, Float32Array.from(output));
    if (job.statistics !== 0) {
      views.f32[job.statistics / 4 + row * 2] = maximum;
      views.f32[job.statistics / 4 + row * 2 + 1] = maximum + Math.log(sum);
    }
  }
}
