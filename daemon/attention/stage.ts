import type { PageCache } from './page-cache.ts';
import type { Unit } from './unit.ts';

/** What is brought at a time, about: enough for the disk to be busy with, little enough for several to be on their way. */
const STAGE_BYTES = 8 * 2 ** 20;

/** How many of the units have their next jobs brought together, and the pages of these. */
export function stageOf(batch: readonly Unit[], cache: PageCache): { pages: readonly number[]; unitCount: number } {
  const pages: number[] = [];
  const pageCountMax = STAGE_BYTES / cache.pageSizeBytes;
  const lineCountMax = cache.passingLineCount / 2;
  let lineCount = 0;
  for (const [unitCount, unit] of batch.entries()) {
    const before = pages.length;
    unit.peekPages(pages);
    lineCount += cache.countLines(pages, before);
    if (unitCount > 0 && (pages.length > pageCountMax || lineCount > lineCountMax)) {
      pages.length = before;
      return { pages, unitCount };
    }
  }
  return { pages, unitCount: batch.length };
}
