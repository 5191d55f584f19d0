/** Dies whose programs and erases fail now and then. What fails follows from the seed alone, so it fails again after a crash. */
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import type { NandFailures } from '../../daemon/nand/failures.ts';

export interface CellFaults {
  /** Share of programs, and of erases of one block, that fail. */
  readonly programChance: number;
  readonly eraseChance: number;
  /** Share of blocks that the maker has marked bad. */
  readonly factoryBadChance: number;
  readonly spareBlocksPerUnit: number;
  /** Bits of the cells are wrong, and corrected. */
  readonly hasBitErrors: boolean;
}

export const noCellFaults: CellFaults = {
  programChance: 0,
  eraseChance: 0,
  factoryBadChance: 0,
  spareBlocksPerUnit: 0,
  hasBitErrors: false,
};

export const hasCellFaults = ({ programChance, eraseChance, factoryBadChance }: CellFaults): boolean =>
  programChance + eraseChance + factoryBadChance > 0;

/** Cells with so many bit errors that many pages take another read, and all can be corrected. */
const correctable = {
  codewordBytes: 1024,
  correctableBits: 40,
  readRetryCount: 3,
  retryErrorShare: 0.5,
  rawBitErrorRateFresh: 0.003,
  rawBitErrorRateRated: 0.003,
};

export const chipOf = ({ spareBlocksPerUnit, hasBitErrors }: CellFaults): Chip => ({
  ...idealChip,
  spareBlocksPerUnit,
  profile: hasBitErrors ? { ...idealChip.profile, errors: correctable } : idealChip.profile,
});

export class FaultyDies implements NandFailures {
  readonly mayFailReads = false;
  readonly #faults: CellFaults;
  readonly #seed: number;

  constructor(faults: CellFaults, seed: number) {
    this.#faults = faults;
    this.#seed = seed;
  }

  isFactoryBad(unit: number, block: number): boolean {
    return this.#draw(1, unit, block) < this.#faults.factoryBadChance;
  }

  eraseFails(_superblock: number, unit: number, block: number, cycle: number): boolean {
    return this.#draw(2 + unit, block, cycle) < this.#faults.eraseChance;
  }

  programFails(ppn: number, block: number, cycle: number): boolean {
    return this.#draw(ppn, block, cycle) < this.#faults.programChance;
  }

  readFails(): boolean {
    return false;
  }

  /** 0 to 1, from three numbers. */
  #draw(a: number, b: number, c: number): number {
    let hash = Math.imul(this.#seed ^ a, 0x9e3779b1) ^ Math.imul(b + 1, 0x85ebca6b) ^ Math.imul(c + 1, 0xc2b2ae35);
    hash = Math.imul(hash ^ (hash >>> 16), 0x21f0aaad);
    hash = Math.imul(hash ^ (hash >>> 15), 0x735a2d97);
    return ((hash ^ (hash >>> 15)) >>> 0) / 2 ** 32;
  }
}
