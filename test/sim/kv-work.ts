/** Commands on sequences, but ATTN, and what they must answer. */
import assert from 'node:assert/strict';
import { floatTypeNames, elementTypes } from '../../spec/element-type.ts';
import type { ErrorCode } from '../../spec/errors.ts';
import { ALL_LAYERS, createDescriptor, KV_CACHE_NSID, querySelectors, sequenceInfo } from '../../spec/kv-commands.ts';
import { kvOpcodes } from '../../spec/opcodes.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { idFields, transfer } from '../commands/kv-host.ts';
import type { Completion } from './host.ts';
import type { HostSession } from './host-session.ts';
import type { Generation, ModelSequence } from './kv-model.ts';
import { type RowsOptions, rowsOf, widestRowBytes } from './token-rows.ts';
import type { World } from './world.ts';

/** Ids that hosts ask for: few, so that they are asked for again. */
const WANTED_IDS = 6;
const FULL: readonly ErrorCode[] = ['capacityExceeded', 'bufferFull'];

const idOf = ({ dw0, dw1 }: Completion): bigint => (BigInt(dw1) << 32n) | BigInt(dw0);

/**
 * A command on a sequence, submitted at `submittedNs`, has ended. True: the sequence is gone, which must be because of
 * somebody's reclaim or its lease.
 */
export function checkGone(
  world: World,
  sequence: ModelSequence,
  error: Completion['error'],
  submittedNs: number,
): boolean {
  sequence.touchedAtNs = world.nowNs;
  if (error === undefined) sequence.namedAtNs = Math.max(sequence.namedAtNs, submittedNs);
  if (error !== 'unknownSequence' && error !== 'leaseExpired') return false;
  if (sequence.isEnded) return true;
  assert.ok(sequence.mayExpire(world.nowNs), `${sequence.describe()} is gone: ${error}`);
  sequence.begin('expire', world.ticks.next()).completed = world.ticks.next();
  return true;
}

/** What any command on it may end with: because its lease has ended, or cells of its pages have rotted. */
export const sequenceErrors = ({ leaseSeconds, isRotten }: ModelSequence): readonly ErrorCode[] => [
  ...(leaseSeconds > 0 ? (['unknownSequence', 'leaseExpired'] as const) : []),
  ...(isRotten ? (['unrecoveredRead'] as const) : []),
];

// --- Choosing ---

export function pickSequence(world: World, isFit: (sequence: ModelSequence) => boolean): ModelSequence | undefined {
  const fit = world.kv.live.filter((sequence) => !sequence.isUnsettled && !sequence.isChanging && isFit(sequence));
  return fit.length === 0 ? undefined : world.random.pick(fit);
}

export function pickLayer(world: World, sequence: ModelSequence): number | undefined {
  const layer = world.random.below(sequence.layers.length);
  return sequence.appending.has(layer) ? undefined : layer;
}

function randomShape({ random, drive }: World): SequenceShape {
  const shape = {
    layerCount: random.pick([1, 1, 2, 3]),
    kvHeadCount: random.pick([1, 1, 2, 3]),
    headDimK: random.pick([8, 9, 16, 24, 64]),
    headDimV: random.pick([8, 9, 16, 24, 64]),
    elementTypeK: random.pick(floatTypeNames),
    elementTypeV: random.pick(floatTypeNames),
    groupTokens: 0,
  };
  const groupTokensMax = Math.floor(drive.ftl.geometry.pageSizeBytes / widestRowBytes(shape));
  const groupTokens = random.chance(0.15) ? groupTokensMax : 1 + random.below(Math.min(groupTokensMax, 9));
  return { ...shape, groupTokens };
}

// --- Create, fork, truncate, reclaim ---

function descriptorOf(sequence: ModelSequence, isFork: boolean): Uint8Array {
  const { shape, id: sequenceId, label, leaseSeconds } = sequence;
  const shapeFields = {
    ...shape,
    elementTypeK: elementTypes[shape.elementTypeK].code,
    elementTypeV: elementTypes[shape.elementTypeV].code,
  };
  return createDescriptor.encode({ version: 1, ...(isFork ? {} : shapeFields), sequenceId, leaseSeconds, label });
}

