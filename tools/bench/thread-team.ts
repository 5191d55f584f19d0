/**
 * Threads that run kernels and plain reads for a measurement. The caller is one of them; the others spin, so that a task
 * begins everywhere within a microsecond. A task is a list of items that the threads take one by one, as the drive's
 * workers take jobs.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { KernelResources } from '../../daemon/kernels/contract.ts';
import { threadPlacement } from '../../daemon/kernels/native/thread-placement.ts';
import {
  type MediaRange,
  openKernelSets,
  runItems,
  type SetName,
  type TeamSetup,
  taskWord,
  teamWords,
} from './team-work.ts';

/** Attends jobs (offsets in the arena), or reads pieces (offsets in the arena, or in the media mapping). */
export interface TeamTask {
  readonly kind: 'attend' | 'readMemory' | 'readMedia';
  /** Which kernels: of an instruction set, of WebAssembly. */
  readonly set: SetName;
  readonly items: readonly number[];
  /** Bytes of a piece to read. */
  readonly pieceBytes?: number;
}

/** Of a task. */
const ITEM_COUNT_MAX = 8192;

export class ThreadTeam {
  readonly #setup: TeamSetup;
  readonly #words: Int32Array;
  readonly #items: Float64Array;
  readonly #sets: ReturnType<typeof openKernelSets>;
  readonly #workers: Worker[] = [];
  /** Of the workers, as the system knows them. */
  readonly #threads: number[] = [];
  readonly #placement = threadPlacement();
  #taskCount = 0;

  private constructor(setup: TeamSetup) {
    this.#setup = setup;
    this.#words = new Int32Array(setup.words);
    this.#items = new Float64Array(setup.items);
    this.#sets = openKernelSets(setup);
  }

  /**
   * `threadCountMax` threads, the caller included. All of them have gone through the `touched` part of the media before:
   * no measurement pays for page faults.
   */
  static async open(
    resources: KernelResources,
    options: { readonly sets: readonly SetName[]; readonly threadCountMax: number; readonly touched?: MediaRange },
  ): Promise<ThreadTeam> {
    const setup: TeamSetup = {
      memory: resources.memory,
      ...(resources.media && { media: resources.media }),
      sets: options.sets,
      ...(options.touched && { touched: options.touched }),
      words: new SharedArrayBuffer(4 * teamWords.count),
      items: new SharedArrayBuffer(8 * ITEM_COUNT_MAX),
    };
    const team = new ThreadTeam(setup);
    for (let i = 1; i < options.threadCountMax; i++) {
      const worker = new Worker(new URL('./team-worker.js', import.meta.url), { workerData: { setup, index: i } });
      team.#workers.push(worker);
      const [thread] = (await once(worker, 'message')) as [number];
      team.#threads.push(thread);
    }
    return team;
  }

  /** Runs a task on the caller and `threadCount` - 1 others. Milliseconds from the first item's begin to the last's end. */
  run(task: TeamTask, threadCount: number): number {
    const words = this.#words;
    this.#spread();
    this.#items.set(task.items);
    words[teamWords.itemCount] = task.items.length;
    words[teamWords.kind] = ['attend', 'readMemory', 'readMedia'].indexOf(task.kind);
    words[teamWords.set] = this.#setup.sets.indexOf(task.set);
    words[teamWords.pieceBytes] = task.pieceBytes ?? 0;
    Atomics.store(words, teamWords.next, 0);
    Atomics.store(words, teamWords.ready, 0);
    Atomics.store(words, teamWords.done, 0);
    Atomics.store(words, teamWords.go, 0);
    this.#taskCount++;
    Atomics.store(words, teamWords.task, taskWord(this.#taskCount, threadCount));
    Atomics.notify(words, teamWords.task);
    while (Atomics.load(words, teamWords.ready) < threadCount - 1);
    const startMs = performance.now();
    Atomics.store(words, teamWords.go, 1);
    runItems(this.#sets, words, this.#items);
    while (Atomics.load(words, teamWords.done) < threadCount - 1);
    return performance.now() - startMs;
  }

  /** The others run where the caller doesn't: the system wakes a thread where that ran before, even if that is where we are. */
  #spread(): void {
    if (this.#placement === undefined) return;
    const cpus = Int32Array.of(this.#placement.currentCpu());
    for (const thread of this.#threads) this.#placement.keepOff(thread, cpus, cpus.length);
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}
