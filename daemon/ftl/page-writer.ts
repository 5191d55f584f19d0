import type { NandCause } from '../nand/array.ts';
import type { Allocator, PageTarget } from './allocator.ts';
import type { Flash, PageEntries } from './flash.ts';

/** Programs pages for hosts and for garbage collection: wherever they belong, and elsewhere if cells fail. */
export class PageWriter {
  readonly #allocator: Allocator;
  readonly #flash: Flash;
  readonly #programmed: () => void;

  /** `programmed` is called after each page. */
  constructor(modules: { readonly allocator: Allocator; readonly flash: Flash; readonly programmed?: () => void }) {
    this.#allocator = modules.allocator;
    this.#flash = modules.flash;
    this.#programmed = modules.programmed ?? ((): void => undefined);
  }

  /** Programs a page and returns its number. DriveError as `charge`; writeFault if the disk refuses, too. */
  write(
    target: PageTarget,
    data: Uint8Array,
    entries: PageEntries,
    cause: NandCause = target.role === 'host' ? target.pool : target.role,
  ): number {
    const ppn = this.charge(target);
    this.#flash.store(ppn, data, entries, cause);
    return ppn;
  }

  /** See KvPages. */
  nextKvChannel(placement: number): number {
    return this.#allocator.nextKvChannel(placement);
  }

  /**
   * Charges the next page for the target and returns its number; what it is to hold must be stored before anything is
   * waited for. A program that fails costs its block the rest of its pages; each try has fewer left, so this ends.
   * DriveError writeFault if so many failed that no room is left; namespaceWriteProtected if the drive has become read-only.
   */
  charge(target: PageTarget): number {
    for (;;) {
      const page = this.#allocator.take(target);
      const isProgrammed = this.#flash.array.charge(page.ppn);
      // A program that fails takes its time too.
      if (target.role === 'host' && isProgrammed) target.job.programPosted(page.ppn);
      else target.job.program(page.ppn);
      this.#allocator.settle(page);
      this.#programmed();
      if (isProgrammed) return page.ppn;
    }
  }
}
