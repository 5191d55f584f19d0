/** A flash that is one long row of pages, and its out-of-band entries. */
import { crc32c } from '../../daemon/base/crc32c.ts';
import { completeGeometry, type Geometry } from '../../daemon/nand/geometry.ts';
import { oobEntry, oobKinds } from '../../spec/media-format/oob.ts';

export const flatGeometry = (pageSizeBytes: number, pageCount: number): Geometry =>
  completeGeometry({
    pageSizeBytes,
    channelCount: 1,
    diesPerChannel: 1,
    planesPerDie: 1,
    pagesPerBlock: pageCount,
    superblockCount: 1,
    blockSuperblockCount: 0,
    kvSuperblockCount: 1,
    blockCapacityBytes: 0,
    kvCapacityBytes: pageCount * pageSizeBytes,
  });

export function kvEntry(lpn: number, dataCrc32c: number): Uint8Array {
  const entry = oobEntry.encode({ kind: oobKinds.kv, logical: lpn, dataCrc32c });
  const checked = entry.length - 4;
  new DataView(entry.buffer).setUint32(checked, crc32c(entry.subarray(0, checked)), true);
  return entry;
}
