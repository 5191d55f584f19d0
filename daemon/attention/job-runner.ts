import { assert } from '../base/assert.ts';
import type { Kernels } from '../kernels/contract.ts';
import {
  commandRecord,
  JOB_MAGIC,
  jobRecord,
  jobStates,
  pageFlags,
  pageRecord,
  unitRecord,
  wordsOf,
} from './job-layout.ts';
import type { CellReader } from '../nand/cell-reader.ts';
import type { JobQueueWorker } from './job-queue.ts';

const commandWords = wordsOf(commandRecord.offsetOf);
const unitWords = wordsOf(unitRecord.offsetOf);
const jobWords = wordsOf(jobRecord.offsetOf);
const pageWords = wordsOf(pageRecord.offsetOf);

/** Runs jobs to their end on the calling thread: loads and checks pages, runs the kernel, merges after the last job. */
export class JobRunner {
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #kernels: Kernels;
  readonly #reader: CellReader;

  constructor(modules: { memory: WebAssembly.Memory; kernels: Kernels; reader: CellReader }) {
    this.#bytes = new Uint8Array(modules.memory.buffer);
    this.#words = new Uint32Array(modules.memory.buffer);
    this.#kernels = modules.kernels;
    this.#reader = modules.reader;
  }

  /** `job` is the offset of a job record. */
  run(job: number): void {
    const words = this.#words;
    const at = job >>> 2;
    assert(job % 4 === 0 && words[at + jobWords.magic] === JOB_MAGIC, `there is a job at ${job}`);
    const unit = words[at + jobWords.unit]! >>> 2;
    if (Atomics.load(words, unit + unitWords.failed) !== 0) {
      words[at + jobWords.state] = jobStates.skipped;
      return;
    }
    const state = this.#bringPages(at);
    if (state === jobStates.done) this.#kernels.attend(job);
    else Atomics.store(words, unit + unitWords.failed, 1);
    words[at + jobWords.state] = state;
  }

  /**
   * After `run`: counts the job off; the last job of a unit merges. Returns whether the event loop should hear of it:
   * its command is complete, or failed.
   */
  finish(job: number): boolean {
    const words = this.#words;
    const at = job >>> 2;
    const state = words[at + jobWords.state];
    const unitOffset = words[at + jobWords.unit]!;
    const unit = unitOffset >>> 2;
    const command = words[unit + unitWords.command]! >>> 2;
    const isLast = Atomics.sub(words, unit + unitWords.jobsRemaining, 1) === 1;
    if (!isLast) return state !== jobStates.done;
    if (Atomics.load(words, unit + unitWords.failed) !== 0) return true;
    this.#kernels.merge(unitOffset + unitRecord.offsetOf.merge);
    return Atomics.sub(words, command + commandWords.unitsRemaining, 1) === 1;
  }

  /** Whether all pages of a job are known to be right, and so were in memory when they were looked at. */
  isWarm(job: number): boolean {
    return this.#words[(job >>> 2) + jobWords.pageCount] === 0;
  }

  /** Whether a flag that `wakeFlagOf` gave is set. */
  isSet(flag: number): boolean {
    return Atomics.load(this.#words, flag) !== 0;
  }

  /** Index, in words, of the command's flag that asks to hear of each of its jobs. */
  wakeFlagOf(job: number): number {
    const unit = this.#words[(job >>> 2) + jobWords.unit]! >>> 2;
    return (this.#words[unit + unitWords.command]! >>> 2) + commandWords.wakeAlways;
  }

  #bringPages(at: number): number {
    const words = this.#words;
    let record = words[at + jobWords.pages]! >>> 2;
    for (let i = words[at + jobWords.pageCount]!; i > 0; i--, record += pageRecord.sizeBytes / 4) {
      const page = words[record + pageWords.page]!;
      const frame = words[record + pageWords.frame]!;
      const flags = words[record + pageWords.flags]!;
      const { pageSizeBytes } = this.#reader;
      const isSilent = (flags & pageFlags.fail) !== 0;
      if (
        isSilent ||
        (flags & pageFlags.load && !this.#reader.read(page, this.#bytes.subarray(frame, frame + pageSizeBytes)))
      ) {
        words[at + jobWords.failedPage] = page;
        return jobStates.readFailed;
      }
      if (flags & pageFlags.check) {
        const sum =
          frame === 0
            ? this.#kernels.crc32cMedia(mediaOffset(words, record), pageSizeBytes)
            : this.#kernels.crc32c(frame, pageSizeBytes);
        if (flags & pageFlags.sumKnown) {
          if (sum === words[record + pageWords.sum]) continue;
          words[at + jobWords.failedPage] = page;
          return jobStates.checkFailed;
        }
        const expected = { lpn: words[record + pageWords.logicalPage]!, epoch: words[record + pageWords.eraseCount]! };
        if (!this.#reader.matches(page, { ...expected, dataCrc32c: sum })) {
          words[at + jobWords.failedPage] = page;
          return jobStates.checkFailed;
        }
        words[record + pageWords.sum] = sum;
      }
    }
    return jobStates.done;
  }
}

/** Runs a job that was taken, and hands it back. Returns whether the caller must wake the event loop. */
export function runJob(runner: JobRunner, queue: JobQueueWorker, job: number): boolean {
  const wakeFlag = runner.wakeFlagOf(job);
  runner.run(job);
  const isNews = runner.finish(job);
  const outstanding = queue.complete(job);
  return (isNews || queue.isWanted(outstanding) || runner.isSet(wakeFlag)) && queue.claimSignal();
}

const mediaOffset = (words: Uint32Array, record: number): number =>
  words[record + pageWords.mediaOffset]! + words[record + pageWords.mediaOffset + 1]! * 0x1_0000_0000;
