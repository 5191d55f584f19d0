/**
 * How far a kernel set may be from exact arithmetic. README.md explains the terms; the tests hold every set to it.
 *
 * With eps = 2^-23 and, for one query row, N tokens seen, P the softmax weights, L the largest |scale| * sum |q_d * k_d|
 * over those tokens (what a dot product in float32 can lose is proportional to it):
 *   maximum, log-sum-exp   eps * (logit * L + softCap term + |value|) and, for the latter, eps * (softmax + sqrt N)
 *   output                 eps * (2 * logit * L + softmax + sqrt N) * sum P |v|, then one rounding to the output type
 */
export const errorBudget = {
  epsilon: 2 ** -23,
  /** Of a dot product, in eps * L. */
  logit: 2,
  /** Of the soft-cap's tanh, in eps * softCap. */
  softCap: 4,
  /** Of exponentials, rescaling and division, in eps. */
  softmax: 8,
  /** Weights below this share of the largest may count as 0. */
  smallestWeight: 2 ** -125,
} as const;

/**
 * What integer dot products (native, avx512dp, quantised rows) may be off by in addition: their queries and weights are
 * integers, `queryLargest` being the largest element of a group of 64, `weightLargest` the largest of a block's weights times
 * scale. With s, m a group's scale and minimum, k = m + s * x its elements, L the largest x of the type:
 *   logit    |scale| * sum over groups of (max |q| / (2 * queryLargest)) * sum |k - m - s * L / 2|
 *   output   N * L * max over tokens of (P * s) / (2 * weightLargest)
 * avx512fast: queries have a byte of int8, too; and over bf16 keys they are bf16, which adds to a logit
 *   |scale| * queryRounding * sum |q_d * k_d|
 */
export const integerBudget = {
  queryLargest: { int8: 127 * 128, int4: 127 },
  fastQueryLargest: { int8: 127, int4: 127 },
  fastQueryRounding: 2 ** -8,
  weightLargest: { int8: 32_767, int4: 255 },
} as const;

/** Half a unit in the last place, relative, and for subnormals absolute, of the output types. */
export const outputRounding = {
  f32: { relative: 2 ** -24, absolute: 2 ** -149 },
  f16: { relative: 2 ** -11, absolute: 2 ** -25 },
  bf16: { relative: 2 ** -8, absolute: 2 ** -133 },
} as const;
