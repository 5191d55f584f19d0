/** Attention jobs over frames, for kernels measured by themselves. */
import type { Arena } from '../../daemon/base/arena.ts';
import { elementTypeOf } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { attendJob, boundsStruct, frameStruct, partialSizeBytes } from '../../daemon/kernels/contract.ts';

export interface Frame {
  readonly kOffset: number;
  readonly vOffset: number;
  /** frameArenas, of both. */
  readonly arena: number;
  readonly tokenCount: number;
}

export interface JobShape {
  readonly queryCount: number;
  readonly headDim: number;
  /** Code, of K and V. */
  readonly elementType: number;
  readonly groupsPerJob: number;
  /** Whether the drive would take all heads together for more than caches hold. */
  readonly isLong: boolean;
}

const F32_BYTES = 4;

/** Frames whose rows follow one another, as one: what the drive gives its kernels where pages lie side by side. */
function joined(frames: readonly Frame[], { elementType, headDim }: JobShape): Frame[] {
  const type = elementTypeOf(elementType);
  if (type === undefined) throw new RangeError(`element type ${elementType}`);
  const rowBytes = rowSizeBytes(type, headDim);
  const result: Frame[] = [];
  for (const frame of frames) {
    const last = result.at(-1);
    const lastBytes = (last?.tokenCount ?? 0) * rowBytes;
    if (last && frame.kOffset === last.kOffset + lastBytes && frame.vOffset === last.vOffset + lastBytes) {
      result[result.length - 1] = { ...last, tokenCount: last.tokenCount + frame.tokenCount };
    } else {
      result.push(frame);
    }
  }
  return result;
}

/** Jobs over one KV head's frames: every query row sees every token. Returns their offsets. */
export function writeJobs(arena: Arena, frames: readonly Frame[], shape: JobShape): number[] {
  const { queryCount, headDim, elementType, groupsPerJob, isLong } = shape;
  const tokenCount = frames.reduce((sum, frame) => sum + frame.tokenCount, 0);
  const queries = arena.allocate(queryCount * headDim * F32_BYTES);
  const rows = new Float32Array(arena.buffer, queries, queryCount * headDim);
  for (let i = 0; i < rows.length; i++) rows[i] = Math.cos(i * 7.77);
  const bounds = arena.allocate(queryCount * boundsStruct.sizeBytes);
  for (let row = 0; row < queryCount; row++) {
    boundsStruct.encode({ start: 0, end: tokenCount }, arena.bytes, bounds + row * boundsStruct.sizeBytes);
  }
  const jobs: number[] = [];
  let firstToken = 0;
  for (let first = 0; first < frames.length; first += groupsPerJob) {
    const taken = joined(frames.slice(first, first + groupsPerJob), shape);
    const list = arena.allocate(taken.length * frameStruct.sizeBytes);
    taken.forEach(({ kOffset, vOffset, arena: arenaCode, tokenCount: tokens }, i) => {
      const frame = { kOffset, vOffset, firstToken, tokenCount: tokens, kArena: arenaCode, vArena: arenaCode };
      frameStruct.encode(frame, arena.bytes, list + i * frameStruct.sizeBytes);
      firstToken += tokens;
    });
    const job = arena.allocate(attendJob.sizeBytes);
    const dims = { headDimK: headDim, headDimV: headDim, elementTypeK: elementType, elementTypeV: elementType };
    attendJob.encode(
      {
        ...dims,
        queryCount,
        // As in the drive, where a command walks more than caches hold.
        isReadOnce: isLong ? 1 : 0,
        frameCount: taken.length,
        frames: list,
        queries,
        bounds,
        scale: 1 / Math.sqrt(headDim),
        partials: arena.allocate(queryCount * partialSizeBytes(headDim)),
      },
      arena.bytes,
      job,
    );
    jobs.push(job);
  }
  return jobs;
}
