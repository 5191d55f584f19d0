/** ATTN and ATTN Exchange, nearly right. */
import { elementSizeBytes, elementTypes, floatTypeNames } from '../../../spec/element-type.ts';
import {
  ALL_TOKENS,
  attendEntry,
  attendHeader,
  attendOutputs,
  DESCRIPTOR_VERSION,
  KV_CACHE_NSID,
} from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import type { Prng } from '../../sim/prng.ts';
import { EDGES, joined } from '../mutate.ts';
import { outputBytes } from './attend-outputs.ts';
import type { AttendEntry, AttendHeader } from './attend-rules.ts';
import { type BuiltCommand, drawRegion, nearly } from './built-command.ts';
import { drawRows, drawSequence } from './draw-rows.ts';
import type { DriveModel, HostModel } from './drive-model.ts';
import { type SequenceModel, typeOfPart } from './sequence-model.ts';

const ENTRIES_MAX = 3;

interface Scope {
  readonly random: Prng;
  readonly host: HostModel | undefined;
  readonly isExchange: boolean;
  readonly header: AttendHeader;
  /** What lies behind the entries, and where it begins. */
  readonly payload: Uint8Array[];
  payloadAt: number;
  /** What comes back. */
  exchangeBytes: number;
}

const drawHeader = (random: Prng, entryCount: number): AttendHeader => ({
  version: nearly(random, DESCRIPTOR_VERSION) & 0xffff,
  mode: random.chance(0.98) ? 0 : random.below(4),
  flags: random.below(8),
  entryCount,
  queryType: elementTypes[random.pick(floatTypeNames)].code,
  outputType: elementTypes[random.pick(floatTypeNames)].code,
  scale: random.pick([0, 0, 1, 0.5, -1]),
  softCap: random.pick([0, 0, 0, 5, 30]),
  slidingWindow: random.chance(0.7) ? 0 : random.below(20),
  sinkCount: random.chance(0.7) ? 0 : random.below(6),
  appendType: random.chance(0.8) ? 0 : elementTypes[random.pick(floatTypeNames)].code,
});

/** Puts bytes behind what is there, at any multiple of 4, seldom of less. */
function place(scope: Scope, bytes: Uint8Array): number {
  const gap = scope.random.chance(0.1) ? scope.random.below(6) : 0;
  scope.payload.push(new Uint8Array(gap), bytes);
  const at = scope.payloadAt + gap;
  scope.payloadAt = at + bytes.length;
  return at;
}

function drawOutput(scope: Scope, size: number): Pick<AttendEntry, 'outKind' | 'outKey' | 'outOffset'> {
  const { random, host, isExchange } = scope;
  const region = host && random.chance(0.3) ? drawRegion(random, host, size) : undefined;
  if (region) return { outKind: attendOutputs.region, outKey: region.key, outOffset: region.offset };
  if (isExchange && random.chance(0.75)) {
    const outOffset = scope.exchangeBytes + (random.chance(0.1) ? random.below(8) : 0);
    scope.exchangeBytes = outOffset + size;
    return { outKind: attendOutputs.exchange, outKey: 0, outOffset };
  }
  const slot = random.chance(0.97) ? random.below(8) : random.pick(EDGES);
  const outOffset = random.chance(0.9) ? 0 : 4 * random.below(8);
  return { outKind: random.chance(0.98) ? attendOutputs.slot : random.below(5), outKey: slot, outOffset };
}

