/** Chooses and makes a thread's kernel set. */
import { DriveError } from '../base/errors.ts';
import { kernelNames, type KernelName, type KernelResources, type Kernels } from './contract.ts';
import { createReferenceKernels } from './reference/reference-kernels.ts';

/**
 * Makes a kernel set over the arena (and, for native ones, the media file). Synchronous; call it once in each thread.
 * `auto` takes ATTNDRIVE_KERNELS from the environment if set, else the best set there is.
 */
export function loadKernels(name: KernelName | 'auto', resources: KernelResources): Kernels {
  const chosen = name === 'auto' ? fromEnvironment() : name;
  switch (chosen) {
    case 'auto':
    case 'reference':
      return createReferenceKernels(resources);
    case 'wasm':
    case 'native':
      throw new DriveError('invalidField', `kernels '${chosen}' are not built`);
  }
}

function fromEnvironment(): KernelName | 'auto' {
  const value = process.env['ATTNDRIVE_KERNELS'];
  if (value === undefined || value === '' || value === 'auto') return 'auto';
  const known = kernelNames.find((name) => name === value);
  if (known) return known;
  throw new DriveError('invalidField', `ATTNDRIVE_KERNELS=${value}; allowed: auto, ${kernelNames.join(', ')}`);
}
