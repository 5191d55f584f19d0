import { BitErrors, type Correction } from './bit-errors.ts';
import type { BlockTable } from './block-table.ts';
import { mix } from './chance.ts';
import type { Chip } from './chip.ts';
import { type Geometry, superblockOf, unitOf } from './geometry.ts';

/** Page reads by what the error correction had to do. Reads that attention makes of checked pages are not among them. */
export interface CorrectionCounters {
  corrected: number;
  /** Of these, after further reads. */
  retried: number;
  /** Further reads, also those that were in vain. */
  retryReads: number;
  uncorrectable: number;
}

/** Raw bit errors of a page's present life, and what becomes of them. */
export interface PageErrors extends Correction {
  /** In its worst codeword, injected ones included. */
  readonly worstBits: number;
}

/** Adds bits to the pages that are programmed next. */
export interface ArmedBits {
  readonly bits: number;
  remaining: number;
  /** A page got them; `flipped` are positions of bits that its cells have wrong. */
  readonly struck: (ppn: number, flipped: readonly number[]) => void;
}

/**
 * The bit errors of all pages as they are now. What can be corrected never shows: cells are stored as the error correction
 * gives them out. What can't be is in the cells, so that everybody who reads them, kernels that map them too, sees it, and
 * the checksum says so.
 */
export class CellErrors {
  readonly counters: CorrectionCounters = { corrected: 0, retried: 0, retryReads: 0, uncorrectable: 0 };
  readonly #geometry: Geometry;
  readonly #blocks: BlockTable;
  readonly #bitErrors: BitErrors;
  readonly #seed: number;
  /** Whether the profile has any by itself. */
  readonly #hasNatural: boolean;
  /** [ppn] -> bits added to its worst codeword until it is erased. */
  readonly #injected = new Map<number, number>();
  readonly #armed = new Set<ArmedBits>();

  constructor(chip: Chip, geometry: Geometry, blocks: BlockTable) {
    const { errors, endurance } = chip.profile;
    const { pageSizeBytes } = geometry;
    this.#geometry = geometry;
    this.#blocks = blocks;
    this.#seed = chip.seed;
    this.#bitErrors = new BitErrors(errors, { seed: chip.seed, ratedCycles: endurance.ratedCycles, pageSizeBytes });
    this.#hasNatural = errors.rawBitErrorRateFresh > 0 || errors.rawBitErrorRateRated > 0;
  }

  /** Bits that are corrected without a further read. */
  get correctableBits(): number {
    return this.#bitErrors.correctableBits;
  }

  /** Of a programmed page. */
  errorsOf(ppn: number): PageErrors {
    const worstBits = this.#naturalBits(ppn) + (this.#injected.get(ppn) ?? 0);
    return { worstBits, ...this.#bitErrors.correct(worstBits) };
  }

  /** Reads beyond the first that a read of the page takes: what a model of time has to add. */
  retryCount(ppn: number): number {
    if (this.#injected.size === 0 && !this.#mayRetry(ppn)) return 0;
    return this.errorsOf(ppn).retryCount;
  }

  /** Counts a read of the page. */
  countRead(ppn: number): void {
    if (!this.#hasNatural && this.#injected.size === 0) return;
    const { worstBits, retryCount, isCorrectable } = this.errorsOf(ppn);
    this.counters.retryReads += retryCount;
    if (!isCorrectable) this.counters.uncorrectable++;
    else if (worstBits > 0) {
      this.counters.corrected++;
      if (retryCount > 0) this.counters.retried++;
    }
  }

  /**
   * What the cells will give out of `data` that is programmed into pages side by side, from `ppn` on: the same, or with bits
   * that are lost.
   */
  programmed(ppn: number, data: Uint8Array): Uint8Array {
    if (!this.#hasNatural && this.#armed.size === 0) return data;
    const { pageSizeBytes } = this.#geometry;
    let stored = data;
    for (let at = 0; at < data.length; at += pageSizeBytes) {
      const flipped = this.#flippedBits(ppn + at / pageSizeBytes);
      if (flipped.length === 0) continue;
      // The caller's bytes stay as they are.
      if (stored === data) stored = data.slice();
      flipBits(stored.subarray(at, at + pageSizeBytes), flipped);
    }
    return stored;
  }

  /** Positions of the bits that a page programmed now has wrong. */
  #flippedBits(ppn: number): number[] {
    const [armed] = this.#armed;
    if (armed) this.inject(ppn, armed.bits);
    const { worstBits, isCorrectable } = this.errorsOf(ppn);
    const flipped = isCorrectable ? [] : this.lostBits(ppn, worstBits);
    if (armed) {
      if (--armed.remaining === 0) this.#armed.delete(armed);
      armed.struck(ppn, flipped);
    }
    return flipped;
  }

  armProgrammed(armed: ArmedBits): void {
    this.#armed.add(armed);
  }

  disarmProgrammed(armed: ArmedBits): void {
    this.#armed.delete(armed);
  }

  /** Adds bits to the page's worst codeword, or takes as many back (negative), until it is erased. */
  inject(ppn: number, bits: number): void {
    const injected = (this.#injected.get(ppn) ?? 0) + bits;
    if (injected > 0) this.#injected.set(ppn, injected);
    else this.#injected.delete(ppn);
  }

  /** The superblock's pages begin a new life. */
  erased(superblock: number): void {
    for (const ppn of this.#injected.keys()) {
      if (superblockOf(this.#geometry, ppn) === superblock) this.#injected.delete(ppn);
    }
  }

  /** Positions of `bits` different bits in one codeword of a page that can't be corrected. */
  lostBits(ppn: number, bits: number, firstByte = 0, sizeBytes = this.#geometry.pageSizeBytes): number[] {
    const codewordBytes = Math.min(sizeBytes, this.#bitErrors.codewordBytes);
    const base = mix(mix(this.#seed ^ ppn) ^ this.#cycle(ppn));
    const first = firstByte + (base % Math.floor(sizeBytes / codewordBytes)) * codewordBytes;
    const positions = new Set<number>();
    for (let i = 1; positions.size < Math.min(bits, codewordBytes * 8); i++) {
      positions.add(first * 8 + (mix(base + i) % (codewordBytes * 8)));
    }
    return [...positions];
  }

  #mayRetry(ppn: number): boolean {
    return this.#hasNatural && this.#bitErrors.mayRetry(this.#cycle(ppn));
  }

  #naturalBits(ppn: number): number {
    return this.#hasNatural ? this.#bitErrors.worstBits(ppn, this.#cycle(ppn)) : 0;
  }

  #cycle(ppn: number): number {
    return this.#blocks.eraseCountAt(superblockOf(this.#geometry, ppn), unitOf(this.#geometry, ppn));
  }
}

/** `positions` are of bits. */
export function flipBits(bytes: Uint8Array, positions: readonly number[]): void {
  for (const position of positions) bytes[position >>> 3]! ^= 1 << (position & 7);
}