export async function createSequence(world: World, session: HostSession): Promise<void> {
  const { kv, random, options } = world;
  if (kv.live.length >= options.sequenceCountMax) return;
  const wanted = random.chance(0.3) ? BigInt(1 + random.below(WANTED_IDS)) : 0n;
  if (wanted !== 0n && kv.sequences.some(({ id, isReclaimed }) => id === wanted && !isReclaimed)) return;
  const leaseSeconds = random.chance(options.leaseChance) ? 1 + random.below(5) : 0;
  const sequence = kv.create(randomShape(world), wanted, leaseSeconds, world.nowNs);
  world.trace.explain(() => `create ${sequence.label}, id ${wanted}, ${JSON.stringify(sequence.shape)}`);
  const troubles = world.troubles();
  // The drive may have chosen the same id for a command that is on its way.
  const isUncertain = (): boolean =>
    kv.sequences.some((other) => other !== sequence && (!other.isBorn || other.id === wanted));
  const wasUncertain = isUncertain();
  const isThrough = session.writeThrough();
  const fields = { opcode: kvOpcodes.create.opcode, nsid: KV_CACHE_NSID };
  const completion = await session.host.io.run(fields, descriptorOf(sequence, false));
  const error = world.outcome(
    completion,
    'KV Create',
    troubles,
    wanted !== 0n && (wasUncertain || isUncertain()) ? ['sequenceExists'] : [],
  );
  if (error === undefined) kv.born(sequence, idOf(completion), wanted === 0n, world.nowNs);
  // After a write fault it may be there; nobody knows its id.
  else if (error !== 'lost' && error !== 'writeFault') kv.forget(sequence);
  if (error === undefined && isThrough()) kv.operationsDurable(sequence);
}

export async function forkSequence(world: World, session: HostSession): Promise<void> {
  const { kv, random, options } = world;
  if (kv.live.length >= options.sequenceCountMax + 2) return;
  const parent = pickSequence(world, ({ appending }) => appending.size === 0);
  if (parent === undefined) return;
  const longest = Math.max(...parent.layers.map((_, layer) => parent.length(layer)));
  const tokenCount = random.below(longest + 2);
  const leaseSeconds = random.chance(options.leaseChance) ? 1 + random.below(5) : 0;
  const child = kv.fork(parent, tokenCount, leaseSeconds, world.nowNs);
  const submittedNs = world.nowNs;
  parent.isChanging = true;
  const isThrough = session.writeThrough();
  world.trace.explain(() => `fork ${parent.label} at ${tokenCount} to ${child.label}`);
  const troubles = world.troubles();
  const fields = { opcode: kvOpcodes.fork.opcode, ...idFields(parent.id), cdw12: tokenCount };
  const completion = await session.host.io.run(fields, descriptorOf(child, true));
  parent.isChanging = false;
  const error = world.outcome(completion, 'KV Fork', troubles, [...FULL, ...sequenceErrors(parent)]);
  if (error === undefined) kv.born(child, idOf(completion), true, world.nowNs);
  else if (error !== 'lost' && error !== 'writeFault') kv.forget(child);
  if (error === undefined && isThrough()) kv.operationsDurable(child);
  checkGone(world, parent, error, submittedNs);
}

export async function truncateSequence(world: World, session: HostSession): Promise<void> {
  const { random, ticks } = world;
  const sequence = pickSequence(world, ({ appending }) => appending.size === 0);
  if (sequence === undefined) return;
  const lengths = sequence.layers.map((_, layer) => sequence.length(layer));
  const layer = random.chance(0.5) ? undefined : random.below(lengths.length);
  const longest = layer === undefined ? Math.min(...lengths) : lengths[layer]!;
  const length = random.chance(0.5) ? random.below(longest + 1) : Math.max(0, longest - random.below(4));
  const layers = layer === undefined ? [...lengths.keys()] : [layer];
  const changes = layers.some((index) => lengths[index] !== length);
  const submittedNs = world.nowNs;
  sequence.isChanging = true;
  world.trace.explain(() => `truncate ${sequence.label} layer ${layer ?? 'all'} to ${length}`);
  const operation = changes ? sequence.begin('truncate', ticks.next()) : undefined;
  if (operation) for (const index of layers) sequence.cut(index, length);
  const isThrough = session.writeThrough();
  const troubles = world.troubles();
  const fields = {
    opcode: kvOpcodes.truncate.opcode,
    ...idFields(sequence.id),
    cdw12: layer ?? ALL_LAYERS,
    cdw13: length,
  };
  const completion = await session.host.io.run(fields);
  const error = world.outcome(completion, 'KV Truncate', troubles, ['bufferFull', ...sequenceErrors(sequence)]);
  checkGone(world, sequence, error, submittedNs);
  const isDone = await settleChange(world, session, sequence, error, (found) =>
    layers.every((index) => found?.[index] === length),
  );
  if (isDone === false && operation) sequence.undo(operation);
  if (isDone === true && operation) operation.completed = ticks.next();
  if (error === undefined && operation && isThrough()) world.kv.operationsDurable(sequence);
}

