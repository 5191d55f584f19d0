/** spec/kv-cache-commands.md as rules, but for ATTN. */
import assert from 'node:assert/strict';
import { type ElementType, elementTypeOf, elementTypes, isQuantised } from '../../../spec/element-type.ts';
import {
  ALL_LAYERS,
  ALL_TOKENS,
  createDescriptor,
  DESCRIPTOR_VERSION,
  querySelectors,
  sequenceInfo,
} from '../../../spec/kv-commands.ts';
import { limits } from '../../../spec/limits.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { attendRules } from './attend-rules.ts';
import type { DriveModel } from './drive-model.ts';
import type { Completion } from './fuzz-link.ts';
import { flush } from './nvm-rules.ts';
import { ALL, type CommandRule, type RuleContext, type RuleTable } from './rules.ts';
import {
  converted,
  dimOfPart,
  numbersOf,
  rowBytesOf,
  SequenceModel,
  type Shape,
  tokenMajor,
  transferBytes,
  typeOfCode,
  typeOfPart,
} from './sequence-model.ts';
import {
  appendTo,
  type AppendRequest,
  checkAppend,
  findSequence,
  hasOddNumbers,
  idOf,
  isOddRepeat,
  splitRows,
} from './sequence-rules.ts';

type Descriptor = ReturnType<typeof createDescriptor.decode>;

/** What create and fork have in common: their descriptor. undefined: it can't be read. */
function descriptorOf({ submission, data, verdict }: RuleContext): Descriptor | undefined {
  if (submission.lengthBytes !== createDescriptor.sizeBytes) {
    verdict.fault('sglDataLength');
    return undefined;
  }
  if (data === undefined) return undefined;
  const descriptor = createDescriptor.decode(data);
  if (descriptor.version !== DESCRIPTOR_VERSION) verdict.fault('unsupportedVersion');
  if (createDescriptor.firstNonZeroReserved(data) !== undefined) verdict.fault('invalidField');
  if (!isLabel(data)) verdict.fault('invalidField');
  return descriptor;
}

/** UTF-8 without control characters, zeros behind it. */
function isLabel(data: Uint8Array): boolean {
  const { offset, width } = createDescriptor.fields.label;
  const raw = Buffer.from(data.subarray(offset, offset + width));
  let end = width;
  while (end > 0 && raw[end - 1] === 0) end--;
  const text = raw.subarray(0, end);
  // What is no UTF-8 comes back as something else; a byte order mark is dropped when it is read.
  const decoded = new TextDecoder().decode(text);
  return Buffer.compare(Buffer.from(decoded, 'utf8'), text) === 0 && !/\p{Cc}/u.test(decoded);
}

/** That a new sequence of this id may be made. */
function checkNewId({ drive, host, verdict }: RuleContext, id: bigint): void {
  verdict.excuse('sequenceLimit', 'hostQuota', 'namespaceWriteProtected', 'writeFault');
  verdict.touch('sequences', 'chosen id');
  if (id === 0n) return;
  if (host.isConfined) verdict.fault('invalidField');
  if (drive.sequences.has(id)) verdict.fault('sequenceExists');
  if (drive.uncertainSequences.has(id)) verdict.isUnsure = true;
  verdict.touch(`sequence ${id}`);
}

/** Nobody knows whether it was made, or what is in it. */
function loseMade(drive: DriveModel, wanted: bigint, completion: Completion | undefined): void {
  const isMade = completion?.status === 0;
  const id = isMade ? (BigInt(completion.dw1) << 32n) | BigInt(completion.dw0) : wanted;
  if (id === 0n) return;
  drive.loseSequence(id);
  if (drive.expired.delete(id)) drive.perhapsExpired.add(id);
  if (wanted === 0n && id > drive.chosenMax) drive.chosenMax = id;
}

/** The new sequence's id, as the completion says. */
function madeId({ drive }: RuleContext, wanted: bigint, { dw0, dw1 }: { dw0: number; dw1: number }): bigint {
  const id = (BigInt(dw1) << 32n) | BigInt(dw0);
  if (wanted !== 0n) assert.equal(id, wanted, 'the id that was asked for');
  else {
    assert.ok(id > drive.chosenMax, `id ${id} was chosen before: ${drive.chosenMax}`);
    assert.ok(!drive.sequences.has(id), `id ${id} is in use`);
    drive.chosenMax = id;
  }
  drive.expired.delete(id);
  drive.perhapsExpired.delete(id);
  drive.uncertainSequences.delete(id);
  return id;
}

