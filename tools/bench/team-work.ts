/** What every thread of a team does. */
import type { KernelResources, Kernels } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { createReadSum } from './read-probe.ts';
import { type NativeIsa, type NativeKernels, supportedIsas } from '../../daemon/kernels/native/native-kernels.ts';

/** Native kernels held to an instruction set, or WebAssembly. */
export type SetName = NativeIsa | 'wasm';

/** Native kernels of this machine that differ in how they attend to floats, best first. */
export const floatSets = (): NativeIsa[] =>
  supportedIsas()
    .filter((isa) => isa !== 'avx512dp')
    .reverse();

/** Part of the media mapping. */
export interface MediaRange {
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface TeamSetup extends KernelResources {
  readonly sets: readonly SetName[];
  readonly touched?: MediaRange;
  readonly words: SharedArrayBuffer;
  readonly items: SharedArrayBuffer;
}

/** Words of the shared memory; each that several threads write has a cache line of its own. */
export const teamWords = {
  /** `taskWord` of the latest task. */
  task: 0,
  kind: 1,
  set: 2,
  itemCount: 3,
  pieceBytes: 4,
  /** Threads that have seen the task, and wait for `go`. */
  ready: 16,
  go: 32,
  /** Index of the next item. */
  next: 48,
  /** Threads, but for the caller, that found no more items. */
  done: 64,
  count: 80,
} as const;

const THREAD_COUNT_LIMIT = 256;

/** Number of a task and its threads in one word, so that who is late cannot mix up two tasks. */
export const taskWord = (task: number, threadCount: number): number => (task * THREAD_COUNT_LIMIT + threadCount) | 0;
export const isIn = (index: number, word: number): boolean => index < (word & (THREAD_COUNT_LIMIT - 1));

export interface OpenSet {
  readonly kernels: Kernels;
  /** Adds up all words of a range of the arena, or of the media mapping. */
  read(offset: number, sizeBytes: number, media: boolean): unknown;
}

export function openKernelSets(setup: TeamSetup): OpenSet[] {
  return setup.sets.map((name) => {
    const resources = { memory: setup.memory, ...(setup.media && { media: setup.media }) };
    if (name === 'wasm') {
      const sum = createReadSum(setup.memory);
      return { kernels: loadKernels('wasm', resources), read: (offset, sizeBytes) => sum(offset, sizeBytes) };
    }
    const kernels = loadKernels('native', { ...resources, isa: name }) as NativeKernels;
    // Each set of each thread has a mapping of its own, whose first use costs a page fault for every few pages.
    if (setup.touched) kernels.readSum(setup.touched.offset, setup.touched.sizeBytes, true);
    return { kernels, read: (offset, sizeBytes, media) => kernels.readSum(offset, sizeBytes, media) };
  });
}

/** Takes items until there are none. */
export function runItems(sets: readonly OpenSet[], words: Int32Array, items: Float64Array): void {
  const set = sets[words[teamWords.set]!]!;
  const kind = words[teamWords.kind];
  const count = words[teamWords.itemCount]!;
  const pieceBytes = words[teamWords.pieceBytes]!;
  for (let i = Atomics.add(words, teamWords.next, 1); i < count; i = Atomics.add(words, teamWords.next, 1)) {
    if (kind === 0) set.kernels.attend(items[i]!);
    else set.read(items[i]!, pieceBytes, kind === 2);
  }
}
