import { kvOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, type CommandModules, SUCCESS } from '../contract.ts';
import { ALL_BITS, sequenceIdOf } from '../fields.ts';

/** CDW10-11 sequence. */
export const kvReclaim = ({ kv }: CommandModules): CommandDefinition => ({
  row: kvOpcodes.reclaim,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS },
  namespace: 'one',
  run: async ({ entry }) => {
    await kv.reclaim(sequenceIdOf(entry));
    return SUCCESS;
  },
});
