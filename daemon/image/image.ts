import type { Arena } from '../base/arena.ts';
import { InvariantError } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { superblockHeader, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { StateRecord } from '../ftl/checkpoint.ts';
import type { RecoveredEvent } from '../ftl/contract.ts';
import { silentLogger } from '../base/logger.ts';
import { BlockRecords } from '../ftl/block-records.ts';
import { Flash } from '../ftl/flash.ts';
import { kvPageNumberCount } from '../ftl/kv-page-store.ts';
import { readSuperblockHeader, recover, type RecoveryModules } from '../ftl/recovery.ts';
import { SegmentedMap } from '../ftl/segmented-map.ts';
import { type StagedRecord, type StagingStore, StagingFile } from '../ftl/staging-log.ts';
import { Superblocks } from '../ftl/superblocks.ts';
import { Checksum } from '../kernels/checksum.ts';
import type { Kernels } from '../kernels/contract.ts';
import { type FoundSequence, Recovery } from '../kv/recovery.ts';
import type { MetaReader } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { NandArray } from '../nand/array.ts';
import { natureOf } from '../nand/chip-nature.ts';
import type { Chip } from '../nand/chip.ts';
import type { Geometry } from '../nand/geometry.ts';
import type { Media } from '../nand/media.ts';
import { readSequences } from './stored-sequences.ts';

/** What a drive consists of, to be read and never written: files, or memory in tests and simulations. */
export interface ImageStores {
  readonly uuid: Uint8Array;
  readonly geometry: Geometry;
  readonly chip: Chip;
  readonly media: Media;
  readonly meta: MetaReader;
  readonly staging: Pick<StagingStore, 'list' | 'read'>;
}

export interface ImageModules {
  readonly arena: Arena;
  readonly kernels: Kernels;
}

/** A sequence as the next start would find it. */
export type ImageSequence = FoundSequence;

type Maps = Omit<RecoveryModules, 'meta' | 'allocator'>;

/**
 * A drive as its stores hold it. It replays what the next start would replay, into memory of its own: nothing is
 * programmed, erased, staged or committed. Where a start would refuse the drive, `failures` says why, and what is shown is
 * the last transaction as far as it can be read.
 */
export class DriveImage {
  readonly stores: ImageStores;
  readonly checksum: Checksum;
  readonly state: StateRecord | undefined;
  readonly superblocks: Superblocks;
  readonly array: NandArray;
  readonly blockMap: SegmentedMap;
  readonly kvMap: SegmentedMap;
  readonly lbaCount: number;
  /** LBAs whose newest bytes are in the staging log and in no page. */
  readonly stagedLbas: ReadonlySet<number>;
  readonly sequences: ReadonlyMap<bigint, ImageSequence>;
  /** Superblocks that the replay looked through. */
  readonly scannedSuperblockCount: number;
  readonly failures: readonly Error[];
  readonly #staging: StagingFile;

  private constructor(parts: Omit<DriveImage, 'geometry' | 'readStagingLog' | 'close'>, staging: StagingFile) {
    this.stores = parts.stores;
    this.checksum = parts.checksum;
    this.state = parts.state;
    this.superblocks = parts.superblocks;
    this.array = parts.array;
    this.blockMap = parts.blockMap;
    this.kvMap = parts.kvMap;
    this.lbaCount = parts.lbaCount;
    this.stagedLbas = parts.stagedLbas;
    this.sequences = parts.sequences;
    this.scannedSuperblockCount = parts.scannedSuperblockCount;
    this.failures = parts.failures;
    this.#staging = staging;
  }

  close(): void {
    this.checksum.close();
  }

  /** Gives the records that count, in order, up to the first that can't be read; returns why not, if they must be there. */
  readStagingLog(take: (record: StagedRecord) => void): DriveError | undefined {
    return readStagingLog(this.#staging, this.state, take);
  }

  get geometry(): Geometry {
    return this.stores.geometry;
  }

  /** Never fails for what the stores hold. */
  static async load(stores: ImageStores, modules: ImageModules): Promise<DriveImage> {
    const checksum = new Checksum(modules);
    const failures: Error[] = [];
    let maps = makeMaps(stores, checksum);
    let state: StateRecord | undefined;
    let stagedLbas: ReadonlySet<number> = new Set();
    let events: readonly RecoveredEvent[] = [];
    let scannedSuperblockCount = 0;
    try {
      const recovered = await recover({ meta: stores.meta, allocator: passiveAllocator(maps.flash), ...maps });
      ({ state, events, scannedSuperblockCount } = recovered);
      stagedLbas = new Set(recovered.staged.keys());
    } catch (error) {
      failures.push(asFailure(error));
      maps = makeMaps(stores, checksum);
      state = await loadTransaction(stores, maps, failures);
    }
    if (failures.length > 0) events = stagedEvents(maps.staging, state);
    const sequences = recoverSequences(stores, events, failures);
    const { flash, blocks, kv } = maps;
    const parts = {
      stores,
      checksum,
      state,
      superblocks: flash.superblocks,
      array: flash.array,
      blockMap: blocks.map,
      kvMap: kv.map,
      lbaCount: blocks.lbaCount,
      stagedLbas,
      sequences: new Map([...sequences].map((sequence) => [sequence.request.id, sequence])),
      scannedSuperblockCount,
      failures,
    };
    return new DriveImage(parts, maps.staging);
  }
}

function readStagingLog(
  staging: StagingFile,
  state: StateRecord | undefined,
  take: (record: StagedRecord) => void,
): DriveError | undefined {
  try {
    for (const record of staging.replay(state?.log)) take(record);
    return undefined;
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    return error;
  }
}

/** What the log tells of sequences where the FTL's replay has failed. */
function stagedEvents(staging: StagingFile, state: StateRecord | undefined): RecoveredEvent[] {
  const events: RecoveredEvent[] = [];
  readStagingLog(staging, state, ({ kind, operation, payload }) => {
    if (kind === 'kv') events.push({ kind: 'staged', operation, payload });
  });
  return events;
}

function makeMaps(stores: ImageStores, checksum: Checksum): Maps {
  const { uuid, geometry, chip, media, staging } = stores;
  const failures = natureOf(chip, geometry);
  const array = new NandArray(geometry, media, { chip, failures });
  const superblocks = new Superblocks(geometry, array.blocks.eraseCounts);
  const refuse = (): never => {
    throw new InvariantError('an image is not written');
  };
  const store = { list: () => staging.list(), read: (n: number) => staging.read(n), create: refuse, remove: refuse };
  const sum = (bytes: Uint8Array): number => checksum.of(bytes);
  const lbaCount = geometry.blockCapacityBytes / SLOT_BYTES;
  const lpnCount = kvPageNumberCount(geometry);
  return {
    flash: new Flash({ verify: 'always' }, { array, superblocks, checksum, logger: silentLogger }),
    blockRecords: new BlockRecords(array, silentLogger),
    blocks: { map: new SegmentedMap(metaNamespaces.blockMap, lbaCount), lbaCount },
    kv: { map: new SegmentedMap(metaNamespaces.kvMap, lpnCount), lpnCount },
    staging: new StagingFile({ uuid }, { store, operations: { next: refuse, last: 0 }, sum }),
  };
}

/** Notes what it is told and opens nothing. */
function passiveAllocator({ array, superblocks }: Flash): RecoveryModules['allocator'] {
  return {
    reopen: (entry) => reopenPages(array, entry),
    giveUpRetired() {
      for (const superblock of array.blocks.retired) {
        if (superblocks.state(superblock) !== 'bad') superblocks.setState(superblock, 'bad');
      }
    },
  };
}

/** False if the record says what cannot be. */
function reopenPages(array: NandArray, { superblock, nextPages }: StateRecord['open'][number]): boolean {
  const { unitCount, pagesPerBlock } = array.geometry;
  const isPossible = nextPages.length === unitCount && nextPages.every((page) => page >= 0 && page <= pagesPerBlock);
  if (isPossible) nextPages.forEach((page, unit) => array.restoreNextPage(superblock, unit, page));
  return isPossible;
}

/** The last transaction's maps and all headers, without a replay. */
async function loadTransaction(stores: ImageStores, maps: Maps, failures: Error[]): Promise<StateRecord | undefined> {
  const { meta, media, geometry } = stores;
  const attempt = <T>(work: () => T): T | undefined => {
    try {
      return work();
    } catch (error) {
      failures.push(asFailure(error));
      return undefined;
    }
  };
  for (const [namespace, { map }] of [
    [metaNamespaces.blockMap, maps.blocks],
    [metaNamespaces.kvMap, maps.kv],
  ] as const) {
    attempt(() => {
      // Segment by segment: one that is wrong hides no other.
      for (const record of meta.range(namespace))
        attempt(() => map.load({ get: () => undefined, range: () => [record] }));
    });
  }
  const headers = await media.readSuperblockHeaders().catch((error: unknown) => void failures.push(asFailure(error)));
  const { superblocks } = maps.flash;
  for (let superblock = 0; headers && superblock < geometry.superblockCount; superblock++) {
    const at = superblock * superblockHeader.sizeBytes;
    const header = readSuperblockHeader(headers.subarray(at, at + superblockHeader.sizeBytes));
    if (header === undefined) continue;
    superblocks.epoch[superblock] = header.epoch;
    superblocks.openTag[superblock] = header.openTag;
    superblocks.openedAt[superblock] = header.operation;
    superblocks.restore(superblock, 'full', header.pool);
  }
  return attempt(() => meta.get(metaNamespaces.drive, ['state']) as StateRecord | undefined);
}

/** As the KV room would; if that fails, as the last transaction has them. */
function recoverSequences(
  { meta, geometry }: ImageStores,
  events: readonly RecoveredEvent[],
  failures: Error[],
): Iterable<ImageSequence> {
  try {
    const recovery = new Recovery();
    recovery.load(meta);
    for (const event of events) recovery.apply(event);
    return [...recovery.found()];
  } catch (error) {
    failures.push(asFailure(error));
    return readSequences(meta, geometry.pageSizeBytes, () => undefined);
  }
}

/** Records that say what cannot be may break anything that trusts them. */
const asFailure = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
