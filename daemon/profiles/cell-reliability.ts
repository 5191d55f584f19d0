import type { EnduranceProfile, ErrorProfile } from './profile.ts';
import type { CellType } from './timing-profile.ts';

/** An estimate: thresholds step by step nearer to the best ones, each worth a quarter of the errors; eight, a tenfold. */
const RETRY_ERROR_SHARE = 0.75;

/**
 * How cells of a type wear out and err, where the product's maker says nothing.
 *
 * Rated cycles: FEMU's table. Bad blocks: data sheets promise at most 2 % over a chip's
 * life, so that is what is set aside; a tenth of it from the factory is an estimate. Error rates and codewords are
 * estimates: the orders of magnitude of published characterisations (Cai et al., Proceedings of the IEEE 105(9), 2017,
 * for planar MLC; Luo et al., SIGMETRICS 2018, for 3D TLC), and a code that corrects the rated rate with five standard
 * deviations to spare.
 */
export const cellReliability: Readonly<
  Record<CellType, { readonly endurance: EnduranceProfile; readonly errors: ErrorProfile }>
> = {
  slc: reliability(100_000, { correctableBits: 8, readRetryCount: 2, fresh: 1e-9, rated: 1e-6 }),
  mlc: reliability(3000, { correctableBits: 40, readRetryCount: 4, fresh: 1e-6, rated: 1e-3 }),
  tlc: reliability(1000, { correctableBits: 72, readRetryCount: 8, fresh: 1e-5, rated: 4e-3 }),
  qlc: reliability(300, { correctableBits: 120, readRetryCount: 16, fresh: 1e-4, rated: 8e-3 }),
};

function reliability(
  ratedCycles: number,
  errors: { correctableBits: number; readRetryCount: number; fresh: number; rated: number },
): { endurance: EnduranceProfile; errors: ErrorProfile } {
  return {
    endurance: { ratedCycles, factoryBadPerMillion: 2000, spareBlocksPerMillion: 20_000 },
    errors: {
      codewordBytes: 1024,
      correctableBits: errors.correctableBits,
      readRetryCount: errors.readRetryCount,
      retryErrorShare: RETRY_ERROR_SHARE,
      rawBitErrorRateFresh: errors.fresh,
      rawBitErrorRateRated: errors.rated,
    },
  };
}
