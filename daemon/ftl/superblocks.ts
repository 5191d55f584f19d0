import { superblockPools } from '../../spec/media-format/oob.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { Geometry } from '../nand/geometry.ts';
import type { PoolName } from './contract.ts';
import { UNMAPPED } from './segmented-map.ts';
import { type SuperblockState, superblockTransition } from './superblock-state.ts';

export type Pool = PoolName;
export const pools: readonly Pool[] = ['block', 'kv'];

/** One of `superblockPools` by its code. */
export const poolOfCode = (code: number): Pool | undefined => pools.find((pool) => superblockPools[pool] === code);

/**
 * Every superblock's state, owner, valid slots and pins. A slot is 4 KiB; a KV page is valid or not as a whole and counts
 * all of its slots. The address of a slot is ppn * slotsPerPage + slot.
 */
export class Superblocks {
  readonly geometry: Geometry;
  readonly slotsPerSuperblock: number;
  /** How often each was opened, and so erased. */
  readonly epoch: Uint32Array;
  readonly openTag: Uint32Array;
  /** Operation number of the opening. */
  readonly openedAt: Float64Array;
  /** Operation that took the last valid slot; meaningful where there is none. */
  readonly emptySince: Float64Array;
  /** Operation number at which it became full; where it was full when the drive opened, that of its opening. */
  readonly closedAt: Float64Array;
  readonly validSlotCount: Uint32Array;
  readonly #states: SuperblockState[];
  readonly #pools: (Pool | undefined)[];
  readonly #pins: Uint32Array;
  readonly #used: Record<Pool, number> = { block: 0, kv: 0 };
  readonly #empty: Record<Pool, Set<number>> = { block: new Set(), kv: new Set() };
  readonly #freeableCount: Record<Pool, number> = { block: 0, kv: 0 };
  readonly #isFreeable: Uint8Array;
  /** One more than the number of the hosts' write point that filled it; 0: garbage collection did, or nobody knows. */
  readonly #hostWritePoints: Uint16Array;
  readonly #staleSlotCount: Record<Pool, number> = { block: 0, kv: 0 };
  /** One bit per slot. */
  readonly #valid: Uint8Array;
  readonly #verified: Uint8Array;
  #unpinWaiters: (() => void)[] = [];

  /** `eraseCounts` are the array's. */
  constructor(geometry: Geometry, eraseCounts: Uint32Array) {
    const { superblockCount, pagesPerSuperblock, slotsPerPage, pageCount } = geometry;
    this.geometry = geometry;
    this.slotsPerSuperblock = pagesPerSuperblock * slotsPerPage;
    this.epoch = eraseCounts;
    this.openTag = new Uint32Array(superblockCount);
    this.openedAt = new Float64Array(superblockCount);
    this.emptySince = new Float64Array(superblockCount);
    this.closedAt = new Float64Array(superblockCount);
    this.validSlotCount = new Uint32Array(superblockCount);
    this.#states = new Array<SuperblockState>(superblockCount).fill('free');
    this.#pools = new Array<Pool | undefined>(superblockCount).fill(undefined);
    this.#pins = new Uint32Array(superblockCount);
    this.#isFreeable = new Uint8Array(superblockCount);
    this.#hostWritePoints = new Uint16Array(superblockCount);
    this.#valid = new Uint8Array(Math.ceil((pageCount * slotsPerPage) / 8));
    this.#verified = new Uint8Array(Math.ceil((pageCount * slotsPerPage) / 8));
  }

  state(superblock: number): SuperblockState {
    return this.#states[superblock]!;
  }

  pool(superblock: number): Pool | undefined {
    return this.#pools[superblock];
  }

  /** Superblocks of the pool that are not free. */
  usedCount(pool: Pool): number {
    return this.#used[pool];
  }

  setState(superblock: number, to: SuperblockState): void {
    const pool = this.#pools[superblock];
    if (pool !== undefined) this.#staleSlotCount[pool] -= this.#staleSlotsOf(superblock);
    this.#states[superblock] = superblockTransition(this.state(superblock), to);
    if (pool === undefined) return;
    this.#staleSlotCount[pool] += this.#staleSlotsOf(superblock);
    this.#settleEmpty(superblock);
    if (to !== 'free') return;
    this.#used[pool]--;
    this.#pools[superblock] = undefined;
  }

