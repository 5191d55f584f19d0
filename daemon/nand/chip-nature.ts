import { mix } from './chance.ts';
import type { Chip } from './chip.ts';
import { type NandFailures, noFailures } from './failures.ts';
import { type Geometry, pageInBlockOf, unitOf } from './geometry.ts';

/**
 * Shape and scale of the Weibull distribution of a block's life in units of its rated cycles. 1 % of the blocks fail
 * before their rating: data sheets allow 2 % invalid blocks over the rated life, those of the factory included (4016
 * valid blocks of 4096, Micron's and Cypress's SLC). Half of them outlive twice the rating: an estimate; no maker says.
 * 1 - exp(-(1 / scale) ^ shape) = 0.01, 1 - exp(-(2 / scale) ^ shape) = 0.5.
 */
const LIFE_SHAPE = 6.108;
const LIFE_SCALE = 2.124;
/** Of the blocks that wear out, those that a program finds out; the others refuse to be erased. An estimate. */
const PROGRAM_FAILURE_SHARE = 0.75;

/**
 * What the blocks of a drive's dies are like: a pure function of chip, unit and block, so that it is the same after every
 * restart, and a failure that a crash made the drive forget happens again.
 */
export function natureOf(chip: Chip, geometry: Geometry): NandFailures {
  const { ratedCycles, factoryBadPerMillion } = chip.profile.endurance;
  if (ratedCycles === undefined && factoryBadPerMillion === 0) return noFailures;
  return new ChipNature(chip, geometry);
}

class ChipNature implements NandFailures {
  readonly #geometry: Geometry;
  readonly #seed: number;
  readonly #blocksPerUnit: number;
  readonly #factoryBadShare: number;
  /** [unit][block] -> the cycle at which it fails. */
  readonly #lastCycle: Float64Array;
  /** [unit][block] -> the page at which it fails then; pagesPerBlock: it refuses to be erased. */
  readonly #lastPage: Uint16Array;

  constructor({ profile, seed, spareBlocksPerUnit }: Chip, geometry: Geometry) {
    const { ratedCycles = Number.POSITIVE_INFINITY, factoryBadPerMillion } = profile.endurance;
    this.#geometry = geometry;
    this.#seed = seed;
    this.#blocksPerUnit = geometry.superblockCount + spareBlocksPerUnit;
    this.#factoryBadShare = factoryBadPerMillion / 1e6;
    const blockCount = geometry.unitCount * this.#blocksPerUnit;
    this.#lastCycle = new Float64Array(blockCount);
    this.#lastPage = new Uint16Array(blockCount);
    for (let index = 0; index < blockCount; index++) {
      const life = LIFE_SCALE * (-Math.log(1 - this.#chance(index, 'life'))) ** (1 / LIFE_SHAPE);
      this.#lastCycle[index] = Math.max(1, Math.ceil(life * ratedCycles));
      const isProgram = this.#chance(index, 'kind') < PROGRAM_FAILURE_SHARE;
      const page = Math.floor(this.#chance(index, 'page') * geometry.pagesPerBlock);
      this.#lastPage[index] = isProgram ? page : geometry.pagesPerBlock;
    }
  }

  isFactoryBad(unit: number, block: number): boolean {
    return this.#chance(unit * this.#blocksPerUnit + block, 'factory') < this.#factoryBadShare;
  }

  eraseFails(_superblock: number, unit: number, block: number, cycle: number): boolean {
    const index = unit * this.#blocksPerUnit + block;
    return cycle >= this.#lastCycle[index]! && this.#lastPage[index] === this.#geometry.pagesPerBlock;
  }

  programFails(ppn: number, block: number, cycle: number): boolean {
    const index = unitOf(this.#geometry, ppn) * this.#blocksPerUnit + block;
    return cycle >= this.#lastCycle[index]! && pageInBlockOf(this.#geometry, ppn) >= this.#lastPage[index]!;
  }

  /** Dies that age don't fall silent: what goes wrong with their bits is another matter (`cell-errors.ts`). */
  readFails(): boolean {
    return false;
  }

  get mayFailReads(): boolean {
    return false;
  }

  /** From 0 to below 1, independent for each block and purpose. */
  #chance(index: number, purpose: keyof typeof purposes): number {
    return mix(mix(this.#seed ^ purposes[purpose]) ^ index) / 2 ** 32;
  }
}

const purposes = { factory: 0x66616374, life: 0x6c696665, kind: 0x6b696e64, page: 0x70616765 } as const;
