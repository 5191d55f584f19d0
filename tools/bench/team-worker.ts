/** A thread of a team. It spins while tasks come one after another, and sleeps when none has come for a while. */
import { parentPort, workerData } from 'node:worker_threads';
import { threadPlacement } from '../../daemon/kernels/native/thread-placement.ts';
import { isIn, openKernelSets, runItems, type TeamSetup, teamWords } from './team-work.ts';

const SPIN_COUNT = 100_000;

const { setup, index } = workerData as { readonly setup: TeamSetup; readonly index: number };
const words = new Int32Array(setup.words);
const items = new Float64Array(setup.items);
const sets = openKernelSets(setup);
let seen = Atomics.load(words, teamWords.task);
parentPort?.postMessage(threadPlacement()?.threadId() ?? 0);
for (;;) {
  for (let i = 0; i < SPIN_COUNT && Atomics.load(words, teamWords.task) === seen; i++);
  Atomics.wait(words, teamWords.task, seen);
  seen = Atomics.load(words, teamWords.task);
  if (!isIn(index, seen)) continue;
  Atomics.add(words, teamWords.ready, 1);
  while (Atomics.load(words, teamWords.go) === 0);
  runItems(sets, words, items);
  Atomics.add(words, teamWords.done, 1);
}
