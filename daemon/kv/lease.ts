import { limits } from '../../spec/limits.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { Sequence } from './sequence.ts';

const SWEEP_INTERVAL_MS = 1000;
/** The most that leases count between two sweeps. */
const STEP_NS_MAX = 2 * SWEEP_INTERVAL_MS * 1e6;

/**
 * Finds sequences whose lease ended: no command has named them for `leaseSeconds`. Leases start anew when the drive
 * opens. A sweep looks at a bounded number of leased sequences and goes on where the last one stopped.
 *
 * Leases count time in which the drive runs. A process that stood still, or a clock that jumps ahead, must not end leases
 * whose owners could not be heard; a clock that goes back makes them longer.
 */
export class LeaseKeeper {
  readonly #clock: Clock;
  readonly #expire: (sequence: Sequence) => void;
  readonly #leased = new Set<Sequence>();
  /** Owners by id. */
  readonly #expired = new Map<bigint, bigint>();
  #cursor: Iterator<Sequence> | undefined;
  #timer: Timer | undefined;
  /** Time counted, and the clock's when that was. */
  #countedNs = 0;
  #countedAtNs: number;

  /** `expire` takes a sequence away; it must call `remove`. */
  constructor(modules: { clock: Clock; expire: (sequence: Sequence) => void }) {
    this.#clock = modules.clock;
    this.#expire = modules.expire;
    this.#countedAtNs = modules.clock.nowNs();
  }

  /** The time that leases are counted in. */
  get nowNs(): number {
    const elapsedNs = this.#clock.nowNs() - this.#countedAtNs;
    return this.#countedNs + Math.min(Math.max(elapsedNs, 0), STEP_NS_MAX);
  }

  start(): void {
    this.#timer = this.#clock.setTimer(SWEEP_INTERVAL_MS, () => {
      this.sweep();
      this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  add(sequence: Sequence): void {
    this.#expired.delete(sequence.id);
    sequence.namedAtNs = this.nowNs;
    if (sequence.leaseSeconds > 0) this.#leased.add(sequence);
  }

  remove(sequence: Sequence): void {
    this.#leased.delete(sequence);
  }

  /** Whether this id was taken away lately because its lease ended. */
  hasExpired(id: bigint): boolean {
    return this.#expired.has(id);
  }

  ownerOfExpired(id: bigint): bigint | undefined {
    return this.#expired.get(id);
  }

  sweep(): void {
    const { nowNs } = this;
    this.#countedNs = nowNs;
    this.#countedAtNs = this.#clock.nowNs();
    const countMax = Math.min(this.#leased.size, limits.leaseSweepCountMax);
    for (let i = 0; i < countMax; i++) {
      let next = (this.#cursor ??= this.#leased.values()).next();
      if (next.done === true) {
        this.#cursor = this.#leased.values();
        next = this.#cursor.next();
        if (next.done === true) return;
      }
      this.#examine(next.value, nowNs);
    }
  }

  #examine(sequence: Sequence, nowNs: number): void {
    if (sequence.queue.depth > 0) {
      sequence.namedAtNs = nowNs;
      return;
    }
    if (nowNs - sequence.namedAtNs < sequence.leaseSeconds * 1e9) return;
    try {
      this.#expire(sequence);
    } catch (error) {
      // The log can't be written: the sequence stays, and the next sweep tries again.
      if (error instanceof DriveError) return;
      throw error;
    }
    this.#expired.set(sequence.id, sequence.owner);
    if (this.#expired.size <= limits.expiredSequenceCountMax) return;
    for (const oldest of this.#expired.keys()) {
      this.#expired.delete(oldest);
      break;
    }
  }
}
