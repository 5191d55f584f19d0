import type { DeviceJob } from '../timing/device-job.ts';
import { elementTypes, type ElementType } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { Lpn } from '../ftl/contract.ts';
import type { ReadBackRequest } from './contract.ts';
import { readConcurrently } from './page-rows.ts';
import { layerOf, type KvRoom } from './room.ts';
import type { Layer, Sequence } from './sequence.ts';
import type { Part } from './shape.ts';
import type { TailSlab } from './tail-slab.ts';

interface PartPlan {
  readonly part: Part;
  readonly dim: number;
  readonly storedType: ElementType;
  readonly targetType: ElementType;
  readonly targetRowBytes: number;
  /** Offset of this part's rows in the target. */
  readonly targetOffset: number;
}

/** A run of rows of one head and part that lie together: in a page or in the tail. */
interface Run {
  readonly plan: PartPlan;
  readonly head: number;
  /** Position relative to the request's first token. */
  readonly firstToken: number;
  readonly count: number;
  /** Row in its group. */
  readonly row: number;
}

/** A run in a page, of which the command is a holder. */
interface HeldRun {
  readonly page: Lpn;
  readonly run: Run;
}

/** Copied from memory before others have a turn: about 100 us. */
const TURN_BYTES = 2 ** 20;

/** Checks a request against the layer as it stands. DriveError layerRange, headRange, tokenRange, invalidField. */
export function checkReadBack(sequence: Sequence, request: ReadBackRequest): Layer {
  const layer = layerOf(sequence, request.layer);
  const { firstHead, headCount, tokenStart, tokenCount, part } = request;
  if (part !== 1 && part !== 2 && part !== 3) {
    throw new DriveError('invalidField', `part is ${part as number}, allowed are 1 (K), 2 (V), 3 (both)`);
  }
  const { kvHeadCount } = sequence.shape;
  if (!isRange(firstHead, headCount, kvHeadCount)) {
    throw new DriveError('headRange', `${headCount} heads from ${firstHead}, the sequence has ${kvHeadCount}`);
  }
  if (!isRange(tokenStart, tokenCount, layer.length)) {
    throw new DriveError(
      'tokenRange',
      `${tokenCount} tokens from ${tokenStart}, layer ${request.layer} has ${layer.length}`,
    );
  }
  return layer;
}

const isRange = (first: number, count: number, end: number): boolean =>
  Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count >= 1 && first + count <= end;

function planParts(sequence: Sequence, request: ReadBackRequest): PartPlan[] {
  const { shape } = sequence;
  const plans: PartPlan[] = [];
  let targetOffset = 0;
  for (const part of [0, 1] as const) {
    if ((request.part & (1 << part)) === 0) continue;
    const dim = part === 0 ? shape.headDimK : shape.headDimV;
    const storedType = part === 0 ? shape.elementTypeK : shape.elementTypeV;
    const targetType = request.elementType ?? storedType;
    const targetRowBytes = rowSizeBytes(targetType, dim);
    plans.push({ part, dim, storedType, targetType, targetRowBytes, targetOffset });
    targetOffset += request.tokenCount * request.headCount * targetRowBytes;
  }
  return plans;
}

export function readBackSize(sequence: Sequence, request: ReadBackRequest): number {
  let sizeBytes = 0;
  for (const plan of planParts(sequence, request)) {
    sizeBytes += request.tokenCount * request.headCount * plan.targetRowBytes;
  }
  return sizeBytes;
}

/**
 * Copies rows as they stand at the call to the arena. What it reads it holds itself, so the sequence may be changed or
 * reclaimed meanwhile.
 */
export async function readBackRows(
  room: KvRoom,
  sequence: Sequence,
  request: ReadBackRequest,
  targetOffset: number,
  job: DeviceJob,
): Promise<void> {
  const layer = checkReadBack(sequence, request);
  const { layout } = sequence;
  const { groupTokens } = layout;
  const held: HeldRun[] = [];
  const writer = new RowWriter(room, request, targetOffset);
  const end = request.tokenStart + request.tokenCount;
  for (const plan of planParts(sequence, request)) {
    for (let head = request.firstHead; head < request.firstHead + request.headCount; head++) {
      for (let token = request.tokenStart; token < end; ) {
        const group = Math.floor(token / groupTokens);
        const count = Math.min(end, (group + 1) * groupTokens) - token;
        const run = { plan, head, firstToken: token - request.tokenStart, count, row: token % groupTokens };
        const storedBytes = count * layout.rowBytes[plan.part];
        if (group < layer.table.groupCount) {
          const page = layer.table.page(group, head * 2 + plan.part);
          held.push({ page, run });
          job.readToHost(room.pages.locate(page), storedBytes);
        } else {
          writer.writeFromSlab(run, layer.slab);
          job.deviceToHost(storedBytes);
        }
        token += count;
      }
    }
  }
  let holdCount = 0;
  try {
    for (const { page } of held) {
      room.pages.retain(page);
      holdCount++;
    }
    const waiting = await readAtOnce(room, sequence, held, writer);
    await readConcurrently(waiting.length, async (index) => {
      const entry = waiting[index];
      assert(entry !== undefined, 'index is in range');
      const frame = room.arena.allocate(room.pages.pageSizeBytes);
      try {
        await room.pages.read(entry.page, frame);
        writer.write(entry.run, frame + entry.run.row * sequence.layout.rowBytes[entry.run.plan.part]);
      } finally {
        room.arena.free(frame);
      }
    });
  } finally {
    for (const { page } of held.slice(0, holdCount)) room.pages.release(page);
  }
  room.counters.readBackBytes += readBackSize(sequence, request);
}

