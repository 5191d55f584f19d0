/** The commands of both namespaces over plain maps, with attention in float64: what a fake drive answers. */
import { bf16ToF32, f16ToF32, fromF32 } from '../../client/convert.ts';
import {
  ALL_LAYERS,
  ALL_TOKENS,
  attendEntry,
  attendFlags,
  attendHeader,
  attendOutputs,
  BLOCK_NSID,
  createDescriptor,
  elementSizeBytes,
  elementTypeOf,
  type FloatType,
  isQuantised,
  kvOpcodes,
  kvTransferBits,
  nvmOpcodes,
  querySelectors,
  sequenceInfo,
  type StructValue,
  unpackBits,
} from '../../spec/index.ts';
import type { FakeCommand, FakeDrive } from './fake-drive.ts';

type Shape = StructValue<(typeof createDescriptor)['fields']>;

interface FakeSequence {
  readonly shape: Shape;
  /** [layer][token] rows of all heads. */
  readonly keys: Float32Array[][];
  readonly values: Float32Array[][];
}

/** This fake keeps floats only. */
function typeOf(code: number): FloatType {
  const type = elementTypeOf(code) ?? 'f32';
  if (isQuantised(type)) throw new TypeError(`the fake stores no ${type}`);
  return type;
}

function toF32(bytes: Uint8Array, type: FloatType): Float32Array {
  const buffer = bytes.slice().buffer;
  if (type === 'f32') return new Float32Array(buffer);
  return type === 'f16' ? f16ToF32(new Uint16Array(buffer)) : bf16ToF32(new Uint16Array(buffer));
}

const bytesOf = (array: Float32Array | Uint16Array): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

export class FakeKv {
  readonly sequences = new Map<bigint, FakeSequence>();
  readonly blocks = new Map<number, Uint8Array>();
  readonly slots = new Map<number, Uint8Array>();
  flushCount = 0;
  readonly #drive: FakeDrive;

  constructor(drive: FakeDrive) {
    this.#drive = drive;
    drive.io = (command) => (command.entry.namespaceId === BLOCK_NSID ? this.#block(command) : this.#kv(command));
  }

  async #block(command: FakeCommand): Promise<void> {
    const { opcode, cdw10, cdw11, cdw12 } = command.entry;
    const lba = cdw11 * 2 ** 32 + cdw10;
    const count = (cdw12 & 0xffff) + 1;
    if (opcode === nvmOpcodes.write.opcode) {
      const data = await command.take();
      for (let i = 0; i < count; i++) this.blocks.set(lba + i, data.slice(i * 4096, (i + 1) * 4096));
      command.complete();
    } else if (opcode === nvmOpcodes.read.opcode) {
      const data = new Uint8Array(count * 4096);
      for (let i = 0; i < count; i++) data.set(this.blocks.get(lba + i) ?? new Uint8Array(4096), i * 4096);
      command.give(data);
    } else if (opcode === nvmOpcodes.writeZeroes.opcode) {
      for (let i = 0; i < count; i++) this.blocks.delete(lba + i);
      command.complete();
    } else if (opcode === nvmOpcodes.datasetManagement.opcode) {
      const ranges = new DataView((await command.take()).buffer);
      for (let i = 0; i <= cdw10; i++) {
        const first = Number(ranges.getBigUint64(16 * i + 8, true));
        for (let j = 0; j < ranges.getUint32(16 * i + 4, true); j++) this.blocks.delete(first + j);
      }
      command.complete();
    } else {
      this.flushCount++;
      command.complete();
    }
  }

