import { SLOT_BYTES } from '../../spec/media-format/oob.ts';
import { blockDeallocation, blockStagedSlot } from '../../spec/media-format/staging.ts';
import type { StagedRecord } from '../ftl/staging-log.ts';
import { decodeStaged } from '../kv/staged-records.ts';
import type { MetaReader } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { blocks, type Report } from './finding.ts';
import type { DriveImage } from './image.ts';

/**
 * The records of the staging log that count: there up to where the last transaction says that they were synced, of the
 * right form, about what the drive has; and all that the transaction says is nowhere else.
 */
export function checkStagingLog(image: DriveImage, report: Report): void {
  const { lbaCount } = image;
  const staged = new Map<number, Set<number>>();
  const failure = image.readStagingLog((record) => {
    const problem = problemOf(record, lbaCount, staged);
    const text = `staging log, record of operation ${record.operation}: ${problem}`;
    if (problem !== undefined) report({ kind: 'stagingLog', text, lost: [] });
  });
  if (failure) report({ kind: 'stagingLog', text: failure.message, lost: [] });
  for (const [lba, operation] of stagedList(image.stores.meta)) {
    if (staged.get(lba)?.has(operation)) continue;
    const text = `staging log: the record of LBA ${lba}, operation ${operation}, which is in no page, is missing`;
    report({ kind: 'stagingLog', text, lost: [blocks(lba, 1)] });
  }
}

/** What can be read of it; what is wrong with it is told elsewhere. */
function stagedList(meta: MetaReader): readonly (readonly [number, number])[] {
  try {
    const list = meta.get(metaNamespaces.stagedBlocks, ['list']);
    return Array.isArray(list) ? (list.filter(Array.isArray) as [number, number][]) : [];
  } catch {
    return [];
  }
}

/** Notes the operations of each staged LBA. */
function problemOf(
  { kind, operation, payload }: StagedRecord,
  lbaCount: number,
  staged: Map<number, Set<number>>,
): string | undefined {
  switch (kind) {
    case 'block': {
      if (payload.length !== blockStagedSlot.sizeBytes + SLOT_BYTES) return `a block of ${payload.length} bytes`;
      const { lba } = blockStagedSlot.decode(payload);
      if (lba >= lbaCount) return `LBA ${lba}; there are ${lbaCount}`;
      const operations = staged.get(lba) ?? new Set<number>();
      staged.set(lba, operations.add(operation));
      return undefined;
    }
    case 'deallocate': {
      if (payload.length !== blockDeallocation.sizeBytes) return `a deallocation of ${payload.length} bytes`;
      const range = blockDeallocation.decode(payload);
      const isInside = range.lba + range.lbaCount <= lbaCount;
      return isInside ? undefined : `deallocates LBA ${range.lba}, ${range.lbaCount} blocks; there are ${lbaCount}`;
    }
    case 'kv':
      try {
        decodeStaged(payload);
        return undefined;
      } catch (error) {
        return (error as Error).message;
      }
  }
}
