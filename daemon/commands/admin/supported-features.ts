import { type FeatureName, featureOf } from '../../../spec/features.ts';
import { refuse } from '../fields.ts';

/** What a kind of controller has of the features. */
export interface FeatureOptions {
  readonly supported: readonly FeatureName[];
  /** Bits of the asynchronous event configuration that it can tell of. */
  readonly asyncEventMask: number;
}

/** The feature that CDW10 names. DriveError invalidField. */
export function supportedFeature(fid: number, { supported }: FeatureOptions): FeatureName {
  const name = featureOf(fid);
  if (name === undefined || !supported.includes(name)) throw refuse(`feature ${fid}`);
  return name;
}
