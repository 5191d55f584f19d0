/** ATTN, ATTN Exchange and ATTN Result as rules. */
import assert from 'node:assert/strict';
import { elementSizeBytes, elementTypeOf, type FloatType } from '../../../spec/element-type.ts';
import type { ErrorCode } from '../../../spec/errors.ts';
import { ALL_TOKENS, attendEntry, attendHeader, attendOutputs, DESCRIPTOR_VERSION } from '../../../spec/kv-commands.ts';
import { limits } from '../../../spec/limits.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { checkOutput, type ExpectedOutput, expectOutput, outputBytes } from './attend-outputs.ts';
import { ALL, type CommandRule, type RuleContext } from './rules.ts';
import { type SequenceModel, type Shape, transferBytes, typeOfCode } from './sequence-model.ts';
import {
  appendTo,
  type AppendRequest,
  checkAppend,
  findSequence,
  hasOddNumbers,
  isOddRepeat,
  splitRows,
} from './sequence-rules.ts';
import { TRANSFER_BYTES_MAX } from './submission.ts';

export type AttendHeader = ReturnType<typeof attendHeader.decode>;
export type AttendEntry = ReturnType<typeof attendEntry.decode>;

/** An entry without a fault of its own. */
interface GoodEntry {
  readonly index: number;
  readonly fields: AttendEntry;
  readonly sequence: SequenceModel;
  readonly queries: Uint8Array;
  readonly append: AppendRequest | undefined;
  readonly outputBytes: number;
}

/** Faults of entries: a failure that an entry is the reason of names it. */
class EntryFaults {
  readonly #context: RuleContext;
  readonly #indexes = new Map<ErrorCode, Set<number>>();
  count = 0;

  constructor(context: RuleContext) {
    this.#context = context;
  }

  add(index: number, ...codes: readonly ErrorCode[]): void {
    for (const code of codes) {
      this.count++;
      const known = this.#context.verdict.faults.has(code) && !this.#indexes.has(code);
      this.#context.verdict.fault(code);
      // Something else of the command has this fault too: its answer names no entry.
      const set = this.#indexes.get(code) ?? new Set(known ? [0] : []);
      this.#indexes.set(code, set.add(index));
    }
  }

  check(code: ErrorCode, dw0: number): void {
    const indexes = this.#indexes.get(code);
    if (indexes === undefined) return;
    assert.ok(indexes.has(dw0), `DW0 of ${code} names entry ${dw0}, it is one of ${[...indexes].join(', ')}`);
  }
}

const FLAG_MASK = 7;

/** undefined: it can't be read, or is wrong. */
function headerOf({ submission, data, verdict }: RuleContext): AttendHeader | undefined {
  const { lengthBytes } = submission;
  if (lengthBytes < attendHeader.sizeBytes) {
    verdict.fault('sglDataLength');
    return undefined;
  }
  if (data === undefined) return undefined;
  const header = attendHeader.decode(data);
  if (header.version !== DESCRIPTOR_VERSION) verdict.fault('unsupportedVersion');
  if (header.mode !== 0) verdict.fault('attendMode');
  const isFloat = (code: number): boolean => [1, 2, 3].includes(code);
  const isRight =
    attendHeader.firstNonZeroReserved(data) === undefined &&
    (header.flags & ~FLAG_MASK) === 0 &&
    isFloat(header.queryType) &&
    isFloat(header.outputType) &&
    typeOfCode(header.appendType).isKnown &&
    Number.isFinite(header.scale) &&
    Number.isFinite(header.softCap) &&
    header.softCap >= 0 &&
    header.entryCount >= 1 &&
    header.entryCount <= limits.attendEntryCountMax;
  if (!isRight) verdict.fault('invalidField');
  if (attendHeader.sizeBytes + header.entryCount * attendEntry.sizeBytes > lengthBytes) {
    verdict.fault('sglDataLength');
    return undefined;
  }
  return isFloat(header.queryType) && isFloat(header.outputType) ? header : undefined;
}

