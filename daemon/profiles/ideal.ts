import type { DriveProfile } from './profile.ts';

/** Flash as nobody can buy it: the default, for who wants a drive and not the study of one. */
export const ideal: DriveProfile = {
  name: 'ideal',
  title: 'ideal flash: never wears out, no bad blocks, no bit errors; times are not modelled',
  sources: ['none: every quantity is at its ideal'],
  endurance: { ratedCycles: undefined, factoryBadPerMillion: 0, spareBlocksPerMillion: 0 },
  errors: {
    codewordBytes: 1024,
    correctableBits: 0,
    readRetryCount: 0,
    retryErrorShare: 1,
    rawBitErrorRateFresh: 0,
    rawBitErrorRateRated: 0,
  },
};
