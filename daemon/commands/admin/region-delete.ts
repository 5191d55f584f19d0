import { adminOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, SUCCESS } from '../contract.ts';
import { ALL_BITS } from '../fields.ts';

/** CDW10: key. Transfers that run still end; new ones fail. */
export const regionDelete = (): CommandDefinition => ({
  row: adminOpcodes.regionDelete,
  allowedBits: { cdw10: ALL_BITS },
  namespace: 'none',
  run: async ({ entry, association }) => {
    await association.deleteRegion(entry.cdw10);
    return SUCCESS;
  },
});
