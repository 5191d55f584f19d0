import { silentLogger } from '../base/logger.ts';
import { BlockRecords } from '../ftl/block-records.ts';
import type { StateRecord } from '../ftl/checkpoint.ts';
import { SEGMENT_ENTRIES } from '../ftl/segmented-map.ts';
import type { MetaReader } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { NandArray } from '../nand/array.ts';
import { noFailures } from '../nand/failures.ts';
import type { Geometry } from '../nand/geometry.ts';
import { blocks, type Loss, type Report, unknown } from './finding.ts';
import type { DriveImage } from './image.ts';
import { checkKvState, recordsOf } from './stored-sequences.ts';

/** Namespaces are small numbers; one that is not in the list may be of a later program. */
const NAMESPACE_MAX = 255;

/** The metadata records of the FTL and of the KV room as a whole: there, of the right form, and possible. */
export function checkMetadata(image: DriveImage, report: Report): void {
  const { geometry, lbaCount, kvMap } = image;
  const { meta } = image.stores;
  const lpnCount = kvMap.entries.length;
  checkState(meta, geometry, report);
  const lostLbas = (first: number, count: number): Loss[] => [blocks(first, count)];
  checkMap(meta, metaNamespaces.blockMap, lbaCount, (text, first, count) =>
    report({ kind: 'metadata', text: `map of the block namespace: ${text}`, lost: lostLbas(first, count) }),
  );
  // Whose pages these were is found where the block tables are followed.
  checkMap(meta, metaNamespaces.kvMap, lpnCount, (text) =>
    report({ kind: 'metadata', text: `map of the KV namespace: ${text}`, lost: [] }),
  );
  checkStagedList(meta, lbaCount, report);
  checkKvState(meta, report);
  checkFlashBlocks(image, report);
  const known = new Set<number>(Object.values(metaNamespaces));
  for (let namespace = 0; namespace <= NAMESPACE_MAX; namespace++) {
    if (known.has(namespace)) continue;
    for (const { key } of recordsOf(meta, namespace, report)) {
      report({ kind: 'metadata', text: `record ${namespace}/${key.join('/')} is of no known kind`, lost: [] });
    }
  }
}

function checkState(meta: MetaReader, geometry: Geometry, report: Report): void {
  const wrong = (text: string): void => report({ kind: 'metadata', text: `state record: ${text}`, lost: [] });
  let state: Partial<StateRecord> | undefined;
  try {
    state = meta.get(metaNamespaces.drive, ['state']) as Partial<StateRecord> | undefined;
  } catch (error) {
    wrong((error as Error).message);
    return;
  }
  if (state === undefined) return;
  const { operation, isClean, log, open } = state;
  if (!isCount(operation)) wrong(`operation number ${String(operation)}`);
  if (typeof isClean !== 'boolean') wrong(`isClean ${String(isClean)}`);
  if (!isCount(log?.segment) || !isCount(log?.sizeBytes)) wrong('does not say where the staging log begins');
  if (!Array.isArray(open)) {
    wrong('does not list the open superblocks');
    return;
  }
  for (const { superblock, pool, nextPages } of open as Partial<StateRecord['open'][number]>[]) {
    const isPossible =
      isCount(superblock) &&
      superblock < geometry.superblockCount &&
      (pool === 'block' || pool === 'kv') &&
      nextPages?.length === geometry.unitCount &&
      nextPages.every((page) => isCount(page) && page <= geometry.pagesPerBlock);
    if (!isPossible) wrong(`open superblock ${String(superblock)} is not described as one can be`);
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** `wrong` gets the entries that the record would hold. */
function checkMap(
  meta: MetaReader,
  namespace: number,
  entryCount: number,
  wrong: (text: string, first: number, count: number) => void,
): void {
  const reportRange: Report = ({ text }) => wrong(text, 0, entryCount);
  for (const { key, value } of recordsOf(meta, namespace, reportRange)) {
    const [segment] = key;
    const first = (segment as number) * SEGMENT_ENTRIES;
    if (key.length !== 1 || !isCount(segment) || first >= entryCount) {
      wrong(`segment ${key.join('/')}; there are ${Math.ceil(entryCount / SEGMENT_ENTRIES)}`, 0, 0);
      continue;
    }
    const count = Math.min(SEGMENT_ENTRIES, entryCount - first);
    if (value instanceof Uint8Array && value.length === 4 * count) continue;
    const found = value instanceof Uint8Array ? `${value.length} bytes` : typeof value;
    wrong(`segment ${segment} is ${found}, must be ${4 * count} bytes`, first, count);
  }
}

/** The table of bad blocks. */
function checkFlashBlocks({ geometry, stores }: DriveImage, report: Report): void {
  const records = new BlockRecords(
    new NandArray(geometry, stores.media, { chip: stores.chip, failures: noFailures }),
    silentLogger,
  );
  try {
    records.restore(records.read(stores.meta));
  } catch (error) {
    report({ kind: 'metadata', text: (error as Error).message, lost: [] });
  }
}

function checkStagedList(meta: MetaReader, lbaCount: number, report: Report): void {
  const wrong = (text: string): void =>
    report({ kind: 'metadata', text: `list of staged blocks: ${text}`, lost: [unknown] });
  try {
    const list = meta.get(metaNamespaces.stagedBlocks, ['list']) ?? [];
    const isList = Array.isArray(list) && list.every((pair) => Array.isArray(pair) && pair.every(isCount));
    if (!isList) wrong('must be pairs of LBA and operation number');
    else for (const [lba = 0] of list) if (lba >= lbaCount) wrong(`LBA ${lba}; there are ${lbaCount}`);
  } catch (error) {
    wrong((error as Error).message);
  }
}
