import { limits } from '../../spec/limits.ts';
import type { Geometry } from '../nand/geometry.ts';
import type { Pool } from './superblocks.ts';
import type { VictimPolicyOptions } from './victim-policy.ts';

/**
 * What is kept apart when it is written.
 * - `lifetime`: what will be given up together: KV pages by sequence, blocks by how soon they are written over, and what
 *   garbage collection copies.
 * - `copies`: only what garbage collection copies.
 * - `plain`: nothing, as in a drive that knows only pages: to compare with.
 */
export const placements = ['lifetime', 'copies', 'plain'] as const;
export type Placement = (typeof placements)[number];

/** How garbage collection chooses, when it runs, and what it will find. */
export interface GcOptions extends VictimPolicyOptions {
  readonly placement: Placement;
  /** Superblocks with room for hosts below which every write pays for some collecting. */
  readonly startSuperblocks: number;
  /** Superblocks with room for hosts up to which it goes on while no host writes. */
  readonly stopSuperblocks: number;
}

export const defaultGcOptions: GcOptions = Object.freeze({
  placement: 'lifetime',
  policy: 'greedy',
  choiceCount: 8,
  windowSuperblocks: 1,
  startSuperblocks: 2,
  stopSuperblocks: 4,
});

/** What may be asked for. */
export const gcBounds = { choicesMax: 256, windowMax: 65_536, superblocksMax: 1024 } as const;

/**
 * Superblocks of each pool that only garbage collection may open. It opens no others, so that what hosts have reserved
 * stays there; superblocks that become free pay back what it took before hosts get any.
 */
export const GC_RESERVE_SUPERBLOCKS = 4;

/** A host's page may be charged this many times what it costs on average: garbage collection that is behind catches up. */
const CATCH_UP = 2;

/** The thresholds of one pool, in pages. */
export interface PoolThresholds {
  readonly startPages: number;
  readonly stopPages: number;
  /**
   * Pages that a host's page may have to wait for: at `startPages` of room everything else is written, so this follows
   * from the share of it that can be valid.
   */
  readonly movesPerHostPage: number;
}

/** Write points of the KV pool: half of the superblocks that it has to spare may stand open. */
export function kvWritePointCount(geometry: Geometry): number {
  const capacitySuperblocks = geometry.kvCapacityBytes / (geometry.pagesPerSuperblock * geometry.pageSizeBytes);
  const spare = geometry.kvSuperblockCount - GC_RESERVE_SUPERBLOCKS - capacitySuperblocks;
  const { kvWritePointCountMin, kvWritePointCountMax } = limits;
  return Math.max(kvWritePointCountMin, Math.min(kvWritePointCountMax, Math.floor(spare / 2)));
}

/**
 * `quota`: superblocks of the pool. Superblocks that further write points hold open are half written on average. Small
 * drives have less to spare.
 */
export function thresholdsOf(
  pool: Pool,
  { geometry, quota, writePointCount }: { geometry: Geometry; quota: number; writePointCount: number },
  { startSuperblocks, stopSuperblocks }: GcOptions,
): PoolThresholds {
  const { pagesPerSuperblock, pageSizeBytes } = geometry;
  const capacityBytes = pool === 'block' ? geometry.blockCapacityBytes : geometry.kvCapacityBytes;
  const capacityPages = capacityBytes / pageSizeBytes;
  const usable = quota - GC_RESERVE_SUPERBLOCKS;
  const spare = Math.max(0, usable - capacityPages / pagesPerSuperblock);
  const start = Math.min(startSuperblocks, spare / 2);
  const stop = Math.max(start, Math.min(stopSuperblocks, (3 * spare) / 4));
  const writtenPages = (usable - start - (writePointCount - 1) / 2) * pagesPerSuperblock;
  const averageMoves = Math.min(pagesPerSuperblock, writtenPages / Math.max(1, writtenPages - capacityPages));
  return {
    startPages: Math.floor(start * pagesPerSuperblock),
    stopPages: Math.floor(stop * pagesPerSuperblock),
    movesPerHostPage: Math.ceil(CATCH_UP * averageMoves),
  };
}