const create: CommandRule = {
  uses: {},
  judge(context) {
    const { drive, host, verdict } = context;
    const descriptor = descriptorOf(context);
    verdict.isWriter = true;
    if (descriptor === undefined) return;
    const shape = shapeOf(context, descriptor);
    const { sequenceId, label, leaseSeconds } = descriptor;
    checkNewId(context, sequenceId);
    verdict.onUncertain = (completion) => loseMade(drive, sequenceId, completion);
    verdict.onFailure = (code) => {
      // Not durable, but there: of an id that the drive has chosen nobody hears then.
      if (code === 'writeFault') verdict.onUncertain();
    };
    if (shape === undefined) return;
    verdict.onSuccess = (completion) => {
      const id = madeId(context, sequenceId, completion);
      const made = new SequenceModel({ id, shape, label, leaseSeconds, parentId: 0n, owner: host.host });
      made.namedAtMs = drive.nowMs;
      drive.sequences.set(id, made);
    };
  },
};

function shapeOf({ drive, verdict }: RuleContext, descriptor: Descriptor): Shape | undefined {
  const { layerCount, kvHeadCount, headDimK, headDimV, groupTokens } = descriptor;
  const isIn = (value: number, min: number, max: number): boolean => value >= min && value <= max;
  const elementTypeK = elementTypeOf(descriptor.elementTypeK);
  const elementTypeV = elementTypeOf(descriptor.elementTypeV);
  const areSizesRight =
    isIn(layerCount, 1, limits.layerCountMax) &&
    isIn(kvHeadCount, 1, limits.kvHeadCountMax) &&
    isIn(headDimK, limits.headDimMin, limits.headDimMax) &&
    isIn(headDimV, limits.headDimMin, limits.headDimMax);
  if (!areSizesRight) verdict.fault('invalidShape');
  if (elementTypeK === undefined || elementTypeV === undefined) {
    // Whether its groups are too large nobody can say.
    verdict.fault('invalidField', 'invalidShape');
    return undefined;
  }
  if (!areSizesRight) return undefined;
  const shape = { layerCount, kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV, groupTokens };
  const groupMax = Math.floor(drive.traits.pageSizeBytes / Math.max(rowBytesOf(shape, 0), rowBytesOf(shape, 1)));
  if (groupTokens > groupMax) verdict.fault('invalidShape');
  return { ...shape, groupTokens: groupTokens === 0 ? groupMax : groupTokens };
}

const fork: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: ALL },
  judge(context) {
    const { submission, drive, host, verdict, data } = context;
    const source = findSequence(context, idOf(submission.entry));
    const descriptor = descriptorOf(context);
    verdict.isWriter = true;
    verdict.excuse('bufferFull', 'unrecoveredRead');
    if (descriptor === undefined || data === undefined) return;
    if (data.subarray(2, 16).some((byte) => byte !== 0)) verdict.fault('invalidField');
    const { sequenceId, label, leaseSeconds } = descriptor;
    checkNewId(context, sequenceId);
    verdict.onUncertain = (completion) => loseMade(drive, sequenceId, completion);
    verdict.onFailure = (code) => {
      if (code === 'writeFault') verdict.onUncertain();
    };
    if (source === undefined) return;
    const wanted = submission.entry.cdw12 === ALL_TOKENS ? Number.POSITIVE_INFINITY : submission.entry.cdw12;
    verdict.onSuccess = (completion) => {
      const id = madeId(context, sequenceId, completion);
      const layers = source.layers.map((layer) => layer.copyOf(Math.min(layer.length, wanted)));
      const { shape } = source;
      const made = new SequenceModel({ id, shape, label, leaseSeconds, parentId: source.id, owner: host.host }, layers);
      made.namedAtMs = drive.nowMs;
      drive.sequences.set(id, made);
    };
  },
};

const TRANSFER_TYPE_SHIFT = 16;
const HEAD_MAJOR = 2 ** 24;

