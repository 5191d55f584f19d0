import { nvmOpcodes } from '../../../spec/opcodes.ts';
import { withArena } from '../arena-scope.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandOptions,
  type CommandResult,
  type Limits,
  SUCCESS,
} from '../contract.ts';
import { ALL_BITS } from '../fields.ts';
import { checkLbas, firstLbaOf, FUA, type LbaRange, lbaCountOf, TRANSFER_CDW12 } from './lba-range.ts';

/** CDW10-11 first LBA, CDW12 blocks minus 1, FUA as in Read. Reads them with all checks of a read, and keeps nothing. */
export function nvmVerify(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: nvmOpcodes.verify,
    allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: TRANSFER_CDW12 },
    namespace: 'one',
    run: (context) => verify(context, options, modules),
  };
}

function verify(
  context: CommandContext,
  { limits }: CommandOptions,
  modules: CommandModules,
): CommandResult | Promise<CommandResult> {
  const { entry, job } = context;
  const { blocks, counters } = modules;
  const lba = firstLbaOf(entry);
  const lbaCount = lbaCountOf(entry);
  checkLbas(lba, lbaCount, blocks);
  counters.blockReadCommands++;
  job.firmware('read', lbaCount * limits.lbaSizeBytes);
  blocks.bookRead(lba, lbaCount, job, 'controller');
  const fua = (entry.cdw12 & FUA) !== 0;
  // What is in no page can't be wrong.
  if (!fua && !blocks.isInFlash(lba, lbaCount)) return SUCCESS;
  return verifyPages(context, { lba, lbaCount }, limits, modules);
}

function verifyPages(
  { entry, signal }: CommandContext,
  range: LbaRange,
  limits: Limits,
  { arena, blocks, durability }: CommandModules,
): Promise<CommandResult> {
  const pieceLbaCount = Math.min(range.lbaCount, limits.transferBytesMax / limits.lbaSizeBytes);
  const fua = (entry.cdw12 & FUA) !== 0;
  return withArena(arena, async (scope) => {
    const target = scope.view(scope.allocate(pieceLbaCount * limits.lbaSizeBytes), pieceLbaCount * limits.lbaSizeBytes);
    for (let done = 0; done < range.lbaCount && !signal.aborted; done += pieceLbaCount) {
      const lbaCount = Math.min(pieceLbaCount, range.lbaCount - done);
      await blocks.read(range.lba + done, lbaCount, target.subarray(0, lbaCount * limits.lbaSizeBytes));
    }
    if (fua) await durability.syncStaging();
    return SUCCESS;
  });
}
