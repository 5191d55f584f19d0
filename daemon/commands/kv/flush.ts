import { kvOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, type CommandModules, SUCCESS } from '../contract.ts';

/** Everything that completed before is durable. */
export const kvFlush = ({ durability }: CommandModules): CommandDefinition => ({
  row: kvOpcodes.flush,
  allowedBits: {},
  namespace: 'oneOrAll',
  run: async ({ job }) => {
    job.firmware('other', 0);
    job.flush();
    await durability.flush();
    return SUCCESS;
  },
});
