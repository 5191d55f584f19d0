import { createDescriptor, DESCRIPTOR_VERSION } from '../../../spec/kv-commands.ts';
import type { StructValue } from '../../../spec/struct.ts';
import { DriveError } from '../../base/errors.ts';
import type { SequenceRequest } from '../../kv/contract.ts';
import type { CommandContext } from '../contract.ts';
import { checkLength, refuse } from '../fields.ts';

export type CreateDescriptor = StructValue<(typeof createDescriptor)['fields']>;

/** Copies the descriptor out of the host's data and checks what needs no knowledge of the sequence. */
export async function readCreateDescriptor({ data, job }: CommandContext): Promise<CreateDescriptor> {
  checkLength(data, createDescriptor.sizeBytes);
  const bytes = new Uint8Array(createDescriptor.sizeBytes);
  await data.read(bytes);
  job.firmware('other', bytes.length);
  job.hostToDevice(bytes.length);
  const descriptor = createDescriptor.decode(bytes);
  if (descriptor.version !== DESCRIPTOR_VERSION) {
    throw new DriveError('unsupportedVersion', `version ${descriptor.version}, supported: ${DESCRIPTOR_VERSION}`);
  }
  const stray = createDescriptor.firstNonZeroReserved(bytes);
  if (stray !== undefined) throw refuse(`reserved byte ${stray} of the create descriptor is not zero`);
  checkLabel(bytes, descriptor.label);
  return descriptor;
}

export const requestOf = (descriptor: CreateDescriptor, owner: bigint): Omit<SequenceRequest, 'shape'> => ({
  id: descriptor.sequenceId,
  label: descriptor.label,
  leaseSeconds: descriptor.leaseSeconds,
  owner,
});

/** Labels are shown to people: UTF-8 without control characters, zero-padded. */
function checkLabel(bytes: Uint8Array, label: string): void {
  const { offset, width } = createDescriptor.fields.label;
  const raw = bytes.subarray(offset, offset + width);
  const encoded = new TextEncoder().encode(label);
  const isSame =
    encoded.every((byte, i) => byte === raw[i]) && raw.subarray(encoded.length).every((byte) => byte === 0);
  if (!isSame) throw refuse('label is not UTF-8 padded with zeros');
  if (/\p{Cc}/u.test(label)) throw refuse('label has control characters');
}
