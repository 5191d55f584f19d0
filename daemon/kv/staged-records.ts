/** Encodes and decodes what this room writes into the staging log. */
import { elementTypeOf, elementTypes } from '../../spec/element-type.ts';
import {
  KV_RECORD_ALL_LAYERS,
  KV_RECORD_VERSION,
  kvClearRecord,
  kvCreateRecord,
  kvForkRecord,
  kvReclaimRecord,
  kvRecordKinds,
  kvTailRecord,
  kvTruncateRecord,
} from '../../spec/media-format/kv-records.ts';
import { DriveError } from '../base/errors.ts';
import type { SequenceRequest, SequenceShape } from './contract.ts';

const version = KV_RECORD_VERSION;

export interface TailRecord {
  readonly kind: 'tail';
  readonly sequenceId: bigint;
  readonly layer: number;
  readonly generation: number;
  readonly firstToken: number;
  readonly tokenCount: number;
  /** Per head tokenCount K rows, then tokenCount V rows. */
  readonly rows: Uint8Array;
}

export type OperationRecord =
  | { readonly kind: 'create'; readonly request: SequenceRequest }
  | {
      readonly kind: 'fork';
      readonly request: Omit<SequenceRequest, 'shape'>;
      readonly parentId: bigint;
      readonly tokenCount: number;
    }
  | {
      readonly kind: 'truncate';
      readonly sequenceId: bigint;
      /** undefined: all. */
      readonly layer: number | undefined;
      readonly length: number;
    }
  | { readonly kind: 'reclaim'; readonly sequenceId: bigint }
  | { readonly kind: 'clear' };

export function encodeCreate(request: SequenceRequest): Uint8Array {
  const { shape } = request;
  return kvCreateRecord.encode({
    version,
    kind: kvRecordKinds.create,
    layerCount: shape.layerCount,
    kvHeadCount: shape.kvHeadCount,
    headDimK: shape.headDimK,
    headDimV: shape.headDimV,
    elementTypeK: elementTypes[shape.elementTypeK].code,
    elementTypeV: elementTypes[shape.elementTypeV].code,
    groupTokens: shape.groupTokens,
    sequenceId: request.id,
    owner: request.owner,
    leaseSeconds: request.leaseSeconds,
    label: request.label,
  });
}

export function encodeFork(request: Omit<SequenceRequest, 'shape'>, parentId: bigint, tokenCount: number): Uint8Array {
  return kvForkRecord.encode({
    version,
    kind: kvRecordKinds.fork,
    tokenCount,
    sequenceId: request.id,
    parentId,
    owner: request.owner,
    leaseSeconds: request.leaseSeconds,
    label: request.label,
  });
}

export function encodeTruncate(sequenceId: bigint, layer: number | undefined, length: number): Uint8Array {
  return kvTruncateRecord.encode({
    version,
    kind: kvRecordKinds.truncate,
    layer: layer ?? KV_RECORD_ALL_LAYERS,
    length,
    sequenceId,
  });
}

export function encodeReclaim(sequenceId: bigint): Uint8Array {
  return kvReclaimRecord.encode({ version, kind: kvRecordKinds.reclaim, sequenceId });
}

export const encodeClear = (): Uint8Array => kvClearRecord.encode({ version, kind: kvRecordKinds.clear });

/** A record's bytes, whole (`record`) and where the rows go (`rows`). */
export function allocateTail(
  tail: Omit<TailRecord, 'kind' | 'rows'>,
  headCount: number,
  rowBytes: readonly [number, number],
): { record: Uint8Array; rows: Uint8Array } {
  const rowsBytes = tail.tokenCount * headCount * (rowBytes[0] + rowBytes[1]);
  const record = new Uint8Array(kvTailRecord.sizeBytes + rowsBytes);
  kvTailRecord.encode(
    {
      version,
      kind: kvRecordKinds.tail,
      layer: tail.layer,
      generation: tail.generation,
      sequenceId: tail.sequenceId,
      firstToken: tail.firstToken,
      tokenCount: tail.tokenCount,
      rowBytesK: rowBytes[0],
      rowBytesV: rowBytes[1],
      kvHeadCount: headCount,
    },
    record,
  );
  return { record, rows: record.subarray(kvTailRecord.sizeBytes) };
}

