/** Commands of the KV-cache namespace, nearly right: of sequences that are there, mostly. */
import { elementTypeNames, elementTypeOf, elementTypes } from '../../../spec/element-type.ts';
import {
  ALL_LAYERS,
  ALL_TOKENS,
  createDescriptor,
  DESCRIPTOR_VERSION,
  KV_CACHE_NSID,
  sequenceInfo,
} from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import type { Prng } from '../../sim/prng.ts';
import { drawNumber, joined } from '../mutate.ts';
import { type BuiltCommand, nearly } from './built-command.ts';
import { drawAttend } from './draw-attend.ts';
import { drawRows, drawSequence } from './draw-rows.ts';
import type { DriveModel, HostModel } from './drive-model.ts';
import { rowBytesOf, type SequenceModel, type Shape, typeOfPart } from './sequence-model.ts';

/** More than these are rather reclaimed than added to. */
const SEQUENCES_WANTED = 10;
const TOKENS_WANTED = 60;

const common = (key: keyof typeof kvOpcodes) => ({ opcode: kvOpcodes[key].opcode, nsid: KV_CACHE_NSID });
export const idDwords = (id: bigint) => ({ cdw10: Number(id & 0xffff_ffffn), cdw11: Number(id >> 32n) });

/** An id that names nothing, or perhaps something. */
function drawId(random: Prng, model: DriveModel): bigint {
  if (random.chance(0.3) && model.expired.size > 0) return random.pick([...model.expired]);
  if (random.chance(0.2) && model.sequences.size > 0) return random.pick([...model.sequences.keys()]);
  return random.chance(0.8) ? BigInt(random.below(40)) : BigInt(random.nextUint32()) << 20n;
}

function drawShape(random: Prng): Shape {
  const elementTypeK = random.pick(elementTypeNames);
  return {
    layerCount: 1 + random.below(3),
    kvHeadCount: random.pick([1, 1, 2, 4]),
    headDimK: random.pick([8, 8, 16, 20, 64]),
    headDimV: random.pick([8, 8, 16, 36]),
    elementTypeK,
    elementTypeV: random.chance(0.7) ? elementTypeK : random.pick(elementTypeNames),
    groupTokens: random.pick([0, 1, 2, 4, 8]),
  };
}

const labels = ['', 'chat', 'a label', 'Ünïcödé 漢字', 'tab\there', '\ufeffmark'] as const;

function descriptorFields(random: Prng, model: DriveModel, host: HostModel) {
  const isChosen = host.isConfined ? random.chance(0.93) : random.chance(0.5);
  return {
    version: nearly(random, DESCRIPTOR_VERSION) & 0xffff,
    sequenceId: isChosen ? 0n : drawId(random, model),
    leaseSeconds: random.chance(0.75) ? 0 : 1 + random.below(3),
    label: random.pick(labels),
  };
}

function create(random: Prng, model: DriveModel, host: HostModel): BuiltCommand {
  const shape = drawShape(random);
  const send = createDescriptor.encode({
    ...descriptorFields(random, model, host),
    ...shape,
    layerCount: nearly(random, shape.layerCount) & 0xffff,
    groupTokens: nearly(random, shape.groupTokens),
    elementTypeK: elementTypes[shape.elementTypeK].code,
    elementTypeV: elementTypes[shape.elementTypeV].code,
  });
  return { ...common('create'), send };
}

function append(random: Prng, sequence: SequenceModel): BuiltCommand {
  const { shape, layers } = sequence;
  const index = random.below(layers.length);
  const layer = layers[index]!;
  const type = random.chance(0.7) ? undefined : random.pick(elementTypeNames);
  const isRepeat = layer.length > 0 && random.chance(0.25);
  const position = isRepeat
    ? random.below(layer.length)
    : layer.length + (random.chance(0.04) ? 1 + random.below(3) : 0);
  const tokens = 1 + random.below(layer.length > TOKENS_WANTED ? 2 : 12);
  const repeated = isRepeat && type === undefined && random.chance(0.8) ? Math.min(tokens, layer.length - position) : 0;
  const parts = ([0, 1] as const).map((part) => {
    const fresh = drawRows(random, shape, part, tokens, type ?? typeOfPart(shape, part));
    if (repeated > 0) fresh.set(layer.rows(part, position, repeated));
    return fresh;
  });
  const code = type === undefined ? 0 : elementTypes[type].code;
  const isHeadMajor = repeated === 0 && random.chance(0.2);
  const fua = random.chance(0.1) ? 2 ** 30 : 0;
  return {
    ...common('append'),
    ...idDwords(sequence.id),
    cdw12: (nearly(random, index) & 0xffff) + code * 65_536 + (isHeadMajor ? 2 ** 24 : 0) + fua,
    cdw13: nearly(random, position),
    cdw14: nearly(random, tokens),
    send: joined(parts),
  };
}

function fork(random: Prng, model: DriveModel, host: HostModel, { id, layers }: SequenceModel): BuiltCommand {
  const isShaped = random.chance(0.05);
  const send = createDescriptor.encode({
    ...descriptorFields(random, model, host),
    ...(isShaped && { layerCount: 1 }),
  });
  const tokens = random.chance(0.3) ? ALL_TOKENS : random.below(layers[0]!.length + 2);
  return { ...common('fork'), ...idDwords(id), cdw12: tokens, send };
}

function truncate(random: Prng, { id, layers }: SequenceModel): BuiltCommand {
  const isAll = random.chance(0.3);
  const index = random.below(layers.length);
  const length = isAll ? Math.min(...layers.map((layer) => layer.length)) : layers[index]!.length;
  const wanted = random.below(length + 1) + (random.chance(0.05) ? 2 : 0);
  return {
    ...common('truncate'),
    ...idDwords(id),
    cdw12: isAll ? ALL_LAYERS : nearly(random, index) & 0xffff,
    cdw13: nearly(random, wanted),
  };
}

