import type { DeviceJob } from '../timing/device-job.ts';
import type { Arena } from '../base/arena.ts';
import { DriveError } from '../base/errors.ts';
import { oobBytesPerPage } from '../nand/geometry.ts';
import type { NandCause } from '../nand/array.ts';
import type { Flash } from './flash.ts';

/** Pages that are read at once: what garbage collection does between two chances for everybody else. */
export const STEP_PAGES = 8;

/** Pages that are read to be looked at, or moved, with their out-of-band areas. */
export class CopyBuffer {
  readonly #flash: Flash;
  readonly #arena: Arena;
  readonly #cause: NandCause;
  readonly #frames: number;
  readonly #oob: Uint8Array;

  constructor(modules: { readonly flash: Flash; readonly arena: Arena; readonly cause: NandCause }) {
    this.#flash = modules.flash;
    this.#arena = modules.arena;
    this.#cause = modules.cause;
    const { geometry } = modules.flash;
    this.#frames = modules.arena.allocate(STEP_PAGES * geometry.pageSizeBytes);
    this.#oob = new Uint8Array(STEP_PAGES * oobBytesPerPage(geometry));
  }

  /** Cells of the page that was read as number `index`. */
  cells(index: number): Uint8Array {
    return this.#cellsOf(index, 1);
  }

  oob(index: number): Uint8Array {
    return this.#oobOf(index, 1);
  }

  #cellsOf(index: number, count: number): Uint8Array {
    const { pageSizeBytes } = this.#flash.geometry;
    return this.#arena.view(this.#frames + index * pageSizeBytes, count * pageSizeBytes);
  }

  #oobOf(index: number, count: number): Uint8Array {
    const bytes = oobBytesPerPage(this.#flash.geometry);
    return this.#oob.subarray(index * bytes, (index + count) * bytes);
  }

  /**
   * Reads at most STEP_PAGES pages, those that lie side by side at once. [page] -> why it can't be read. All reads have
   * ended when it resolves: nothing is on its way into the buffer any more. In device time what follows comes after them.
   */
  async read(ppns: readonly number[], job: DeviceJob): Promise<(DriveError | undefined)[]> {
    for (const ppn of ppns) job.read(ppn, this.#flash.geometry.pageSizeBytes);
    job.join();
    const errors = new Array<DriveError | undefined>(ppns.length).fill(undefined);
    const reads: Promise<void>[] = [];
    for (let first = 0; first < ppns.length; ) {
      let end = first + 1;
      while (end < ppns.length && ppns[end] === ppns[end - 1]! + 1) end++;
      reads.push(this.#readRun(ppns, first, end, errors));
      first = end;
    }
    for (const result of await Promise.allSettled(reads)) if (result.status === 'rejected') throw result.reason;
    return errors;
  }

  async #readRun(
    ppns: readonly number[],
    first: number,
    end: number,
    errors: (DriveError | undefined)[],
  ): Promise<void> {
    const { array, geometry } = this.#flash;
    const count = end - first;
    const cells = array.read(ppns[first]! * geometry.pageSizeBytes, this.#cellsOf(first, count), this.#cause);
    const oob = array.media.readOob(ppns[first]!, this.#oobOf(first, count));
    const results = await Promise.allSettled([cells, oob]);
    const failures = results.filter((result) => result.status === 'rejected');
    if (failures.length === 0) return;
    for (const { reason } of failures) if (!(reason instanceof DriveError)) throw reason;
    // One page may spoil the run.
    for (let index = first; index < end; index++) errors[index] = await this.#readPage(ppns[index]!, index);
  }

  async #readPage(ppn: number, index: number): Promise<DriveError | undefined> {
    const { array, geometry } = this.#flash;
    try {
      await this.#flash.readCells(ppn * geometry.pageSizeBytes, this.cells(index), this.#cause, 'a page');
      await array.media.readOob(ppn, this.oob(index));
      return undefined;
    } catch (error) {
      if (error instanceof DriveError) return error;
      throw error;
    }
  }
}
