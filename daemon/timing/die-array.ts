import type { FlashTiming } from '../profiles/timing-profile.ts';
import type { DeviceShape } from './device-shape.ts';

const IDLE = 0;
const READ = 1;
const PROGRAM = 2;
const ERASE = 3;

/**
 * The cells: what each die (with independent planes: each plane) is busy with, and until when. A physical page number
 * says which die, plane and row; rows are counted through the blocks of a plane.
 *
 * Operations start in the order in which they come. Two things soften that: operations on the same row of a die's planes
 * join (`together`), and reads go before programs and erases (`suspendNs`), which then take as much longer. A program's
 * own command was told its end already, so it is what comes after it that waits.
 */
export class DieArray {
  readonly unitCount: number;
  /** Things that do one operation at a time. */
  readonly arrayCount: number;
  readonly #timing: FlashTiming;
  readonly #channelCount: number;
  readonly #planesPerDie: number;
  readonly #pagesPerBlock: number;
  readonly #isIndependent: boolean;
  readonly #isJoining: boolean;
  readonly #freeNs: Float64Array;
  /** End of the last program or erase, and of the last read. */
  readonly #writeEndNs: Float64Array;
  readonly #readEndNs: Float64Array;
  /** The last operation, which others may join: what, where, on which planes, whose, from when to when. */
  readonly #lastKind: Uint8Array;
  readonly #lastRow: Float64Array;
  readonly #lastPlanes: Uint8Array;
  readonly #lastJob: Float64Array;
  readonly #lastStartNs: Float64Array;
  readonly #lastEndNs: Float64Array;
  busyNs = 0;

  constructor(timing: FlashTiming, shape: DeviceShape) {
    const { channelCount, diesPerChannel, planesPerDie } = shape;
    this.#timing = timing;
    this.#channelCount = channelCount;
    this.#planesPerDie = planesPerDie;
    this.#pagesPerBlock = shape.pagesPerBlock;
    this.#isIndependent = timing.planes === 'independent';
    this.#isJoining = timing.planes === 'together' && planesPerDie > 1;
    this.unitCount = channelCount * diesPerChannel * planesPerDie;
    const count = this.#isIndependent ? this.unitCount : channelCount * diesPerChannel;
    this.arrayCount = count;
    this.#freeNs = new Float64Array(count);
    this.#writeEndNs = new Float64Array(count);
    this.#readEndNs = new Float64Array(count);
    this.#lastKind = new Uint8Array(count).fill(IDLE);
    this.#lastRow = new Float64Array(count);
    this.#lastPlanes = new Uint8Array(count);
    this.#lastJob = new Float64Array(count);
    this.#lastStartNs = new Float64Array(count);
    this.#lastEndNs = new Float64Array(count);
  }

  unitOf(ppn: number): number {
    return ppn % this.unitCount;
  }

  /** When the unit's cells have nothing to do any more. */
  freeNs(unit: number): number {
    return this.#freeNs[this.#arrayOf(unit)]!;
  }

