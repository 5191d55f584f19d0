import { assert } from '../base/assert.ts';
import type { DeviceJob } from '../timing/device-job.ts';
import type { KvPageTag, PageReservation } from '../ftl/contract.ts';
import type { KvRoom } from './room.ts';
import type { RowSource } from './row-source.ts';
import type { Layer, Sequence } from './sequence.ts';
import type { Part } from './shape.ts';

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
 * prefill's streams lie together. On failure the pages it has written are released and the table is as before.
 * Synchronous.
 */
export function programGroups(room: KvRoom, plan: GroupPlan, reservation: PageReservation): void {
  const { sequence, layer, firstGroup, groupCount } = plan;
  const { table } = layer;
  table.reserveGroups(firstGroup + groupCount);
  let writtenStreams = 0;
  let writtenGroups = 0;
  try {
    for (let stream = 0; stream < sequence.layout.streamCount; stream++) {
      writtenGroups = 0;
      for (let i = 0; i < groupCount; i++) {
        const group = firstGroup + i;
        table.write(group, stream, programGroup(room, plan, reservation, stream, group, stream * groupCount + i));
        writtenGroups++;
      }
      writtenStreams++;
    }
  } catch (error) {
    for (let stream = 0; stream <= writtenStreams && stream < sequence.layout.streamCount; stream++) {
      const count = stream < writtenStreams ? groupCount : writtenGroups;
      for (let i = 0; i < count; i++) room.pages.release(table.pending(firstGroup + i, stream));
    }
    throw error;
  }
  table.extendTo(firstGroup + groupCount);
}

/** `index`: of the page among those of its append. */
function programGroup(
  room: KvRoom,
  plan: GroupPlan,
  reservation: PageReservation,
  stream: number,
  group: number,
  index: number,
) {
  const { sequence, layerIndex, layer, firstGroup } = plan;
  const head = stream >> 1;
  const part = (stream & 1) as Part;
  const tag: KvPageTag = {
    sequenceId: sequence.id,
    generation: layer.generation,
    layer: layerIndex,
    head,
    part,
    group,
  };
  const channel = (firstGroup + sequence.streamIndex(layerIndex, 0) + index) % room.pages.channelCount;
  const page = assemblePage(room, plan, head, part, group);
  return room.pages.program(reservation, tag, page, channel, sequence.placement, plan.job);
}

/** Arena offset of the page, zero-padded. The source's own rows, the slab, or the room's frame. */
function assemblePage(room: KvRoom, plan: GroupPlan, head: number, part: Part, group: number): number {
  const { layer, source, sequence, tailCount, firstGroup } = plan;
  const { layout } = sequence;
  const groupBytes = layout.groupBytes[part];
  if (group === firstGroup && tailCount > 0) {
    const { slab } = layer;
    assert(slab !== undefined, 'a layer with tail tokens has a slab');
    source.copyRows(head, part, plan.firstSourceToken, layout.groupTokens - tailCount, slab.row(head, part, tailCount));
    const rows = slab.row(head, part, 0);
    if (layout.slabIsPage[part]) return rows;
    const frame = room.pageFrame(part, groupBytes);
    room.copy(frame, rows, groupBytes);
    return frame;
  }
  const firstToken = plan.firstSourceToken + (group - firstGroup) * layout.groupTokens - tailCount;
  const run = layout.paddingBytes[part] === 0 ? source.run(head, part, firstToken, layout.groupTokens) : undefined;
  if (run !== undefined) return run;
  const frame = room.pageFrame(part, groupBytes);
  source.copyRows(head, part, firstToken, layout.groupTokens, frame);
  return frame;
}
