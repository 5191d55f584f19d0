/** Checks and readings that several commands share. */
import type { BitField, BitFields } from '../../spec/bits.ts';
import {
  type ElementType,
  elementTypeNames,
  elementTypeOf,
  type FloatType,
  floatTypeNames,
  isQuantised,
} from '../../spec/element-type.ts';
import { DriveError } from '../base/errors.ts';
import type { CommandData, CommandResult, SubmissionEntry } from './contract.ts';

export const ALL_BITS = 0xffff_ffff;

/** The bits that the fields of a table cover. */
export function maskOf(table: BitFields): number {
  let mask = 0;
  for (const field of Object.values(table)) mask |= fieldMask(field) << field.shift;
  return mask >>> 0;
}

const fieldMask = ({ width }: BitField): number => 2 ** width - 1;

export const field = (dword: number, bits: BitField): number => (dword >>> bits.shift) & fieldMask(bits);

/** CDW10-11 of every KV command that names a sequence. */
export const sequenceIdOf = ({ cdw10, cdw11 }: SubmissionEntry): bigint => (BigInt(cdw11) << 32n) | BigInt(cdw10);

export const idResult = (id: bigint): CommandResult => ({ dw0: Number(id & 0xffff_ffffn), dw1: Number(id >> 32n) });

/** A code of `0` is undefined, "as stored". DriveError invalidField. */
export function elementTypeIn(code: number, what: string): ElementType | undefined {
  if (code === 0) return undefined;
  return requiredElementType(code, what);
}

export function requiredElementType(code: number, what: string): ElementType {
  const type = elementTypeOf(code);
  if (type === undefined)
    throw new DriveError('invalidField', `${what} ${code}, allowed: codes of ${elementTypeNames.join(', ')}`);
  return type;
}

/** Of queries and outputs, which are not quantised. */
export function requiredFloatType(code: number, what: string): FloatType {
  const type = elementTypeOf(code);
  if (type === undefined || isQuantised(type))
    throw new DriveError('invalidField', `${what} ${code}, allowed: codes of ${floatTypeNames.join(', ')}`);
  return type;
}

export function checkLength(data: CommandData, expectedBytes: number): void {
  if (data.lengthBytes !== expectedBytes) {
    throw new DriveError('sglDataLength', `${data.lengthBytes} bytes of data, the command moves ${expectedBytes}`);
  }
}

export const refuse = (detail: string): DriveError => new DriveError('invalidField', detail);
