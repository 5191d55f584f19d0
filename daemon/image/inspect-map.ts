import { blockDeallocation, blockStagedSlot } from '../../spec/media-format/staging.ts';
import { UNMAPPED } from '../ftl/segmented-map.ts';
import type { StagedRecord } from '../ftl/staging-log.ts';
import type { Pool } from '../ftl/superblocks.ts';
import { decodeStaged } from '../kv/staged-records.ts';
import type { DriveImage } from './image.ts';
import { checkBelow } from './inspect-page.ts';

/** Logical addresses that follow each other, on media addresses that follow each other. */
export interface MapRun {
  readonly first: number;
  readonly count: number;
  /** Of the first: a 4 KiB slot (block), a physical page (KV). */
  readonly address: number;
}

export interface MapInspection {
  readonly pool: Pool;
  readonly entryCount: number;
  readonly mappedCount: number;
  /** Runs from `from` on, at most as many as asked for. */
  readonly runs: readonly MapRun[];
  /** Runs from `from` on that were left out. */
  readonly runsLeftOut: number;
}

/** The map of a namespace in runs. DriveError invalidField if `from` is outside of it. */
export function inspectMap(
  image: DriveImage,
  pool: Pool,
  { from = 0, limit = Number.POSITIVE_INFINITY }: { from?: number; limit?: number } = {},
): MapInspection {
  const { entries } = pool === 'block' ? image.blockMap : image.kvMap;
  checkBelow(pool === 'block' ? 'LBA' : 'logical page', from, entries.length);
  const runs: MapRun[] = [];
  let runsLeftOut = 0;
  for (let first = from; first < entries.length; ) {
    const address = entries[first]!;
    let count = 1;
    if (address !== UNMAPPED) while (entries[first + count] === address + count) count++;
    if (address !== UNMAPPED && runs.length < limit) runs.push({ first, count, address });
    else if (address !== UNMAPPED) runsLeftOut++;
    first += count;
  }
  return { pool, entryCount: entries.length, mappedCount: mappedCount(entries), runs, runsLeftOut };
}

export const mappedCount = (entries: Uint32Array): number =>
  entries.reduce((count, address) => count + (address === UNMAPPED ? 0 : 1), 0);

export interface StagedRecordInspection {
  readonly operation: number;
  readonly kind: StagedRecord['kind'];
  readonly payloadBytes: number;
  /** What it says, for people. */
  readonly text: string;
}

export interface StagingInspection {
  readonly segments: readonly { readonly segment: number; readonly sizeBytes: number }[];
  /** Segment from which on records count; undefined: from the first. */
  readonly firstSegment: number | undefined;
  readonly recordCount: number;
  readonly payloadBytes: number;
  readonly recordCounts: Readonly<Record<StagedRecord['kind'], number>>;
  /** The first records that count, at most as many as asked for. */
  readonly records: readonly StagedRecordInspection[];
  /** Why the log can't be read to where it was synced. */
  readonly failure?: string;
}

/** The staging log: its segments, and the records that count. */
export function inspectStaging(image: DriveImage, { limit }: { readonly limit: number }): StagingInspection {
  const { staging } = image.stores;
  const segments = staging.list().map((segment) => ({ segment, sizeBytes: staging.read(segment).length }));
  const recordCounts = { block: 0, kv: 0, deallocate: 0 };
  const records: StagedRecordInspection[] = [];
  let recordCount = 0;
  let payloadBytes = 0;
  const failure = image.readStagingLog((record) => {
    recordCount++;
    recordCounts[record.kind]++;
    payloadBytes += record.payload.length;
    const { operation, kind, payload } = record;
    if (records.length < limit) records.push({ operation, kind, payloadBytes: payload.length, text: textOf(record) });
  });
  const counted = { recordCount, payloadBytes, recordCounts, records };
  return { segments, firstSegment: image.state?.log.segment, ...counted, ...(failure && { failure: failure.message }) };
}

function textOf({ kind, payload }: StagedRecord): string {
  try {
    switch (kind) {
      case 'block':
        return `LBA ${blockStagedSlot.decode(payload).lba}`;
      case 'deallocate': {
        const { lba, lbaCount } = blockDeallocation.decode(payload);
        return `LBA ${lba}, ${lbaCount} blocks`;
      }
      case 'kv':
        return kvText(decodeStaged(payload));
    }
  } catch (error) {
    return `damaged: ${(error as Error).message}`;
  }
}

function kvText(record: ReturnType<typeof decodeStaged>): string {
  switch (record.kind) {
    case 'tail': {
      const { sequenceId, layer, firstToken, tokenCount } = record;
      return `sequence ${sequenceId}, layer ${layer}: ${tokenCount} tokens from ${firstToken} on`;
    }
    case 'create':
      return `create sequence ${record.request.id}`;
    case 'fork':
      return `fork sequence ${record.request.id} from ${record.parentId} at token ${record.tokenCount}`;
    case 'truncate': {
      const where = record.layer === undefined ? 'all layers' : `layer ${record.layer}`;
      return `truncate sequence ${record.sequenceId}, ${where}, to ${record.length} tokens`;
    }
    case 'reclaim':
      return `reclaim sequence ${record.sequenceId}`;
    case 'clear':
      return 'reclaim all sequences';
  }
}
