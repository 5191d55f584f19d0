import type { TimingProfile } from './timing-profile.ts';

/**
 * What a drive is made of: numbers of a product or of a published model, as data. `format` chooses one and the drive
 * keeps its name for life.
 */
export interface DriveProfile {
  /** As it stands in the drive superblock; at most 32 bytes of ASCII. */
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** Where the numbers come from, one entry a source. */
  readonly sources: readonly string[];
  readonly endurance: EnduranceProfile;
  readonly errors: ErrorProfile;
  /** How long everything takes; undefined: not modelled. */
  readonly timing?: TimingProfile | undefined;
  /** What `format` takes where it is not told otherwise. */
  readonly geometry?: GeometryProfile | undefined;
}

/** How blocks wear out. */
export interface EnduranceProfile {
  /** Program/erase cycles that a block is rated for; undefined: it never wears out. */
  readonly ratedCycles: number | undefined;
  /** Blocks that are bad when the chip leaves the factory, per million. */
  readonly factoryBadPerMillion: number;
  /** Blocks set aside to replace bad ones, per million of a unit's blocks. */
  readonly spareBlocksPerMillion: number;
}

/** Raw bit errors, and what the error correction makes of them. */
export interface ErrorProfile {
  /** Bytes of cells that one codeword protects. */
  readonly codewordBytes: number;
  /** Raw bit errors in a codeword that are corrected on the way out. */
  readonly correctableBits: number;
  /** Further reads with shifted thresholds; each is tried where the one before it failed. */
  readonly readRetryCount: number;
  /** Share of a codeword's raw bit errors that each further step leaves. */
  readonly retryErrorShare: number;
  /** Raw bit error rate of a block that was never erased, and of one at its rated cycles. */
  readonly rawBitErrorRateFresh: number;
  readonly rawBitErrorRateRated: number;
}

/** A flash array like the product's, whatever its capacity. */
export interface GeometryProfile {
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly diesPerChannel: number;
  readonly planesPerDie: number;
}