const append: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: 0x41ff_ffff, cdw13: ALL, cdw14: ALL },
  judge(context) {
    const { submission, verdict, data } = context;
    const { entry, lengthBytes } = submission;
    const { cdw12, cdw13: position, cdw14: tokenCount } = entry;
    const sequence = findSequence(context, idOf(entry));
    const { type, isKnown } = typeOfCode((cdw12 >>> TRANSFER_TYPE_SHIFT) & 0xff);
    verdict.isWriter = true;
    verdict.excuse(
      'capacityExceeded',
      'bufferFull',
      'hostQuota',
      'namespaceWriteProtected',
      'writeFault',
      'unrecoveredRead',
    );
    if (!isKnown) verdict.fault('invalidField');
    const isRange = tokenCount >= 1 && position + tokenCount <= limits.sequenceTokensMax;
    if (!isRange) verdict.fault('tokenRange');
    if (sequence === undefined) return;
    const layer = sequence.layers[cdw12 & 0xffff];
    if (layer === undefined) verdict.fault('layerRange');
    if (isKnown && lengthBytes !== transferBytes(sequence.shape, tokenCount, type)) verdict.fault('sglDataLength');
    if (layer !== undefined && position > layer.length) verdict.fault('appendGap');
    verdict.onUncertain = () => context.drive.loseSequence(sequence.id);
    verdict.onFailure = (code, { dw0 }) => {
      if (code === 'appendGap') assert.equal(dw0, layer?.length, 'DW0 of a gap is the length of the layer');
      // With FUA: added, and not durable.
      if (code === 'writeFault') verdict.onUncertain();
    };
    if (verdict.faults.size > 0 || layer === undefined || data === undefined) return;
    const rows = splitRows(data, sequence.shape, tokenCount, type, (cdw12 & HEAD_MAJOR) !== 0);
    const isOdd = hasOddNumbers(rows, sequence.shape, tokenCount, type);
    const request: AppendRequest = { layer, position, tokenCount, rows, isOdd };
    if (isOddRepeat(request)) verdict.isUnsure = true;
    const conflict = checkAppend(request);
    if (conflict !== undefined) {
      verdict.fault('appendConflict');
      verdict.onFailure = (code, { dw0 }) => {
        if (code === 'appendConflict') assert.equal(dw0, conflict, 'DW0 of a conflict is the first token that differs');
      };
      return;
    }
    verdict.onSuccess = ({ dw0 }) => {
      appendTo(request);
      assert.equal(dw0, layer.length, 'DW0 is the length of the layer');
    };
  },
};

const truncate: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: 0xffff, cdw13: ALL },
  judge(context) {
    const { submission, verdict, drive } = context;
    const { entry, lengthBytes } = submission;
    const sequence = findSequence(context, idOf(entry));
    verdict.isWriter = true;
    verdict.excuse('bufferFull', 'namespaceWriteProtected', 'writeFault', 'unrecoveredRead');
    if (lengthBytes > 0) verdict.fault('sglDataLength');
    if (sequence === undefined) return;
    const length = entry.cdw13;
    const indexes = entry.cdw12 === ALL_LAYERS ? sequence.layers.map((_, i) => i) : [entry.cdw12];
    for (const index of indexes) {
      const layer = sequence.layers[index];
      if (layer === undefined) verdict.fault('layerRange');
      else if (length > layer.length) verdict.fault('tokenRange');
    }
    verdict.onUncertain = () => drive.loseSequence(sequence.id);
    verdict.onFailure = (code) => {
      if (code === 'writeFault') verdict.onUncertain();
    };
    verdict.onSuccess = () => {
      for (const index of indexes) sequence.layers[index] = sequence.layers[index]!.copyOf(length);
    };
  },
};

const reclaim: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL },
  judge(context) {
    const { submission, verdict, drive } = context;
    const id = idOf(submission.entry);
    const sequence = findSequence(context, id);
    verdict.isWriter = true;
    verdict.touch('sequences');
    verdict.excuse('writeFault');
    if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
    verdict.onUncertain = () => {
      if (sequence !== undefined) drive.loseSequence(id);
    };
    verdict.onSuccess = () => {
      drive.sequences.delete(id);
      drive.uncertainSequences.delete(id);
    };
    verdict.onFailure = (code) => {
      if (code === 'writeFault') verdict.onUncertain();
      else if (code === 'unknownSequence' || code === 'leaseExpired') drive.uncertainSequences.delete(id);
    };
  },
};

