import type { Ppn } from '../ftl/contract.ts';

/**
 * Checksums of pages that were checked against their out-of-band entry, so that checking them again needs no read of
 * that entry. A sum is of one life of a page: it counts only at the erase count it was taken at.
 */
export class PageSums {
  readonly #sums: Uint32Array;
  /** Erase count of the page's block plus one; 0: nothing is known. */
  readonly #lives: Uint32Array;

  constructor(pageCount: number) {
    this.#sums = new Uint32Array(pageCount);
    this.#lives = new Uint32Array(pageCount);
  }

  isKnown(page: Ppn, eraseCount: number): boolean {
    return this.#lives[page] === eraseCount + 1;
  }

  get(page: Ppn): number {
    return this.#sums[page]!;
  }

  learn(page: Ppn, eraseCount: number, sum: number): void {
    this.#sums[page] = sum;
    this.#lives[page] = eraseCount + 1;
  }
}
