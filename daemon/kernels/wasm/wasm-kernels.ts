import { readFileSync } from 'node:fs';
import { assert } from '../../base/assert.ts';
import { DriveError } from '../../base/errors.ts';
import { crc32c as scalarCrc32c } from '../../base/crc32c.ts';
import type { KernelResources, Kernels } from '../contract.ts';
import { assemblePages, gatherRows } from '../gather.ts';

/** The module's exports; addresses above 2^31 wrap to negative numbers on the way in, which is the same address. */
interface Exports {
  crc32c(offset: number, sizeBytes: number, seed: number): number;
  convert: Kernels['convert'];
  attend(job: number): number;
  merge(job: number): number;
}

const modulePath = new URL('./attndrive.wasm', import.meta.url);
let compiled: WebAssembly.Module | undefined;

/** Kernels in WebAssembly (SIMD128) over the arena as their memory. DriveError invalidField if they aren't built. */
export function createWasmKernels({ memory }: KernelResources): Kernels {
  compiled ??= compileModule();
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory } });
  const { crc32c, convert, attend, merge } = exports as unknown as Exports;
  const bytes = new Uint8Array(memory.buffer);
  return {
    name: 'wasm',
    isa: 'simd128',
    canMapMedia: false,
    canReadRegions: false,
    crc32c: (offset, sizeBytes, seed = 0) => crc32c(offset, sizeBytes, seed) >>> 0,
    // Bytes elsewhere would have to be copied first, which costs more than plain JavaScript.
    crc32cOf: scalarCrc32c,
    crc32cMedia: () => {
      assert(false, 'WebAssembly kernels have no media mapping');
    },
    copyResidentMedia: () => {
      assert(false, 'WebAssembly kernels have no media mapping');
    },
    convert,
    gather: (...rows) => gatherRows(bytes, ...rows),
    assemble: (job) => assemblePages(bytes, job, (offset, sizeBytes) => crc32c(offset, sizeBytes, 0) >>> 0),
    attend: (job) => assert(attend(job) === 0, 'attend job: dimensions 1 to 256, known types, frames in the arena'),
    merge: (job) => assert(merge(job) === 0, 'merge job: dimension 1 to 256, known type'),
  };
}

function compileModule(): WebAssembly.Module {
  try {
    return new WebAssembly.Module(readFileSync(modulePath));
  } catch (cause) {
    throw new DriveError('invalidField', `kernels 'wasm' are not built (${(cause as Error).message})`, { cause });
  }
}
