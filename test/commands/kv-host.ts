import assert from 'node:assert/strict';
import { elementTypes, type ElementType } from '../../spec/element-type.ts';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import {
  attendEntry,
  attendHeader,
  createDescriptor,
  KV_CACHE_NSID,
  kvTransferBits,
  regionDescriptor,
} from '../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes } from '../../spec/opcodes.ts';
import type { CommandFields, Completion, RawHost } from '../controller/raw-host.ts';

export const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
export type CreateFields = Partial<Parameters<typeof createDescriptor.encode>[0]>;
export type HeaderFields = Partial<Parameters<typeof attendHeader.encode>[0]>;
export type EntryFields = Partial<Parameters<typeof attendEntry.encode>[0]>;

export const shape = { layerCount: 2, kvHeadCount: 2, headDimK: 8, headDimV: 8, elementTypeK: 1, elementTypeV: 1 };
const HEAD_COUNT = 2;
const DIM = 8;

export const low = (id: bigint): number => Number(id & 0xffff_ffffn);
export const high = (id: bigint): number => Number(id >> 32n);
export const idFields = (id: bigint) => ({ nsid: KV_CACHE_NSID, cdw10: low(id), cdw11: high(id) });
export const idOf = ({ dw0, dw1 }: Completion): bigint => (BigInt(dw1) << 32n) | BigInt(dw0);

export const createBytes = (fields: CreateFields = {}): Uint8Array =>
  createDescriptor.encode({ version: 1, ...shape, ...fields });

export async function createSequence(host: RawHost, fields: CreateFields = {}): Promise<bigint> {
  const completion = await host.run({ opcode: kvOpcodes.create.opcode, nsid: KV_CACHE_NSID }, createBytes(fields));
  assert.equal(completion.status, 0);
  return idOf(completion);
}

/** f32 rows of `shape`: [token][head][dim], K then V; every number tells what it is. */
export function rows(position: number, tokenCount: number, layer = 0): Float32Array {
  const values = new Float32Array(2 * tokenCount * HEAD_COUNT * DIM);
  let at = 0;
  for (const part of [0, 1]) {
    for (let token = position; token < position + tokenCount; token++) {
      for (let head = 0; head < HEAD_COUNT; head++) {
        for (let i = 0; i < DIM; i++) values[at++] = Math.sin(token * 7 + head * 3 + i + layer * 11 + part * 5);
      }
    }
  }
  return values;
}

export const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
export const floatsOf = (bytes: Uint8Array): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer);

export const transfer = (fields: {
  layer?: number;
  elementType?: ElementType;
  headMajor?: boolean;
  part?: number;
  fua?: boolean;
}) =>
  (fields.layer ?? 0) |
  ((fields.elementType ? elementTypes[fields.elementType].code : 0) << kvTransferBits.elementType.shift) |
  ((fields.headMajor ? 1 : 0) << kvTransferBits.headMajor.shift) |
  ((fields.part ?? 0) << kvTransferBits.part.shift) |
  ((fields.fua ? 1 : 0) << kvTransferBits.fua.shift);

export const appendFields = (id: bigint, position: number, tokenCount: number, layer = 0): CommandFields => ({
  opcode: kvOpcodes.append.opcode,
  ...idFields(id),
  cdw12: transfer({ layer }),
  cdw13: position,
  cdw14: tokenCount,
});

export const append = (
  host: RawHost,
  id: bigint,
  position: number,
  tokenCount: number,
  layer = 0,
): Promise<Completion> =>
  host.run(appendFields(id, position, tokenCount, layer), bytesOf(rows(position, tokenCount, layer)));

/** One entry's queries: [token][head][dim] for 2 query heads per KV head. */
export function queries(tokenCount: number, headCount: number, seed = 1): Float32Array {
  return Float32Array.from({ length: tokenCount * headCount * DIM }, (_, i) => Math.cos(i * 0.37 + seed));
}

/** Header, entries, then the payloads that entries name by their offset in what follows the entries. */
export function attendBytes(header: HeaderFields, entries: readonly EntryFields[], payload: Uint8Array): Uint8Array {
  const payloadAt = 64 + 96 * entries.length;
  const bytes = new Uint8Array(payloadAt + payload.length);
  attendHeader.encode({ version: 1, entryCount: entries.length, queryType: 1, outputType: 1, ...header }, bytes);
  entries.forEach((entry, index) => attendEntry.encode(entry, bytes, 64 + 96 * index));
  bytes.set(payload, payloadAt);
  return bytes;
}

export const payloadAt = (entryCount: number): number => 64 + 96 * entryCount;

/** Attention in double precision over `rows`, for one query row. */
export function expected(
  query: Float32Array,
  kvHead: number,
  tokens: { start: number; end: number },
  layer = 0,
): { output: number[]; maximum: number; logSumExp: number } {
  const all = rows(0, tokens.end, layer);
  const valuesAt = tokens.end * HEAD_COUNT * DIM;
  const logits: number[] = [];
  for (let token = tokens.start; token < tokens.end; token++) {
    let sum = 0;
    for (let i = 0; i < DIM; i++)
      sum += (query[i] as number) * (all[(token * HEAD_COUNT + kvHead) * DIM + i] as number);
    logits.push(sum / Math.sqrt(DIM));
  }
  const maximum = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - maximum));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const output = Array.from({ length: DIM }, (_, i) =>
    weights.reduce(
      (sum, weight, index) =>
        sum + (weight / total) * (all[valuesAt + ((tokens.start + index) * HEAD_COUNT + kvHead) * DIM + i] as number),
      0,
    ),
  );
  return { output, maximum, logSumExp: maximum + Math.log(total) };
}

export function assertClose(actual: ArrayLike<number>, wanted: ArrayLike<number>, tolerance = 1e-5): void {
  assert.equal(actual.length, wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    const difference = Math.abs((actual[i] as number) - (wanted[i] as number));
    assert.ok(difference <= tolerance, `element ${i}: ${actual[i]} instead of ${wanted[i]}`);
  }
}

export async function createRegion(host: RawHost, sizeBytes: number): Promise<{ key: number; path: string }> {
  const completion = await host.read({ opcode: adminOpcodes.regionCreate.opcode, cdw10: sizeBytes }, 512);
  assert.equal(completion.status, 0);
  return regionDescriptor.decode(completion.data);
}
