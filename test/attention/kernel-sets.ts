import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { type KernelName, kernelNames } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';

export interface KernelSet {
  readonly name: KernelName;
  /** Why its tests are skipped, or false. */
  readonly skip: string | false;
}

/** All kernel sets, with the reason where one cannot run here. */
export const kernelSets: readonly KernelSet[] = kernelNames.map((name) => {
  try {
    loadKernels(name, { memory: createArena(1 << 20).memory });
    return { name, skip: false };
  } catch (error) {
    if (!(error instanceof DriveError) || name === 'reference') throw error;
    return { name, skip: `SKIPPED: ${error.message}` };
  }
});