const LIST_BYTES_MAX = 65_536;

const query: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: ALL },
  judge(context) {
    const { submission, verdict } = context;
    const { entry, lengthBytes } = submission;
    if (entry.cdw12 === querySelectors.list) {
      if (lengthBytes === 0 || lengthBytes % 8 !== 0 || lengthBytes > LIST_BYTES_MAX) verdict.fault('sglDataLength');
      verdict.touch('sequences');
      verdict.onSuccess = ({ dw0, data }) => checkList(context, idOf(entry), dw0, answerOf(context, data));
      return;
    }
    if (entry.cdw12 !== querySelectors.sequence) {
      verdict.fault('invalidField');
      return;
    }
    const sequence = findSequence(context, idOf(entry));
    if (lengthBytes < sequenceInfo.sizeBytes) verdict.fault('sglDataLength');
    if (sequence === undefined) return;
    verdict.onSuccess = ({ data }) => checkInfo(sequence, answerOf(context, data, true));
  },
};

/** What the drive gave, wherever it went; `isLess`: it may be shorter than the data, and what is behind it stays. */
function answerOf({ submission, readRegion }: RuleContext, data: Uint8Array, isLess = false): Uint8Array {
  const { place, lengthBytes } = submission;
  if (place.kind === 'keyed') return readRegion(place.key, place.offset, lengthBytes);
  if (!isLess) assert.equal(data.length, lengthBytes, 'as many bytes as were asked for');
  return data;
}

function checkList({ drive, host }: RuleContext, after: bigint, count: number, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const ids = Array.from({ length: bytes.length / 8 }, (_, i) => view.getBigUint64(8 * i, true));
  assert.ok(
    ids.slice(count).every((id) => id === 0n),
    'zeros behind the ids',
  );
  if (drive.uncertainSequences.size > 0 || drive.traits.excuses.has('sequenceLimit')) return;
  const wanted = [...drive.sequences.values()]
    .filter(({ id, owner }) => id > after && (!host.isConfined || owner === host.host))
    .map(({ id }) => id)
    .sort((a, b) => (a < b ? -1 : 1))
    .slice(0, ids.length);
  assert.deepEqual(ids.slice(0, count), wanted, 'ids of a list');
}

