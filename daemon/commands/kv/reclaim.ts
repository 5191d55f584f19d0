import { kvOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, type CommandModules, SUCCESS } from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, sequenceIdOf } from '../fields.ts';

/** CDW10-11 sequence. */
export const kvReclaim = ({ durability }: CommandModules): CommandDefinition => ({
  row: kvOpcodes.reclaim,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS },
  namespace: 'one',
  run: async (context) => {
    context.job.firmware('other', 0);
    await context.association.kv.reclaim(sequenceIdOf(context.entry));
    await settleDurability(context, durability);
    return SUCCESS;
  },
});