/** Bytes in the command's data or in a region; undefined: a fault. */
function sourceOf(
  context: RuleContext,
  faults: EntryFaults,
  index: number,
  { key, offset, lengthBytes }: { key: number; offset: number; lengthBytes: number },
): Uint8Array | undefined {
  const { data, host, readRegion } = context;
  if (key === 0) {
    if (offset + lengthBytes <= data!.length) return data!.subarray(offset, offset + lengthBytes);
    faults.add(index, 'sglOffset');
    return undefined;
  }
  const region = host.regions.get(key);
  if (region !== undefined && offset + lengthBytes <= region.sizeBytes) return readRegion(key, offset, lengthBytes);
  faults.add(index, 'sglDataBlock');
  return undefined;
}

function checkHeads(
  { queryHeadsPerKvHead: perHead, firstQueryHead, queryHeadCount }: AttendEntry,
  shape: Shape,
): boolean {
  if (perHead < 1 || perHead > limits.queryHeadsPerKvHeadMax) return false;
  const total = perHead * shape.kvHeadCount;
  const count = queryHeadCount === 0 ? total : queryHeadCount;
  return firstQueryHead + count <= total;
}

function checkTokens(faults: EntryFaults, index: number, fields: AttendEntry): void {
  const { queryTokenCount, queryPosition, tokenStart, tokenEnd, appendTokenCount, appendPosition } = fields;
  const isRange =
    queryTokenCount >= 1 &&
    queryTokenCount <= limits.queryTokenCountMax &&
    queryPosition + queryTokenCount <= limits.sequenceTokensMax &&
    tokenStart <= limits.sequenceTokensMax &&
    (tokenEnd === ALL_TOKENS || tokenStart <= tokenEnd) &&
    appendPosition + appendTokenCount <= limits.sequenceTokensMax;
  if (!isRange) faults.add(index, 'tokenRange');
  const isBare = fields.appendKey === 0 && fields.appendOffset === 0 && appendPosition === 0;
  if (appendTokenCount === 0 && !isBare) faults.add(index, 'invalidField');
}

function checkPlace(
  context: RuleContext,
  faults: EntryFaults,
  index: number,
  fields: AttendEntry,
  bytes: number | undefined,
): void {
  const { submission, host } = context;
  const { outKind, outKey, outOffset } = fields;
  const isExchange = submission.entry.opcode === kvOpcodes.attendExchange.opcode;
  if (outKind === attendOutputs.exchange) {
    if (!isExchange || outKey !== 0) faults.add(index, 'invalidField');
    if (isExchange && bytes !== undefined && outOffset + bytes > submission.entry.cdw10)
      faults.add(index, 'sglDataLength');
  } else if (outKind === attendOutputs.region) {
    const region = host.regions.get(outKey);
    if (region === undefined || outOffset + (bytes ?? 0) > region.sizeBytes) faults.add(index, 'sglDataBlock');
  } else if (outKind === attendOutputs.slot) {
    const isIn = outKey < limits.resultSlotCountMax && outOffset + (bytes ?? 0) <= limits.resultSlotBytesTotalMax;
    if (!isIn) faults.add(index, 'slotLimit');
  } else faults.add(index, 'invalidField');
}

