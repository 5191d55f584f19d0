import { nvmOpcodes } from '../../../spec/opcodes.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandResult,
  SUCCESS,
} from '../contract.ts';
import { ALL_BITS } from '../fields.ts';
import { settleDurability } from '../durable-completion.ts';
import { DEALLOCATE, FUA, HINTS_CDW13, lbaRangeOf, TRANSFER_CDW12 } from './lba-range.ts';

/**
 * CDW10-11 first LBA, CDW12 blocks minus 1, FUA and DEAC. Deallocated blocks read as zeros, so with or without DEAC
 * nothing is programmed.
 */
export const writeZeroes = (modules: CommandModules): CommandDefinition => ({
  row: nvmOpcodes.writeZeroes,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: (TRANSFER_CDW12 | DEALLOCATE) >>> 0, cdw13: HINTS_CDW13 },
  namespace: 'one',
  run: (context) => zero(context, modules),
});

async function zero(context: CommandContext, modules: CommandModules): Promise<CommandResult> {
  const { entry, job } = context;
  const { blocks, durability, counters } = modules;
  const { lba, lbaCount } = lbaRangeOf(entry, blocks);
  job.firmware('other', 0);
  await blocks.deallocate(lba, lbaCount);
  counters.blockWriteCommands++;
  await settleDurability(context, durability, (entry.cdw12 & FUA) !== 0);
  return SUCCESS;
}
