/**
 * Write amplification of uniform random writes in steady state, by theory.
 *
 * alpha: flash pages that hold something (written and not collected yet) for each logical page.
 */

/**
 * First in, first out. A page is copied when its block's turn comes, after alpha * U pages were written over all since
 * (U logical pages), of which the share 1/A by hosts, each on a random page: so the share u = exp(-alpha / A) of a
 * block is still valid, and collecting it makes room for 1 - u = 1/A. With u = exp(-alpha * (1 - u)):
 *
 *   A = alpha / (alpha + W(-alpha * exp(-alpha)))     W: Lambert's function, principal branch
 */
export function fifoWriteAmplification(alpha: number): number {
  return alpha / (alpha + lambertW(-alpha * Math.exp(-alpha)));
}

/** Principal branch, for -1/e <= x < 0, by Newton's method from above -1. */
export function lambertW(x: number): number {
  let w = x > -0.25 ? x : -1 + Math.sqrt(2 * (1 + Math.E * x));
  for (let i = 0; i < 64; i++) {
    const step = (w * Math.exp(w) - x) / (Math.exp(w) * (w + 1));
    w -= step;
    if (Math.abs(step) < 1e-15) break;
  }
  return w;
}

/**
 * Greedy, by mean field, for blocks of b pages. A block with j valid pages loses one at rate j / U for each page that
 * hosts write. In steady state as many blocks pass every level, r for each page written, so N_j = r U / j blocks have j
 * valid pages, for j = b down to the lowest level v. There the share 1 - p of them is taken as a victim, and the share p
 * falls to v - 1 first and is taken then: p r U / v blocks are at level v. All blocks and all valid pages add up:
 *
 *   sum N_j     = r U (H_b - H_v + p / v) = alpha U / b          H: harmonic numbers
 *   sum j N_j   = r U (b - v + p)         = U
 *
 * which fix v and p. Victims have m = v - p valid pages, and A = b / (b - m). As b grows this tends to first in, first out.
 */
export function greedyWriteAmplification(alpha: number, pagesPerBlock: number): number {
  const b = pagesPerBlock;
  // Falls with v, and with p from 1 to 0; at v + 1 and p = 1 it is what it is at v and p = 0.
  let harmonic = 0;
  for (let v = b; v >= 1; v--) {
    // Here `harmonic` is H_b - H_v.
    const atMost = (b * (harmonic + 1 / v)) / (b - v + 1);
    if (atMost >= alpha) {
      // alpha * (b - v + p) = b * (harmonic + p / v)
      const p = (b * harmonic - alpha * (b - v)) / (alpha - b / v);
      return b / (b - v + p);
    }
    harmonic += 1 / v;
  }
  return 1;
}
