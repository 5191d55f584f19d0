/** Attention in the client, over K and V that it holds, with the drive's kernels: what a host without ATTN would do. */
import type { Arena } from '../../daemon/base/arena.ts';
import {
  attendJob,
  boundsStruct,
  frameArenas,
  frameStruct,
  mergeJob,
  partialSizeBytes,
} from '../../daemon/kernels/contract.ts';
import { elementTypes } from '../../spec/element-type.ts';
import type { ComputePool } from './compute-pool.ts';
import { type BenchShape, layerBytes } from './shapes.ts';

const F32_BYTES = 4;
const F16_BYTES = 2;

export class ClientAttention {
  /** Where one layer goes: K as [kvHead][token][headDim] in f16, then V likewise. */
  readonly layer: Uint8Array;
  /** [queryHead][headDim] f32. */
  readonly queries: Float32Array;
  readonly output: Float32Array;
  readonly #pool: ComputePool;
  readonly #attend: number[] = [];
  readonly #merge: number[] = [];

  constructor(shape: BenchShape, arena: Arena, pool: ComputePool) {
    const { queryHeadCount, kvHeadCount, headDim } = shape;
    this.#pool = pool;
    const layer = arena.allocate(layerBytes(shape));
    const queries = arena.allocate(queryHeadCount * headDim * F32_BYTES);
    const output = arena.allocate(queryHeadCount * headDim * F32_BYTES);
    this.layer = arena.view(layer, layerBytes(shape));
    this.queries = new Float32Array(arena.buffer, queries, queryHeadCount * headDim);
    this.output = new Float32Array(arena.buffer, output, queryHeadCount * headDim);
    for (let head = 0; head < kvHeadCount; head++) this.#addHead(shape, arena, { head, layer, queries, output });
  }

  #addHead(
    shape: BenchShape,
    arena: Arena,
    at: { readonly head: number; readonly layer: number; readonly queries: number; readonly output: number },
  ): void {
    const { queryHeadCount, kvHeadCount, headDim, tokenCount } = shape;
    const queryCount = queryHeadCount / kvHeadCount;
    const streamBytes = tokenCount * headDim * F16_BYTES;
    const place = (sizeBytes: number): number => arena.allocate(sizeBytes);
    const frames = place(frameStruct.sizeBytes);
    frameStruct.encode(
      {
        kOffset: at.layer + at.head * streamBytes,
        vOffset: at.layer + (kvHeadCount + at.head) * streamBytes,
        firstToken: 0,
        tokenCount,
        kArena: frameArenas.memory,
        vArena: frameArenas.memory,
      },
      arena.bytes,
      frames,
    );
    const bounds = place(queryCount * boundsStruct.sizeBytes);
    const outputRows = place(queryCount * 4);
    for (let i = 0; i < queryCount; i++) {
      boundsStruct.encode({ start: 0, end: tokenCount }, arena.bytes, bounds + i * boundsStruct.sizeBytes);
      new Uint32Array(arena.buffer, outputRows, queryCount)[i] = at.head * queryCount + i;
    }
    const partials = place(queryCount * partialSizeBytes(headDim));
    const shared = { queryCount, headDimV: headDim, partials };
    const f16 = elementTypes.f16.code;
    const attend = place(attendJob.sizeBytes);
    attendJob.encode(
      {
        ...shared,
        headDimK: headDim,
        elementTypeK: f16,
        elementTypeV: f16,
        frameCount: 1,
        frames,
        queries: at.queries + at.head * queryCount * headDim * F32_BYTES,
        bounds,
        scale: 1 / Math.sqrt(headDim),
      },
      arena.bytes,
      attend,
    );
    const merge = place(mergeJob.sizeBytes);
    const outputType = elementTypes.f32.code;
    mergeJob.encode({ ...shared, chunkCount: 1, outputType, outputRows, output: at.output }, arena.bytes, merge);
    this.#attend.push(attend);
    this.#merge.push(merge);
  }

  /** Attends with every query head; heads are shared out over the threads. */
  async run(): Promise<void> {
    const threads = this.#pool.threadCount;
    const share = (jobs: readonly number[], thread: number): number[] =>
      jobs.filter((_, head) => head % threads === thread);
    await this.#pool.run(
      Array.from({ length: threads }, (_, thread) => ({
        kind: 'attend',
        attend: share(this.#attend, thread),
        merge: share(this.#merge, thread),
      })),
    );
  }
}
