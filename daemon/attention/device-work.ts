import { type DeviceJob, untimed } from '../timing/device-job.ts';
import type { TargetPlan } from './plan.ts';

/**
 * What an ATTN does in device time: every page of its plans streams from flash into the compute units, rows of the tail
 * buffer come from memory, and when all have been there, each head is finished. A page counts as a whole, also where
 * only some of its tokens are seen, and once, however many tiles of query tokens walk it here.
 */
export function bookAttention(plans: readonly TargetPlan[], job: DeviceJob): void {
  if (job === untimed) return;
  let headCount = 0;
  for (const plan of plans) {
    bookPlan(plan, job);
    headCount += plan.kvHeadCount;
  }
  job.join();
  job.finishHeads(headCount);
}

function bookPlan(plan: TargetPlan, job: DeviceJob): void {
  const { pages, groupCount, kvHeadCount, counts, layout } = plan;
  const { groupTokens, rowBytesK, rowBytesV, shape } = layout;
  const bytesK = groupTokens * rowBytesK;
  const bytesV = groupTokens * rowBytesV;
  let at = 0;
  for (let head = 0; head < kvHeadCount; head++) {
    const rowCount = queryRowsOf(plan, plan.firstKvHead + head);
    const flopsK = 2 * groupTokens * shape.headDimK * rowCount;
    const flopsV = 2 * groupTokens * shape.headDimV * rowCount;
    for (let group = 0; group < groupCount; group++) {
      job.readToCompute(pages[at++]!, bytesK, flopsK);
      job.readToCompute(pages[at++]!, bytesV, flopsV);
    }
    const buffered = counts.bufferedTokenCount;
    if (buffered === 0) continue;
    const dimensions = shape.headDimK + shape.headDimV;
    job.compute(buffered * (rowBytesK + rowBytesV), 2 * buffered * dimensions * rowCount);
  }
}

/** Query rows that attend with one KV head: its query heads among the target's, for every query token. */
function queryRowsOf({ target }: TargetPlan, kvHead: number): number {
  const { queryHeadsPerKvHead, firstQueryHead, queryHeadCount, queryTokenCount } = target;
  const first = Math.max(firstQueryHead, kvHead * queryHeadsPerKvHead);
  const end = Math.min(firstQueryHead + queryHeadCount, (kvHead + 1) * queryHeadsPerKvHead);
  return (end - first) * queryTokenCount;
}
