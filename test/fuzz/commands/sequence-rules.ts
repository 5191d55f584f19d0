/** Rules of sequences that several commands share. */
import { type ElementType, isQuantised } from '../../../spec/element-type.ts';
import type { RuleContext } from './rules.ts';
import {
  converted,
  dimOfPart,
  type LayerModel,
  numbersOf,
  rowBytesOf,
  type SequenceModel,
  type Shape,
  tokenMajor,
  typeOfPart,
} from './sequence-model.ts';
import type { Dwords } from './submission.ts';

export const idOf = ({ cdw10, cdw11 }: Dwords): bigint => (BigInt(cdw11) << 32n) | BigInt(cdw10);

/** The sequence of an id, as the host may name it; undefined: there is none, which is a fault of the command. */
export function findSequence({ drive, host, verdict }: RuleContext, id: bigint): SequenceModel | undefined {
  verdict.touch(`sequence ${id}`);
  const sequence = drive.sequences.get(id);
  if (drive.uncertainSequences.has(id)) verdict.isUnsure = true;
  if (sequence !== undefined && !(host.isConfined && sequence.owner !== host.host)) {
    sequence.namedAtMs = drive.nowMs;
    return sequence;
  }
  // A command that runs may be making it.
  verdict.touch('chosen id');
  // To a host that sees its own only, whose lease it was may matter.
  if (drive.expired.has(id) || drive.perhapsExpired.has(id)) verdict.fault('leaseExpired');
  if (!drive.expired.has(id) || host.isConfined) verdict.fault('unknownSequence');
  return undefined;
}

export interface AppendRequest {
  readonly layer: LayerModel;
  readonly position: number;
  readonly tokenCount: number;
  /** [token][head] of K and of V, as the sequence stores them. */
  readonly rows: readonly [Uint8Array, Uint8Array];
  /** `hasOddNumbers` of them. */
  readonly isOdd: boolean;
}

/** Whether rows that were converted to a type of floats hold NaNs. */
export function hasOddNumbers(
  rows: readonly [Uint8Array, Uint8Array],
  shape: Shape,
  tokenCount: number,
  type: ElementType | undefined,
): boolean {
  if (type === undefined) return false;
  return ([0, 1] as const).some((part) => {
    const stored = typeOfPart(shape, part);
    if (stored === type || isQuantised(stored)) return false;
    const numbers = numbersOf(rows[part], stored, tokenCount * shape.kvHeadCount, dimOfPart(shape, part));
    return numbers.some(Number.isNaN);
  });
}

/** K rows, then V rows of a transfer, as the sequence stores them. */
export function splitRows(
  data: Uint8Array,
  shape: Shape,
  tokenCount: number,
  type: ElementType | undefined,
  isHeadMajor: boolean,
): [Uint8Array, Uint8Array] {
  let at = 0;
  const rowCount = tokenCount * shape.kvHeadCount;
  return ([0, 1] as const).map((part) => {
    const stored = typeOfPart(shape, part);
    const from = type ?? stored;
    const bytes = rowCount * rowBytesOf(shape, part, from);
    const rows = converted(data.subarray(at, at + bytes), from, stored, rowCount, dimOfPart(shape, part));
    at += bytes;
    return tokenMajor(rows, tokenCount, shape.kvHeadCount, rowBytesOf(shape, part), isHeadMajor);
  }) as [Uint8Array, Uint8Array];
}

/** The first position whose token is there already and differs; undefined: none. */
export function checkAppend({ layer, position, tokenCount, rows }: AppendRequest): number | undefined {
  const overlap = Math.min(tokenCount, layer.length - position);
  for (let token = 0; token < overlap; token++) {
    for (const part of [0, 1] as const) {
      const bytes = layer.tokenBytes[part];
      const given = rows[part].subarray(token * bytes, (token + 1) * bytes);
      if (Buffer.compare(given, layer.rows(part, position + token, 1)) !== 0) return position + token;
    }
  }
  return undefined;
}

/** Whether what it repeats may be equal or not. */
export const isOddRepeat = ({ layer, position, isOdd }: AppendRequest): boolean =>
  position < layer.length && (isOdd || layer.hasOddNumbers);

/** Adds what is not there yet. */
export function appendTo({ layer, position, tokenCount, rows, isOdd }: AppendRequest): void {
  layer.hasOddNumbers ||= isOdd;
  const fresh = position + tokenCount - layer.length;
  if (fresh > 0) layer.add(rows, tokenCount - fresh, fresh);
}
