// Merges partials in chunk order; a chunk whose maximum is -Infinity saw nothing and is left out.
import { convertFloats } from './convert';
import { floatBytes, loadSome, TYPE_F32 } from './elements';
import { claimSlot, releaseSlot } from './layout';
import { exponentialOf } from './math';

export function merge(job: usize): i32 {
  const queryCount = load<u32>(job), headDim = load<u32>(job, 4), outputType = load<u32>(job, 20);
  const outputRows = <usize>load<u32>(job, 24), output = <usize>load<u32>(job, 28);
  const statistics = <usize>load<u32>(job, 32);
  if (headDim - 1 >= 256 || outputType - 1 >= 3) return 1;
  const recordBytes = 8 + (<usize>headDim << 2);
  const scratch = claimSlot();
  for (let query: u32 = 0; query < queryCount; query++) {
    const first = <usize>load<u32>(job, 12) + query * recordBytes;
    const maximum = maximumOf(first, load<u32>(job, 8), load<u32>(job, 16));
    const sum = addChunks(first, load<u32>(job, 8), load<u32>(job, 16), headDim, maximum, scratch);
    const row = <usize>load<u32>(outputRows + (<usize>query << 2));
    const target = output + row * headDim * floatBytes(outputType);
    if (outputType == TYPE_F32) memory.copy(target, scratch, headDim * 4);
    else convertFloats(scratch, TYPE_F32, target, outputType, headDim);
    if (statistics != 0) {
      store<f32>(statistics + (row << 3), maximum);
      store<f32>(statistics + (row << 3), maximum == -Infinity ? maximum : maximum + Mathf.log(sum), 4);
    }
  }
  releaseSlot();
  return 0;
}

/** NaN if any chunk's is. */
function maximumOf(first: usize, chunkCount: u32, stride: usize): f32 {
  let maximum: f32 = -Infinity;
  for (let chunk: u32 = 0; chunk < chunkCount; chunk++) maximum = max(maximum, load<f32>(first + chunk * stride));
  return maximum;
}

/** Fills `target` with the row's output and gives the sum of its weights. */
function addChunks(first: usize, chunkCount: u32, stride: usize, headDim: u32, maximum: f32, target: usize): f32 {
  memory.fill(target, 0, <usize>headDim << 2);
  let sum: f32 = 0;
  if (maximum == -Infinity) return sum;
  for (let chunk: u32 = 0; chunk < chunkCount; chunk++) {
    const record = first + chunk * stride;
    const chunkMaximum = load<f32>(record);
    if (chunkMaximum == -Infinity) continue;
    const factor = exponentialOf(chunkMaximum - maximum);
    sum += load<f32>(record, 4) * factor;
    for (let d: u32 = 0; d < headDim; d += 4) {
      const at = <usize>d << 2;
      const left = headDim - d;
      const weighted = left >= 4 ? v128.load(record + at, 8) : loadSome(record + at + 8, left);
      // The scratch has room for whole vectors.
      v128.store(target + at, f32x4.add(v128.load(target + at), f32x4.mul(weighted, f32x4.splat(factor))));
    }
  }
  for (let d: u32 = 0; d < headDim; d += 4) {
    const at = target + (<usize>d << 2);
    v128.store(at, f32x4.div(v128.load(at), f32x4.splat(sum)));
  }
  return sum;
}
