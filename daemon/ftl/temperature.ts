import { assert } from '../base/assert.ts';
import type { OperationCounter } from './contract.ts';
import type { Superblocks } from './superblocks.ts';

/** The write point of a block: what is expected to be written over soon goes apart from the rest. */
export const temperatures = { cold: 0, hot: 1 } as const;
export type Temperature = (typeof temperatures)[keyof typeof temperatures];
export const TEMPERATURE_COUNT = Object.keys(temperatures).length;

/** Superblocks over which lifespans are averaged. */
const LIFESPANS = 16;

/**
 * Tells blocks that will be written over soon from others, by how soon they were written over before: sooner than a
 * superblock of such blocks lives on average. The age of what is written over is that of its superblock, so nothing is
 * kept for each block. What garbage collection has copied is old. Wang et al.: Separating data via block invalidation
 * time inference for write amplification reduction in log-structured storage (SepBIT), FAST 2022, its two classes of
 * what users write.
 */
export class TemperatureSensor {
  readonly #superblocks: Superblocks;
  readonly #operations: OperationCounter;
  /** In operations; at first everything is soon. */
  #meanLifespan = Number.POSITIVE_INFINITY;

  constructor(modules: { readonly superblocks: Superblocks; readonly operations: OperationCounter }) {
    this.#superblocks = modules.superblocks;
    this.#operations = modules.operations;
  }

  /** Of a block whose old bytes lie in this slot. */
  of(slot: number): Temperature {
    const superblock = this.#superblocks.superblockOfSlot(slot);
    const isHostWritten = this.#superblocks.hostWritePoint(superblock) !== undefined;
    return isHostWritten && this.#ageOf(superblock) < this.#meanLifespan ? temperatures.hot : temperatures.cold;
  }

  /** A superblock that hosts have written by way of the hot write point is empty. */
  emptied(superblock: number): void {
    const age = this.#ageOf(superblock);
    assert(age >= 0, 'operations only go up');
    if (this.#meanLifespan === Number.POSITIVE_INFINITY) this.#meanLifespan = age;
    else this.#meanLifespan += (age - this.#meanLifespan) / LIFESPANS;
  }

  #ageOf(superblock: number): number {
    return this.#operations.last - this.#superblocks.openedAt[superblock]!;
  }
}
