import type { DeviceJob } from '../timing/device-job.ts';
import { limits } from '../../spec/limits.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { AppendSource } from './contract.ts';
import { programGroups } from './group-writer.ts';
import type { KvRoom } from './room.ts';
import { RowSource } from './row-source.ts';
import type { Layer, Sequence } from './sequence.ts';
import type { Part } from './shape.ts';
import type { TailSlab } from './tail-slab.ts';

export interface AppendRequest {
  readonly layerIndex: number;
  readonly layer: Layer;
  readonly position: number;
  readonly tokenCount: number;
  readonly source: AppendSource;
  readonly job: DeviceJob;
}

/** DriveError tokenRange: counts and positions that no layer can have. */
export function checkAppendRange(position: number, tokenCount: number): void {
  if (!Number.isInteger(tokenCount) || tokenCount < 1) {
    throw new DriveError('tokenRange', `append of ${tokenCount} tokens, at least 1 is needed`);
  }
  if (!Number.isInteger(position) || position < 0 || position + tokenCount > limits.sequenceTokensMax) {
    throw new DriveError(
      'tokenRange',
      `append of ${tokenCount} tokens at ${position}, allowed up to ${limits.sequenceTokensMax}`,
    );
  }
}

/**
 * Appends tokens to one layer, or finds them there. All of its waiting (comparing with pages, room for programs) comes
 * before the first change; the change itself is synchronous. Runs in the sequence's queue. Returns the layer's length.
 */
export async function appendTokens(room: KvRoom, sequence: Sequence, request: AppendRequest): Promise<number> {
  const { layer, layerIndex, position, tokenCount } = request;
  if (position > layer.length) {
    throw new DriveError('appendGap', `position ${position}, layer ${layerIndex} has ${layer.length} tokens`, {
      result: layer.length,
    });
  }
  const source = new RowSource(request.source, sequence.shape, sequence.layout, tokenCount, room);
  try {
    const overlap = Math.min(tokenCount, layer.length - position);
    if (overlap > 0) {
      source.load();
      await compareOverlap(room, sequence, request, source, overlap);
      room.counters.repeatedAppendCount++;
    }
    if (overlap < tokenCount) await addTokens(room, sequence, request, source, overlap);
    room.counters.appendCount++;
    return layer.length;
  } finally {
    source.free();
  }
}

/** Appends source tokens from `firstSourceToken` on, which belong at the layer's end. */
async function addTokens(
  room: KvRoom,
  sequence: Sequence,
  request: AppendRequest,
  source: RowSource,
  firstSourceToken: number,
): Promise<void> {
  room.pages.assertWritable();
  const { layer } = request;
  // The failed append could not say so: its disk took neither pages nor records.
  if (layer.hasStrayPages) room.abandonGeneration(sequence, request.layerIndex);
  const { groupTokens, streamCount } = sequence.layout;
  const fresh = source.tokenCount - firstSourceToken;
  const firstGroup = Math.floor(layer.length / groupTokens);
  const groupCount = Math.floor((layer.length + fresh) / groupTokens) - firstGroup;
  if (groupCount === 0) {
    appendToTail(room, sequence, layer, source, firstSourceToken);
  } else {
    const reservation = await room.pages.reserve(groupCount * streamCount);
    try {
      const plan = {
        sequence,
        layer,
        layerIndex: request.layerIndex,
        source,
        firstSourceToken,
        firstGroup,
        groupCount,
        tailCount: sequence.tailCount(layer),
        job: request.job,
      };
      const rest = (layer.length + fresh) % groupTokens;
      const next = rest > 0 ? room.tails.allocate(sequence.layout, sequence.holding) : undefined;
      try {
        // Before anything is changed: rows in a host's memory may not be there any more.
        if (next !== undefined) copyToSlab(sequence, next, 0, source, source.tokenCount - rest, rest);
      } catch (error) {
        next?.letGo();
        throw error;
      }
      try {
        programGroups(room, plan, reservation);
      } catch (error) {
        next?.letGo();
        room.abandonGeneration(sequence, request.layerIndex);
        throw error;
      }
      room.replaceSlab(layer, next);
      layer.length += fresh;
      countPages(room, sequence, groupCount);
    } finally {
      reservation.release();
    }
  }
  room.dirty.add(sequence);
  const { rowBytes, headCount } = sequence.layout;
  room.counters.tokenCount += fresh;
  room.counters.appendedTokenCount += fresh;
  room.counters.appendedBytes += fresh * headCount * (rowBytes[0] + rowBytes[1]);
}

