import type { KvPages } from '../ftl/contract.ts';
import type { SequenceSummary } from './contract.ts';
import type { Sequence } from './sequence.ts';

/** A sequence for people and for *query*. Walks every page to count the shared ones. */
export function summaryOf(sequence: Sequence, pages: KvPages): SequenceSummary {
  let pageCount = 0;
  let sharedPageCount = 0;
  let bufferedTokenCount = 0;
  for (const layer of sequence.layers) {
    pageCount += layer.table.pageCount;
    bufferedTokenCount += sequence.tailCount(layer);
    layer.table.forEachPage(0, layer.table.groupCount, (page) => {
      if (pages.referenceCount(page) > 1) sharedPageCount++;
    });
  }
  const { id, parentId, shape, label, owner, leaseSeconds, layout } = sequence;
  return {
    id,
    parentId,
    shape,
    label,
    owner,
    leaseSeconds,
    lengths: sequence.layers.map((layer) => layer.length),
    pageCount,
    sharedPageCount,
    paddingBytesPerPageK: layout.paddingBytes[0],
    paddingBytesPerPageV: layout.paddingBytes[1],
    bufferedTokenCount,
  };
}
