import type { Arena } from '../base/arena.ts';

/** Buffers of one command; `release` gives all of them back. */
export class ArenaScope {
  readonly #arena: Arena;
  readonly #offsets: number[] = [];

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /** Offset of at least `sizeBytes` bytes with whatever was there before. DriveError bufferFull. */
  allocate(sizeBytes: number): number {
    const offset = this.#arena.allocate(Math.max(sizeBytes, 1));
    this.#offsets.push(offset);
    return offset;
  }

  view(offset: number, sizeBytes: number): Uint8Array {
    return this.#arena.view(offset, sizeBytes);
  }

  release(): void {
    for (const offset of this.#offsets.splice(0)) this.#arena.free(offset);
  }

  /** Leaves the buffers to somebody who calls what is returned when they are no longer needed. */
  detach(): () => void {
    const offsets = this.#offsets.splice(0);
    return () => {
      for (const offset of offsets) this.#arena.free(offset);
    };
  }
}

/** Runs `work` with buffers that are given back when it settles. */
export async function withArena<T>(arena: Arena, work: (scope: ArenaScope) => Promise<T>): Promise<T> {
  const scope = new ArenaScope(arena);
  try {
    return await work(scope);
  } finally {
    scope.release();
  }
}
