/**
 * Write amplification of the KV namespace under sequences that grow and end at different times: a server of a language
 * model that keeps what it has computed as long as there is room.
 *
 * So many sequences grow at once. Each begins with a prompt, written in pieces while others go on, or as a fork of another
 * one's first pages and a prompt of its own; then it grows step by step, at a rate of its own. Finished ones stay until
 * room is needed; then mostly the oldest is reclaimed, sometimes any. All is drawn from the seed and from how many pages
 * are held, so it is the same trace whatever the drive does with its pages.
 */
import { createSeededRandom, type Random } from '../../../daemon/base/random.ts';
import type { KvPages, Lpn, KvRunPages } from '../../../daemon/ftl/contract.ts';
import type { GcOptions } from '../../../daemon/ftl/gc-options.ts';
import { openMapDrive } from './map-drive.ts';

export interface KvRun {
  readonly pageCount: number;
  readonly pagesPerSuperblock: number;
  readonly overProvisioning: number;
  readonly gc: GcOptions;
  /** Sequences that grow at once. */
  readonly growingCount: number;
  /** Longest prompt, in superblocks. The shortest is half a superblock; lengths between are equally likely by ratio. */
  readonly promptSuperblocksMax: number;
  /** Capacities written before it is measured, and while. */
  readonly warmUpCapacities: number;
  readonly measuredCapacities: number;
  readonly seed: number;
}

export interface KvResult {
  readonly writeAmplification: number;
  readonly sequenceCount: number;
  /** Of all that happened: two runs of one trace have the same. */
  readonly traceHash: number;
}

/** Pages of one step of a sequence: a group of each of its streams. */
const STEP_PAGES = 16;
const CHANNELS = 4;
/** Superblocks of a prompt that are written at once. */
const PIECE_SUPERBLOCKS = 2;
const PROMPT_SUPERBLOCKS_MIN = 0.5;
/** Of the pages that the namespace promises. */
const HELD_SHARE_MAX = 0.95;
const FORK_SHARE = 0.1;
const OLDEST_FIRST_SHARE = 0.7;
const RATE_MAX = 8;

interface Sequence {
  readonly id: number;
  readonly pages: Lpn[];
  promptPagesLeft: number;
  stepsLeft: number;
  /** Of RATE_MAX rounds it takes part in so many. */
  readonly rate: number;
}

export async function runKv(run: KvRun, onProgress: (share: number) => void = () => undefined): Promise<KvResult> {
  const { ftl, frame, close } = await openMapDrive({
    blockPages: 1,
    kvPages: run.pageCount,
    pagesPerSuperblock: run.pagesPerSuperblock,
    channelCount: CHANNELS,
    overProvisioning: run.overProvisioning,
    gc: run.gc,
    seed: run.seed,
  });
  const trace = new KvTrace(run, ftl.kv, frame);
  const { programs } = ftl.flash.array.counters;
  const goal = (capacities: number): number => capacities * run.pageCount;
  await trace.write(goal(run.warmUpCapacities), (pages) => onProgress(pages / goal(run.warmUpCapacities)));
  const before = { ...programs };
  const writtenBefore = trace.writtenPages;
  const end = writtenBefore + goal(run.measuredCapacities);
  await trace.write(end, (pages) => onProgress(pages / end));
  const written = programs.kv - before.kv;
  const { sequenceCount, hash: traceHash } = trace;
  await close();
  const copied = programs.gc + programs.wear - before.gc - before.wear;
  return { writeAmplification: (written + copied) / written, sequenceCount, traceHash };
}

class KvTrace {
  readonly #run: KvRun;
  readonly #kv: KvPages;
  readonly #lpns = new Uint32Array(1);
  /** Its content does not matter. */
  readonly #pages: KvRunPages;
  readonly #random: Random;
  readonly #growing: Sequence[] = [];
  /** The oldest first. */
  readonly #finished: Sequence[] = [];
  sequenceCount = 0;
  writtenPages = 0;
  hash = 0;

  constructor(run: KvRun, kv: KvPages, frame: number) {
    this.#run = run;
    this.#kv = kv;
    this.#pages = { offset: frame, checksums: new Uint32Array(1) };
    this.#random = createSeededRandom(run.seed);
  }

