/** This room's records in the metadata store: the room's state, one record per sequence, segments of block tables. */
import { elementTypes, type ElementType } from '../../spec/element-type.ts';
import { DriveError } from '../base/errors.ts';
import type { MetaKey } from '../meta/contract.ts';
import type { SequenceShape } from './contract.ts';
import type { Sequence } from './sequence.ts';

const VERSION = 1;

/** Ids in keys: 16 hexadecimal digits, so that they sort by number. */
export const idText = (id: bigint): string => id.toString(16).padStart(16, '0');
export const idOfText = (text: string): bigint => BigInt(`0x${text}`);

export const stateKey: MetaKey = ['state'];
export const sequenceKey = (id: bigint): MetaKey => [idText(id)];
export const segmentKey = (id: bigint, layer: number, segment: number): MetaKey => [idText(id), layer, segment];

export interface StateRecord {
  /** The operation number that the transaction stands for. */
  readonly operation: number;
  /** Next id that the drive would choose after a start: ids below it may have been given out. */
  readonly nextId: bigint;
}

export interface SequenceRecord {
  readonly id: bigint;
  readonly parentId: bigint;
  readonly owner: bigint;
  readonly label: string;
  readonly leaseSeconds: number;
  readonly shape: SequenceShape;
  /** Per layer: tokens, staged ones included. */
  readonly lengths: readonly number[];
  readonly generations: readonly number[];
}

export const encodeState = (state: StateRecord): unknown => ({
  version: VERSION,
  operation: state.operation,
  nextId: idText(state.nextId),
});

export function decodeState(value: unknown): StateRecord {
  const record = fieldsOf(value, 'KV state');
  return { operation: numberOf(record, 'operation'), nextId: idOfText(textOf(record, 'nextId')) };
}

export const encodeSequence = (sequence: Sequence): unknown => ({
  version: VERSION,
  parentId: idText(sequence.parentId),
  owner: idText(sequence.owner),
  label: sequence.label,
  leaseSeconds: sequence.leaseSeconds,
  shape: { ...sequence.shape },
  lengths: sequence.layers.map((layer) => layer.length),
  generations: sequence.layers.map((layer) => layer.generation),
});

export function decodeSequence(key: MetaKey, value: unknown): SequenceRecord {
  const [id] = key;
  if (typeof id !== 'string') throw unreadable('KV sequence', `key ${JSON.stringify(key)}`);
  const record = fieldsOf(value, 'KV sequence');
  const shape = fieldsOf({ version: VERSION, ...(record['shape'] as object) }, 'KV sequence shape');
  const sequence = {
    id: idOfText(id),
    parentId: idOfText(textOf(record, 'parentId')),
    owner: idOfText(textOf(record, 'owner')),
    label: textOf(record, 'label'),
    leaseSeconds: numberOf(record, 'leaseSeconds'),
    shape: {
      layerCount: numberOf(shape, 'layerCount'),
      kvHeadCount: numberOf(shape, 'kvHeadCount'),
      headDimK: numberOf(shape, 'headDimK'),
      headDimV: numberOf(shape, 'headDimV'),
      elementTypeK: elementTypeField(shape, 'elementTypeK'),
      elementTypeV: elementTypeField(shape, 'elementTypeV'),
      groupTokens: numberOf(shape, 'groupTokens'),
    },
    lengths: numbersOf(record, 'lengths'),
    generations: numbersOf(record, 'generations'),
  };
  const { layerCount } = sequence.shape;
  if (sequence.lengths.length !== layerCount || sequence.generations.length !== layerCount) {
    throw unreadable('KV sequence', `${sequence.lengths.length} lengths for ${layerCount} layers`);
  }
  return sequence;
}

type Record = Readonly<{ [field: string]: unknown }>;

const unreadable = (what: string, detail: string): DriveError =>
  new DriveError('internal', `metadata record of ${what}: ${detail}`);

function fieldsOf(value: unknown, what: string): Record {
  if (typeof value !== 'object' || value === null) throw unreadable(what, `is ${typeof value}`);
  const record = value as Record;
  if (record['version'] !== VERSION)
    throw unreadable(what, `version ${String(record['version'])}, expected ${VERSION}`);
  return record;
}

function numberOf(record: Record, field: string): number {
  const value = record[field];
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value;
  throw unreadable(field, `is ${String(value)}`);
}

function textOf(record: Record, field: string): string {
  const value = record[field];
  if (typeof value === 'string') return value;
  throw unreadable(field, `is ${typeof value}`);
}

function numbersOf(record: Record, field: string): number[] {
  const value = record[field];
  if (Array.isArray(value) && value.every((item) => typeof item === 'number')) return value;
  throw unreadable(field, 'is no list of numbers');
}

function elementTypeField(record: Record, field: string): ElementType {
  const value = textOf(record, field);
  if (Object.hasOwn(elementTypes, value)) return value as ElementType;
  throw unreadable(field, `is ${value}`);
}
