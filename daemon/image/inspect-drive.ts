import type { Geometry } from '../nand/geometry.ts';
import type { Pool } from '../ftl/superblocks.ts';
import { claimMapped } from './check-maps.ts';
import { countHolders } from './check-sequences.ts';
import type { DriveImage } from './image.ts';
import { inspectStaging, mappedCount, type StagingInspection } from './inspect-map.ts';

export interface SuperblockCounts {
  /** Opened, so that it belongs to the namespace. */
  readonly used: number;
  /** Of these, open in the last transaction. */
  readonly open: number;
  /** Of these, without anything in use. */
  readonly empty: number;
  readonly validSlotCount: number;
}

export interface DriveInspection {
  readonly uuid: string;
  readonly geometry: Geometry;
  readonly profile: string;
  readonly spareBlocksPerUnit: number;
  /** The last transaction; undefined: the drive was never started. */
  readonly checkpoint:
    | {
        readonly operation: number;
        readonly isClean: boolean;
        readonly startCount: number;
        readonly unsafeShutdownCount: number;
      }
    | undefined;
  /** Superblocks that the next start has to look through. */
  readonly scannedSuperblockCount: number;
  readonly stagingLog: StagingInspection;
  readonly superblocks: Readonly<Record<Pool, SuperblockCounts>> & { readonly free: number; readonly bad: number };
  readonly eraseCountMin: number;
  readonly eraseCountMax: number;
  readonly blocks: { readonly lbaCount: number; readonly mappedCount: number; readonly stagedCount: number };
  readonly kv: { readonly sequenceCount: number; readonly tokenCount: number; readonly heldPageCount: number };
  /** Why a start would refuse the drive. */
  readonly failures: readonly string[];
}

/** A drive as the next start would find it, in numbers. Marks in the image what is in use: once for an image. */
export function inspectDrive(image: DriveImage): DriveInspection {
  const { stores, geometry, state, superblocks, sequences } = image;
  const ignore = (): void => undefined;
  const holders = countHolders(image, ignore);
  claimMapped(image, holders, ignore, ignore);
  const count = (wanted: string): number => statesOf(image).filter((one) => one === wanted).length;
  const tokenCounts = [...sequences.values()].flatMap(({ layers }) => layers.map(({ length }) => length));
  return {
    uuid: Buffer.from(stores.uuid).toString('hex'),
    geometry,
    profile: stores.chip.profile.name,
    spareBlocksPerUnit: stores.chip.spareBlocksPerUnit,
    checkpoint: state && {
      operation: state.operation,
      isClean: state.isClean,
      startCount: state.startCount,
      unsafeShutdownCount: state.unsafeShutdownCount,
    },
    scannedSuperblockCount: image.scannedSuperblockCount,
    stagingLog: inspectStaging(image, { limit: 0 }),
    superblocks: {
      block: countSuperblocks(image, 'block'),
      kv: countSuperblocks(image, 'kv'),
      free: count('free'),
      bad: count('bad'),
    },
    eraseCountMin: superblocks.epoch.reduce((least, epoch) => Math.min(least, epoch)),
    eraseCountMax: superblocks.epoch.reduce((most, epoch) => Math.max(most, epoch)),
    blocks: {
      lbaCount: image.lbaCount,
      mappedCount: mappedCount(image.blockMap.entries),
      stagedCount: image.stagedLbas.size,
    },
    kv: {
      sequenceCount: sequences.size,
      tokenCount: tokenCounts.reduce((sum, one) => sum + one, 0),
      heldPageCount: holders.reduce((held, holderCount) => held + (holderCount > 0 ? 1 : 0), 0),
    },
    failures: image.failures.map(({ message }) => message),
  };
}

const statesOf = ({ superblocks, geometry }: DriveImage) =>
  Array.from({ length: geometry.superblockCount }, (_, superblock) => superblocks.state(superblock));

function countSuperblocks(image: DriveImage, pool: Pool): SuperblockCounts {
  const { superblocks, geometry, state } = image;
  const open = new Set((state?.open ?? []).map(({ superblock }) => superblock));
  const counts = { used: 0, open: 0, empty: 0, validSlotCount: 0 };
  for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
    if (superblocks.pool(superblock) !== pool || superblocks.state(superblock) === 'free') continue;
    const validSlotCount = superblocks.validSlotCount[superblock]!;
    counts.used++;
    counts.validSlotCount += validSlotCount;
    if (open.has(superblock)) counts.open++;
    if (validSlotCount === 0) counts.empty++;
  }
  return counts;
}
