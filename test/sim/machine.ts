/** The computer that a simulated drive runs on, from one start to the next: its power, and how its disk behaves. */
import { DriveError } from '../../daemon/base/errors.ts';
import type { EventLoop } from './event-loop.ts';
import type { Prng } from './prng.ts';
import type { Trace } from './trace.ts';

/** Everything that changes a disk. The power may go before each of them, and before each has ended. */
export type DiskStep = 'program' | 'header' | 'append' | 'create' | 'remove' | 'wipe' | 'sync' | 'commit';

export interface DiskBehaviour {
  /** Of an operation that nothing holds up. */
  readonly readNs: number;
  readonly syncNs: number;
  readonly commitNs: number;
  /** Share of operations that take much longer. */
  readonly stallChance: number;
  /** While the disk refuses: share of writes that it does not take. */
  readonly refusalChance: number;
  /** While it can't read: share of reads that fail. */
  readonly readFailureChance: number;
}

const STALL_FACTOR = 30;

export class Machine {
  readonly #behaviour: DiskBehaviour;
  readonly #loop: EventLoop;
  readonly #random: Prng;
  readonly #trace: Trace;
  #stepsLeft: number;
  isOn = true;
  /** The disk is full, or failing. */
  isRefusing = false;
  /** The next sync fails. */
  failsSync = false;
  /** One has: the drive promises nothing any more until it is started again. */
  hasFailedSync = false;
  /** Sectors are hard to read. */
  isFailingReads = false;
  /** The step that the power went before; undefined: at none. */
  cutBefore: string | undefined;
  refusalCount = 0;
  readFailureCount = 0;
  stepCount = 0;

  /** The power goes at the step after `stepsLeft` others. */
  constructor(
    options: { behaviour: DiskBehaviour; stepsLeft: number },
    modules: { loop: EventLoop; random: Prng; trace: Trace },
  ) {
    this.#behaviour = options.behaviour;
    this.#stepsLeft = options.stepsLeft;
    this.#loop = modules.loop;
    this.#random = modules.random;
    this.#trace = modules.trace;
  }

  /** False: the power is off, and what was to be done is not. */
  step(what: DiskStep, phase: 'begins' | 'ends', detail = 0): boolean {
    if (!this.isOn) return false;
    this.stepCount++;
    this.#trace.note(`${what} ${phase}`, detail);
    if (this.#stepsLeft-- > 0) return true;
    this.cutBefore = `${what} ${phase}`;
    this.powerOff();
    return false;
  }

  /** The power goes at the step after so many others. */
  cutAfter(steps: number): void {
    this.#stepsLeft = steps;
  }

  powerOff(): void {
    if (!this.isOn) return;
    this.#trace.note('power off');
    this.isOn = false;
    this.#loop.stop();
  }

  /** Throws DriveError writeFault if the disk does not take this write. */
  take(what: DiskStep): void {
    if (!this.isOn || !this.isRefusing || !this.#random.chance(this.#behaviour.refusalChance)) return;
    throw this.#refusal(what);
  }

  /** False: the disk can't read this, now. */
  reads(): boolean {
    if (!this.isFailingReads || !this.#random.chance(this.#behaviour.readFailureChance)) return true;
    this.readFailureCount++;
    this.#trace.note('read fails');
    return false;
  }

  /** Whether what is read lies in memory. */
  isResident(): boolean {
    return !this.isFailingReads && this.#random.chance(0.5);
  }

  /** Whether a write that was not taken has reached the disk in part. */
  tears(): boolean {
    return this.#random.chance(0.3);
  }

  #refusal(what: string): DriveError {
    this.refusalCount++;
    this.#trace.note(`${what} refused`);
    return new DriveError('writeFault', `simulated disk: ${what} refused`);
  }

  /** Resolves when an operation is done; never, if the power goes first. */
  finish(what: 'read' | 'sync' | 'commit'): Promise<void> {
    if (!this.isOn) return new Promise(() => undefined);
    return new Promise((resolve, reject) => {
      this.#loop.after(this.#durationNs(what), () => {
        if (!this.isOn || (what !== 'read' && !this.step(what, 'ends'))) return;
        if (what === 'sync' && this.failsSync) {
          this.failsSync = false;
          this.hasFailedSync = true;
          reject(this.#refusal(what));
        } else if (what === 'commit' && this.isRefusing && this.#random.chance(this.#behaviour.refusalChance)) {
          reject(this.#refusal(what));
        } else resolve();
      });
    });
  }

  #durationNs(what: 'read' | 'sync' | 'commit'): number {
    const { readNs, syncNs, commitNs, stallChance } = this.#behaviour;
    const typicalNs = what === 'read' ? readNs : what === 'sync' ? syncNs : commitNs;
    const factor = this.#random.chance(stallChance) ? STALL_FACTOR : 1;
    return Math.floor(typicalNs * factor * (0.5 + this.#random.nextUint32() / 2 ** 32));
  }
}