/** Reads what is in memory and checked, straight to where it is wanted if it can lie there; returns the rest. */
async function readAtOnce(
  room: KvRoom,
  { layout }: Sequence,
  held: readonly HeldRun[],
  writer: RowWriter,
): Promise<HeldRun[]> {
  const { arena, pages, clock } = room;
  const waiting: HeldRun[] = [];
  const frame = arena.allocate(pages.pageSizeBytes);
  try {
    let bytes = 0;
    for (const entry of held) {
      const { page, run } = entry;
      const rowBytes = layout.rowBytes[run.plan.part];
      const sizeBytes = run.count * rowBytes;
      const place = writer.placeOf(run);
      if (!pages.readNow(page, run.row * rowBytes, sizeBytes, place ?? frame)) waiting.push(entry);
      else if (place === undefined) writer.write(run, frame);
      bytes += sizeBytes;
      if (bytes < TURN_BYTES || clock.poll === undefined) continue;
      bytes = 0;
      await new Promise<void>((resolve) => clock.poll?.(resolve));
    }
  } finally {
    arena.free(frame);
  }
  return waiting;
}

/** Puts runs of stored rows where the request wants them. */
class RowWriter {
  readonly #room: KvRoom;
  readonly #request: ReadBackRequest;
  readonly #target: number;

  constructor(room: KvRoom, request: ReadBackRequest, target: number) {
    this.#room = room;
    this.#request = request;
    this.#target = target;
  }

  /** Where the run's rows go as they are stored, side by side; undefined: they don't. */
  placeOf(run: Run): number | undefined {
    const isAsStored = run.plan.storedType === run.plan.targetType;
    return isAsStored && this.#isTogether ? this.#rowOffset(run, 0) : undefined;
  }

  writeFromSlab(run: Run, slab: TailSlab | undefined): void {
    assert(slab !== undefined, 'tokens past the last group are in a slab');
    this.write(run, slab.row(run.head, run.plan.part, run.row));
  }

  /** `stored` is the arena offset of the run's first row. Synchronous. */
  write(run: Run, stored: number): void {
    const { arena, kernels } = this.#room;
    const { plan, count } = run;
    const { storedType, targetType, dim } = plan;
    if (storedType === targetType) {
      this.#place(run, stored);
      return;
    }
    const convert = (target: number): void =>
      kernels.convert(stored, elementTypes[storedType].code, target, elementTypes[targetType].code, count, dim);
    if (this.#isTogether) {
      convert(this.#rowOffset(run, 0));
      return;
    }
    const scratch = arena.allocate(count * plan.targetRowBytes);
    try {
      convert(scratch);
      this.#place(run, scratch);
    } finally {
      arena.free(scratch);
    }
  }

  /** Whether consecutive tokens of one head lie together in the target. */
  get #isTogether(): boolean {
    return this.#request.headMajor || this.#request.headCount === 1;
  }

  #rowOffset(run: Run, index: number): number {
    const { headMajor, headCount, tokenCount, firstHead } = this.#request;
    const head = run.head - firstHead;
    const token = run.firstToken + index;
    const row = headMajor ? head * tokenCount + token : token * headCount + head;
    return this.#target + run.plan.targetOffset + row * run.plan.targetRowBytes;
  }

  #place(run: Run, rows: number): void {
    const rowBytes = run.plan.targetRowBytes;
    if (this.#isTogether) {
      this.#room.copy(this.#rowOffset(run, 0), rows, run.count * rowBytes);
      return;
    }
    for (let i = 0; i < run.count; i++) this.#room.copy(this.#rowOffset(run, i), rows + i * rowBytes, rowBytes);
  }
}
