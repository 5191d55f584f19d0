import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { type KernelName, kernelNames } from '../../daemon/kernels/contract.ts';
import { skipDirect } from '../nand/direct-file.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';

export interface KernelSet {
  /** For people. */
  readonly title: string;
  readonly name: KernelName;
  /** Pages are read past the page cache. */
  readonly isDirect: boolean;
  readonly workerCounts: readonly number[];
  /** Why its tests are skipped, or false. */
  readonly skip: string | false;
}

const buffered: readonly KernelSet[] = kernelNames.map((name) => {
  const set = { title: name, name, isDirect: false, workerCounts: [0, 1, 2] };
  try {
    loadKernels(name, { memory: createArena(1 << 20).memory });
    return { ...set, skip: false };
  } catch (error) {
    if (!(error instanceof DriveError) || name === 'reference') throw error;
    return { ...set, skip: `SKIPPED: ${error.message}` };
  }
});

/** All kernel sets, and ways to bring them pages, with the reason where one cannot run here. */
export const kernelSets: readonly KernelSet[] = [
  ...buffered,
  { title: 'native (direct I/O)', name: 'native', isDirect: true, workerCounts: [1, 2], skip: skipDirect },
];
