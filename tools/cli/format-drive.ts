/** Formatting with defaults, for the commands that make a drive. */
import { systemRandom } from '../../daemon/base/random.ts';
import type { DriveIdentity } from '../../daemon/ftl/contract.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { profileOf } from '../../daemon/profiles/profiles.ts';

export interface FormatRequest {
  readonly blockCapacityBytes: number;
  readonly kvCapacityBytes: number;
  readonly pageSizeBytes?: number | undefined;
  readonly channelCount?: number | undefined;
  readonly diesPerChannel?: number | undefined;
  readonly planesPerDie?: number | undefined;
  /** Share of each capacity: 0.07 is 7 %. */
  readonly overProvisioning?: number | undefined;
  /** A name of `daemon/profiles`; its geometry counts where nothing else is asked for. */
  readonly profile?: string | undefined;
  /** Wipes the drive that is there. */
  readonly force?: boolean | undefined;
}

/** Where neither the request nor its profile says anything. */
export const formatDefaults = {
  pageSizeBytes: 16_384,
  channelCount: 8,
  diesPerChannel: 2,
  planesPerDie: 1,
  overProvisioning: 0.125,
  profile: 'ideal',
} as const;

/** DriveError: a value that is not allowed, a folder with a drive or something else in it, or in use. */
export async function formatFolder(folder: string, request: FormatRequest): Promise<DriveIdentity> {
  const { blockCapacityBytes, kvCapacityBytes, force = false } = request;
  const profile = profileOf(request.profile ?? formatDefaults.profile);
  const suggested = { ...formatDefaults, ...profile.geometry };
  const {
    pageSizeBytes = suggested.pageSizeBytes,
    channelCount = suggested.channelCount,
    diesPerChannel = suggested.diesPerChannel,
    planesPerDie = suggested.planesPerDie,
    overProvisioning = formatDefaults.overProvisioning,
  } = request;
  const geometry = { pageSizeBytes, channelCount, diesPerChannel, planesPerDie, overProvisioning };
  return formatDrive(folder, { blockCapacityBytes, kvCapacityBytes, ...geometry, force, profile }, systemRandom);
}