  async #kv(command: FakeCommand): Promise<void> {
    const { opcode, cdw10, cdw11, cdw12, cdw13 } = command.entry;
    const id = (BigInt(cdw11) << 32n) | BigInt(cdw10);
    const sequence = this.sequences.get(id);
    const { create, append, fork, truncate, reclaim, query, readBack, attend, attendResult, attendExchange, flush } =
      kvOpcodes;
    if (opcode === create.opcode) return this.#create(command);
    if (opcode === flush.opcode) {
      this.flushCount++;
      return command.complete();
    }
    if (opcode === attend.opcode || opcode === attendExchange.opcode) return this.#attend(command);
    if (opcode === attendResult.opcode) return this.#result(command);
    if (opcode === query.opcode && cdw12 === querySelectors.list) return this.#list(command, id);
    if (sequence === undefined) return command.fail('unknownSequence');
    if (opcode === append.opcode) return this.#append(command, sequence);
    if (opcode === query.opcode) return this.#info(command, id, sequence);
    if (opcode === readBack.opcode) return this.#readBack(command, sequence);
    if (opcode === reclaim.opcode) {
      this.sequences.delete(id);
      return command.complete();
    }
    if (opcode === truncate.opcode) {
      sequence.keys.forEach((rows, layer) => {
        if (cdw12 !== ALL_LAYERS && cdw12 !== layer) return;
        rows.length = Math.min(rows.length, cdw13);
        (sequence.values[layer] as Float32Array[]).length = rows.length;
      });
      return command.complete();
    }
    if (opcode === fork.opcode) {
      await command.take();
      const newId = BigInt(this.sequences.size + 1000);
      const cut = (rows: Float32Array[][]) => rows.map((layer) => layer.slice(0, cdw12));
      this.sequences.set(newId, { shape: sequence.shape, keys: cut(sequence.keys), values: cut(sequence.values) });
      return command.complete(Number(newId));
    }
    command.fail('invalidOpcode');
  }

  async #create(command: FakeCommand): Promise<void> {
    const shape = createDescriptor.decode(await command.take());
    const id = shape.sequenceId === 0n ? 0x1_0000_0001n + BigInt(this.sequences.size) : shape.sequenceId;
    if (this.sequences.has(id)) return command.fail('sequenceExists');
    const rows = (): Float32Array[][] => Array.from({ length: shape.layerCount }, () => []);
    this.sequences.set(id, { shape: { ...shape, groupTokens: shape.groupTokens || 64 }, keys: rows(), values: rows() });
    command.complete(Number(id & 0xffff_ffffn), Number(id >> 32n));
  }

  #list(command: FakeCommand, after: bigint): void {
    const ids = [...this.sequences.keys()].filter((id) => id > after).sort((a, b) => (a < b ? -1 : 1));
    const room = 16_384 / 8;
    const data = new BigUint64Array(Math.min(room, ids.length + 1));
    ids.slice(0, data.length).forEach((id, index) => (data[index] = id));
    command.give(new Uint8Array(data.buffer));
  }

  #info(command: FakeCommand, id: bigint, { shape, keys }: FakeSequence): void {
    const { layerCount, kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV, groupTokens, label } = shape;
    const data = new Uint8Array(sequenceInfo.sizeBytes + 4 * layerCount);
    sequenceInfo.encode(
      {
        version: 1,
        layerCount,
        kvHeadCount,
        headDimK,
        headDimV,
        elementTypeK,
        elementTypeV,
        groupTokens,
        sequenceId: id,
        label,
      },
      data,
    );
    const view = new DataView(data.buffer, sequenceInfo.sizeBytes);
    keys.forEach((rows, layer) => view.setUint32(4 * layer, rows.length, true));
    command.give(data);
  }

  async #append(command: FakeCommand, sequence: FakeSequence): Promise<void> {
    const { layer, elementType, headMajor } = unpackBits(kvTransferBits, command.entry.cdw12);
    const { cdw13: position, cdw14: count } = command.entry;
    const rows = sequence.keys[layer];
    if (rows === undefined) return command.fail('layerRange');
    // First: appends take effect in the order in which their data is there.
    const data = await command.take();
    if (position > rows.length) return command.fail('appendGap', rows.length);
    this.#store(sequence, layer, position, count, data, elementType, headMajor === 1);
    command.complete(rows.length);
  }

  #store(
    { shape, keys, values }: FakeSequence,
    layer: number,
    position: number,
    count: number,
    data: Uint8Array,
    elementType: number,
    headMajor: boolean,
  ): void {
    const { kvHeadCount, headDimK, headDimV } = shape;
    const typeK = typeOf(elementType || shape.elementTypeK);
    const typeV = typeOf(elementType || shape.elementTypeV);
    const split = count * kvHeadCount * headDimK * elementSizeBytes(typeK);
    const put = (rows: Float32Array[], flat: Float32Array, dimension: number, stored: FloatType): void => {
      for (let token = 0; token < count; token++) {
        const row = new Float32Array(kvHeadCount * dimension);
        for (let head = 0; head < kvHeadCount; head++) {
          const at = (headMajor ? head * count + token : token * kvHeadCount + head) * dimension;
          row.set(flat.subarray(at, at + dimension), head * dimension);
        }
        rows[position + token] = toF32(bytesOf(fromF32(row, stored)), stored);
      }
    };
    put(keys[layer] ?? [], toF32(data.subarray(0, split), typeK), headDimK, typeOf(shape.elementTypeK));
    put(values[layer] ?? [], toF32(data.subarray(split), typeV), headDimV, typeOf(shape.elementTypeV));
  }

  #readBack(command: FakeCommand, { shape, keys, values }: FakeSequence): void {
    const { layer, elementType, headMajor, part } = unpackBits(kvTransferBits, command.entry.cdw12);
    const { cdw13: first, cdw14: count, cdw15 } = command.entry;
    const firstHead = cdw15 & 0xffff;
    const headCount = cdw15 >>> 16 || shape.kvHeadCount;
    const rows = (part === 1 ? keys : values)[layer] ?? [];
    const dimension = part === 1 ? shape.headDimK : shape.headDimV;
    if (first + count > rows.length) return command.fail('tokenRange', rows.length);
    const flat = new Float32Array(count * headCount * dimension);
    for (let token = 0; token < count; token++) {
      for (let head = 0; head < headCount; head++) {
        const row = (rows[first + token] as Float32Array).subarray((firstHead + head) * dimension);
        const at = (headMajor === 1 ? head * count + token : token * headCount + head) * dimension;
        flat.set(row.subarray(0, dimension), at);
      }
    }
    const stored = part === 1 ? shape.elementTypeK : shape.elementTypeV;
    command.give(bytesOf(fromF32(flat, typeOf(elementType || stored))));
  }

  #result(command: FakeCommand): void {
    const { cdw10: slot, cdw11: offset, cdw12: keep } = command.entry;
    const bytes = this.slots.get(slot);
    if (bytes === undefined) return command.fail('slotEmpty');
    const sgl = command.entry.sgl;
    const length = new DataView(sgl.buffer, sgl.byteOffset).getUint32(8, true) & 0xff_ffff;
    if ((keep & 1) === 0) this.slots.delete(slot);
    if (offset + length > bytes.length) return command.fail('sglDataLength');
    command.give(bytes.slice(offset, offset + length));
  }

  async #attend(command: FakeCommand): Promise<void> {
    const data = await command.take();
    const header = attendHeader.decode(data);
    const isExchange = command.entry.opcode === kvOpcodes.attendExchange.opcode;
    const exchange = new Uint8Array(isExchange ? command.entry.cdw10 : 0);
    const entries = Array.from({ length: header.entryCount }, (_, index) =>
      attendEntry.decode(data, attendHeader.sizeBytes + index * attendEntry.sizeBytes),
    );
    const isTaken = ({ outKind, outKey }: AttendEntry) => outKind === attendOutputs.slot && this.slots.has(outKey);
    if (entries.some(isTaken)) return command.fail('slotInUse');
    for (const [index, entry] of entries.entries()) {
      const sequence = this.sequences.get(entry.sequenceId);
      if (sequence === undefined) return command.fail('unknownSequence', index);
      if (entry.appendTokenCount > 0) {
        const bytes = data.subarray(entry.appendOffset);
        this.#store(
          sequence,
          entry.layer,
          entry.appendPosition,
          entry.appendTokenCount,
          bytes,
          header.appendType,
          false,
        );
      }
      const output = attendFloat64(sequence, header, entry, data.subarray(entry.queryOffset));
      if (entry.outKind === attendOutputs.exchange) exchange.set(output, entry.outOffset);
      else if (entry.outKind === attendOutputs.region) this.#drive.writeRegion(entry.outKey, entry.outOffset, output);
      else this.#fillSlot(entry.outKey, entry.outOffset, output);
    }
    if (isExchange) command.give(exchange);
    else command.complete();
  }

  #fillSlot(slot: number, offset: number, output: Uint8Array): void {
    const grown = new Uint8Array(Math.max(this.slots.get(slot)?.length ?? 0, offset + output.length));
    grown.set(this.slots.get(slot) ?? []);
    grown.set(output, offset);
    this.slots.set(slot, grown);
  }
}