function checkInfo(sequence: SequenceModel, bytes: Uint8Array): void {
  const info = sequenceInfo.decode(bytes);
  const { shape, layers, id, label, leaseSeconds, parentId } = sequence;
  const wanted = {
    version: DESCRIPTOR_VERSION,
    ...shape,
    elementTypeK: elementTypes[shape.elementTypeK].code,
    elementTypeV: elementTypes[shape.elementTypeV].code,
    sequenceId: id,
    leaseSeconds,
    state: 1,
    parentSequenceId: parentId,
    label,
  };
  for (const [name, value] of Object.entries(wanted)) {
    assert.equal(info[name as keyof typeof info], value, `${name} of a sequence`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const room = Math.min(layers.length, Math.floor((bytes.length - sequenceInfo.sizeBytes) / 4));
  for (let i = 0; i < room; i++) {
    assert.equal(view.getUint32(sequenceInfo.sizeBytes + 4 * i, true), layers[i]!.length, `length of layer ${i}`);
  }
  const whole = layers.reduce((sum, { length }) => sum + Math.floor(length / shape.groupTokens), 0);
  assert.equal(info.pageCount, whole * 2 * shape.kvHeadCount, 'pages of whole groups');
}

const readBack: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: 0x07ff_ffff, cdw13: ALL, cdw14: ALL, cdw15: ALL },
  judge(context) {
    const { submission, verdict } = context;
    const { entry, lengthBytes } = submission;
    const { cdw12, cdw13: first, cdw14: count, cdw15 } = entry;
    verdict.excuse('bufferFull', 'unrecoveredRead');
    const { type, isKnown } = typeOfCode((cdw12 >>> TRANSFER_TYPE_SHIFT) & 0xff);
    const part = (cdw12 >>> 25) & 3;
    if (!isKnown || part === 0) verdict.fault('invalidField');
    if (count < 1 || first + count > limits.sequenceTokensMax) verdict.fault('tokenRange');
    const sequence = findSequence(context, idOf(entry));
    if (sequence === undefined) return;
    const { shape } = sequence;
    const firstHead = cdw15 & 0xffff;
    const headCount = cdw15 >>> 16 === 0 ? shape.kvHeadCount - firstHead : cdw15 >>> 16;
    if (headCount < 1 || firstHead + headCount > shape.kvHeadCount) verdict.fault('headRange');
    const layer = sequence.layers[cdw12 & 0xffff];
    if (layer === undefined) verdict.fault('layerRange');
    else if (first + count > layer.length) verdict.fault('tokenRange');
    if (!isKnown || part === 0) return;
    const parts = ([0, 1] as const).filter((one) => (part & (1 << one)) !== 0);
    const rowBytes = (one: 0 | 1): number => rowBytesOf(shape, one, type ?? typeOfPart(shape, one));
    const bytes = parts.reduce<number>((sum, one) => sum + count * headCount * rowBytes(one), 0);
    if (lengthBytes !== bytes) verdict.fault('sglDataLength');
    if (verdict.faults.size > 0 || layer === undefined) return;
    verdict.onSuccess = ({ data }) => {
      const answer = answerOf(context, data);
      const isHeadMajor = (cdw12 & HEAD_MAJOR) !== 0;
      let at = 0;
      for (const one of parts) {
        const size = count * headCount * rowBytes(one);
        const got = tokenMajor(answer.subarray(at, at + size), count, headCount, rowBytes(one), isHeadMajor);
        const stored = headsOf(layer.rows(one, first, count), shape, one, firstHead, headCount);
        const from = typeOfPart(shape, one);
        const wanted = converted(stored, from, type ?? from, count * headCount, dimOfPart(shape, one));
        const differs = firstDifference(got, wanted, type ?? from);
        const text = `byte ${differs} of rows of ${one === 0 ? 'K' : 'V'}, stored as ${from}, read as ${type ?? from}`;
        assert.ok(differs < 0, `${text}: ${got[differs]}, not ${wanted[differs]}`);
        at += size;
      }
    };
  },
};

/** The first byte that differs, -1: none. One NaN is as good as another where numbers were converted. */
function firstDifference(got: Uint8Array, wanted: Uint8Array, type: ElementType): number {
  if (Buffer.compare(got, wanted) === 0) return -1;
  const { bits } = elementTypes[type];
  const count = (8 * got.length) / bits;
  const at = got.findIndex((byte, i) => byte !== wanted[i]);
  if (isQuantised(type)) return at;
  const [a, b] = [numbersOf(got, type, 1, count), numbersOf(wanted, type, 1, count)];
  const element = a.findIndex((value, i) => !Object.is(value, b[i]));
  return element < 0 ? -1 : (element * bits) / 8;
}

/** Of [token][all heads] the rows of some heads. */
function headsOf(rows: Uint8Array, shape: Shape, part: 0 | 1, firstHead: number, headCount: number): Uint8Array {
  const rowBytes = rowBytesOf(shape, part);
  const stride = rowBytes * shape.kvHeadCount;
  const tokens = rows.length / stride;
  const some = new Uint8Array(tokens * headCount * rowBytes);
  for (let token = 0; token < tokens; token++) {
    const from = token * stride + firstHead * rowBytes;
    some.set(rows.subarray(from, from + headCount * rowBytes), token * headCount * rowBytes);
  }
  return some;
}

export const kvRules: RuleTable = {
  [kvOpcodes.flush.opcode]: flush,
  [kvOpcodes.create.opcode]: create,
  [kvOpcodes.append.opcode]: append,
  [kvOpcodes.fork.opcode]: fork,
  [kvOpcodes.truncate.opcode]: truncate,
  [kvOpcodes.reclaim.opcode]: reclaim,
  [kvOpcodes.query.opcode]: query,
  [kvOpcodes.readBack.opcode]: readBack,
  ...attendRules,
};
