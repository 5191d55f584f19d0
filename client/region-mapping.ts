import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** What this room uses of the native addon: Node itself can't map files. */
interface MappingAddon {
  mapRegion(fileDescriptor: number, sizeBytes: number): number;
  unmapRegion(id: number): void;
  copyFromRegion(id: number, offset: number, target: Uint8Array): boolean;
  copyToRegion(id: number, offset: number, source: Uint8Array): boolean;
  mapBuffer(fileDescriptor: number, sizeBytes: number): ArrayBuffer;
}

// No import: the client works without it, and it may not be built.
const addonPath = fileURLToPath(new URL('../daemon/kernels/native/attndrive.node', import.meta.url));
let loaded: MappingAddon | undefined;
let isLoaded = false;

function loadAddon(): MappingAddon | undefined {
  if (isLoaded) return loaded;
  isLoaded = true;
  try {
    loaded = createRequire(import.meta.url)(addonPath) as MappingAddon;
  } catch {
    // Regions are read and written, then.
  }
  return loaded;
}

/**
 * The file of a region, mapped: bytes are copied from and to it without a system call. A copy that would need what the file
 * does not have is false, and the process goes on.
 */
export class RegionMapping {
  readonly #addon: MappingAddon;
  readonly #id: number;
  readonly #fileDescriptor: number;
  readonly #sizeBytes: number;
  #buffer: ArrayBuffer | undefined;

  private constructor(addon: MappingAddon, file: { readonly descriptor: number; readonly sizeBytes: number }) {
    this.#addon = addon;
    this.#fileDescriptor = file.descriptor;
    this.#sizeBytes = file.sizeBytes;
    this.#id = addon.mapRegion(file.descriptor, file.sizeBytes);
  }

  /** Undefined where there is no native addon, or the system maps no more. */
  static tryMap(fileDescriptor: number, sizeBytes: number): RegionMapping | undefined {
    const addon = loadAddon();
    if (addon === undefined) return undefined;
    try {
      return new RegionMapping(addon, { descriptor: fileDescriptor, sizeBytes });
    } catch {
      return undefined;
    }
  }

  read(offset: number, target: Uint8Array): boolean {
    return this.#addon.copyFromRegion(this.#id, offset, target);
  }

  write(offset: number, source: Uint8Array): boolean {
    return this.#addon.copyToRegion(this.#id, offset, source);
  }

  /** All of the file as memory, made when it is first asked for; it stays mapped until nobody has it any more. */
  buffer(): ArrayBuffer {
    this.#buffer ??= this.#addon.mapBuffer(this.#fileDescriptor, this.#sizeBytes);
    return this.#buffer;
  }

  /** Whether these bytes are of `buffer`. */
  holds(bytes: Uint8Array): boolean {
    return this.#buffer !== undefined && bytes.buffer === this.#buffer;
  }

  /** Before the descriptor is closed. What `buffer` gave stays. */
  unmap(): void {
    this.#addon.unmapRegion(this.#id);
  }
}
