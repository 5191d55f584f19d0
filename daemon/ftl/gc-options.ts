import type { Geometry } from '../nand/geometry.ts';
import type { Pool } from './superblocks.ts';
import type { VictimPolicyOptions } from './victim-policy.ts';

/** How garbage collection chooses, and when it runs. */
export interface GcOptions extends VictimPolicyOptions {
  /** Superblocks with room for hosts below which every write pays for some collecting. */
  readonly startSuperblocks: number;
  /** Superblocks with room for hosts up to which it goes on while no host writes. */
  readonly stopSuperblocks: number;
}

export const defaultGcOptions: GcOptions = Object.freeze({
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

/**
 * `quota`: superblocks of the pool. The options are for one write point; each further one may hold a superblock open.
 * Small drives have less to spare.
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
  const start = Math.min(startSuperblocks + writePointCount - 1, spare / 2);
  const stop = Math.max(start, Math.min(stopSuperblocks + writePointCount - 1, (3 * spare) / 4));
  const writtenPages = (usable - start) * pagesPerSuperblock;
  const averageMoves = Math.min(pagesPerSuperblock, writtenPages / Math.max(1, writtenPages - capacityPages));
  return {
    startPages: Math.floor(start * pagesPerSuperblock),
    stopPages: Math.floor(stop * pagesPerSuperblock),
    movesPerHostPage: Math.ceil(CATCH_UP * averageMoves),
  };
}