  /** Keeps the cells from anything else until then: their register is full. */
  holdUntil(unit: number, untilNs: number): void {
    const array = this.#arrayOf(unit);
    if (this.#freeNs[array]! < untilNs) this.#freeNs[array] = untilNs;
  }

  /** Reads a page into its register `attemptCount` times over; returns when it is there. */
  read(readyNs: number, ppn: number, bytes: number, attemptCount: number, job: number): number {
    const durationNs = this.#readNs(ppn, bytes) * attemptCount;
    const array = this.#arrayOf(this.unitOf(ppn));
    if (this.#isJoining && this.#joins(READ, array, ppn, readyNs, job)) {
      this.#readEndNs[array] = this.#extend(array, this.#lastStartNs[array]! + durationNs);
    } else {
      const { suspendNs } = this.#timing;
      const startNs =
        suspendNs !== undefined && readyNs < this.#writeEndNs[array]!
          ? this.#suspend(readyNs, array, durationNs, suspendNs)
          : Math.max(readyNs, this.#freeNs[array]!);
      this.#readEndNs[array] = this.#start(READ, array, ppn, startNs, durationNs, job);
    }
    return this.#readEndNs[array];
  }

  /** Programs a page that is in its register from `readyNs` on; returns the start. The end is `endOf`. */
  program(readyNs: number, ppn: number, job: number): number {
    const { programNs } = this.#timing;
    const durationNs = programNs[this.#pageInBlockOf(ppn) % programNs.length]!;
    const array = this.#arrayOf(this.unitOf(ppn));
    if (this.#isJoining && this.#joins(PROGRAM, array, ppn, readyNs, job)) {
      const startNs = Math.max(readyNs, this.#lastStartNs[array]!);
      this.#lastStartNs[array] = startNs;
      this.#writeEndNs[array] = Math.max(this.#writeEndNs[array]!, this.#extend(array, startNs + durationNs));
      return startNs;
    }
    const startNs = Math.max(readyNs, this.#freeNs[array]!);
    this.#writeEndNs[array] = this.#start(PROGRAM, array, ppn, startNs, durationNs, job);
    return startNs;
  }

  /** Erases the block that a page is in; returns the end. */
  erase(readyNs: number, ppn: number, job: number): number {
    const { eraseNs } = this.#timing;
    const array = this.#arrayOf(this.unitOf(ppn));
    if (this.#isJoining && this.#joins(ERASE, array, ppn, readyNs, job)) return this.#lastEndNs[array]!;
    const startNs = Math.max(readyNs, this.#freeNs[array]!);
    this.#writeEndNs[array] = this.#start(ERASE, array, ppn, startNs, eraseNs, job);
    return this.#writeEndNs[array];
  }

  /** End of the last operation that the unit began. */
  endOf(unit: number): number {
    return this.#lastEndNs[this.#arrayOf(unit)]!;
  }

  #start(kind: number, array: number, ppn: number, startNs: number, durationNs: number, job: number): number {
    const endNs = startNs + durationNs;
    this.#freeNs[array] = Math.max(this.#freeNs[array]!, endNs);
    this.#lastKind[array] = kind;
    this.#lastRow[array] = this.#rowOf(ppn);
    this.#lastPlanes[array] = 1 << this.#planeOf(ppn);
    this.#lastJob[array] = job;
    this.#lastStartNs[array] = startNs;
    this.#lastEndNs[array] = endNs;
    this.busyNs += durationNs;
    return endNs;
  }

  /** Takes part in the last operation, which may take longer for it. Returns its end. */
  #extend(array: number, endNs: number): number {
    const lastEndNs = this.#lastEndNs[array]!;
    if (endNs <= lastEndNs) return endNs;
    this.busyNs += endNs - lastEndNs;
    this.#lastEndNs[array] = endNs;
    this.#freeNs[array] = Math.max(this.#freeNs[array]!, endNs);
    return endNs;
  }

  /** Whether it can take part in the last operation: it has not begun by then, or is of the same job and can wait. */
  #joins(kind: number, array: number, ppn: number, readyNs: number, job: number): boolean {
    if (this.#lastKind[array] !== kind || this.#lastRow[array] !== this.#rowOf(ppn)) return false;
    const plane = 1 << this.#planeOf(ppn);
    if ((this.#lastPlanes[array]! & plane) !== 0) return false;
    const isWaiting = readyNs <= this.#lastStartNs[array]!;
    if (!isWaiting && !(kind === PROGRAM && this.#lastJob[array] === job)) return false;
    this.#lastPlanes[array] = this.#lastPlanes[array]! | plane;
    return true;
  }

  /**
   * A read goes before the programs and erases of its array; returns its start. Where one of them is running the read
   * pays for the suspension, and reads that come before it has ended follow at once.
   */
  #suspend(readyNs: number, array: number, durationNs: number, suspendNs: number): number {
    const isReading = this.#readEndNs[array]! > readyNs;
    const costNs = isReading ? 0 : suspendNs;
    this.#writeEndNs[array]! += durationNs + costNs;
    this.#freeNs[array]! += durationNs + costNs;
    this.busyNs += costNs;
    return isReading ? this.#readEndNs[array]! : readyNs + suspendNs;
  }

  #readNs(ppn: number, bytes: number): number {
    const { readNs, shortRead } = this.#timing;
    const times = shortRead !== undefined && bytes <= shortRead.bytesMax ? shortRead.readNs : readNs;
    return times[this.#pageInBlockOf(ppn) % times.length]!;
  }

  #rowOf(ppn: number): number {
    return Math.floor(ppn / this.unitCount);
  }

  #pageInBlockOf(ppn: number): number {
    return this.#rowOf(ppn) % this.#pagesPerBlock;
  }

  #planeOf(ppn: number): number {
    return Math.floor(this.unitOf(ppn) / this.#channelCount) % this.#planesPerDie;
  }

  #arrayOf(unit: number): number {
    if (this.#isIndependent) return unit;
    const die = Math.floor(unit / (this.#channelCount * this.#planesPerDie));
    return die * this.#channelCount + (unit % this.#channelCount);
  }
}
