/** Puts attention problems into an arena and runs them by a kernel set. */
import { createArena, type Arena } from '../../daemon/base/arena.ts';
import {
  attendJob,
  boundsStruct,
  frameStruct,
  mergeJob,
  partialSizeBytes,
  type Kernels,
} from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { nativeIsas, nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { elementSizeBytes, elementTypes, type FloatType } from '../../spec/element-type.ts';
import { rowAlignmentBytes } from '../../spec/quantised-row.ts';
import type { AttentionCase } from './cases.ts';
import { storedRows, valueOf } from './stored-rows.ts';

export interface KernelUnderTest {
  readonly label: string;
  readonly kernels: Kernels;
  readonly arena: Arena;
}

const ARENA_BYTES = 32 << 20;

/** Every kernel set of this build, native ones once per instruction set that the machine has; and what is missing. */
export function kernelsUnderTest(): { readonly sets: KernelUnderTest[]; readonly missing: string[] } {
  const sets: KernelUnderTest[] = [];
  const missing: string[] = [];
  for (const name of ['reference', 'wasm'] as const) {
    const arena = createArena(ARENA_BYTES);
    sets.push({ label: name, arena, kernels: loadKernels(name, { memory: arena.memory }) });
  }
  const reason = nativeUnavailable();
  if (reason !== undefined) return { sets, missing: [`native kernels: ${reason}`] };
  const before = process.env['ATTNDRIVE_ISA'];
  for (const isa of nativeIsas) {
    const arena = createArena(ARENA_BYTES);
    process.env['ATTNDRIVE_ISA'] = isa;
    try {
      sets.push({ label: `native ${isa}`, arena, kernels: loadKernels('native', { memory: arena.memory }) });
    } catch (error) {
      missing.push(`native ${isa}: ${(error as Error).message}`);
    }
  }
  if (before === undefined) delete process.env['ATTNDRIVE_ISA'];
  else process.env['ATTNDRIVE_ISA'] = before;
  return { sets, missing };
}

export function writePatterns(arena: Arena, type: FloatType, offset: number, patterns: ArrayLike<number>): void {
  const size = elementSizeBytes(type);
  const view = new DataView(arena.buffer, offset, patterns.length * size);
  for (let i = 0; i < patterns.length; i++) {
    if (size === 4) view.setUint32(i * 4, patterns[i]!, true);
    else view.setUint16(i * 2, patterns[i]!, true);
  }
}

export function readPatterns(arena: Arena, type: FloatType, offset: number, count: number): Uint32Array {
  const size = elementSizeBytes(type);
  const view = new DataView(arena.buffer, offset, count * size);
  return Uint32Array.from({ length: count }, (_, i) =>
    size === 4 ? view.getUint32(i * 4, true) : view.getUint16(i * 2, true),
  );
}

export interface RowResult {
  readonly output: Float64Array;
  readonly outputPatterns: Uint32Array;
  readonly maximum: number;
  readonly logSumExp: number;
}

const GUARD_BYTES = 64;
/** Read as any element type, these bytes are NaN: whoever reads beyond a row gets NaN into its result. */
const GUARD = 0xff;

/** Allocations that are given back together, each between guard bytes that must still stand at the end. */
class Allocations {
  readonly #arena: Arena;
  readonly #blocks: { base: number; offset: number; size: number }[] = [];

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /** `size` bytes, `skew` bytes off the alignment. */
  take(size: number, skew = 0): number {
    const base = this.#arena.allocate(size + 2 * GUARD_BYTES + skew);
    this.#arena.view(base, size + 2 * GUARD_BYTES + skew).fill(GUARD);
    const offset = base + GUARD_BYTES + skew;
    this.#blocks.push({ base, offset, size });
    return offset;
  }

  release(): void {
    for (const { base, offset, size } of this.#blocks) {
      const before = this.#arena.view(base, offset - base);
      const after = this.#arena.view(offset + size, GUARD_BYTES);
      if (!before.every((byte) => byte === GUARD) || !after.every((byte) => byte === GUARD)) {
        throw new Error(`written outside ${offset}+${size}`);
      }
      this.#arena.free(base);
    }
  }
}

/**
 * Runs a problem with its frames split into `chunkCount` jobs whose partials are merged. Frames lie apart, K and V one
 * element off their alignment.
 */
export function runCase(set: KernelUnderTest, problem: AttentionCase, chunkCount = 1): RowResult[] {
  const { arena, kernels } = set;
  const allocations = new Allocations(arena);
  const rowCount = problem.bounds.length;
  const frames = placeFrames(arena, allocations, problem);
  const queries = allocations.take(problem.queries.length * 4);
  new Float32Array(arena.buffer, queries, problem.queries.length).set(problem.queries);
  const bounds = allocations.take(rowCount * boundsStruct.sizeBytes);
  problem.bounds.forEach((value, i) => boundsStruct.encode(value, arena.bytes, bounds + i * boundsStruct.sizeBytes));
  const chunkStrideBytes = rowCount * partialSizeBytes(problem.headDimV) + 12;
  const partials = allocations.take(chunkCount * chunkStrideBytes);
  const job = allocations.take(64);
  for (let chunk = 0; chunk < chunkCount; chunk++) {
    const first = Math.floor((frames.length * chunk) / chunkCount);
    const end = Math.floor((frames.length * (chunk + 1)) / chunkCount);
    const list = allocations.take(Math.max(1, end - first) * frameStruct.sizeBytes);
    frames.slice(first, end).forEach((frame, i) => frameStruct.encode(frame, arena.bytes, list + i * 32));
    attendJob.encode(
      {
        queryCount: rowCount,
        headDimK: problem.headDimK,
        headDimV: problem.headDimV,
        elementTypeK: elementTypes[problem.typeK].code,
        elementTypeV: elementTypes[problem.typeV].code,
        frameCount: end - first,
        frames: list,
        queries,
        bounds,
        sinkCount: problem.sinkCount,
        scale: problem.scale,
        softCap: problem.softCap,
        isReadOnce: problem.isReadOnce === true ? 1 : 0,
        partials: partials + chunk * chunkStrideBytes,
      },
      arena.bytes,
      job,
    );
    kernels.attend(job);
  }
  const results = mergeRows(set, allocations, problem, { partials, chunkCount, chunkStrideBytes });
  allocations.release();
  return results;
}

function placeFrames(
  arena: Arena,
  allocations: Allocations,
  problem: AttentionCase,
): ReturnType<typeof frameStruct.decode>[] {
  const place = (type: AttentionCase['typeK'], patterns: Uint32Array, dim: number): number => {
    const { bytes } = storedRows(type, patterns, dim);
    const offset = allocations.take(bytes.length, rowAlignmentBytes(type));
    arena.bytes.set(bytes, offset);
    return offset;
  };
  let token = 0;
  return problem.frames.map((tokenCount) => {
    const keys = problem.keys.subarray(token * problem.headDimK, (token + tokenCount) * problem.headDimK);
    const values = problem.values.subarray(token * problem.headDimV, (token + tokenCount) * problem.headDimV);
    const kOffset = place(problem.typeK, keys, problem.headDimK);
    const vOffset = place(problem.typeV, values, problem.headDimV);
    const firstToken = problem.firstToken + token;
    token += tokenCount;
    return { kOffset, vOffset, firstToken, tokenCount, kArena: 0, vArena: 0 };
  });
}

function mergeRows(
  { arena, kernels }: KernelUnderTest,
  allocations: Allocations,
  problem: AttentionCase,
  chunks: { readonly partials: number; readonly chunkCount: number; readonly chunkStrideBytes: number },
): RowResult[] {
  const rowCount = problem.bounds.length;
  const { headDimV, outputType } = problem;
  const rowBytes = headDimV * elementSizeBytes(outputType);
  const output = allocations.take(rowCount * rowBytes);
  const statistics = allocations.take(rowCount * 8);
  const outputRows = allocations.take(rowCount * 4);
  // Rows go out in reverse, to see that the row numbers are followed.
  const rowNumbers = new Uint32Array(arena.buffer, outputRows, rowCount);
  for (let row = 0; row < rowCount; row++) rowNumbers[row] = rowCount - 1 - row;
  const job = allocations.take(64);
  mergeJob.encode(
    {
      queryCount: rowCount,
      headDimV,
      ...chunks,
      outputType: elementTypes[outputType].code,
      outputRows,
      output,
      statistics,
    },
    arena.bytes,
    job,
  );
  kernels.merge(job);
  return problem.bounds.map((_, row) => {
    const at = rowCount - 1 - row;
    const outputPatterns = readPatterns(arena, outputType, output + at * rowBytes, headDimV);
    const [maximum, logSumExp] = new Float32Array(arena.buffer, statistics + at * 8, 2);
    return {
      outputPatterns,
      maximum: maximum!,
      logSumExp: logSumExp!,
      output: Float64Array.from(outputPatterns, (pattern) => valueOf(outputType, pattern)),
    };
  });
}