  async write(endPages: number, onRound: (pages: number) => void): Promise<void> {
    while (this.writtenPages < endPages) {
      while (this.#growing.length < this.#run.growingCount) this.#begin();
      for (const sequence of [...this.#growing]) await this.#grow(sequence);
      onRound(this.writtenPages);
    }
  }

  #fraction(): number {
    return this.#random.nextUint32() / 2 ** 32;
  }

  /** From `min` to `max`, every ratio equally likely. */
  #draw(min: number, max: number): number {
    return Math.round(min * Math.max(1, max / min) ** this.#fraction());
  }

  #begin(): void {
    const { pagesPerSuperblock, promptSuperblocksMax } = this.#run;
    const [min, max] = [PROMPT_SUPERBLOCKS_MIN * pagesPerSuperblock, promptSuperblocksMax * pagesPerSuperblock];
    const promptPagesLeft = this.#draw(min, max);
    const stepsLeft = Math.ceil(this.#draw(STEP_PAGES, promptPagesLeft) / STEP_PAGES);
    const rate = 1 + (this.#random.nextUint32() % RATE_MAX);
    const id = ++this.sequenceCount;
    const sequence: Sequence = { id, pages: [], promptPagesLeft, stepsLeft, rate };
    const others = [...this.#growing, ...this.#finished];
    if (others.length > 0 && this.#fraction() < FORK_SHARE) {
      const parent = others[this.#random.nextUint32() % others.length]!;
      const shared = parent.pages.slice(0, this.#random.nextUint32() % (parent.pages.length + 1));
      for (const page of shared) this.#kv.retain(page);
      sequence.pages.push(...shared);
      this.#note(3, parent.id, shared.length);
    }
    this.#growing.push(sequence);
  }

  async #grow(sequence: Sequence): Promise<void> {
    if (sequence.promptPagesLeft > 0) {
      const piece = Math.min(sequence.promptPagesLeft, PIECE_SUPERBLOCKS * this.#run.pagesPerSuperblock);
      if (await this.#append(sequence, piece)) sequence.promptPagesLeft -= piece;
      return;
    }
    if (this.#random.nextUint32() % RATE_MAX >= sequence.rate) return;
    if (!(await this.#append(sequence, STEP_PAGES)) || --sequence.stepsLeft > 0) return;
    this.#growing.splice(this.#growing.indexOf(sequence), 1);
    this.#finished.push(sequence);
  }

  /** False if there is no room even without finished sequences: it waits. */
  async #append(sequence: Sequence, pageCount: number): Promise<boolean> {
    const { pageCount: capacity } = this.#kv;
    while (capacity - this.#kv.freePageCount + pageCount > HELD_SHARE_MAX * capacity) {
      if (this.#finished.length === 0) return this.#giveUpNewest(sequence);
      const isOldest = this.#fraction() < OLDEST_FIRST_SHARE;
      const index = isOldest ? 0 : this.#random.nextUint32() % this.#finished.length;
      this.#reclaim(this.#finished.splice(index, 1)[0]!);
    }
    const reservation = await this.#kv.reserve(pageCount);
    for (let i = 0; i < pageCount; i++) {
      const firstGroup = sequence.pages.length;
      const place = { generation: 1, layer: 0, firstGroup, groupCount: 1, firstIndex: 0, pageCount: 1 };
      const run = { sequenceId: BigInt(sequence.id), ...place };
      const target = { channel: firstGroup % CHANNELS, placement: sequence.id };
      this.#kv.program(reservation, run, this.#pages, target, this.#lpns);
      sequence.pages.push(this.#lpns[0] as Lpn);
    }
    reservation.release();
    this.writtenPages += pageCount;
    this.#note(1, sequence.id, pageCount);
    return true;
  }

  /** All grow and none is finished: the newest makes room, as a server that has taken on too much would. */
  #giveUpNewest(sequence: Sequence): false {
    const newest = this.#growing.pop()!;
    this.#reclaim(newest);
    if (newest !== sequence) this.#note(4, newest.id, 0);
    return false;
  }

  #reclaim(sequence: Sequence): void {
    for (const page of sequence.pages) this.#kv.release(page);
    this.#note(2, sequence.id, sequence.pages.length);
  }

  #note(kind: number, id: number, pageCount: number): void {
    for (const value of [kind, id, pageCount]) this.hash = (Math.imul(this.hash, 31) + value) >>> 0;
  }
}
