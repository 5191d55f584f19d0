import type { Pool, Superblocks } from './superblocks.ts';

/** Chooses a full superblock of the pool to empty; undefined if none is worth it. */
export type VictimPolicy = (
  superblocks: Superblocks,
  pool: Pool,
  isExcluded: (superblock: number) => boolean,
) => number | undefined;

/** The one with the fewest valid slots, if it has any to gain. Empty ones need no collecting. */
export const greedy: VictimPolicy = (superblocks, pool, isExcluded) => {
  let best: number | undefined;
  let bestValid = superblocks.slotsPerSuperblock;
  for (let superblock = 0; superblock < superblocks.geometry.superblockCount; superblock++) {
    if (superblocks.state(superblock) !== 'full' || superblocks.pool(superblock) !== pool) continue;
    if (isExcluded(superblock)) continue;
    const valid = superblocks.validSlotCount[superblock]!;
    if (valid > 0 && valid < bestValid) {
      best = superblock;
      bestValid = valid;
    }
  }
  return best;
};
