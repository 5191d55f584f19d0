import type { DeviceJob } from '../timing/device-job.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import { readRowsIntoSlab } from './page-rows.ts';
import type { KvRoom } from './room.ts';
import type { Layer, Sequence } from './sequence.ts';
import { encodeTruncate } from './staged-records.ts';
import type { TailSlab } from './tail-slab.ts';

export interface TruncateRequest {
  /** undefined: all. */
  readonly layerIndex: number | undefined;
  readonly length: number;
  readonly job: DeviceJob;
}

/** DriveError tokenRange if the layer is shorter than `length`. */
function checkLength(layerIndex: number, layer: Layer, length: number): void {
  if (Number.isInteger(length) && length >= 0 && length <= layer.length) return;
  throw new DriveError('tokenRange', `length ${length}, layer ${layerIndex} has ${layer.length} tokens`);
}

/**
 * Cuts one layer, or all of them, to `length` tokens. Rows of a group that is cut in the middle of its pages are read
 * back into the tail first; the change itself is synchronous. Runs in the sequence's queue.
 */
export async function truncateLayers(
  room: KvRoom,
  sequence: Sequence,
  { layerIndex, length, job }: TruncateRequest,
): Promise<void> {
  const indexes = layerIndex === undefined ? sequence.layers.map((_, index) => index) : [layerIndex];
  const layers = indexes.map((index) => sequence.layers[index] as Layer);
  layers.forEach((layer, i) => checkLength(indexes[i] as number, layer, length));
  if (layers.every((layer) => layer.length === length)) return;
  const slabs = new Map<Layer, TailSlab>();
  try {
    for (const layer of layers) {
      if (!cutsPages(sequence, layer, length)) continue;
      slabs.set(layer, await slabFromPages(room, sequence, layer, { layerIndex, length, job }));
    }
    // From here on nothing waits: no view can be taken between looking at a slab and reusing it.
    for (const layer of layers) {
      if (cutsPages(sequence, layer, length) || length % sequence.layout.groupTokens === 0) continue;
      slabs.set(layer, slabFromTail(room, sequence, layer, length));
    }
    const operation = room.record(encodeTruncate(sequence.id, layerIndex, length));
    for (const layer of layers) cutLayer(room, sequence, layer, length, slabs.get(layer), operation);
    slabs.clear();
    room.counters.truncateCount++;
  } finally {
    for (const [layer, slab] of slabs) {
      if (slab !== layer.slab) slab.letGo();
    }
  }
}

/** Whether the cut goes through a group that is in pages. */
function cutsPages(sequence: Sequence, layer: Layer, length: number): boolean {
  const { groupTokens } = sequence.layout;
  return length % groupTokens !== 0 && Math.floor(length / groupTokens) < layer.table.groupCount;
}

/** A new slab with the rows of the group that is cut. */
async function slabFromPages(
  room: KvRoom,
  sequence: Sequence,
  layer: Layer,
  { length, job }: TruncateRequest,
): Promise<TailSlab> {
  const { layout } = sequence;
  const group = Math.floor(length / layout.groupTokens);
  const slab = room.tails.allocate(layout, sequence.holding);
  try {
    const pages = Array.from({ length: layout.streamCount }, (_, stream) => layer.table.page(group, stream));
    await readRowsIntoSlab(room, layout, pages, length % layout.groupTokens, slab, job);
    return slab;
  } catch (error) {
    slab.letGo();
    throw error;
  }
}

/** The layer's own slab, or a copy if it is cut and a view looks at it. */
function slabFromTail(room: KvRoom, sequence: Sequence, layer: Layer, length: number): TailSlab {
  const { slab } = layer;
  assert(slab !== undefined, 'tokens past the last group are in a slab');
  if (length === layer.length || !slab.isViewed) return slab;
  const copy = room.tails.allocate(sequence.layout, sequence.holding);
  copy.copyRows(slab, length % sequence.layout.groupTokens);
  return copy;
}

function cutLayer(
  room: KvRoom,
  sequence: Sequence,
  layer: Layer,
  length: number,
  slab: TailSlab | undefined,
  operation: number,
): void {
  const { layout } = sequence;
  const groupCount = Math.floor(length / layout.groupTokens);
  const cutGroups = layer.table.groupCount - groupCount;
  room.releasePages(layer, groupCount);
  layer.table.cutTo(groupCount);
  room.replaceSlab(layer, slab);
  room.counters.tokenCount -= layer.length - length;
  room.countHeld(sequence, -cutGroups * layout.streamCount);
  room.counters.heldPaddingBytes -= cutGroups * layout.headCount * (layout.paddingBytes[0] + layout.paddingBytes[1]);
  layer.length = length;
  room.markTruncated(sequence, layer, operation);
}
