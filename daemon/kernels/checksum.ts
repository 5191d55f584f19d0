import type { Arena } from '../base/arena.ts';
import { crc32c } from '../base/crc32c.ts';
import type { Kernels } from './contract.ts';

/** Below this a kernel costs more to call than it saves. */
const KERNEL_BYTES_MIN = 1024;
const SCRATCH_BYTES = 16_384;

/** CRC32C of any bytes by a kernel set: where they lie, if that is the arena, else through scratch memory in it. */
export class Checksum {
  readonly #arena: Arena;
  readonly #kernels: Pick<Kernels, 'crc32c'>;
  readonly #scratch: number;

  constructor(modules: { arena: Arena; kernels: Pick<Kernels, 'crc32c'> }) {
    this.#arena = modules.arena;
    this.#kernels = modules.kernels;
    this.#scratch = modules.arena.allocate(SCRATCH_BYTES);
  }

  /** Gives its scratch memory back. */
  close(): void {
    this.#arena.free(this.#scratch);
  }

  of(bytes: Uint8Array): number {
    if (bytes.length < KERNEL_BYTES_MIN) return crc32c(bytes);
    if (bytes.buffer === (this.#arena.buffer as unknown)) return this.#kernels.crc32c(bytes.byteOffset, bytes.length);
    let sum = 0;
    for (let at = 0; at < bytes.length; at += SCRATCH_BYTES) {
      const piece = bytes.subarray(at, at + SCRATCH_BYTES);
      this.#arena.bytes.set(piece, this.#scratch);
      sum = this.#kernels.crc32c(this.#scratch, piece.length, sum);
    }
    return sum;
  }
}
