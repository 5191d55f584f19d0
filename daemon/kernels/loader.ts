/** Chooses and makes a thread's kernel set. */
import { DriveError } from '../base/errors.ts';
import { kernelNames, type KernelName, type KernelResources, type Kernels } from './contract.ts';
import { createNativeKernels, nativeUnavailable } from './native/native-kernels.ts';
import { createReferenceKernels } from './reference/reference-kernels.ts';
import { createWasmKernels } from './wasm/wasm-kernels.ts';

/**
 * Makes a kernel set over the arena (and, for native ones, the media file). Synchronous; call it once in each thread.
 * `auto` is what ATTNDRIVE_KERNELS names, else native if it is built, else wasm.
 * DriveError invalidField if the set isn't built or the variable names none.
 */
export function loadKernels(name: KernelName | 'auto', resources: KernelResources): Kernels {
  switch (resolveKernels(name)) {
    case 'native':
      return createNativeKernels(resources);
    case 'wasm':
      return createWasmKernels(resources);
    case 'reference':
      return createReferenceKernels(resources);
  }
}

/** Which set `loadKernels` would make. */
export function resolveKernels(name: KernelName | 'auto'): KernelName {
  if (name !== 'auto') return name;
  const wanted = process.env['ATTNDRIVE_KERNELS'];
  if (wanted === undefined || wanted === '' || wanted === 'auto') {
    return nativeUnavailable() === undefined ? 'native' : 'wasm';
  }
  const known = kernelNames.find((candidate) => candidate === wanted);
  if (known) return known;
  throw new DriveError('invalidField', `ATTNDRIVE_KERNELS=${wanted}; allowed: auto, ${kernelNames.join(', ')}`);
}