/** DriveError internal: a record of another format, or damaged. */
export function decodeStaged(payload: Uint8Array): TailRecord | OperationRecord {
  if (payload[0] !== version) throw new DriveError('internal', `KV record version ${payload[0]}, expected ${version}`);
  switch (payload[1]) {
    case kvRecordKinds.tail:
      return decodeTail(payload);
    case kvRecordKinds.create:
      return decodeCreate(payload);
    case kvRecordKinds.fork: {
      const value = kvForkRecord.decode(checked(payload, kvForkRecord.sizeBytes));
      const request = {
        id: value.sequenceId,
        owner: value.owner,
        label: value.label,
        leaseSeconds: value.leaseSeconds,
      };
      return { kind: 'fork', request, parentId: value.parentId, tokenCount: value.tokenCount };
    }
    case kvRecordKinds.truncate: {
      const value = kvTruncateRecord.decode(checked(payload, kvTruncateRecord.sizeBytes));
      const layer = value.layer === KV_RECORD_ALL_LAYERS ? undefined : value.layer;
      return { kind: 'truncate', sequenceId: value.sequenceId, layer, length: value.length };
    }
    case kvRecordKinds.reclaim: {
      const value = kvReclaimRecord.decode(checked(payload, kvReclaimRecord.sizeBytes));
      return { kind: 'reclaim', sequenceId: value.sequenceId };
    }
    case kvRecordKinds.clear:
      checked(payload, kvClearRecord.sizeBytes);
      return { kind: 'clear' };
    default:
      throw new DriveError('internal', `KV record of kind ${payload[1]}`);
  }
}

function checked(payload: Uint8Array, sizeBytes: number): Uint8Array {
  if (payload.byteLength === sizeBytes) return payload;
  throw new DriveError('internal', `KV record of kind ${payload[1]} has ${payload.byteLength} bytes, not ${sizeBytes}`);
}

function decodeTail(payload: Uint8Array): TailRecord {
  if (payload.byteLength < kvTailRecord.sizeBytes) checked(payload, kvTailRecord.sizeBytes);
  const value = kvTailRecord.decode(payload);
  const rowsBytes = value.tokenCount * value.kvHeadCount * (value.rowBytesK + value.rowBytesV);
  checked(payload, kvTailRecord.sizeBytes + rowsBytes);
  return {
    kind: 'tail',
    sequenceId: value.sequenceId,
    layer: value.layer,
    generation: value.generation,
    firstToken: value.firstToken,
    tokenCount: value.tokenCount,
    rows: payload.subarray(kvTailRecord.sizeBytes),
  };
}

function decodeCreate(payload: Uint8Array): OperationRecord {
  const value = kvCreateRecord.decode(checked(payload, kvCreateRecord.sizeBytes));
  const elementTypeK = elementTypeOf(value.elementTypeK);
  const elementTypeV = elementTypeOf(value.elementTypeV);
  if (elementTypeK === undefined || elementTypeV === undefined) {
    throw new DriveError(
      'internal',
      `KV create record with element types ${value.elementTypeK}, ${value.elementTypeV}`,
    );
  }
  const shape: SequenceShape = {
    layerCount: value.layerCount,
    kvHeadCount: value.kvHeadCount,
    headDimK: value.headDimK,
    headDimV: value.headDimV,
    elementTypeK,
    elementTypeV,
    groupTokens: value.groupTokens,
  };
  const { owner, label, leaseSeconds } = value;
  return { kind: 'create', request: { shape, id: value.sequenceId, owner, label, leaseSeconds } };
}
