import type { DeviceJob } from '../timing/device-job.ts';
import { assert } from '../base/assert.ts';
import { readRowsIntoSlab } from './page-rows.ts';
import type { KvRoom } from './room.ts';
import type { Layer, Sequence } from './sequence.ts';

/**
 * Fills `child`, which nobody else sees yet, with the first `tokenCount` tokens of every layer of `parent`. Whole
 * groups are shared; rows of an incomplete one are copied. Runs in the parent's queue. On failure the child holds
 * nothing.
 */
export async function shareTokens(
  room: KvRoom,
  parent: Sequence,
  child: Sequence,
  tokenCount: number,
  job: DeviceJob,
): Promise<void> {
  try {
    for (const [index, layer] of parent.layers.entries()) {
      const copy = child.layers[index];
      assert(copy !== undefined, 'parent and child have the same layers');
      await shareLayer(room, parent, { child, layer, copy, length: Math.min(tokenCount, layer.length), job });
    }
  } catch (error) {
    dropTokens(room, child);
    throw error;
  }
}

interface LayerShare {
  readonly child: Sequence;
  readonly layer: Layer;
  readonly copy: Layer;
  readonly length: number;
  readonly job: DeviceJob;
}

async function shareLayer(
  room: KvRoom,
  parent: Sequence,
  { child, layer: source, copy, length, job }: LayerShare,
): Promise<void> {
  const { layout } = parent;
  const groupCount = Math.floor(length / layout.groupTokens);
  const rowCount = length % layout.groupTokens;
  copy.table.copyFrom(source.table, groupCount);
  copy.table.forEachPage(0, groupCount, (page) => room.pages.retain(page));
  copy.length = groupCount * layout.groupTokens;
  copy.stagedLength = copy.length;
  room.counters.tokenCount += copy.length;
  room.countHeld(child, copy.table.pageCount);
  room.counters.heldPaddingBytes += groupCount * layout.headCount * (layout.paddingBytes[0] + layout.paddingBytes[1]);
  if (rowCount === 0) return;
  copy.slab = room.tails.allocate(layout, child.holding);
  if (groupCount < source.table.groupCount) {
    const pages = Array.from({ length: layout.streamCount }, (_, stream) => source.table.page(groupCount, stream));
    await readRowsIntoSlab(room, layout, pages, rowCount, copy.slab, job);
  } else {
    assert(source.slab !== undefined, 'tokens past the last group are in a slab');
    copy.slab.copyRows(source.slab, rowCount);
  }
  copy.length += rowCount;
  room.counters.tokenCount += rowCount;
}

/** Lets go of everything a sequence holds. Views of it keep what they need. */
export function dropTokens(room: KvRoom, sequence: Sequence): void {
  const { layout } = sequence;
  const paddingPerGroup = layout.headCount * (layout.paddingBytes[0] + layout.paddingBytes[1]);
  for (const layer of sequence.layers) {
    const { groupCount } = layer.table;
    room.releasePages(layer, 0);
    room.counters.tokenCount -= layer.length;
    room.countHeld(sequence, -layer.table.pageCount);
    room.counters.heldPaddingBytes -= groupCount * paddingPerGroup;
    layer.table.cutTo(0);
    layer.length = 0;
    room.replaceSlab(layer, undefined);
  }
}
