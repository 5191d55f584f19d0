import { getSystemErrorMap } from 'node:util';
import { assert } from '../../base/assert.ts';
import { DIRECT_BLOCK_BYTES, type DirectFile, type DirectRange } from '../../base/direct-file.ts';
import { DriveError } from '../../base/errors.ts';
import { type DirectIoAddon, loadAddon, nativeUnavailable } from './addon.ts';

/** Memory that native kernels of every thread of the process can be given, by its number. Large pages where there are any. */
export interface Slab {
  readonly id: number;
  readonly bytes: Uint8Array;
}

/** Requests that run at once. Of 512 KiB each, the disks measured reach 0.95 of their best rate with eight. */
const THREAD_COUNT = 16;
const COMPLETIONS_MAX = 256;

/** Zeros, aligned for any disk; taken from the system page by page as they are written. DriveError invalidField. */
export function createSlab(sizeBytes: number): Slab {
  try {
    const { id, buffer } = requireAddon().createSlab(sizeBytes);
    return { id, bytes: new Uint8Array(buffer) };
  } catch (error) {
    if (error instanceof DriveError) throw error;
    throw new DriveError('invalidField', `${sizeBytes} bytes of memory: ${(error as Error).message}`, { cause: error });
  }
}

function requireAddon(): Exclude<ReturnType<typeof loadAddon>, Error> {
  const addon = loadAddon();
  if (!(addon instanceof Error)) return addon;
  throw new DriveError(
    'invalidField',
    `direct I/O needs the native addon, which is not built (${nativeUnavailable()})`,
  );
}

/** Direct I/O between a slab and an open file, whose descriptor stays the caller's. */
export class DirectIo implements DirectFile {
  readonly memory: Uint8Array;
  readonly #addon: DirectIoAddon;
  readonly #done = new Map<number, (error: Error | undefined) => void>();
  readonly #completions = new Float64Array(2 * COMPLETIONS_MAX);
  #next = 0;

  constructor(fileDescriptor: number, slab: Slab) {
    this.memory = slab.bytes;
    this.#addon = requireAddon().openDirectIo(fileDescriptor, slab.id, THREAD_COUNT, () => this.#take());
  }

  transfer(kind: 'read' | 'write', range: DirectRange, done: (error: Error | undefined) => void): void {
    const { position, offset, sizeBytes } = range;
    const isAligned = [position, offset, sizeBytes].every((value) => value % DIRECT_BLOCK_BYTES === 0);
    assert(isAligned, () => `direct ${kind} of ${sizeBytes} bytes at ${position} is aligned`);
    const number = this.#next++;
    this.#addon.submit(number, kind === 'write' ? 1 : 0, position, offset, sizeBytes);
    this.#done.set(number, done);
  }

  drain(): void {
    if (this.#done.size === 0) return;
    this.#addon.wait();
    this.#take();
  }

  close(): void {
    while (this.#done.size > 0) this.drain();
    this.#addon.close();
  }

  #take(): void {
    let count = COMPLETIONS_MAX;
    while (count === COMPLETIONS_MAX) {
      count = this.#addon.take(this.#completions);
      // Copied: what is called may drain, and take again.
      const pairs = this.#completions.slice(0, 2 * count);
      for (let i = 0; i < pairs.length; i += 2) this.#ended(pairs[i]!, pairs[i + 1]!);
    }
  }

  #ended(number: number, result: number): void {
    const done = this.#done.get(number);
    assert(done !== undefined, `request ${number} is on its way`);
    this.#done.delete(number);
    done(result === 0 ? undefined : systemError(result));
  }
}

/** As Node's own: with the `code` of the system's error number. */
function systemError(errno: number): Error {
  if (errno < 0) return new Error('the file is too short');
  const [code, text] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, 'unknown error'];
  return Object.assign(new Error(`${code}: ${text}`), { code, errno: -errno });
}
