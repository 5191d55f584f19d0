import { loadAddon } from './addon.ts';

/**
 * A file of somebody else's, mapped: its bytes are copied from and to it by one call, without a system call for each. Only
 * native code touches the mapping, and where the file has become shorter meanwhile, or its file system has no memory for
 * what was never written, a copy says so instead of ending the process. Usable from every thread by its id.
 */
export class RegionMapping {
  readonly id: number;
  readonly #addon: Exclude<ReturnType<typeof loadAddon>, Error>;

  private constructor(id: number, addon: Exclude<ReturnType<typeof loadAddon>, Error>) {
    this.id = id;
    this.#addon = addon;
  }

  /** Of the first `sizeBytes` of an open file; undefined where there is no addon, or the system maps no more. */
  static tryMap(fileDescriptor: number, sizeBytes: number): RegionMapping | undefined {
    const addon = loadAddon();
    if (addon instanceof Error) return undefined;
    try {
      return new RegionMapping(addon.mapRegion(fileDescriptor, sizeBytes), addon);
    } catch {
      return undefined;
    }
  }

  /** Fills `target` from `offset` on. False: the file does not have all of it, and `target` has anything. */
  read(offset: number, target: Uint8Array): boolean {
    return this.#addon.copyFromRegion(this.id, offset, target);
  }

  /** False: the file did not have room for all of `source`, of which some may have got there. It is not made longer. */
  write(offset: number, source: Uint8Array): boolean {
    return this.#addon.copyToRegion(this.id, offset, source);
  }

  /** The file's descriptor must not have been closed before. */
  unmap(): void {
    this.#addon.unmapRegion(this.id);
  }
}
