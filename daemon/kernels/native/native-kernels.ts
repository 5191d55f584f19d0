import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { InvariantError } from '../../base/assert.ts';
import { crc32c as scalarCrc32c } from '../../base/crc32c.ts';
import { DriveError } from '../../base/errors.ts';
import type { KernelResources, Kernels } from '../contract.ts';

/** What the addon's `create` gives; all arguments are byte offsets, sizes and codes. */
interface Addon {
  readonly isa: string;
  attend(job: number): void;
  merge(job: number): void;
  convert: Kernels['convert'];
  crc32c(offset: number, sizeBytes: number, seed: number, media: 0 | 1): number;
  crc32cOf(bytes: Uint8Array, seed: number): number;
  readSum(offset: number, sizeBytes: number, media: 0 | 1): number;
}

interface AddonModule {
  create(memory: Uint8Array, fileDescriptor: number, mediaBytes: number, isa: string): Addon;
}

export interface NativeKernels extends Kernels {
  /**
   * Adds up the 64-bit words of arena (or media mapping) bytes, modulo 2^64: a plain vector read, the ceiling that
   * benchmarks compare with.
   */
  readSum(offset: number, sizeBytes: number, media?: boolean): number;
}

/** Instruction sets that the addon can be held to (ATTNDRIVE_ISA), best last. */
export const nativeIsas = ['portable', 'avx2', 'avx512', 'avx512dp'] as const;
export type NativeIsa = (typeof nativeIsas)[number];

const SCALAR_CRC_BYTES_MAX = 64;

const addonPath = fileURLToPath(new URL('./attndrive.node', import.meta.url));
let loaded: AddonModule | Error | undefined;

function loadAddon(): AddonModule | Error {
  try {
    return createRequire(import.meta.url)(addonPath) as AddonModule;
  } catch (error) {
    return error as Error;
  }
}

/** Why there are no native kernels in this build, or undefined if there are. */
export function nativeUnavailable(): string | undefined {
  loaded ??= loadAddon();
  return loaded instanceof Error ? (loaded.message.split('\n')[0] ?? 'not built') : undefined;
}

/** Instruction sets of this machine that the addon has kernels for, best last. */
export function supportedIsas(): NativeIsa[] {
  loaded ??= loadAddon();
  const module = loaded;
  if (module instanceof Error) return [];
  return nativeIsas.filter((isa) => {
    try {
      return module.create(new Uint8Array(8), -1, 0, isa).isa === isa;
    } catch {
      return false;
    }
  });
}

/** Kernels of the C++ addon. DriveError invalidField if it isn't built, or the media file can't be mapped. */
export function createNativeKernels(resources: KernelResources): NativeKernels {
  const { memory, media } = resources;
  loaded ??= loadAddon();
  if (loaded instanceof Error) {
    throw new DriveError(
      'invalidField',
      `kernels 'native' are not built (${nativeUnavailable()}); allowed: auto, wasm`,
    );
  }
  const isa = resources.isa ?? process.env['ATTNDRIVE_ISA'] ?? '';
  const addon = createAddon(loaded, new Uint8Array(memory.buffer), media, isa);
  return {
    name: 'native',
    isa: addon.isa,
    canMapMedia: media !== undefined,
    crc32c: (offset, sizeBytes, seed = 0) => checked(() => addon.crc32c(offset, sizeBytes, seed, 0)),
    // The call into the addon costs what the scalar code needs for so many bytes.
    crc32cOf: (bytes, seed = 0) =>
      bytes.length < SCALAR_CRC_BYTES_MAX ? scalarCrc32c(bytes, seed) : checked(() => addon.crc32cOf(bytes, seed)),
    crc32cMedia: (offset, sizeBytes) => checked(() => addon.crc32c(offset, sizeBytes, 0, 1)),
    convert: (source, sourceType, target, targetType, rowCount, rowElements) =>
      checked(() => addon.convert(source, sourceType, target, targetType, rowCount, rowElements)),
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

function createAddon(module: AddonModule, bytes: Uint8Array, media: KernelResources['media'], isa: string): Addon {
  try {
    return module.create(bytes, media?.fileDescriptor ?? -1, media?.sizeBytes ?? 0, isa);
  } catch (cause) {
    const wanted = isa === '' ? '' : ` (ATTNDRIVE_ISA=${isa}; known: ${nativeIsas.join(', ')})`;
    throw new DriveError('invalidField', `native kernels: ${(cause as Error).message}${wanted}`, { cause });
  }
}
