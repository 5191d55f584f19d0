import { ALL_LAYERS } from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, type CommandModules, SUCCESS } from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, sequenceIdOf } from '../fields.ts';

/** CDW10-11 sequence, CDW12 layer or ALL_LAYERS, CDW13 new length. */
export const kvTruncate = ({ durability }: CommandModules): CommandDefinition => ({
  row: kvOpcodes.truncate,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: 0xffff, cdw13: ALL_BITS },
  namespace: 'one',
  run: async (context) => {
    const { entry, job, association } = context;
    job.firmware('other', 0);
    await association.kv.truncate(
      sequenceIdOf(entry),
      entry.cdw12 === ALL_LAYERS ? undefined : entry.cdw12,
      entry.cdw13,
      job,
    );
    await settleDurability(context, durability);
    return SUCCESS;
  },
});
