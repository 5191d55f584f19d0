/**
 * What planner and workers share in the arena. The planner (event loop) writes these records before it hands a job
 * over; a worker writes only the fields named as its own. Each record is written field by field through a Uint32Array
 * over the whole arena, so the tables below are also where the word offsets come from.
 */
import { bytes, defineStruct, reserved, u32, uint64 } from '../../spec/struct.ts';
import { attendJob, mergeJob } from '../kernels/contract.ts';

/** One command. 64 bytes. */
export const commandRecord = defineStruct('attention command', 64, {
  unitsRemaining: u32(0, 'units whose outputs are not written yet; who takes it to 0 wakes the event loop. Atomic'),
  wakeAlways: u32(4, '1: wake the event loop after each of its jobs (the command failed or is being aborted). Atomic'),
  reserved0: reserved(8, 56),
});

/** One unit: the query rows of one KV head and one tile of query tokens, against everything they see. 128 bytes. */
export const unitRecord = defineStruct('attention unit', 128, {
  jobsRemaining: u32(0, 'jobs that have not finished; who takes it to 0 merges. Atomic'),
  failed: u32(4, '1: a job failed; the others are skipped and nothing is merged. Atomic'),
  command: u32(8, 'offset of the command record'),
  reserved0: reserved(12, 52),
  merge: bytes(64, mergeJob.sizeBytes, 'its merge job'),
});

export const jobStates = { waiting: 0, done: 1, skipped: 2, readFailed: 3, checkFailed: 4 } as const;

/** One job: a unit against one chunk of tokens. 128 bytes. */
export const jobRecord = defineStruct('attention job', 128, {
  attend: bytes(0, attendJob.sizeBytes, 'what the kernel runs'),
  magic: u32(64, 'JOB_MAGIC: a worker that takes anything else is broken'),
  unit: u32(68, 'offset of the unit record'),
  pageCount: u32(72, 'pages to load or check before the kernel runs'),
  pages: u32(76, 'offset of the page records'),
  state: u32(80, 'jobStates; written by the worker'),
  failedPage: u32(84, 'physical page that could not be read; written by the worker'),
  slot: u32(88, "the event loop's number for it"),
  reserved0: reserved(92, 36),
});

export const JOB_MAGIC = 0x4e54_5441;

export const pageFlags = {
  /** Read the page into its frame first. */
  load: 1,
  /** Compute its checksum and compare it with the out-of-band entry. */
  check: 2,
  /** The checksum to compare with is in the record; the out-of-band entry need not be read. */
  sumKnown: 4,
  /** The die does not answer. */
  fail: 8,
} as const;

/** A page that a job must load, check, or both. 32 bytes. */
export const pageRecord = defineStruct('attention page', 32, {
  page: u32(0, 'physical page'),
  logicalPage: u32(4, 'logical page that should lie there'),
  eraseCount: u32(8, 'how often its block was erased'),
  frame: u32(12, 'offset of its frame in the arena; 0: it lies in the media arena'),
  flags: u32(16, 'pageFlags'),
  sum: u32(20, 'CRC32C of its bytes: expected if sumKnown; what the worker computed after a check'),
  mediaOffset: uint64(24, 'where it lies in the media arena, if it does'),
});

/** Word offset of a field from the start of its record. */
export const wordsOf = <T extends Readonly<Record<string, number>>>(offsets: T): T =>
  Object.fromEntries(Object.entries(offsets).map(([name, offset]) => [name, offset >>> 2])) as T;

/** Whether a page of the job could not be read, or was not what was programmed. */
export function hasFailed(words: Uint32Array, offset: number): boolean {
  const state = words[(offset + jobRecord.offsetOf.state) >>> 2];
  return state === jobStates.readFailed || state === jobStates.checkFailed;
}
