import { assert } from '../base/assert.ts';
import type { DeviceJob } from '../timing/device-job.ts';
import type { Lpn, PageReservation } from '../ftl/contract.ts';
import type { KvRoom } from './room.ts';
import type { RowSource } from './row-source.ts';
import type { Layer, Sequence } from './sequence.ts';
import type { Part } from './shape.ts';
import type { TailSlab } from './tail-slab.ts';

/**
 * Tokens that an append puts into whole groups: first those that complete the tail's group, then groups that come from
 * the source alone.
 */
export interface GroupPlan {
  readonly sequence: Sequence;
  readonly layerIndex: number;
  readonly layer: Layer;
  readonly source: RowSource;
  /** Source token at which the layer's length lies. */
  readonly firstSourceToken: number;
  readonly firstGroup: number;
  readonly groupCount: number;
  /** Rows of the first group that the slab holds already. */
  readonly tailCount: number;
  readonly job: DeviceJob;
}

/**
 * Programs whole groups, all groups of one stream before the next, page after page on the next channel, so that a long
 * prefill's streams lie together. Pages that lie side by side in memory are programmed together. On failure the pages it
 * has written are released and the table is as before. Synchronous.
 */
export function programGroups(room: KvRoom, plan: GroupPlan, reservation: PageReservation): void {
  const { sequence, layer, firstGroup, groupCount } = plan;
  const { pageSizeBytes } = room.pages;
  layer.table.reserveGroups(firstGroup + groupCount);
  const frames = room.pageFrames();
  const pageCount = groupCount * sequence.layout.streamCount;
  // Pages [first, index) lie at `offset`, one behind the other, and are not programmed yet.
  let first = 0;
  let offset = 0;
  try {
    for (let index = 0; index < pageCount; index++) {
      const lying = findPage(plan, index);
      const behind = offset + (index - first) * pageSizeBytes;
      const isNext = behind === (lying ?? frames.offset + (index - first) * pageSizeBytes);
      if (!isNext || index - first === frames.pageCount) {
        if (index > first) programRun(room, plan, reservation, first, index, offset);
        first = index;
        offset = lying ?? frames.offset;
      }
      if (lying === undefined) assemblePage(room, plan, index, offset + (index - first) * pageSizeBytes);
    }
    programRun(room, plan, reservation, first, pageCount, offset);
  } catch (error) {
    for (let index = 0; index < first; index++) {
      room.pages.release(layer.table.pending(firstGroup + (index % groupCount), Math.floor(index / groupCount)));
    }
    throw error;
  }
  layer.table.extendTo(firstGroup + groupCount);
}

/** Pages [from, to) of the append, which lie at `offset`. */
function programRun(
  room: KvRoom,
  plan: GroupPlan,
  reservation: PageReservation,
  from: number,
  to: number,
  offset: number,
): void {
  const { sequence, layer, layerIndex, firstGroup, groupCount, job } = plan;
  const run = {
    sequenceId: sequence.id,
    generation: layer.generation,
    layer: layerIndex,
    firstGroup,
    groupCount,
    firstIndex: from,
    pageCount: to - from,
  };
  const channel = (firstGroup + sequence.streamIndex(layerIndex, 0) + from) % room.pages.channelCount;
  const { lpns } = room.pageFrames();
  room.pages.program(reservation, run, offset, { channel, placement: sequence.placement, job }, lpns);
  for (let index = from; index < to; index++) {
    layer.table.write(firstGroup + (index % groupCount), Math.floor(index / groupCount), lpns[index - from] as Lpn);
  }
}

const headOf = (plan: GroupPlan, index: number): number => Math.floor(index / plan.groupCount) >> 1;
const partOf = (plan: GroupPlan, index: number): Part => (Math.floor(index / plan.groupCount) & 1) as Part;
/** Source token with which the page begins; before the source's first for the group that completes the tail's. */
const firstTokenOf = (plan: GroupPlan, index: number): number =>
  plan.firstSourceToken + (index % plan.groupCount) * plan.sequence.layout.groupTokens - plan.tailCount;
const completesTail = (plan: GroupPlan, index: number): boolean => index % plan.groupCount === 0 && plan.tailCount > 0;

/** Arena offset where page `index` of the append lies as it is to be programmed; undefined: it must be assembled. */
function findPage(plan: GroupPlan, index: number): number | undefined {
  const { source, sequence, layer } = plan;
  const { layout } = sequence;
  const head = headOf(plan, index);
  const part = partOf(plan, index);
  if (completesTail(plan, index)) {
    if (!layout.slabIsPage[part]) return undefined;
    completeTail(plan, head, part);
    return tailOf(layer).row(head, part, 0);
  }
  if (layout.paddingBytes[part] > 0) return undefined;
  return source.run(head, part, firstTokenOf(plan, index), layout.groupTokens);
}

/** Puts page `index`, zero behind its last row, to `target`. */
function assemblePage(room: KvRoom, plan: GroupPlan, index: number, target: number): void {
  const { source, sequence, layer } = plan;
  const { layout } = sequence;
  const head = headOf(plan, index);
  const part = partOf(plan, index);
  const groupBytes = layout.groupBytes[part];
  if (completesTail(plan, index)) {
    completeTail(plan, head, part);
    room.copy(target, tailOf(layer).row(head, part, 0), groupBytes);
  } else {
    source.copyRows(head, part, firstTokenOf(plan, index), layout.groupTokens, target);
  }
  if (layout.paddingBytes[part] > 0) room.clear(target + groupBytes, layout.paddingBytes[part]);
}

/** Copies the rows that the tail's group lacks behind those that it has. */
function completeTail(plan: GroupPlan, head: number, part: Part): void {
  const { source, tailCount, sequence } = plan;
  const slab = tailOf(plan.layer);
  const count = sequence.layout.groupTokens - tailCount;
  source.copyRows(head, part, plan.firstSourceToken, count, slab.row(head, part, tailCount));
}

function tailOf({ slab }: Layer): TailSlab {
  assert(slab !== undefined, 'a layer with tail tokens has a slab');
  return slab;
}
