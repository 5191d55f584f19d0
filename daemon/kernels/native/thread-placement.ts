import { loadAddon } from './addon.ts';

/** Where the threads of this process run. */
export interface ThreadPlacement {
  /** Of the calling thread. */
  readonly threadId: () => number;
  /** That the calling thread runs on just now. */
  readonly currentCpu: () => number;
  /**
   * Lets a thread of this process run on all CPUs that the caller may use but the first `count` of `cpus`: on one of them, the
   * last, if there are no others.
   */
  readonly keepOff: (thread: number, cpus: Int32Array, count: number) => void;
}

/** Undefined where there is no native addon: the system places threads as it sees fit. */
export function threadPlacement(): ThreadPlacement | undefined {
  const addon = loadAddon();
  if (addon instanceof Error) return undefined;
  return { threadId: addon.threadId, currentCpu: addon.currentCpu, keepOff: addon.keepThreadOff };
}