function drawEntry(scope: Scope, sequence: SequenceModel): Partial<AttendEntry> {
  const { random, header } = scope;
  const { shape, layers, id } = sequence;
  const index = random.below(layers.length);
  const layer = layers[index]!;
  const perHead = random.pick([1, 1, 2, 4]);
  const total = perHead * shape.kvHeadCount;
  const firstQueryHead = random.chance(0.7) ? 0 : random.below(total);
  const count = total - firstQueryHead;
  const isAll = firstQueryHead === 0 && random.chance(0.7);
  const queryHeadCount = isAll ? 0 : 1 + random.below(count);
  const queryTokenCount = 1 + random.below(random.chance(0.1) ? 9 : 2);
  const rowCount = queryTokenCount * (isAll ? total : queryHeadCount);
  const queryType = floatTypeNames.find((type) => elementTypes[type].code === header.queryType)!;
  const queries = new Uint8Array(rowCount * shape.headDimK * elementSizeBytes(queryType));
  const rows = drawRows(random, { ...shape, kvHeadCount: 1 }, 0, rowCount, queryType);
  queries.set(rows);
  const size = outputBytes(header, rowCount, shape);
  const length = layer.length;
  const tokenStart = random.chance(0.7) ? 0 : random.below(length + 1);
  return {
    sequenceId: id,
    layer: nearly(random, index) & 0xffff,
    queryHeadsPerKvHead: nearly(random, perHead) & 0xffff,
    firstQueryHead,
    queryHeadCount: nearly(random, queryHeadCount) & 0xffff,
    queryTokenCount: nearly(random, queryTokenCount) & 0xffff,
    queryPosition: random.chance(0.8) ? length : random.below(2 * length + 2),
    tokenStart: nearly(random, tokenStart),
    tokenEnd: random.chance(0.7) ? ALL_TOKENS : tokenStart + random.below(length - tokenStart + 1),
    queryOffset: place(scope, queries),
    ...drawOutput(scope, size),
    ...(random.chance(0.3) && drawAppend(scope, sequence, index)),
  };
}

function drawAppend(scope: Scope, { shape, layers }: SequenceModel, index: number): Partial<AttendEntry> {
  const { random, header } = scope;
  const layer = layers[index]!;
  const tokens = 1 + random.below(3);
  const type = floatTypeNames.find((one) => elementTypes[one].code === header.appendType);
  const parts = ([0, 1] as const).map((part) => drawRows(random, shape, part, tokens, type ?? typeOfPart(shape, part)));
  const isRepeat = layer.length >= tokens && header.appendType === 0 && random.chance(0.2);
  const position = isRepeat ? layer.length - tokens : layer.length + (random.chance(0.05) ? 1 : 0);
  const isSame = random.chance(0.8);
  if (isRepeat && isSame) for (const part of [0, 1] as const) parts[part] = layer.rows(part, position, tokens).slice();
  return { appendTokenCount: tokens, appendPosition: position, appendOffset: place(scope, joined(parts)) };
}

/** `id`: instead of a sequence, one that may not be there. */
export function drawAttend(
  random: Prng,
  model: DriveModel,
  host: HostModel | undefined,
  kind: 'attend' | 'attendExchange',
  sequence: SequenceModel | undefined,
  id = 0n,
): BuiltCommand {
  const entryCount = 1 + random.below(random.chance(0.3) ? ENTRIES_MAX : 1);
  const header = drawHeader(random, entryCount);
  const isExchange = kind === 'attendExchange';
  const payloadAt = attendHeader.sizeBytes + entryCount * attendEntry.sizeBytes;
  const scope: Scope = { random, host, isExchange, header, payload: [], payloadAt, exchangeBytes: 0 };
  const entries = Array.from({ length: entryCount }, (_, i) => {
    const own = i === 0 || !host || random.chance(0.5) ? sequence : drawSequence(random, model, host);
    if (own === undefined)
      return { sequenceId: id, queryHeadsPerKvHead: 1, queryTokenCount: 1, outKind: attendOutputs.slot };
    return drawEntry(scope, own);
  });
  const send = joined([new Uint8Array(payloadAt), ...scope.payload]);
  attendHeader.encode({ ...header, entryCount: nearly(random, entryCount) & 0xffff }, send);
  entries.forEach((entry, i) => attendEntry.encode(entry, send, attendHeader.sizeBytes + i * attendEntry.sizeBytes));
  const back = isExchange ? { cdw10: nearly(random, scope.exchangeBytes + 4 * random.below(3)) } : {};
  return { opcode: kvOpcodes[kind].opcode, nsid: KV_CACHE_NSID, ...back, send };
}
