import { kvOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import type { CommandContext, CommandDefinition, CommandResult } from '../contract.ts';
import { ALL_BITS } from '../fields.ts';

const KEEP = 1;

/**
 * CDW10 slot, CDW11 byte offset, CDW12 bit 0: keep the slot. Returns the slot's bytes from there on, as many as the
 * data is long, and frees the slot. DW0: size of the slot; without data and with `keep`, that alone.
 */
export const attendResult = (): CommandDefinition => ({
  row: kvOpcodes.attendResult,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: KEEP },
  namespace: 'one',
  run,
});

async function run({ entry, data, association, job }: CommandContext): Promise<CommandResult> {
  const { cdw10: slot, cdw11: offset } = entry;
  const keep = (entry.cdw12 & KEEP) !== 0;
  const { slots } = association;
  const bytes = slots.read(slot);
  if (offset + data.lengthBytes > bytes.length) {
    throw new DriveError(
      'sglDataLength',
      `bytes ${offset}+${data.lengthBytes} of slot ${slot}, it has ${bytes.length}`,
    );
  }
  // Freed before the send is awaited: of two commands that read the same slot at once, one gets it.
  if (!keep) slots.free(slot);
  job.firmware('other', data.lengthBytes);
  job.deviceToHost(data.lengthBytes);
  await data.write(bytes.subarray(offset, offset + data.lengthBytes));
  return { dw0: bytes.length, dw1: 0 };
}
