/**
 * Copies `rowCount` rows of `rowBytes` bytes, of which each begins `strideBytes` after the one before, to `target`, one
 * behind the other: `gather` of kernel sets that have nothing faster. Rows and target don't overlap.
 */
export function gatherRows(
  bytes: Uint8Array,
  source: number,
  strideBytes: number,
  rowBytes: number,
  rowCount: number,
  target: number,
): void {
  for (let row = 0; row < rowCount; row++) {
    const from = source + row * strideBytes;
    bytes.copyWithin(target + row * rowBytes, from, from + rowBytes);
  }
}
