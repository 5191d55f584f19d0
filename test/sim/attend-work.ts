/** ATTN over one sequence or several, with and without tokens to append, against attention in binary64. */
import assert from 'node:assert/strict';
import { floatTypeNames, elementTypes } from '../../spec/element-type.ts';
import type { ErrorCode } from '../../spec/errors.ts';
import { ALL_TOKENS, attendFlags, attendOutputs, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { kvOpcodes } from '../../spec/opcodes.ts';
import { attendOracle } from '../attention/oracle.ts';
import { attendBytes, payloadAt } from '../commands/kv-host.ts';
import type { Completion } from './host.ts';
import type { HostSession } from './host-session.ts';
import {
  beginAppend,
  checkGone,
  endAppend,
  generationsSince,
  sequenceErrors,
  pickLayer,
  pickSequence,
} from './kv-work.ts';
import type { Generation, ModelSequence } from './kv-model.ts';
import { element, rowsOf } from './token-rows.ts';
import type { Troubles, World } from './world.ts';

const TOLERANCE = 3e-4;
const ENTRIES_MAX = 3;

/** One entry of a command, and what it saw of its layer when it was made. */
interface Target {
  readonly sequence: ModelSequence;
  readonly layer: number;
  /** The generation that it appends to; undefined: it appends nothing. */
  readonly appends: Generation | undefined;
  readonly carried: readonly number[];
  readonly appendPosition: number;
  readonly since: number;
  readonly tokenStart: number;
  readonly tokenEnd: number;
  readonly queryHeadsPerKvHead: number;
  readonly queryTokenCount: number;
  readonly queryPosition: number;
  /** [token][head][dim]. */
  readonly queries: Float32Array;
}

interface Rule {
  readonly causal: boolean;
  readonly slidingWindow: number;
  readonly sinkCount: number;
  readonly softCap: number;
  readonly scale: number;
}

function chooseTarget(world: World, taken: readonly Target[]): Target | undefined {
  const { random, options } = world;
  const sequence = pickSequence(world, () => true);
  const layer = sequence && pickLayer(world, sequence);
  if (sequence === undefined || layer === undefined) return undefined;
  // One entry a layer: what a second one saw would depend on the first.
  if (taken.some((target) => target.sequence === sequence && target.layer === layer)) return undefined;
  const length = sequence.length(layer);
  const isAppending = length === 0 || random.chance(0.5);
  const fresh = isAppending ? world.kv.nextTokens(1 + random.below(Math.min(4, options.tokensPerAppendMax))) : [];
  const end = length + fresh.length;
  const tokenStart = random.chance(0.7) ? 0 : random.below(end);
  const queryHeadsPerKvHead = random.pick([1, 2]);
  const queryTokenCount = random.pick([1, 1, 2]);
  const rows = queryTokenCount * queryHeadsPerKvHead * sequence.shape.kvHeadCount;
  const queries = Float32Array.from({ length: rows * sequence.shape.headDimK }, () => random.below(129) / 64 - 1);
  const appends = isAppending ? beginAppend(sequence, layer, fresh) : undefined;
  sequence.readerCount++;
  return {
    sequence,
    layer,
    appends,
    carried: fresh,
    appendPosition: length,
    since: sequence.layers[layer]!.length - 1,
    tokenStart,
    tokenEnd: random.chance(0.8) ? end : tokenStart + 1 + random.below(end - tokenStart),
    queryHeadsPerKvHead,
    queryTokenCount,
    queryPosition: random.chance(0.7) ? Math.max(0, end - queryTokenCount) : random.below(end),
    queries,
  };
}

const rowCountOf = ({ queryTokenCount, queryHeadsPerKvHead, sequence }: Target): number =>
  queryTokenCount * queryHeadsPerKvHead * sequence.shape.kvHeadCount;

const bytesOf = (target: Target): number =>
  rowCountOf(target) * 4 * target.sequence.shape.headDimV + 8 * rowCountOf(target);

const outputBytesOf = (targets: readonly Target[]): number => targets.reduce((sum, target) => sum + bytesOf(target), 0);

export async function attend(world: World, session: HostSession): Promise<void> {
  const { random } = world;
  const targets: Target[] = [];
  for (let i = 1 + random.below(ENTRIES_MAX); i > 0; i--) {
    const target = chooseTarget(world, targets);
    if (target !== undefined) targets.push(target);
  }
  if (targets.length === 0) return;
  const rule: Rule = {
    causal: random.chance(0.5),
    slidingWindow: random.pick([0, 0, 5]),
    sinkCount: random.pick([0, 2]),
    softCap: random.pick([0, 0, 30]),
    scale: random.pick([0, 0.5]),
  };
  world.trace.explain(() => {
    const names = targets.map(({ sequence, layer, carried }) => `${sequence.label} layer ${layer} +${carried.length}`);
    return `attend ${names.join(', ')}`;
  });
  const troubles = world.troubles();
  const submittedNs = world.nowNs;
  const isThrough = session.writeThrough();
  const slot = random.chance(0.3) ? session.takeSlot() : undefined;
  const completion = await run(session, commandBytes(world, targets, rule, slot), outputBytesOf(targets), slot);
  await finish(world, session, targets, rule, { completion, troubles, submittedNs });
  if (completion.error !== undefined || !isThrough()) return;
  for (const { sequence, appends, appendPosition, carried } of targets)
    if (appends) world.kv.layerDurable(sequence, appends, appendPosition + carried.length);
}

/** In one command, or through a result slot. */
async function run(
  { host }: HostSession,
  data: Uint8Array,
  outputBytes: number,
  slot: number | undefined,
): Promise<Completion> {
  const nsid = KV_CACHE_NSID;
  if (slot === undefined) {
    return host.io.run({ opcode: kvOpcodes.attendExchange.opcode, nsid, cdw10: outputBytes }, data);
  }
  const attended = await host.io.run({ opcode: kvOpcodes.attend.opcode, nsid }, data);
  if (attended.error !== undefined) return attended;
  const read = await host.io.run({ opcode: kvOpcodes.attendResult.opcode, nsid, cdw10: slot }, undefined, outputBytes);
  assert.ok(read.error === undefined || read.error === 'lost', `ATTN Result of slot ${slot}: ${read.error}`);
  return read.error === undefined ? { ...attended, data: read.data } : read;
}

function commandBytes({ random }: World, targets: readonly Target[], rule: Rule, slot: number | undefined): Uint8Array {
  const appendType = random.pick([undefined, ...floatTypeNames]);
  const parts: Uint8Array[] = [];
  let at = payloadAt(targets.length);
  const place = (bytes: Uint8Array): number => {
    parts.push(bytes);
    at += bytes.length;
    return at - bytes.length;
  };
  let outOffset = 0;
  const entries = targets.map((target) => {
    const { sequence, layer, carried } = target;
    const queryOffset = place(new Uint8Array(target.queries.buffer));
    const rows = rowsOf(sequence.shape, layer, carried, { elementType: appendType });
    const appendOffset = carried.length > 0 ? place(rows) : 0;
    const entry = {
      sequenceId: sequence.id,
      layer,
      queryHeadsPerKvHead: target.queryHeadsPerKvHead,
      queryTokenCount: target.queryTokenCount,
      queryPosition: target.queryPosition,
      tokenStart: target.tokenStart,
      tokenEnd:
        target.tokenEnd === target.appendPosition + carried.length && random.chance(0.5) && carried.length > 0
          ? ALL_TOKENS
          : target.tokenEnd,
      appendTokenCount: carried.length,
      appendPosition: carried.length > 0 ? target.appendPosition : 0,
      queryOffset,
      appendOffset,
      ...(slot !== undefined && { outKind: attendOutputs.slot, outKey: slot }),
      outOffset,
    };
    outOffset += bytesOf(target);
    return entry;
  });
  const flags = attendFlags.statistics | (rule.causal ? attendFlags.causal : 0);
  const header = { ...rule, flags, appendType: appendType === undefined ? 0 : elementTypes[appendType].code };
  return attendBytes(header, entries, Buffer.concat(parts));
}

async function finish(
  world: World,
  session: HostSession,
  targets: readonly Target[],
  rule: Rule,
  { completion, troubles, submittedNs }: { completion: Completion; troubles: Troubles; submittedNs: number },
): Promise<void> {
  for (const { sequence } of targets) sequence.readerCount--;
  const isRaced = targets.some(
    ({ sequence, layer, since }) =>
      sequence.isEnded || sequence.isChanging || sequence.layers[layer]!.length - 1 !== since,
  );
  const allowed: ErrorCode[] = ['bufferFull', ...targets.flatMap(({ sequence }) => sequenceErrors(sequence))];
  if (isRaced) allowed.push('tokenRange', 'unknownSequence');
  if (targets.some(({ appends }) => appends)) allowed.push('capacityExceeded');
  const error = world.outcome(completion, 'ATTN', troubles, allowed);
  await settle(world, session, targets, completion, submittedNs);
  if (error !== undefined) return;
  let outOffset = 0;
  for (const target of targets) {
    checkOutput(target, rule, completion.data, outOffset);
    outOffset += bytesOf(target);
  }
}

/** Appends of entries before the one that failed have been done. */
async function settle(
  world: World,
  session: HostSession,
  targets: readonly Target[],
  { error, dw0: failed }: Completion,
  submittedNs: number,
): Promise<void> {
  const isGone = error === 'unknownSequence' || error === 'leaseExpired';
  if (isGone) checkGone(world, targets[failed]!.sequence, error, submittedNs);
  if (error === undefined) for (const { sequence } of targets) checkGone(world, sequence, error, submittedNs);
  for (const target of targets) {
    const { sequence, layer, appends: generation } = target;
    if (generation === undefined) continue;
    // Which of the appends were done, the drive has to say.
    const outcome = error === undefined || error === 'lost' ? error : 'writeFault';
    if (sequence.isEnded) sequence.appending.delete(layer);
    else await endAppend(world, session, { sequence, layer, generation }, outcome);
  }
}

function checkOutput(target: Target, rule: Rule, data: Uint8Array, outOffset: number): void {
  const { sequence, layer, since } = target;
  const candidates = generationsSince(sequence, layer, since).filter(({ tokens }) => tokens.length >= target.tokenEnd);
  const differences = candidates.map(({ tokens }) => difference(target, rule, tokens, { data, outOffset }));
  const best = Math.min(...differences);
  assert.ok(best <= TOLERANCE, `ATTN over ${sequence.describe()}, layer ${layer}: ${best} off`);
}

/** The largest difference from what attention over these tokens gives. */
function difference(
  target: Target,
  rule: Rule,
  tokens: readonly number[],
  { data, outOffset }: { data: Uint8Array; outOffset: number },
): number {
  const { sequence, layer, queries, queryTokenCount, queryHeadsPerKvHead } = target;
  const { headDimK, headDimV, kvHeadCount } = sequence.shape;
  const queryHeadCount = queryHeadsPerKvHead * kvHeadCount;
  const rows = attendOracle({
    ...rule,
    ...target,
    firstQueryHead: 0,
    queryHeadCount,
    headDimK,
    headDimV,
    q: (token, head, dim) => queries[(token * queryHeadCount + head) * headDimK + dim]!,
    k: (token, head, dim) => element(tokens[token]!, layer, head, 0, dim),
    v: (token, head, dim) => element(tokens[token]!, layer, head, 1, dim),
  });
  const view = new DataView(data.buffer, data.byteOffset + outOffset);
  const statisticsAt = queryTokenCount * queryHeadCount * headDimV * 4;
  let worst = 0;
  const compare = (at: number, expected: number): void => {
    const found = view.getFloat32(at, true);
    if (Object.is(found, expected)) return;
    worst = Math.max(
      worst,
      Math.abs(found - expected) / (1 + Math.abs(expected)) || (found === expected ? 0 : Infinity),
    );
  };
  rows.forEach((row, index) => {
    row.output.forEach((value, dim) => compare((index * headDimV + dim) * 4, value));
    compare(statisticsAt + index * 8, row.maximum);
    compare(statisticsAt + index * 8 + 4, row.logSumExp);
  });
  return worst;
}
