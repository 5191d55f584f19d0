import { ideal } from '../profiles/ideal.ts';
import type { DriveProfile } from '../profiles/profile.ts';
import type { Geometry } from './geometry.ts';

/** What the dies of one drive are like. Fixed by format, as the geometry is. */
export interface Chip {
  readonly profile: DriveProfile;
  /** Everything by which one block differs from another follows from this number and the profile. */
  readonly seed: number;
  /** Erase blocks of each unit beyond the superblocks, to replace bad ones. */
  readonly spareBlocksPerUnit: number;
}

export const idealChip: Chip = Object.freeze({ profile: ideal, seed: 0, spareBlocksPerUnit: 0 });

/** The chip of a new drive. `seed` is 32 bits. */
export function planChip(profile: DriveProfile, geometry: Geometry, seed: number): Chip {
  const { spareBlocksPerMillion } = profile.endurance;
  const spareBlocksPerUnit = Math.ceil((geometry.superblockCount * spareBlocksPerMillion) / 1e6);
  return Object.freeze({ profile, seed: seed >>> 0, spareBlocksPerUnit });
}