function readBack(random: Prng, { id, shape, layers }: SequenceModel): BuiltCommand {
  const index = random.below(layers.length);
  const { length } = layers[index]!;
  const first = random.below(length + 1);
  const count = 1 + random.below(Math.max(1, length - first));
  const type = random.chance(0.7) ? 0 : 1 + random.below(5);
  const part = 1 + random.below(3);
  const firstHead = random.chance(0.7) ? 0 : random.below(shape.kvHeadCount);
  const headCount = random.chance(0.6) ? 0 : 1 + random.below(shape.kvHeadCount - firstHead);
  const heads = headCount === 0 ? shape.kvHeadCount - firstHead : headCount;
  const bytes = ([0, 1] as const)
    .filter((one) => (part & (1 << one)) !== 0)
    .reduce<number>(
      (sum, one) => sum + count * heads * rowBytesOf(shape, one, elementTypeOf(type) ?? typeOfPart(shape, one)),
      0,
    );
  return {
    ...common('readBack'),
    ...idDwords(id),
    cdw12: (nearly(random, index) & 0xffff) + type * 65_536 + (random.chance(0.2) ? 2 ** 24 : 0) + part * 2 ** 25,
    cdw13: nearly(random, first),
    cdw14: nearly(random, count),
    cdw15: nearly(random, (firstHead | (headCount << 16)) >>> 0),
    take: bytes,
  };
}

function query(random: Prng, model: DriveModel, sequence: SequenceModel | undefined): BuiltCommand {
  if (random.chance(0.1))
    return { ...common('query'), ...idDwords(drawId(random, model)), take: sequenceInfo.sizeBytes };
  if (sequence === undefined || random.chance(0.3)) {
    const after = random.chance(0.5) ? 0n : drawId(random, model);
    return { ...common('query'), ...idDwords(after), cdw12: 1, take: 8 * (1 + random.below(20)) };
  }
  const lengths = random.below(sequence.layers.length + 2);
  return {
    ...common('query'),
    ...idDwords(sequence.id),
    cdw12: nearly(random, 0),
    take: sequenceInfo.sizeBytes + 4 * lengths,
  };
}

function attendResult(random: Prng, host: HostModel): BuiltCommand {
  const slots = [...host.slots];
  if (slots.length === 0 || random.chance(0.1)) {
    return {
      ...common('attendResult'),
      cdw10: random.chance(0.7) ? random.below(64) : drawNumber(random),
      cdw12: random.below(2),
      take: 4,
    };
  }
  const [slot, { sizeBytes }] = random.pick(slots);
  const offset = random.chance(0.8) ? 0 : 4 * random.below(1 + (sizeBytes >> 2));
  const keep = random.chance(0.3) ? 1 : 0;
  return {
    ...common('attendResult'),
    cdw10: slot,
    cdw11: nearly(random, offset),
    cdw12: keep,
    take: sizeBytes - offset,
  };
}

const weights = {
  create: 9,
  append: 30,
  attend: 16,
  attendExchange: 16,
  attendResult: 7,
  readBack: 10,
  fork: 9,
  truncate: 8,
  reclaim: 4,
  query: 8,
  flush: 4,
} as const;

/** Where memory or flash fails, commands that move pages tell most. */
const moving = { fork: 20, truncate: 12, attend: 22, attendExchange: 22 } as const;

export function drawKv(random: Prng, model: DriveModel, host: HostModel): BuiltCommand {
  const isFull = model.sequences.size > SEQUENCES_WANTED;
  const { excuses } = model.traits;
  const isFailing = excuses.has('bufferFull') || excuses.has('unrecoveredRead');
  const usual = isFailing ? { ...weights, ...moving } : weights;
  const kind = random.weighted(isFull ? { ...usual, create: 1, fork: 4, reclaim: 16 } : usual);
  const sequence = drawSequence(random, model, host);
  if (kind === 'flush') return random.chance(0.2) ? { ...common('flush'), nsid: 0xffff_ffff } : common('flush');
  if (kind === 'create') return create(random, model, host);
  if (kind === 'attendResult') return attendResult(random, host);
  if (kind === 'query') return query(random, model, sequence);
  if (sequence === undefined || random.chance(0.05))
    return { ...unknown(random, model, kind), ...idDwords(drawId(random, model)) };
  switch (kind) {
    case 'append':
      return append(random, sequence);
    case 'fork':
      return fork(random, model, host, sequence);
    case 'truncate':
      return truncate(random, sequence);
    case 'readBack':
      return readBack(random, sequence);
    case 'attend':
    case 'attendExchange':
      return drawAttend(random, model, host, kind, sequence);
    case 'reclaim':
      return { ...common('reclaim'), ...idDwords(sequence.id) };
  }
}

/** A command on a sequence that is not there. */
function unknown(
  random: Prng,
  model: DriveModel,
  kind: Exclude<keyof typeof weights, 'flush' | 'create' | 'attendResult' | 'query'>,
): BuiltCommand {
  switch (kind) {
    case 'append':
      return { ...common('append'), cdw14: 1, send: new Uint8Array(64) };
    case 'fork':
      return { ...common('fork'), send: createDescriptor.encode({ version: DESCRIPTOR_VERSION }) };
    case 'readBack':
      return { ...common('readBack'), cdw12: 2 ** 25, cdw14: 1, take: 32 };
    case 'attend':
    case 'attendExchange':
      return drawAttend(random, model, undefined, kind, undefined, drawId(random, model));
    case 'truncate':
    case 'reclaim':
      return common(kind);
  }
}
