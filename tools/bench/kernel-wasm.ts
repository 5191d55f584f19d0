/**
 * The WebAssembly kernels by themselves, over pages in the arena as the drive's frame cache holds them, against the plain
 * vector read of as many bytes (by the native probe where it is built, which is the faster one).
 */
import { availableParallelism } from 'node:os';
import { layoutOf } from '../../daemon/attention/plan.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { frameArenas } from '../../daemon/kernels/contract.ts';
import { elementTypes } from '../../spec/element-type.ts';
import { Progress } from '../cli/output.ts';
import { writeJobs } from './attend-jobs.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type Contestant, contest, medianRate, readContestant, statesOf } from './contest.ts';
import { randomHalves } from './drive-layers.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, layerBytes, shapeOf } from './shapes.ts';
import { floatSets, type SetName } from './team-work.ts';
import { ThreadTeam } from './thread-team.ts';

const MIB = 2 ** 20;
const CYCLE_BYTES = 1024 * MIB;
const QUICK_CYCLE_BYTES = 8 * MIB;
const JOBS_BYTES = 32 * MIB;
const PAGE_BYTES = 16_384;
const F16_BYTES = 2;

export const kernelWasmBench: Bench = {
  name: 'kernel-wasm',
  summary: 'WebAssembly kernels over pages in memory, against plain memory reads',
  async run(options, output) {
    for (const heads of ['32/8', '40/40'] as const) {
      const shape = shapeOf(heads, options.quick ? 512 : 4096, options.quick ? QUICK_CYCLE_BYTES : CYCLE_BYTES);
      await measureShape(shape, options, output);
    }
  },
};

async function measureShape(shape: BenchShape, options: BenchOptions, output: BenchOutput): Promise<void> {
  const progress = new Progress();
  progress.update(`${shape.name}: filling memory …`);
  const sizeBytes = layerBytes(shape) * shape.layerCount;
  // The arena rounds a block's size up by less than an eighth.
  const arena = createArena(Math.ceil(sizeBytes * (9 / 8)) + JOBS_BYTES);
  const offset = arena.allocate(sizeBytes);
  const rows = new Uint8Array(randomHalves(MIB, 1).buffer);
  for (let at = 0; at < sizeBytes; at += rows.length) {
    arena.bytes.set(rows.subarray(0, Math.min(rows.length, sizeBytes - at)), offset + at);
  }
  const { jobs, jobBytes } = cutJobs(arena, offset, shape);
  const sets: SetName[] = ['wasm', ...floatSets()];
  const readers: readonly SetName[] = sets.length > 1 ? sets.filter((set) => set !== 'wasm') : ['wasm'];
  const threadCounts = [...new Set([1, options.workers || availableParallelism()])];
  const team = await ThreadTeam.open({ memory: arena.memory }, { sets, threadCountMax: Math.max(...threadCounts) });
  try {
    for (const threadCount of threadCounts) {
      progress.update(`${shape.name}: ${threadCount} threads …`);
      const range = { offset, sizeBytes, media: false };
      const reads = readers.map((set) => readContestant(set, threadCount, range));
      const readByOne = threadCount > 1 ? readContestant(readers[0]!, 1, range) : undefined;
      const task = { kind: 'attend', set: 'wasm' } as const;
      const kernel: Contestant = { name: 'kernel', task, threadCount, items: jobs, itemBytes: jobBytes };
      const contestants = [...reads, ...(readByOne === undefined ? [] : [readByOne]), kernel];
      const rounds = contest(team, contestants, options.rounds);
      progress.clear();
      for (const state of statesOf(rounds, readByOne, reads[0]!)) {
        const threads = `${threadCount} ${threadCount === 1 ? 'thread' : 'threads'}`;
        const line = {
          bench: 'kernel-wasm',
          case: `${shape.name}, ${threads}${state.name === '' ? '' : ` (${state.name})`}`,
          metric: 'bandwidth',
          value: medianRate(state.rounds, kernel.name),
          unit: 'GB/s',
          samples: state.rounds.length,
        };
        const read = Math.max(...reads.map(({ name }) => medianRate(state.rounds, name)));
        const target = shape.queryHeadCount > shape.kvHeadCount ? 'wasmGqa' : 'wasmMha';
        output.line(compare(line, { name: 'memory read', value: read }, threadCount === 1 ? target : undefined));
      }
    }
  } finally {
    progress.clear();
    await team.close();
  }
}

/** Jobs as the drive cuts them over pages that lie K after K, then V after V, of each KV head. */
function cutJobs(
  arena: ReturnType<typeof createArena>,
  offset: number,
  shape: BenchShape,
): { readonly jobs: readonly number[]; readonly jobBytes: number } {
  const { queryHeadCount, kvHeadCount, headDim, layerCount, tokenCount } = shape;
  const groupTokens = PAGE_BYTES / (headDim * F16_BYTES);
  const groupCount = tokenCount / groupTokens;
  const dims = { headDimK: headDim, headDimV: headDim, elementTypeK: 'f16', elementTypeV: 'f16' } as const;
  const { chunkTokens } = layoutOf({ ...dims, layerCount, kvHeadCount, groupTokens });
  const groupsPerJob = Math.min(chunkTokens, tokenCount) / groupTokens;
  const queryCount = queryHeadCount / kvHeadCount;
  const streamBytes = groupCount * PAGE_BYTES;
  const jobs = Array.from({ length: layerCount * kvHeadCount }, (_, head) => {
    const frames = Array.from({ length: groupCount }, (__, group) => {
      const kOffset = offset + 2 * head * streamBytes + group * PAGE_BYTES;
      return { kOffset, vOffset: kOffset + streamBytes, arena: frameArenas.memory, tokenCount: groupTokens };
    });
    return writeJobs(arena, frames, {
      queryCount,
      headDim,
      elementType: elementTypes.f16.code,
      groupsPerJob,
      isLong: true,
    });
  });
  return { jobs: jobs.flat(), jobBytes: 2 * groupsPerJob * PAGE_BYTES };
}