function countPages(room: KvRoom, sequence: Sequence, groupCount: number): void {
  const { layout } = sequence;
  const padding = groupCount * layout.headCount * (layout.paddingBytes[0] + layout.paddingBytes[1]);
  room.countHeld(sequence, groupCount * layout.streamCount);
  room.counters.heldPaddingBytes += padding;
  room.counters.programmedPaddingBytes += padding;
  const paddedParts = layout.paddingBytes.filter((bytes) => bytes > 0).length;
  room.counters.paddedPageCount += groupCount * layout.headCount * paddedParts;
}

function appendToTail(
  room: KvRoom,
  sequence: Sequence,
  layer: Layer,
  source: RowSource,
  firstSourceToken: number,
): void {
  const count = source.tokenCount - firstSourceToken;
  // Few rows, copied piece by piece: whole, or not at all.
  source.load();
  layer.slab ??= room.tails.allocate(sequence.layout, sequence.holding);
  copyToSlab(sequence, layer.slab, sequence.tailCount(layer), source, firstSourceToken, count);
  layer.length += count;
}

function copyToSlab(
  sequence: Sequence,
  slab: TailSlab,
  firstRow: number,
  source: RowSource,
  firstToken: number,
  count: number,
): void {
  for (const part of [0, 1] as const) {
    for (let head = 0; head < sequence.layout.headCount; head++) {
      source.copyRows(head, part, firstToken, count, slab.row(head, part, firstRow));
    }
  }
}

/** DriveError appendConflict, naming the first token that differs from what the layer holds. */
async function compareOverlap(
  room: KvRoom,
  sequence: Sequence,
  request: AppendRequest,
  source: RowSource,
  overlap: number,
): Promise<void> {
  const { layer, layerIndex, position } = request;
  const { groupTokens, streamCount } = sequence.layout;
  const end = position + overlap;
  bookComparison(room, sequence, request, end);
  for (let group = Math.floor(position / groupTokens); group * groupTokens < end; group++) {
    const from = Math.max(position, group * groupTokens);
    let count = Math.min(end, (group + 1) * groupTokens) - from;
    const whole = count;
    for (let stream = 0; stream < streamCount && count > 0; stream++) {
      const run = { head: stream >> 1, part: (stream & 1) as Part, from, count, group };
      count = await equalCount(room, sequence, layer, source, run, position);
    }
    if (count < whole) {
      throw new DriveError('appendConflict', `token ${from + count} of layer ${layerIndex} differs`, {
        result: from + count,
      });
    }
  }
}

/** In device time all pages are read that hold tokens up to `end`, before anything is compared. */
function bookComparison(
  room: KvRoom,
  { layout }: Sequence,
  { layer, position, job }: AppendRequest,
  end: number,
): void {
  const { groupTokens, streamCount } = layout;
  const endGroup = Math.min(Math.ceil(end / groupTokens), layer.table.groupCount);
  for (let group = Math.floor(position / groupTokens); group < endGroup; group++) {
    for (let stream = 0; stream < streamCount; stream++) {
      const bytes = layout.groupBytes[(stream & 1) as Part];
      job.read(room.pages.locate(layer.table.page(group, stream)), bytes);
    }
  }
  job.join();
}

/** How many tokens from `run.from` on are equal, in one head and part of one group. */
async function equalCount(
  room: KvRoom,
  sequence: Sequence,
  layer: Layer,
  source: RowSource,
  run: { head: number; part: Part; from: number; count: number; group: number },
  position: number,
): Promise<number> {
  const { layout } = sequence;
  const row = run.from - run.group * layout.groupTokens;
  const compare = (stored: number): number =>
    source.firstDifference(run.head, run.part, run.from - position, run.count, stored);
  if (run.group >= layer.table.groupCount) {
    assert(layer.slab !== undefined, 'tokens past the last group are in a slab');
    return compare(layer.slab.row(run.head, run.part, row));
  }
  const frame = room.arena.allocate(room.pages.pageSizeBytes);
  try {
    await room.pages.read(layer.table.page(run.group, run.head * 2 + run.part), frame);
    return compare(frame + row * layout.rowBytes[run.part]);
  } finally {
    room.arena.free(frame);
  }
}
