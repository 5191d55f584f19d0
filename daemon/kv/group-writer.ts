import { assert } from '../base/assert.ts';
import type { DeviceJob } from '../timing/device-job.ts';
import type { Lpn, PageReservation } from '../ftl/contract.ts';
import { assembleJob } from '../kernels/contract.ts';
import type { KvRoom } from './room.ts';
import type { RowSource } from './row-source.ts';
import type { Layer, Sequence } from './sequence.ts';

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
 * prefill's streams lie together. It begins with the page whose channel comes next where the sequence is written, and takes
 * those before it last: else every row of units would be begun in its middle, and be two writes. As many pages as the frames
 * hold are made by one call and programmed together. On failure the pages it has written are released and the table is as
 * before. Synchronous.
 */
export function programGroups(room: KvRoom, plan: GroupPlan, reservation: PageReservation): void {
  const { sequence, layer, firstGroup, groupCount } = plan;
  layer.table.reserveGroups(firstGroup + groupCount);
  const frames = room.pageFrames();
  const pageCount = groupCount * sequence.layout.streamCount;
  writeJob(room, plan);
  const start = firstPage(room, plan, pageCount);
  let programmed = 0;
  try {
    while (programmed < pageCount) {
      const from = (start + programmed) % pageCount;
      const to = Math.min(from + frames.pageCount, from < start ? start : pageCount);
      assembleRun(room, plan, from, to);
      programRun(room, plan, reservation, from, to);
      programmed += to - from;
    }
  } catch (error) {
    for (let i = 0; i < programmed; i++) {
      const index = (start + i) % pageCount;
      room.pages.release(layer.table.pending(firstGroup + (index % groupCount), Math.floor(index / groupCount)));
    }
    throw error;
  }
  layer.table.extendTo(firstGroup + groupCount);
}

const channelOf = (room: KvRoom, { sequence, layerIndex, firstGroup }: GroupPlan, index: number): number =>
  (firstGroup + sequence.streamIndex(layerIndex, 0) + index) % room.pages.channelCount;

/** Page of the append to begin with. Few pages are no rows of units. */
function firstPage(room: KvRoom, plan: GroupPlan, pageCount: number): number {
  const { channelCount } = room.pages;
  if (pageCount < 2 * channelCount) return 0;
  const next = room.pages.nextChannel(plan.sequence.placement);
  return (next + channelCount - channelOf(room, plan, 0)) % channelCount;
}

/** What is the same for all runs of the append. */
function writeJob(room: KvRoom, { sequence, layer, source, groupCount, firstSourceToken, tailCount }: GroupPlan): void {
  const { layout } = sequence;
  const { jobOffset, offset, checksums } = room.pageFrames();
  const { slab } = layer;
  assert(tailCount === 0 || slab !== undefined, 'a layer with tail tokens has a slab');
  const job = {
    ...source.place(),
    headCount: layout.headCount,
    rowBytesK: layout.rowBytes[0],
    rowBytesV: layout.rowBytes[1],
    groupTokens: layout.groupTokens,
    groupCount,
    firstToken: firstSourceToken,
    tailCount,
    tailKeys: slab?.row(0, 0, 0) ?? 0,
    tailValues: slab?.row(0, 1, 0) ?? 0,
    tailStrideBytes: slab?.headStrideBytes ?? 0,
    pageBytes: room.pages.pageSizeBytes,
    target: offset,
    checksums: checksums.byteOffset,
  };
  assembleJob.encode(job, room.arena.bytes, jobOffset);
}

/** Makes pages [from, to) of the append. DriveError where the rows were a host's, and are not there any more. */
function assembleRun(room: KvRoom, plan: GroupPlan, from: number, to: number): void {
  const { jobOffset } = room.pageFrames();
  const setRange = (): void => {
    room.words[(jobOffset + assembleJob.offsetOf.firstPage) >>> 2] = from;
    room.words[(jobOffset + assembleJob.offsetOf.pageCount) >>> 2] = to - from;
  };
  setRange();
  if (room.kernels.assemble(jobOffset)) return;
  plan.source.load();
  writeJob(room, plan);
  setRange();
  assert(room.kernels.assemble(jobOffset), 'rows in the arena stay there');
}

/** Programs pages [from, to) of the append, which were just made. */
function programRun(room: KvRoom, plan: GroupPlan, reservation: PageReservation, from: number, to: number): void {
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
  const channel = channelOf(room, plan, from);
  const frames = room.pageFrames();
  const { lpns } = frames;
  room.pages.program(reservation, run, frames, { channel, placement: sequence.placement, job }, lpns);
  for (let index = from; index < to; index++) {
    layer.table.write(firstGroup + (index % groupCount), Math.floor(index / groupCount), lpns[index - from] as Lpn);
  }
}
