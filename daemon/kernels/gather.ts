import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { assembleJob, NO_REGION } from './contract.ts';

/** `gather` of kernel sets that have nothing faster, and know no regions. */
export function gatherRows(
  bytes: Uint8Array,
  source: number,
  strideBytes: number,
  rowBytes: number,
  rowCount: number,
  target: number,
  region = NO_REGION,
): true {
  assert(region === NO_REGION, 'rows lie in the arena');
  for (let row = 0; row < rowCount; row++) {
    const from = source + row * strideBytes;
    bytes.copyWithin(target + row * rowBytes, from, from + rowBytes);
  }
  return true;
}

/** `assemble` of the same: normative. `sum` is a CRC32C of arena bytes. */
export function assemblePages(
  bytes: Uint8Array,
  at: number,
  sum: (offset: number, sizeBytes: number) => number = (offset, size) => crc32c(bytes.subarray(offset, offset + size)),
): true {
  const job = assembleJob.decode(bytes, at);
  assert(job.region === NO_REGION, 'rows lie in the arena');
  const checksums = new DataView(bytes.buffer, bytes.byteOffset + job.checksums);
  for (let i = 0; i < job.pageCount; i++) {
    const page = job.target + i * job.pageBytes;
    assemblePage(bytes, job, job.firstPage + i, page);
    checksums.setUint32(4 * i, sum(page, job.pageBytes), true);
  }
  return true;
}

function assemblePage(
  bytes: Uint8Array,
  job: ReturnType<typeof assembleJob.decode>,
  index: number,
  page: number,
): void {
  const { groupCount, groupTokens, headMajor, headCount, tokenCount } = job;
  const [group, stream] = [index % groupCount, Math.floor(index / groupCount)];
  const [head, isValues] = [stream >> 1, (stream & 1) === 1];
  const rowBytes = isValues ? job.rowBytesV : job.rowBytesK;
  const tailCount = group === 0 ? job.tailCount : 0;
  const slab = (isValues ? job.tailValues : job.tailKeys) + head * job.tailStrideBytes;
  bytes.copyWithin(page, slab, slab + tailCount * rowBytes);
  const firstToken = job.firstToken + group * groupTokens - (group === 0 ? 0 : job.tailCount);
  const row = headMajor === 1 ? head * tokenCount + firstToken : firstToken * headCount + head;
  const rows = (isValues ? job.values : job.keys) + row * rowBytes;
  const strideBytes = headMajor === 1 ? rowBytes : headCount * rowBytes;
  gatherRows(bytes, rows, strideBytes, rowBytes, groupTokens - tailCount, page + tailCount * rowBytes);
  bytes.fill(0, page + groupTokens * rowBytes, page + job.pageBytes);
}