/**
 * A command that changes all of a sequence has ended. After a write fault it may have been done, but not be durable: the
 * drive has to say. `isDone`: of the lengths that it says, undefined if the sequence is gone. Undefined: nobody knows.
 */
async function settleChange(
  world: World,
  session: HostSession,
  sequence: ModelSequence,
  error: Completion['error'],
  isDone: (lengths: readonly number[] | undefined) => boolean,
): Promise<boolean | undefined> {
  if (error === undefined || (error !== 'lost' && error !== 'writeFault')) {
    sequence.isChanging = false;
    return error === undefined;
  }
  const answer = error === 'lost' ? 'lost' : await queryLengths(world, session, sequence);
  if (answer === 'lost') {
    sequence.isUnsettled = true;
    return undefined;
  }
  sequence.isChanging = false;
  return isDone(answer === 'gone' ? undefined : answer);
}

export async function reclaimSequence(world: World, session: HostSession): Promise<void> {
  const { ticks } = world;
  const sequence = pickSequence(world, () => true);
  if (sequence === undefined || sequence.appending.size > 0) return;
  const submittedNs = world.nowNs;
  sequence.isChanging = true;
  world.trace.explain(() => `reclaim ${sequence.label}`);
  const operation = sequence.begin('reclaim', ticks.next());
  const isThrough = session.writeThrough();
  const troubles = world.troubles();
  const completion = await session.host.io.run({ opcode: kvOpcodes.reclaim.opcode, ...idFields(sequence.id) });
  const error = world.outcome(completion, 'KV Reclaim', troubles, sequenceErrors(sequence));
  const isDone = await settleChange(world, session, sequence, error, (lengths) => lengths === undefined);
  if (isDone === false) {
    sequence.undo(operation);
    checkGone(world, sequence, error, submittedNs);
  }
  if (isDone === true) operation.completed = ticks.next();
  if (error === undefined && isThrough()) world.kv.operationsDurable(sequence);
}

// --- Append ---

export async function appendTokens(world: World, session: HostSession): Promise<void> {
  const { random, options } = world;
  const sequence = pickSequence(world, () => true);
  const layer = sequence && pickLayer(world, sequence);
  if (sequence === undefined || layer === undefined) return;
  const fresh = world.kv.nextTokens(1 + random.below(options.tokensPerAppendMax));
  await append(world, session, sequence, layer, 0, fresh);
}

/** A host that has not seen the completion of an append sends it again, and perhaps more. */
export async function appendAgain(world: World, session: HostSession): Promise<void> {
  const { random, options } = world;
  const sequence = pickSequence(world, () => true);
  const layer = sequence && pickLayer(world, sequence);
  if (sequence === undefined || layer === undefined || sequence.length(layer) === 0) return;
  const repeated = Math.min(sequence.length(layer), 1 + random.below(options.tokensPerAppendMax));
  await append(world, session, sequence, layer, repeated, world.kv.nextTokens(random.below(4)));
}

/** Sends the last `repeated` tokens of the layer again, and then new ones. */
async function append(
  world: World,
  session: HostSession,
  sequence: ModelSequence,
  layer: number,
  repeated: number,
  fresh: readonly number[],
): Promise<void> {
  const { random, options } = world;
  const generation = beginAppend(sequence, layer, fresh);
  const position = generation.length - repeated;
  const carried = generation.tokens.slice(position);
  const isFua = random.chance(options.fuaChance);
  const isThrough = session.writeThrough();
  const elementType = random.pick([undefined, undefined, ...floatTypeNames]);
  const headMajor = random.chance(0.5);
  const submittedNs = world.nowNs;
  world.trace.explain(
    () => `append ${sequence.label} layer ${layer} at ${position}: ${carried.length}${isFua ? ' FUA' : ''}`,
  );
  const troubles = world.troubles();
  const completion = await session.host.io.run(
    {
      opcode: kvOpcodes.append.opcode,
      ...idFields(sequence.id),
      cdw12: transfer({ layer, ...(elementType && { elementType }), headMajor, fua: isFua }),
      cdw13: position,
      cdw14: carried.length,
    },
    rowsOf(sequence.shape, layer, carried, { elementType, headMajor }),
  );
  const error = world.outcome(completion, 'KV Append', troubles, [...FULL, ...sequenceErrors(sequence)]);
  if (error === undefined) assert.equal(completion.dw0, generation.tokens.length, 'length after KV Append');
  await endAppend(world, session, { sequence, layer, generation }, error);
  checkGone(world, sequence, error, submittedNs);
  if (error === undefined && (isFua || isThrough()))
    world.kv.layerDurable(sequence, generation, generation.tokens.length);
}