function entryOf(
  context: RuleContext,
  header: AttendHeader,
  faults: EntryFaults,
  index: number,
): GoodEntry | undefined {
  const { data, verdict } = context;
  const at = attendHeader.sizeBytes + index * attendEntry.sizeBytes;
  const fields = attendEntry.decode(data!, at);
  const before = faults.count;
  for (const key of [fields.queryKey, fields.appendKey]) if (key !== 0) verdict.touch(`region ${key}`);
  if (fields.outKind === attendOutputs.region) verdict.touch(`region ${fields.outKey}`);
  if (attendEntry.firstNonZeroReserved(data!, at) !== undefined) faults.add(index, 'invalidField');
  checkTokens(faults, index, fields);
  const sequence = findSequence(context, fields.sequenceId);
  if (sequence === undefined) {
    // As a fault of this entry.
    for (const code of ['unknownSequence', 'leaseExpired'] as const) {
      if (verdict.faults.has(code)) faults.add(index, code);
    }
    checkPlace(context, faults, index, fields, undefined);
    return undefined;
  }
  const { shape } = sequence;
  const layer = sequence.layers[fields.layer];
  if (layer === undefined) faults.add(index, 'layerRange');
  if (!checkHeads(fields, shape)) {
    faults.add(index, 'headRange');
    return undefined;
  }
  const headCount =
    fields.queryHeadCount === 0 ? fields.queryHeadsPerKvHead * shape.kvHeadCount : fields.queryHeadCount;
  const rowCount = headCount * fields.queryTokenCount;
  const queryType = elementTypeOf(header.queryType) as FloatType;
  const queryBytes = rowCount * shape.headDimK * elementSizeBytes(queryType);
  const queries = sourceOf(context, faults, index, {
    key: fields.queryKey,
    offset: fields.queryOffset,
    lengthBytes: queryBytes,
  });
  const size = outputBytes(header, rowCount, shape);
  checkPlace(context, faults, index, fields, size);
  const { type, isKnown } = typeOfCode(header.appendType);
  let append: AppendRequest | undefined;
  if (fields.appendTokenCount > 0 && isKnown) {
    const lengthBytes = transferBytes(shape, fields.appendTokenCount, type);
    const rows = sourceOf(context, faults, index, { key: fields.appendKey, offset: fields.appendOffset, lengthBytes });
    if (rows !== undefined && layer !== undefined) {
      const split = splitRows(rows, shape, fields.appendTokenCount, type, false);
      const tokenCount = fields.appendTokenCount;
      const isOdd = hasOddNumbers(split, shape, tokenCount, type);
      append = { layer, position: fields.appendPosition, tokenCount, rows: split, isOdd };
      if (isOddRepeat(append)) verdict.isUnsure = true;
    }
  }
  if (rowCount > limits.queryRowCountMax || queryBytes + size > limits.attendBytesMax)
    faults.add(index, 'invalidField');
  if (faults.count > before || queries === undefined || layer === undefined) return undefined;
  return { index, fields, sequence, queries, append, outputBytes: size };
}

/** Slots of all entries, as large as outputs reach; faults if they can't be taken. */
function slotsOf({ host, verdict }: RuleContext, entries: readonly GoodEntry[]): Map<number, number> {
  const sizes = new Map<number, number>();
  for (const { fields, outputBytes: bytes } of entries) {
    if (fields.outKind !== attendOutputs.slot) continue;
    verdict.touch(`slot ${fields.outKey}`);
    sizes.set(fields.outKey, Math.max(sizes.get(fields.outKey) ?? 0, fields.outOffset + bytes));
    if (host.slots.has(fields.outKey)) verdict.fault('slotInUse');
    if (host.uncertainSlots.has(fields.outKey)) verdict.isUnsure = true;
  }
  const taken = [...host.slots.values(), ...[...sizes.values()].map((sizeBytes) => ({ sizeBytes }))];
  if (taken.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) > limits.resultSlotBytesTotalMax)
    verdict.fault('slotLimit');
  return sizes;
}

/** Follows the appends as far as they go. True: all of them. */
function tryAppends(faults: EntryFaults, entries: readonly GoodEntry[]): { isWhole: boolean; undo: () => void } {
  const undone: { sequence: SequenceModel; layer: number; copy: SequenceModel['layers'][number] }[] = [];
  const undo = (): void =>
    undone.reverse().forEach(({ sequence, layer, copy }) => void (sequence.layers[layer] = copy));
  for (const { index, fields, sequence, append } of entries) {
    if (append === undefined) continue;
    // An earlier entry may have put a copy in its place.
    const layer = sequence.layers[fields.layer]!;
    const request = { ...append, layer };
    if (append.position > layer.length) faults.add(index, 'appendGap');
    else if (checkAppend(request) !== undefined) faults.add(index, 'appendConflict');
    else {
      undone.push({ sequence, layer: fields.layer, copy: layer });
      const copy = layer.copyOf(layer.length);
      appendTo({ ...request, layer: copy });
      sequence.layers[fields.layer] = copy;
      continue;
    }
    return { isWhole: false, undo };
  }
  return { isWhole: true, undo };
}

