/** A thread that reads pages from the cells file and sums them, until it is told to end. */
import { readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { createArena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { KernelName } from '../kernels/contract.ts';
import { loadKernels } from '../kernels/loader.ts';
import { cellOffset } from '../nand/geometry.ts';
import { SUM_PAGES_MAX, type SumRequest, type SumResult } from './page-summer.ts';

export interface SumThreadStart {
  readonly cellsDescriptor: number;
  readonly pageSizeBytes: number;
  readonly slotsPerPage: number;
  readonly kernels: KernelName;
}

const ARENA_SLACK_BYTES = 2 ** 20;

const port = parentPort;
assert(port !== null, 'sum-thread.ts runs as a worker thread');
const { cellsDescriptor, pageSizeBytes, slotsPerPage, kernels: kernelName } = workerData as SumThreadStart;
const arena = createArena(SUM_PAGES_MAX * pageSizeBytes + ARENA_SLACK_BYTES);
const kernels = loadKernels(kernelName, { memory: arena.memory });
const frames = arena.allocate(SUM_PAGES_MAX * pageSizeBytes);
port.on('message', (request: SumRequest) => port.postMessage(sum(request)));

function sum({ firstPpn, pageCount, bySlot }: SumRequest): SumResult {
  const unreadable = readPages(firstPpn, pageCount);
  const perPage = bySlot ? slotsPerPage : 1;
  const unitBytes = pageSizeBytes / perPage;
  const sums = new Uint32Array(pageCount * perPage);
  for (let i = 0; i < sums.length; i++) sums[i] = kernels.crc32c(frames + i * unitBytes, unitBytes);
  return { sums, unreadable };
}

/** All at once; page by page if that fails, so that one bad sector costs one page. */
function readPages(firstPpn: number, pageCount: number): SumResult['unreadable'] {
  if (readWhole(firstPpn, 0, pageCount) === undefined) return [];
  const unreadable: { ppn: number; why: string }[] = [];
  for (let page = 0; page < pageCount; page++) {
    const why = readWhole(firstPpn + page, page, 1);
    if (why !== undefined) unreadable.push({ ppn: firstPpn + page, why });
  }
  return unreadable;
}

/** Why it failed; undefined: it did not. */
function readWhole(firstPpn: number, frame: number, pageCount: number): string | undefined {
  const target = arena.view(frames + frame * pageSizeBytes, pageCount * pageSizeBytes);
  let done = 0;
  try {
    while (done < target.length) {
      const position = cellOffset({ pageSizeBytes }, firstPpn) + done;
      const count = readSync(cellsDescriptor, target, done, target.length - done, position);
      if (count === 0) return 'the file is too short';
      done += count;
    }
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