/** New tokens are on their way. */
export function beginAppend(sequence: ModelSequence, layer: number, fresh: readonly number[]): Generation {
  const generation = sequence.generation(layer);
  generation.tokens.push(...fresh);
  sequence.appending.add(layer);
  return generation;
}

/** The command that carried them has ended. */
export async function endAppend(
  world: World,
  session: HostSession,
  { sequence, layer, generation }: { sequence: ModelSequence; layer: number; generation: Generation },
  error: Completion['error'],
): Promise<void> {
  if (error === 'lost') {
    sequence.isUnsettled = true;
    return;
  }
  if (error === undefined) generation.length = generation.tokens.length;
  else if (error === 'writeFault' || error === 'unrecoveredRead') await settleAppend(world, session, sequence, layer);
  else generation.tokens.length = generation.length;
  sequence.appending.delete(layer);
}

/** A failed append may have been done but not made durable, or not been done but have left pages. */
async function settleAppend(world: World, session: HostSession, sequence: ModelSequence, layer: number): Promise<void> {
  const generation = sequence.generation(layer);
  const lengths = await queryLengths(world, session, sequence);
  if (lengths === 'gone') return;
  if (lengths === 'lost') {
    sequence.isUnsettled = true;
    return;
  }
  const length = lengths[layer]!;
  const { tokens } = generation;
  assert.ok(length === generation.length || length === tokens.length, `${sequence.describe()} has ${length}`);
  const isDone = length === tokens.length;
  if (isDone) generation.length = length;
  else {
    sequence.begin('abandon', world.ticks.next()).completed = world.ticks.next();
    sequence.cut(layer, length);
  }
}

/** Appends that must be refused: beyond the end, or other bytes than those that are there. */
export async function appendWrongly(world: World, session: HostSession): Promise<void> {
  const { random } = world;
  const sequence = pickSequence(world, () => true);
  const layer = sequence && pickLayer(world, sequence);
  if (sequence === undefined || layer === undefined) return;
  const length = sequence.length(layer);
  const isGap = length === 0 || random.chance(0.3);
  const position = isGap ? length + 1 + random.below(3) : random.below(length);
  const carried = isGap
    ? world.kv.nextTokens(2)
    : sequence.generation(layer).tokens.slice(position, Math.min(length, position + 1 + random.below(12)));
  const wrong = random.below(carried.length);
  carried[wrong] = world.kv.nextTokens(1)[0]!;
  sequence.appending.add(layer);
  const submittedNs = world.nowNs;
  const troubles = world.troubles();
  const completion = await session.host.io.run(
    {
      opcode: kvOpcodes.append.opcode,
      ...idFields(sequence.id),
      cdw12: transfer({ layer }),
      cdw13: position,
      cdw14: carried.length,
    },
    rowsOf(sequence.shape, layer, carried),
  );
  const wanted = isGap ? 'appendGap' : 'appendConflict';
  const error = world.outcome(completion, `wrong KV Append`, troubles, [
    wanted,
    'bufferFull',
    ...sequenceErrors(sequence),
  ]);
  assert.ok(error !== undefined, `an append of other bytes to ${sequence.describe()} succeeded`);
  if (error === wanted) assert.equal(completion.dw0, isGap ? length : position + wrong, `DW0 of ${wanted}`);
  sequence.appending.delete(layer);
  checkGone(world, sequence, error, submittedNs);
}

// --- Query, read back ---

/** Lengths of the layers, unless the sequence is gone, or the connection is. */
async function queryLengths(
  world: World,
  session: HostSession,
  sequence: ModelSequence,
): Promise<number[] | 'gone' | 'lost'> {
  const submittedNs = world.nowNs;
  const troubles = world.troubles();
  const replyBytes = sequenceInfo.sizeBytes + 4 * sequence.layers.length;
  const fields = { opcode: kvOpcodes.query.opcode, ...idFields(sequence.id), cdw12: querySelectors.sequence };
  const completion = await session.host.io.run(fields, undefined, replyBytes);
  const error = world.outcome(completion, 'KV Query', troubles, ['unknownSequence', 'leaseExpired']);
  if (checkGone(world, sequence, error, submittedNs)) return 'gone';
  if (error !== undefined) return 'lost';
  const info = sequenceInfo.decode(completion.data);
  assert.equal(info.label, sequence.label);
  const view = new DataView(completion.data.buffer);
  return sequence.layers.map((_, layer) => view.getUint32(sequenceInfo.sizeBytes + 4 * layer, true));
}

