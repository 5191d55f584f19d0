import { DriveError } from '../base/errors.ts';
import { ideal } from './ideal.ts';
import type { DriveProfile } from './profile.ts';

/** All profiles; the first is what `format` takes unless told otherwise. */
export const profiles: readonly DriveProfile[] = [ideal];

/** DriveError invalidField names the profiles that there are. */
export function profileOf(name: string): DriveProfile {
  const profile = profiles.find((candidate) => candidate.name === name);
  if (profile) return profile;
  throw new DriveError('invalidField', `profile ${name}; allowed: ${profiles.map((known) => known.name).join(', ')}`);
}
