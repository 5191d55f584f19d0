/** The compiled addon as a module: loaded once in each thread, if it was built. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Kernels } from '../contract.ts';

/** What the addon's `create` gives; all arguments are byte offsets, sizes and codes. */
export interface KernelAddon {
  readonly isa: string;
  attend(job: number): void;
  merge(job: number): void;
  convert: Kernels['convert'];
  /** `region` is always given: NO_REGION for rows in the arena. */
  gather(...rows: Required<Parameters<Kernels['gather']>>): boolean;
  assemble: Kernels['assemble'];
  crc32c(offset: number, sizeBytes: number, seed: number, media: 0 | 1): number;
  crc32cOf(bytes: Uint8Array, seed: number): number;
  copyResidentMedia(offset: number, target: Uint8Array): boolean;
  readSum(offset: number, sizeBytes: number, media: 0 | 1): number;
}

export interface DirectIoAddon {
  submit(number: number, isWrite: 0 | 1, position: number, offset: number, sizeBytes: number): void;
  /** Pairs of number and result; returns how many. */
  take(completions: Float64Array): number;
  wait(): void;
  close(): void;
}

interface AddonModule {
  create(memory: Uint8Array, fileDescriptor: number, mediaBytes: number, isa: string, slab: number): KernelAddon;
  createSlab(sizeBytes: number): { readonly id: number; readonly buffer: ArrayBuffer };
  openDirectIo(fileDescriptor: number, slab: number, threadCount: number, notify: () => void): DirectIoAddon;
  /** An id that every thread of the process may use. */
  mapRegion(fileDescriptor: number, sizeBytes: number): number;
  unmapRegion(id: number): void;
  copyFromRegion(id: number, offset: number, target: Uint8Array): boolean;
  copyToRegion(id: number, offset: number, source: Uint8Array): boolean;
  threadId(): number;
  currentCpu(): number;
  keepThreadOff(thread: number, cpus: Int32Array, count: number): void;
  hasPendingEvents(): boolean | undefined;
}

const addonPath = fileURLToPath(new URL('./attndrive.node', import.meta.url));
let loaded: AddonModule | Error | undefined;

/** The addon, or why there is none. */
export function loadAddon(): AddonModule | Error {
  loaded ??= tryLoad();
  return loaded;
}

function tryLoad(): AddonModule | Error {
  try {
    return createRequire(import.meta.url)(addonPath) as AddonModule;
  } catch (error) {
    return error as Error;
  }
}

/** Why there are no native kernels in this build, or undefined if there are. */
export function nativeUnavailable(): string | undefined {
  const addon = loadAddon();
  return addon instanceof Error ? (addon.message.split('\n')[0] ?? 'not built') : undefined;
}
