/** Outputs of one set of rows over one part of the tokens. */
export interface PartialOutput {
  /** [row][dimension], f32. */
  readonly output: Float32Array;
  /** [row] pairs {maximum, log-sum-exp}: the rows' statistics as ATTN returns them. */
  readonly statistics: Float32Array;
}

/**
 * Merges attention over disjoint parts of the tokens (another drive's, recent tokens that the host still holds) into
 * attention over all of them. Exact: each part weighs exp(its log-sum-exp - the total's), which is its share of the
 * softmax sum. A part that saw no token has log-sum-exp -Infinity and weighs nothing; if none saw any, the output is 0.
 */
export function mergePartials(parts: readonly PartialOutput[]): PartialOutput {
  const first = parts[0];
  if (first === undefined) throw new RangeError('no parts to merge');
  const rowCount = first.statistics.length / 2;
  const dimension = rowCount === 0 ? 0 : first.output.length / rowCount;
  for (const { output, statistics } of parts) {
    if (output.length !== first.output.length || statistics.length !== first.statistics.length) {
      throw new RangeError(`parts of ${first.output.length} and ${output.length} elements cannot be merged`);
    }
  }
  if (!Number.isInteger(dimension)) throw new RangeError(`${first.output.length} elements in ${rowCount} rows`);
  const output = new Float32Array(first.output.length);
  const statistics = new Float32Array(first.statistics.length);
  const sums = new Float64Array(dimension);
  for (let row = 0; row < rowCount; row++) mergeRow(parts, row, sums, output, statistics);
  return { output, statistics };
}

function mergeRow(
  parts: readonly PartialOutput[],
  row: number,
  sums: Float64Array,
  output: Float32Array,
  statistics: Float32Array,
): void {
  let maximum = Number.NEGATIVE_INFINITY;
  let top = Number.NEGATIVE_INFINITY;
  for (const part of parts) {
    maximum = Math.max(maximum, part.statistics[2 * row] as number);
    top = Math.max(top, part.statistics[2 * row + 1] as number);
  }
  sums.fill(0);
  let total = 0;
  for (const part of parts) {
    const share = top === Number.NEGATIVE_INFINITY ? 0 : Math.exp((part.statistics[2 * row + 1] as number) - top);
    if (share === 0) continue;
    total += share;
    const at = row * sums.length;
    for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as number) + share * (part.output[at + i] as number);
  }
  for (let i = 0; i < sums.length; i++) output[row * sums.length + i] = total === 0 ? 0 : (sums[i] as number) / total;
  statistics[2 * row] = maximum;
  statistics[2 * row + 1] = total === 0 ? Number.NEGATIVE_INFINITY : top + Math.log(total);
}
