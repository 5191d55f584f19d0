import { DriveError } from '../base/errors.ts';
import { femuProfiles } from './femu.ts';
import { ideal } from './ideal.ts';
import { instattention } from './instattention.ts';
import { micron9550 } from './micron-9550.ts';
import { nvmevirt970Pro } from './nvmevirt-970-pro.ts';
import type { DriveProfile } from './profile.ts';
import { smartssd } from './smartssd.ts';

/** All profiles; the first is what `format` takes unless told otherwise. */
export const profiles: readonly DriveProfile[] = [
  ideal,
  nvmevirt970Pro,
  ...femuProfiles,
  instattention,
  smartssd,
  micron9550,
];

/** DriveError invalidField names the profiles that there are. */
export function profileOf(name: string): DriveProfile {
  const profile = profiles.find((candidate) => candidate.name === name);
  if (profile) return profile;
  throw new DriveError('invalidField', `profile ${name}; allowed: ${profiles.map((known) => known.name).join(', ')}`);
}
