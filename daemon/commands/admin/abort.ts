import { abortBits, adminOpcodes } from '../../../spec/opcodes.ts';
import { type CommandContext, type CommandDefinition, type CommandResult, SUCCESS } from '../contract.ts';
import { field, maskOf } from '../fields.ts';

const NOT_ABORTED: CommandResult = Object.freeze({ dw0: 1, dw1: 0 });

/**
 * Ends a command that has not started, or an asynchronous event request. A command that runs goes on: DW0 says so. Aborting
 * takes no time, so the limit of concurrent Aborts (ACL) is never met.
 */
export const abort = (): CommandDefinition => ({
  row: adminOpcodes.abort,
  allowedBits: { cdw10: maskOf(abortBits) },
  namespace: 'none',
  run: ({ entry, association }: CommandContext): CommandResult => {
    const queueId = field(entry.cdw10, abortBits.sqid);
    const commandId = field(entry.cdw10, abortBits.cid);
    return association.abort(queueId, commandId) ? SUCCESS : NOT_ABORTED;
  },
});
