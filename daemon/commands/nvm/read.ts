import { nvmOpcodes } from '../../../spec/opcodes.ts';
import { withArena } from '../arena-scope.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandOptions,
  type CommandResult,
  SUCCESS,
} from '../contract.ts';
import { ALL_BITS } from '../fields.ts';
import { checkTransfer, FUA, HINTS_CDW13, type LbaRange, lbaRangeOf, TRANSFER_CDW12 } from './lba-range.ts';

/** CDW10-11 first LBA, CDW12 blocks minus 1. FUA: what is returned is durable, as the standard demands. */
export function nvmRead(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: nvmOpcodes.read,
    allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: TRANSFER_CDW12, cdw13: HINTS_CDW13 },
    namespace: 'one',
    run: (context) => read(context, options, modules),
  };
}

function read(
  context: CommandContext,
  { limits }: CommandOptions,
  modules: CommandModules,
): CommandResult | Promise<CommandResult> {
  const { entry, data, job } = context;
  const { blocks, counters } = modules;
  const range = lbaRangeOf(entry, blocks);
  const lengthBytes = checkTransfer(data, range, limits.lbaSizeBytes);
  job.firmware('read', lengthBytes);
  const target = (entry.cdw12 & FUA) === 0 ? data.place(lengthBytes) : undefined;
  if (target === undefined || !blocks.readNow(range.lba, range.lbaCount, target)) {
    return readLater(context, range, lengthBytes, modules);
  }
  blocks.bookRead(range.lba, range.lbaCount, job, 'host');
  data.placed();
  counters.blockReadCommands++;
  counters.blockReadBytes += lengthBytes;
  return SUCCESS;
}

/** What lies on the disk, or has to be checked, or is to be durable. */
function readLater(
  { entry, data, job }: CommandContext,
  range: LbaRange,
  lengthBytes: number,
  { arena, blocks, durability, counters }: CommandModules,
): Promise<CommandResult> {
  const fua = (entry.cdw12 & FUA) !== 0;
  return withArena(arena, async (scope) => {
    const target = scope.view(scope.allocate(lengthBytes), lengthBytes);
    blocks.bookRead(range.lba, range.lbaCount, job, 'host');
    await blocks.read(range.lba, range.lbaCount, target);
    // Afterwards: a block that is written while the sync is on its way would be returned and not be durable.
    if (fua) await durability.syncStaging();
    counters.blockReadCommands++;
    counters.blockReadBytes += lengthBytes;
    await data.write(target, scope.detach());
    return SUCCESS;
  });
}