function checkRanges(faults: EntryFaults, entries: readonly GoodEntry[]): void {
  for (const { index, fields, sequence } of entries) {
    const { length } = sequence.layers[fields.layer]!;
    const end = fields.tokenEnd === ALL_TOKENS ? length : fields.tokenEnd;
    if (end > length || fields.tokenStart > end) faults.add(index, 'tokenRange');
  }
}

const attend: CommandRule = {
  uses: {},
  judge(context) {
    const { verdict } = context;
    verdict.excuse('bufferFull', 'unrecoveredRead', 'hostQuota');
    const header = headerOf(context);
    if (header === undefined) return;
    verdict.isWriter = true;
    verdict.onUncertain = () => loseAll(context, header);
    const faults = new EntryFaults(context);
    const entries: GoodEntry[] = [];
    for (let index = 0; index < header.entryCount; index++) {
      const entry = entryOf(context, header, faults, index);
      if (entry !== undefined) entries.push(entry);
    }
    verdict.onFailure = (code, { dw0 }) => faults.check(code, dw0);
    if (verdict.faults.size > 0) return;
    const slots = slotsOf(context, entries);
    if (verdict.faults.size > 0) return;
    follow(context, header, faults, entries, slots);
  },
};

/** Nobody knows what it has done: to sequences that its entries append to, and to slots that they name. */
function loseAll({ drive, host, data }: RuleContext, { entryCount }: AttendHeader): void {
  for (let index = 0; index < entryCount; index++) {
    const fields = attendEntry.decode(data!, attendHeader.sizeBytes + index * attendEntry.sizeBytes);
    if (fields.appendTokenCount > 0 && drive.sequences.has(fields.sequenceId)) drive.loseSequence(fields.sequenceId);
    if (fields.outKind !== attendOutputs.slot || fields.outKey >= limits.resultSlotCountMax) continue;
    host.slots.delete(fields.outKey);
    host.uncertainSlots.add(fields.outKey);
  }
}

/** Of a command that is right as far as it can be seen from itself. */
function follow(
  context: RuleContext,
  header: AttendHeader,
  faults: EntryFaults,
  entries: readonly GoodEntry[],
  slots: ReadonlyMap<number, number>,
): void {
  const { verdict, drive } = context;
  const appends = entries.filter(({ append }) => append !== undefined);
  if (appends.length > 0) {
    verdict.excuse('capacityExceeded', 'namespaceWriteProtected', 'writeFault');
  }
  // Tried on the models, which are then put back: what was appended counts when the command ends.
  const { isWhole, undo } = tryAppends(faults, entries);
  if (isWhole) checkRanges(faults, entries);
  const after = appends.map(({ sequence, fields }) => ({
    sequence,
    layer: fields.layer,
    rows: sequence.layers[fields.layer]!,
  }));
  const outputs =
    verdict.faults.size === 0
      ? entries.map((entry) => expectOutput(header, entry.fields, entry.sequence, entry.queries))
      : [];
  undo();
  const appended = (): void => after.forEach(({ sequence, layer, rows }) => void (sequence.layers[layer] = rows));
  verdict.onFailure = (code, { dw0 }) => {
    faults.check(code, dw0);
    // Entries before the one that failed stay appended.
    if (verdict.faults.has(code)) appended();
    else for (const { sequence } of appends) drive.loseSequence(sequence.id);
  };
  verdict.onSuccess = (completion) => {
    appended();
    deliver(context, entries, slots, outputs, completion.data);
  };
}

