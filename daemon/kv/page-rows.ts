import { type DeviceJob, untimed } from '../timing/device-job.ts';
import { assert } from '../base/assert.ts';
import type { Lpn } from '../ftl/contract.ts';
import type { KvRoom } from './room.ts';
import type { Part, RowLayout } from './shape.ts';
import type { TailSlab } from './tail-slab.ts';

/** Pages read at the same time by one command. */
export const PAGE_READS_MAX = 8;

/** Runs `read` for 0 to `count` - 1, at most PAGE_READS_MAX at a time. Waits for all that it began, even on failure. */
export async function readConcurrently(count: number, read: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  let failed = false;
  const lane = async (): Promise<void> => {
    while (next < count && !failed) {
      try {
        await read(next++);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const lanes = Array.from({ length: Math.min(count, PAGE_READS_MAX) }, lane);
  for (const result of await Promise.allSettled(lanes)) {
    if (result.status === 'rejected') throw result.reason;
  }
}

/**
 * Fetches the first rows of one group's pages (one page per stream) into a slab. The caller keeps the pages held
 * meanwhile. DriveError unrecoveredRead.
 */
export async function readRowsIntoSlab(
  room: KvRoom,
  layout: RowLayout,
  pages: readonly Lpn[],
  rowCount: number,
  slab: TailSlab,
  job: DeviceJob = untimed,
): Promise<void> {
  pages.forEach((page, stream) => job.read(room.pages.locate(page), rowCount * layout.rowBytes[(stream & 1) as Part]));
  await readConcurrently(pages.length, async (stream) => {
    const page = pages[stream];
    assert(page !== undefined, `stream ${stream} has a page`);
    const part = (stream & 1) as Part;
    const frame = room.arena.allocate(room.pages.pageSizeBytes);
    try {
      await room.pages.read(page, frame);
      room.copy(slab.row(stream >> 1, part, 0), frame, rowCount * layout.rowBytes[part]);
    } finally {
      room.arena.free(frame);
    }
  });
}
