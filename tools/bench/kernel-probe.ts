/**
 * Measures a kernel set by itself: attention over contiguous frames that don't fit the cache, and the plain vector read
 * of as many bytes that bounds it. `node .build/tools/bench/kernel-probe.js [native|wasm|reference]` prints a table.
 */
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { createArena, type Arena } from '../../daemon/base/arena.ts';
import {
  attendJob,
  boundsStruct,
  frameStruct,
  kernelNames,
  partialSizeBytes,
  type KernelName,
  type Kernels,
} from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import type { NativeKernels } from '../../daemon/kernels/native/native-kernels.ts';
import { elementSizeBytes, elementTypes, type ElementType } from '../../spec/element-type.ts';

export interface ProbeShape {
  readonly type: ElementType;
  readonly headDim: number;
  readonly groupSize: number;
  readonly tokenCount: number;
  readonly pageBytes: number;
}

/** Gigabytes (10^9) a second, each byte of K and V counted once. */
export interface ProbeResult {
  readonly kernelRate: number;
  /** NaN where the set has no read probe. */
  readonly readRate: number;
}

const seconds = (work: () => void): number => {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
};

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

/** Medians of `rounds` interleaved rounds over one job after another, cycling through `cacheBytes` of K and V. */
export function probeKernels(
  name: KernelName,
  shape: ProbeShape,
  { rounds, cacheBytes }: { rounds: number; cacheBytes: number },
): ProbeResult {
  const arena = createArena(cacheBytes + (16 << 20));
  const kernels = loadKernels(name, { memory: arena.memory });
  const cache = arena.allocate(cacheBytes);
  fillCache(arena, kernels, cache, cacheBytes, shape.type);
  const jobs = writeJobs(arena, cache, cacheBytes, shape);
  const jobBytes = 2 * shape.tokenCount * shape.headDim * elementSizeBytes(shape.type);
  const kernelRates: number[] = [];
  const readRates: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const kernelSeconds = seconds(() => jobs.forEach((job) => kernels.attend(job)));
    kernelRates.push((jobBytes * jobs.length) / kernelSeconds / 1e9);
    if (kernels.name === 'native') {
      const readSeconds = seconds(() => (kernels as NativeKernels).readSum(cache, jobBytes * jobs.length));
      readRates.push((jobBytes * jobs.length) / readSeconds / 1e9);
    }
  }
  return { kernelRate: median(kernelRates), readRate: median(readRates) };
}

function fillCache(arena: Arena, kernels: Kernels, cache: number, cacheBytes: number, type: ElementType): void {
  const sample = 1 << 16;
  const source = arena.allocate(sample * 4);
  const floats = new Float32Array(arena.buffer, source, sample);
  for (let i = 0; i < sample; i++) floats[i] = Math.sin(i * 12.9898) * 2;
  kernels.convert(source, elementTypes.f32.code, cache, elementTypes[type].code, sample);
  const sampleBytes = sample * elementSizeBytes(type);
  for (let at = sampleBytes; at < cacheBytes; at += sampleBytes) {
    arena.bytes.copyWithin(cache + at, cache, cache + Math.min(sampleBytes, cacheBytes - at));
  }
}

/** One job per KV head: its K pages, then its V pages, contiguous. */
function writeJobs(arena: Arena, cache: number, cacheBytes: number, shape: ProbeShape): number[] {
  const rowBytes = shape.headDim * elementSizeBytes(shape.type);
  const frameTokens = Math.floor(shape.pageBytes / rowBytes);
  const frameCount = Math.floor(shape.tokenCount / frameTokens);
  const half = shape.tokenCount * rowBytes;
  const queries = arena.allocate(shape.groupSize * shape.headDim * 4);
  const floats = new Float32Array(arena.buffer, queries, shape.groupSize * shape.headDim);
  for (let i = 0; i < floats.length; i++) floats[i] = Math.cos(i * 7.77);
  const bounds = arena.allocate(shape.groupSize * 8);
  for (let row = 0; row < shape.groupSize; row++) {
    boundsStruct.encode({ start: 0, end: shape.tokenCount }, arena.bytes, bounds + row * 8);
  }
  return Array.from({ length: Math.floor(cacheBytes / (2 * half)) }, (_, head) => {
    const frames = arena.allocate(frameCount * 32);
    for (let f = 0; f < frameCount; f++) {
      frameStruct.encode(
        {
          kOffset: cache + head * 2 * half + f * frameTokens * rowBytes,
          vOffset: cache + head * 2 * half + half + f * frameTokens * rowBytes,
          firstToken: f * frameTokens,
          tokenCount: frameTokens,
          kArena: 0,
          vArena: 0,
        },
        arena.bytes,
        frames + f * 32,
      );
    }
    const job = arena.allocate(64);
    attendJob.encode(
      {
        queryCount: shape.groupSize,
        headDimK: shape.headDim,
        headDimV: shape.headDim,
        elementTypeK: elementTypes[shape.type].code,
        elementTypeV: elementTypes[shape.type].code,
        frameCount,
        frames,
        queries,
        bounds,
        sinkCount: 0,
        scale: 1 / Math.sqrt(shape.headDim),
        softCap: 0,
        partials: arena.allocate(shape.groupSize * partialSizeBytes(shape.headDim)),
      },
      arena.bytes,
      job,
    );
    return job;
  });
}

function main(): void {
  const wanted = kernelNames.find((name) => name === argv[2]) ?? 'native';
  const cacheBytes = wanted === 'reference' ? 16 << 20 : wanted === 'wasm' ? 128 << 20 : 512 << 20;
  console.log('kernels    type  group  page   GB/s  read GB/s  ratio');
  for (const type of ['f16', 'bf16', 'f32'] as const) {
    for (const groupSize of [4, 1, 8]) {
      for (const pageBytes of [16_384, 4096]) {
        const shape = { type, groupSize, pageBytes, headDim: 128, tokenCount: 4096 };
        const { kernelRate, readRate } = probeKernels(wanted, shape, { rounds: 5, cacheBytes });
        console.log(
          [
            wanted.padEnd(9),
            type.padEnd(5),
            String(groupSize).padStart(5),
            String(pageBytes).padStart(6),
            kernelRate.toFixed(2).padStart(6),
            readRate.toFixed(1).padStart(10),
            (kernelRate / readRate).toFixed(2).padStart(6),
          ].join(' '),
        );
      }
    }
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) main();
