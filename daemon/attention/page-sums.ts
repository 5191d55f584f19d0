import type { Ppn } from '../ftl/contract.ts';

/**
 * When the pages of a mapped media file are checked. A frame cache's own copies are always checked when they are loaded.
 *
 * - `always`: at every use. A cell that changes under the running drive is an error, never a wrong number.
 * - `first-use`: once after a program or a start; later reads trust it.
 */
export const verifyPolicies = ['always', 'first-use'] as const;
export type VerifyPolicy = (typeof verifyPolicies)[number];

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