/** Compares what went to where it can be seen at once, and keeps what is in slots. */
function deliver(
  { host, submission, readRegion }: RuleContext,
  entries: readonly GoodEntry[],
  slots: ReadonlyMap<number, number>,
  outputs: readonly ExpectedOutput[],
  data: Uint8Array,
): void {
  // Outputs may lie over one another: then nobody knows what is there.
  if (overlaps(entries)) {
    markSlots(host, slots);
    return;
  }
  const isExchange = submission.entry.opcode === kvOpcodes.attendExchange.opcode;
  if (isExchange) assert.equal(data.length, submission.entry.cdw10, 'bytes that come back');
  const ofSlots = new Map<number, { offset: number; output: ExpectedOutput }[]>();
  entries.forEach(({ fields, outputBytes: bytes }, i) => {
    const { outKind, outKey, outOffset: offset } = fields;
    const output = outputs[i]!;
    if (outKind === attendOutputs.exchange) checkOutput(output, data.subarray(offset, offset + bytes));
    else if (outKind === attendOutputs.region) checkOutput(output, readRegion(outKey, offset, bytes));
    else ofSlots.set(outKey, [...(ofSlots.get(outKey) ?? []), { offset, output }]);
  });
  for (const [slot, sizeBytes] of slots) {
    const parts = ofSlots.get(slot)!;
    const check = (bytes: Uint8Array, from: number): void => {
      for (const { offset, output } of parts) {
        if (offset >= from && offset + output.bytes <= from + bytes.length) {
          checkOutput(output, bytes.subarray(offset - from, offset - from + output.bytes));
        }
      }
    };
    host.slots.set(slot, { sizeBytes, check });
  }
}

function markSlots(host: RuleContext['host'], slots: ReadonlyMap<number, number>): void {
  for (const [slot, sizeBytes] of slots) host.slots.set(slot, { sizeBytes, check: () => undefined });
}

function overlaps(entries: readonly GoodEntry[]): boolean {
  const places = entries.map(({ fields, outputBytes: bytes }) => ({
    place: `${fields.outKind} ${fields.outKey}`,
    start: fields.outOffset,
    end: fields.outOffset + bytes,
  }));
  return places.some((a, i) =>
    places.slice(i + 1).some((b) => a.place === b.place && a.start < b.end && b.start < a.end),
  );
}

const attendExchange: CommandRule = {
  uses: { cdw10: ALL },
  judge(context) {
    if (context.submission.entry.cdw10 > TRANSFER_BYTES_MAX) context.verdict.fault('invalidField');
    attend.judge(context);
  },
};

const attendResult: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: 1 },
  judge(context) {
    const { submission, verdict, host, readRegion } = context;
    const { entry, lengthBytes, place } = submission;
    const { cdw10: number, cdw11: offset, cdw12 } = entry;
    verdict.touch(`slot ${number}`);
    verdict.isWriter = (cdw12 & 1) === 0;
    if (number >= limits.resultSlotCountMax) {
      verdict.fault('slotLimit');
      return;
    }
    if (host.uncertainSlots.has(number)) verdict.isUnsure = true;
    const slot = host.slots.get(number);
    const keeps = (cdw12 & 1) === 1;
    const forget = (): void => {
      host.uncertainSlots.delete(number);
      host.slots.delete(number);
    };
    verdict.onUncertain = () => {
      forget();
      host.uncertainSlots.add(number);
    };
    verdict.onSuccess = ({ dw0, data }) => {
      if (slot !== undefined) {
        assert.equal(dw0, slot.sizeBytes, 'DW0 is the size of the slot');
        const bytes = place.kind === 'keyed' ? readRegion(place.key, place.offset, lengthBytes) : data;
        assert.equal(bytes.length, lengthBytes, 'bytes of a slot');
        slot.check(bytes, offset);
      }
      if (!keeps) forget();
    };
    verdict.onFailure = (code) => {
      if (code === 'slotEmpty') host.uncertainSlots.delete(number);
    };
    if (slot === undefined) verdict.fault('slotEmpty');
    else if (offset + lengthBytes > slot.sizeBytes) verdict.fault('sglDataLength');
  },
};

export const attendRules = {
  [kvOpcodes.attend.opcode]: attend,
  [kvOpcodes.attendExchange.opcode]: attendExchange,
  [kvOpcodes.attendResult.opcode]: attendResult,
} satisfies Readonly<Record<number, CommandRule>>;