type Header = StructValue<(typeof attendHeader)['fields']>;
type AttendEntry = StructValue<(typeof attendEntry)['fields']>;

function attendFloat64(
  { shape, keys, values }: FakeSequence,
  header: Header,
  entry: AttendEntry,
  bytes: Uint8Array,
): Uint8Array {
  const { headDimK, headDimV, kvHeadCount } = shape;
  const heads = entry.queryHeadCount || entry.queryHeadsPerKvHead * kvHeadCount;
  const rowCount = heads * entry.queryTokenCount;
  const queryType = typeOf(header.queryType);
  const queries = toF32(bytes.slice(0, rowCount * headDimK * elementSizeBytes(queryType)), queryType);
  const keyRows = keys[entry.layer] ?? [];
  const valueRows = values[entry.layer] ?? [];
  const end = entry.tokenEnd === ALL_TOKENS ? keyRows.length : entry.tokenEnd;
  const scale = header.scale || 1 / Math.sqrt(headDimK);
  const output = new Float32Array(rowCount * headDimV);
  const statistics = new Float32Array(2 * rowCount);
  for (let row = 0; row < rowCount; row++) {
    const position = entry.queryPosition + Math.floor(row / heads);
    const kvHead = Math.floor((entry.firstQueryHead + (row % heads)) / entry.queryHeadsPerKvHead);
    const seen: number[] = [];
    for (let token = 0; token < end; token++) {
      if ((header.flags & attendFlags.causal) !== 0 && token > position) continue;
      const window =
        header.slidingWindow > 0 ? Math.max(entry.tokenStart, position - header.slidingWindow + 1) : entry.tokenStart;
      if (token >= window || token < header.sinkCount) seen.push(token);
    }
    const logits = seen.map((token) => {
      let dot = 0;
      for (let i = 0; i < headDimK; i++) {
        dot +=
          (queries[row * headDimK + i] as number) * ((keyRows[token] as Float32Array)[kvHead * headDimK + i] as number);
      }
      const logit = scale * dot;
      return header.softCap > 0 ? header.softCap * Math.tanh(logit / header.softCap) : logit;
    });
    const maximum = Math.max(Number.NEGATIVE_INFINITY, ...logits);
    const weights = logits.map((logit) => Math.exp(logit - maximum));
    const sum = weights.reduce((a, b) => a + b, 0);
    for (let i = 0; i < headDimV; i++) {
      let weighted = 0;
      seen.forEach((token, index) => {
        weighted += (weights[index] as number) * ((valueRows[token] as Float32Array)[kvHead * headDimV + i] as number);
      });
      output[row * headDimV + i] = sum === 0 ? 0 : weighted / sum;
    }
    statistics[2 * row] = maximum;
    statistics[2 * row + 1] = sum === 0 ? Number.NEGATIVE_INFINITY : maximum + Math.log(sum);
  }
  const converted = bytesOf(fromF32(output, typeOf(header.outputType)));
  if ((header.flags & attendFlags.statistics) === 0) return converted;
  const whole = new Uint8Array(Math.ceil(converted.length / 4) * 4 + statistics.byteLength);
  whole.set(converted);
  whole.set(bytesOf(statistics), whole.length - statistics.byteLength);
  return whole;
}
