import { InvariantError } from '../../base/assert.ts';
import { crc32c as scalarCrc32c } from '../../base/crc32c.ts';
import { DriveError } from '../../base/errors.ts';
import { type KernelPrecision, type KernelResources, type Kernels, NO_REGION } from '../contract.ts';
import { type KernelAddon, loadAddon, nativeUnavailable } from './addon.ts';

export { nativeUnavailable };

const NONE = -1;

export interface NativeKernels extends Kernels {
  /**
   * Adds up the 64-bit words of arena (or media mapping) bytes, modulo 2^64: a plain vector read, the ceiling that
   * benchmarks compare with.
   */
  readSum(offset: number, sizeBytes: number, media?: boolean): number;
}

/** Instruction sets that the addon can be held to (ATTNDRIVE_ISA), best last; avx512fast is chosen by precision only. */
export const nativeIsas = ['portable', 'avx2', 'avx512', 'avx512dp', 'avx512fast'] as const;
export type NativeIsa = (typeof nativeIsas)[number];

/** Of `nativeIsas`, how many from the first on a precision leaves. */
const isaCountOf: Record<KernelPrecision, number> = { exact: 3, close: 4, fast: 5 };

const SCALAR_CRC_BYTES_MAX = 64;

/** Instruction sets of this machine that the addon has kernels for and that are as precise, best last. */
export function supportedIsas(precision: KernelPrecision = 'close'): NativeIsa[] {
  const module = loadAddon();
  if (module instanceof Error) return [];
  return nativeIsas.slice(0, isaCountOf[precision]).filter((isa) => {
    try {
      return module.create(new Uint8Array(8), NONE, 0, isa, NONE).isa === isa;
    } catch {
      return false;
    }
  });
}

/** Kernels of the C++ addon. DriveError invalidField if it isn't built, or the media file can't be mapped. */
export function createNativeKernels(resources: KernelResources): NativeKernels {
  const { media, slab } = resources;
  const module = loadAddon();
  if (module instanceof Error) {
    throw new DriveError(
      'invalidField',
      `kernels 'native' are not built (${nativeUnavailable()}); allowed: auto, wasm`,
    );
  }
  // An empty variable is none.
  const isa = resources.isa ?? (process.env['ATTNDRIVE_ISA'] || supportedIsas(resources.precision).at(-1) || '');
  const addon = createAddon(module, resources, isa);
  return {
    name: 'native',
    isa: addon.isa,
    canMapMedia: (media ?? slab) !== undefined,
    canReadRegions: true,
    crc32c: (offset, sizeBytes, seed = 0) => checked(() => addon.crc32c(offset, sizeBytes, seed, 0)),
    // The call into the addon costs what the scalar code needs for so many bytes.
    crc32cOf: (bytes, seed = 0) =>
      bytes.length < SCALAR_CRC_BYTES_MAX ? scalarCrc32c(bytes, seed) : checked(() => addon.crc32cOf(bytes, seed)),
    crc32cMedia: (offset, sizeBytes) => checked(() => addon.crc32c(offset, sizeBytes, 0, 1)),
    copyResidentMedia: (offset, target) => checked(() => addon.copyResidentMedia(offset, target)),
    convert: (source, sourceType, target, targetType, rowCount, rowElements) =>
      checked(() => addon.convert(source, sourceType, target, targetType, rowCount, rowElements)),
    gather: (source, strideBytes, rowBytes, rowCount, target, region = NO_REGION) =>
      checked(() => addon.gather(source, strideBytes, rowBytes, rowCount, target, region)),
    assemble: (job) => checked(() => addon.assemble(job)),
    attend: (job) => checked(() => addon.attend(job)),
    merge: (job) => checked(() => addon.merge(job)),
    readSum: (offset, sizeBytes, ofMedia = false) => checked(() => addon.readSum(offset, sizeBytes, ofMedia ? 1 : 0)),
  };
}

/** A job that the addon refuses is our own mistake. */
function checked<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw new InvariantError((error as Error).message);
  }
}

function createAddon(
  module: Exclude<ReturnType<typeof loadAddon>, Error>,
  { memory, media, slab }: KernelResources,
  isa: string,
): KernelAddon {
  try {
    const bytes = new Uint8Array(memory.buffer);
    return module.create(bytes, media?.fileDescriptor ?? NONE, media?.sizeBytes ?? 0, isa, slab ?? NONE);
  } catch (cause) {
    const wanted = isa === '' ? '' : ` (ATTNDRIVE_ISA=${isa}; known: ${nativeIsas.join(', ')})`;
    throw new DriveError('invalidField', `native kernels: ${(cause as Error).message}${wanted}`, { cause });
  }
}