  assign(superblock: number, pool: Pool): void {
    assert(this.#pools[superblock] === undefined, 'a free superblock belongs to nobody');
    this.#pools[superblock] = pool;
    this.#used[pool]++;
  }

  /** While a drive opens: what its last run left. */
  restore(superblock: number, state: 'open' | 'full', pool: Pool): void {
    this.#states[superblock] = state;
    this.assign(superblock, pool);
    this.closedAt[superblock] = this.openedAt[superblock]!;
    this.#settleEmpty(superblock);
  }

  superblockOfSlot(slot: number): number {
    return Math.floor(slot / this.slotsPerSuperblock);
  }

  isValid(slot: number): boolean {
    return (this.#valid[slot >>> 3]! & (1 << (slot & 7))) !== 0;
  }

  /** Whether any slot of a page is valid. */
  hasValid(ppn: number): boolean {
    const { slotsPerPage } = this.geometry;
    for (let slot = ppn * slotsPerPage; slot < (ppn + 1) * slotsPerPage; slot++) if (this.isValid(slot)) return true;
    return false;
  }

  /**
   * While a drive opens: marks valid all that a stored map names. Addresses count in units of `weight` slots; those whose
   * `holders` are 0 are left out. Returns how many there are. A superblock whose header is lost belongs to the pool whose
   * map names it; its pages fail their checks. DriveError mediaFormat if the map can't be right.
   */
  claimAll(pool: Pool, addresses: Uint32Array, weight: number, holders?: Uint16Array): number {
    const { superblockCount } = this.geometry;
    const addressesPerSuperblock = this.slotsPerSuperblock / weight;
    const claimed = new Uint32Array(superblockCount);
    const valid = this.#valid;
    let count = 0;
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[i]!;
      if (address === UNMAPPED || (holders !== undefined && holders[i] === 0)) continue;
      const superblock = Math.floor(address / addressesPerSuperblock);
      const slot = address * weight;
      if (superblock >= superblockCount) throw notPossible(pool, slot, 'is outside the media');
      const bit = 1 << (slot & 7);
      if ((valid[slot >>> 3]! & bit) !== 0) throw notPossible(pool, slot, 'has two owners');
      valid[slot >>> 3]! |= bit;
      claimed[superblock]!++;
      count++;
    }
    for (let superblock = 0; superblock < superblockCount; superblock++) {
      if (claimed[superblock] === 0) continue;
      if (this.state(superblock) === 'free') this.restore(superblock, 'full', pool);
      if (this.pool(superblock) !== pool) {
        const first = addresses.find((address) => Math.floor(address / addressesPerSuperblock) === superblock)!;
        throw notPossible(pool, first * weight, `is in a superblock of ${this.pool(superblock)}`);
      }
      this.#changeValid(superblock, claimed[superblock]! * weight);
    }
    return count;
  }

  /** `weight`: slots that it stands for (a KV page is marked by its first slot). */
  markValid(slot: number, weight: number): void {
    assert(!this.isValid(slot), () => `slot ${slot} has one owner`);
    this.#valid[slot >>> 3]! |= 1 << (slot & 7);
    const superblock = this.superblockOfSlot(slot);
    this.#changeValid(superblock, weight);
    assert(this.validSlotCount[superblock]! <= this.slotsPerSuperblock, 'valid slots fit their superblock');
  }

  markInvalid(slot: number, weight: number, operation: number): void {
    assert(this.isValid(slot), () => `slot ${slot} is valid before it becomes invalid`);
    this.#valid[slot >>> 3]! &= ~(1 << (slot & 7));
    const superblock = this.superblockOfSlot(slot);
    if (this.validSlotCount[superblock] === weight) this.emptySince[superblock] = operation;
    this.#changeValid(superblock, -weight);
  }

  /** Nothing in the pool is valid any more. */
  markAllInvalid(pool: Pool, operation: number): void {
    for (let superblock = 0; superblock < this.geometry.superblockCount; superblock++) {
      const validCount = this.validSlotCount[superblock]!;
      if (this.#pools[superblock] !== pool || validCount === 0) continue;
      const first = superblock * this.slotsPerSuperblock;
      clearBits(this.#valid, first, first + this.slotsPerSuperblock);
      this.emptySince[superblock] = operation;
      this.#changeValid(superblock, -validCount);
    }
  }

  #changeValid(superblock: number, change: number): void {
    const pool = this.#pools[superblock];
    assert(pool !== undefined, 'what holds something belongs to a pool');
    const before = this.validSlotCount[superblock]!;
    this.#staleSlotCount[pool] -= this.#staleSlotsOf(superblock);
    this.validSlotCount[superblock] = before + change;
    this.#staleSlotCount[pool] += this.#staleSlotsOf(superblock);
    if (before === 0 || before + change === 0) this.#settleEmpty(superblock);
  }

  isVerified(slot: number): boolean {
    return (this.#verified[slot >>> 3]! & (1 << (slot & 7))) !== 0;
  }

  /** Whether all slots of pages [from, to) of a list are: `slotsPerPage` in step, as pages are verified as a whole. */
  arePagesVerified(pages: Uint32Array, from: number, to: number, slotsPerPage: number): boolean {
    const verified = this.#verified;
    for (let i = from; i < to; i++) {
      const slot = pages[i]! * slotsPerPage;
      if ((verified[slot >>> 3]! & (1 << (slot & 7))) === 0) return false;
    }
    return true;
  }

  /** Whoever saw it right holds a pin still: else it might have been erased since. */
  markVerified(slot: number): void {
    assert(this.pinCount(this.superblockOfSlot(slot)) > 0, () => `slot ${slot} is pinned while it is checked`);
    this.#verified[slot >>> 3]! |= 1 << (slot & 7);
  }

  clearVerified(slot: number): void {
    this.#verified[slot >>> 3]! &= ~(1 << (slot & 7));
  }

  pinCount(superblock: number): number {
    return this.#pins[superblock]!;
  }

  pin(superblock: number): void {
    if (this.#pins[superblock]!++ === 0) this.#settleEmpty(superblock);
  }

  unpin(superblock: number): void {
    assert(this.#pins[superblock]! > 0, () => `superblock ${superblock} is pinned`);
    if (--this.#pins[superblock]! > 0) return;
    this.#settleEmpty(superblock);
    if (this.#unpinWaiters.length === 0) return;
    for (const resolve of this.#unpinWaiters.splice(0)) resolve();
  }

  /** Resolves when some superblock loses its last pin. */
  nextUnpin(): Promise<void> {
    return new Promise((resolve) => this.#unpinWaiters.push(resolve));
  }

  /** Which of the hosts' write points filled it; undefined: garbage collection did, or a run before this one. */
  hostWritePoint(superblock: number): number | undefined {
    const number = this.#hostWritePoints[superblock]!;
    return number === 0 ? undefined : number - 1;
  }

  setHostWritePoint(superblock: number, writePoint: number | undefined): void {
    this.#hostWritePoints[superblock] = writePoint === undefined ? 0 : writePoint + 1;
  }

  // --- What can be gained ---

  /** Holds nothing valid: may be erased once everything up to `emptySince` is durable and nobody reads it. */
  isEmpty(superblock: number): boolean {
    const state = this.state(superblock);
    return (state === 'full' || state === 'victim') && this.validSlotCount[superblock] === 0;
  }

  emptySuperblocks(pool: Pool): ReadonlySet<number> {
    return this.#empty[pool];
  }

  /** Empty ones that nobody reads: the next checkpoint frees them. */
  freeableCount(pool: Pool): number {
    return this.#freeableCount[pool];
  }

  /** Slots without a valid owner in full superblocks that hold something: what garbage collection could gain. */
  staleSlotCount(pool: Pool): number {
    return this.#staleSlotCount[pool];
  }

  #staleSlotsOf(superblock: number): number {
    const valid = this.validSlotCount[superblock]!;
    return valid > 0 && this.state(superblock) === 'full' ? this.slotsPerSuperblock - valid : 0;
  }

  #settleEmpty(superblock: number): void {
    const pool = this.#pools[superblock];
    if (pool === undefined) return;
    const isEmpty = this.isEmpty(superblock);
    if (isEmpty) this.#empty[pool].add(superblock);
    else this.#empty[pool].delete(superblock);
    const isFreeable = isEmpty && this.#pins[superblock] === 0 ? 1 : 0;
    this.#freeableCount[pool] += isFreeable - this.#isFreeable[superblock]!;
    this.#isFreeable[superblock] = isFreeable;
  }
}

function clearBits(bits: Uint8Array, from: number, to: number): void {
  let bit = from;
  for (; bit < to && (bit & 7) !== 0; bit++) bits[bit >>> 3]! &= ~(1 << (bit & 7));
  const wholeEnd = Math.max(bit, to & ~7);
  bits.fill(0, bit >>> 3, wholeEnd >>> 3);
  for (bit = wholeEnd; bit < to; bit++) bits[bit >>> 3]! &= ~(1 << (bit & 7));
}

const notPossible = (pool: Pool, slot: number, why: string): DriveError =>
  new DriveError('mediaFormat', `metadata: the map of ${pool} names slot ${slot}, which ${why}`);
