import { nvmOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, type CommandModules, SUCCESS } from '../contract.ts';

/** Everything that completed before is durable. Namespaces share one checkpoint, so all of them are flushed. */
export const nvmFlush = ({ durability }: CommandModules): CommandDefinition => ({
  row: nvmOpcodes.flush,
  allowedBits: {},
  namespace: 'oneOrAll',
  run: async ({ job }) => {
    job.firmware('other', 0);
    job.flush();
    await durability.flush();
    return SUCCESS;
  },
});