export async function querySequence(world: World, session: HostSession): Promise<void> {
  const sequence = pickSequence(world, () => true);
  if (sequence === undefined) return;
  const operations = sequence.operations.length;
  const before = sequence.layers.map((_, layer) => sequence.length(layer));
  sequence.readerCount++;
  const lengths = await queryLengths(world, session, sequence);
  sequence.readerCount--;
  if (typeof lengths === 'string' || sequence.operations.length !== operations) return;
  lengths.forEach((length, layer) => {
    const { tokens } = sequence.generation(layer);
    const isRight = length >= before[layer]! && length <= tokens.length;
    assert.ok(isRight, `${sequence.describe()}: layer ${layer} is said to have ${length} tokens`);
  });
}

export async function listSequences(world: World, session: HostSession): Promise<bigint[] | undefined> {
  const fields = { opcode: kvOpcodes.query.opcode, nsid: KV_CACHE_NSID, cdw12: querySelectors.list };
  const troubles = world.troubles();
  const completion = await session.host.io.run(fields, undefined, 8 * 1024);
  if (world.outcome(completion, 'KV Query', troubles) !== undefined) return undefined;
  return [...new BigUint64Array(completion.data.buffer, 0, completion.dw0)];
}

/** Tokens that a layer held at some time since an operation: what a command that raced with others may have seen. */
export const generationsSince = (sequence: ModelSequence, layer: number, index: number): Generation[] =>
  sequence.layers[layer]!.slice(index);

export async function readBack(world: World, session: HostSession): Promise<void> {
  const { random } = world;
  const sequence = pickSequence(world, () => true);
  const layer = sequence && world.random.below(sequence.layers.length);
  if (sequence === undefined || layer === undefined || sequence.length(layer) === 0) return;
  const length = sequence.length(layer);
  const start = random.below(length);
  const count = 1 + random.below(length - start);
  const firstHead = random.below(sequence.shape.kvHeadCount);
  const options = {
    part: random.pick([1, 2, 3] as const),
    firstHead,
    headCount: 1 + random.below(sequence.shape.kvHeadCount - firstHead),
    elementType: random.pick([undefined, ...floatTypeNames]),
    headMajor: random.chance(0.5),
  };
  const since = sequence.layers[layer]!.length - 1;
  sequence.readerCount++;
  const submittedNs = world.nowNs;
  const troubles = world.troubles();
  const completion = await readRows(session, sequence, layer, { start, count, options });
  sequence.readerCount--;
  const isRaced = sequence.isEnded || sequence.layers[layer]!.length - 1 !== since || sequence.isChanging;
  const raced: readonly ErrorCode[] = isRaced ? ['tokenRange', 'unknownSequence'] : [];
  const error = world.outcome(completion, 'KV Read Back', troubles, [
    ...raced,
    ...sequenceErrors(sequence),
    'bufferFull',
  ]);
  if (checkGone(world, sequence, error, submittedNs) || error !== undefined) return;
  const isRight = generationsSince(sequence, layer, since).some(({ tokens }) => {
    const expected = rowsOf(sequence.shape, layer, tokens.slice(start, start + count), options);
    return Buffer.compare(expected, completion.data) === 0;
  });
  assert.ok(isRight, `${sequence.describe()}: tokens ${start}+${count} of layer ${layer} read back wrong`);
}

export function readRows(
  session: HostSession,
  sequence: { readonly id: bigint; readonly shape: SequenceShape },
  layer: number,
  request: { readonly start: number; readonly count: number; readonly options: RowsOptions },
): Promise<Completion> {
  const { start, count, options } = request;
  const { firstHead = 0, headCount = 0, part = 3, headMajor = false, elementType } = options;
  const zeros = new Array<number>(count).fill(0);
  const fields = {
    opcode: kvOpcodes.readBack.opcode,
    ...idFields(sequence.id),
    cdw12: transfer({ layer, part, headMajor, ...(elementType && { elementType }) }),
    cdw13: start,
    cdw14: count,
    cdw15: firstHead | (headCount << 16),
  };
  return session.host.io.run(fields, undefined, rowsOf(sequence.shape, layer, zeros, options).length);
}
