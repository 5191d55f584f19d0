/** What a submission entry says, read with the tables of spec/ only. */
import type { ErrorCode } from '../../../spec/errors.ts';
import { dataDirections, directionOf } from '../../../spec/opcodes.ts';
import { SGL_FLAGS, sglTypes } from '../../../spec/sgl.ts';
import { submissionEntry } from '../../../spec/submission-entry.ts';

const at = submissionEntry.offsetOf;
const SGL_AT = at.sgl;
export const TRANSFER_BYTES_MAX = 1 << 20;

export const dwords = ['cdw2', 'cdw3', 'cdw10', 'cdw11', 'cdw12', 'cdw13', 'cdw14', 'cdw15'] as const;
export type Dwords = Readonly<Record<(typeof dwords)[number], number>>;

export interface Entry extends Dwords {
  readonly opcode: number;
  readonly flags: number;
  readonly commandId: number;
  readonly namespaceId: number;
}

export type DataPlace =
  | { readonly kind: 'none' }
  | { readonly kind: 'inCapsule'; readonly offset: number }
  | { readonly kind: 'transport' }
  | { readonly kind: 'keyed'; readonly key: number; readonly offset: number };

export interface Submission {
  readonly entry: Entry;
  readonly place: DataPlace;
  readonly lengthBytes: number;
  /** What is wrong with it that can be seen without knowing the command. */
  readonly faults: readonly ErrorCode[];
}

export const readEntry = (bytes: Uint8Array): Entry => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, submissionEntry.sizeBytes);
  const word = (offset: number): number => view.getUint32(offset, true);
  return {
    opcode: bytes[at.opcode]!,
    flags: bytes[at.flags]!,
    commandId: view.getUint16(at.commandId, true),
    namespaceId: word(at.namespaceId),
    cdw2: word(at.cdw2),
    cdw3: word(at.cdw3),
    cdw10: word(at.cdw10),
    cdw11: word(at.cdw11),
    cdw12: word(at.cdw12),
    cdw13: word(at.cdw13),
    cdw14: word(at.cdw14),
    cdw15: word(at.cdw15),
  };
};

export function readSubmission(bytes: Uint8Array, capsuleBytes: number): Submission {
  const entry = readEntry(bytes);
  const faults: ErrorCode[] = [];
  if (entry.flags !== SGL_FLAGS) faults.push('invalidField');
  if (bytes.subarray(at.metadataPointer, at.metadataPointer + 8).some((byte) => byte !== 0))
    faults.push('invalidField');
  const { place, lengthBytes } = readPlace(bytes, faults);
  const direction = directionOf(entry.opcode);
  if (place.kind === 'inCapsule') {
    if (direction === dataDirections.controllerToHost) faults.push('sglType');
    if (place.offset > capsuleBytes) faults.push('sglOffset');
    if (place.offset + lengthBytes > capsuleBytes) faults.push('sglDataLength');
  } else if (capsuleBytes > 0) faults.push('sglInvalid');
  if (place.kind === 'transport' && lengthBytes > TRANSFER_BYTES_MAX) faults.push('invalidField');
  if (place.kind !== 'none' && direction === dataDirections.none) faults.push('sglDataLength');
  return { entry, place, lengthBytes, faults };
}

function readPlace(bytes: Uint8Array, faults: ErrorCode[]): { place: DataPlace; lengthBytes: number } {
  const none = { place: { kind: 'none' }, lengthBytes: 0 } as const;
  const view = new DataView(bytes.buffer, bytes.byteOffset + SGL_AT, 16);
  const offset = view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true);
  const type = bytes[SGL_AT + 15];
  if (type === sglTypes.keyed) {
    const lengthBytes = view.getUint32(8, true) & 0xff_ffff;
    const key = view.getUint32(11, true);
    if (lengthBytes === 0) return none;
    if (key === 0) faults.push('sglDataBlock');
    return { place: { kind: 'keyed', key, offset }, lengthBytes };
  }
  if (type === sglTypes.inCapsule || type === sglTypes.transport) {
    const lengthBytes = view.getUint32(8, true);
    if ((view.getUint32(12, true) & 0xff_ffff) !== 0) faults.push('sglInvalid');
    if (lengthBytes === 0) return none;
    return { place: type === sglTypes.transport ? { kind: 'transport' } : { kind: 'inCapsule', offset }, lengthBytes };
  }
  if (type !== 0 || bytes.subarray(SGL_AT, SGL_AT + 15).some((byte) => byte !== 0)) faults.push('sglType');
  return none;
}
