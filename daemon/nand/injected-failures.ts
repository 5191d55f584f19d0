import type { NandFailures } from './failures.ts';
import { type Geometry, superblockOf, unitOf } from './geometry.ts';

/** Operations of the dies that can be made to fail. */
export const failingOperations = ['read', 'program', 'erase'] as const;
export type FailingOperation = (typeof failingOperations)[number];

/** Where operations fail; what is left out may be anything. */
export interface FailurePlace {
  readonly superblock?: number | undefined;
  readonly unit?: number | undefined;
  readonly ppn?: number | undefined;
}

/** Makes the next `remaining` operations of a kind at a place fail. */
export interface ArmedFailure {
  readonly operation: FailingOperation;
  readonly place: FailurePlace;
  remaining: number;
}

/** Failures on request, beside those that the dies have by their nature. */
export class InjectedFailures implements NandFailures {
  readonly #nature: NandFailures;
  readonly #geometry: Geometry;
  readonly #armed = new Set<ArmedFailure>();

  constructor(nature: NandFailures, geometry: Geometry) {
    this.#nature = nature;
    this.#geometry = geometry;
  }

  arm(failure: ArmedFailure): void {
    this.#armed.add(failure);
  }

  disarm(failure: ArmedFailure): void {
    this.#armed.delete(failure);
  }

  isFactoryBad(unit: number, block: number): boolean {
    return this.#nature.isFactoryBad(unit, block);
  }

  eraseFails(superblock: number, unit: number, block: number, cycle: number): boolean {
    return (
      this.#nature.eraseFails(superblock, unit, block, cycle) || this.#strikes('erase', superblock, unit, undefined)
    );
  }

  programFails(ppn: number, block: number, cycle: number): boolean {
    return this.#nature.programFails(ppn, block, cycle) || this.#strikesPage('program', ppn);
  }

  readFails(ppn: number): boolean {
    return this.#nature.readFails(ppn) || this.#strikesPage('read', ppn);
  }

  get mayFailReads(): boolean {
    return this.#armed.size > 0 || this.#nature.mayFailReads;
  }

  #strikesPage(operation: FailingOperation, ppn: number): boolean {
    if (this.#armed.size === 0) return false;
    return this.#strikes(operation, superblockOf(this.#geometry, ppn), unitOf(this.#geometry, ppn), ppn);
  }

  #strikes(operation: FailingOperation, superblock: number, unit: number, ppn: number | undefined): boolean {
    for (const failure of this.#armed) {
      const { place } = failure;
      const isThere =
        failure.operation === operation &&
        (place.superblock ?? superblock) === superblock &&
        (place.unit ?? unit) === unit &&
        (place.ppn ?? ppn) === ppn;
      if (!isThere) continue;
      if (--failure.remaining === 0) this.#armed.delete(failure);
      return true;
    }
    return false;
  }
}
