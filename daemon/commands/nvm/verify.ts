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
import { FUA, lbaRangeOf, TRANSFER_CDW12 } from './lba-range.ts';

/** CDW10-11 first LBA, CDW12 blocks minus 1, FUA as in Read. Reads them with all checks of a read, and keeps nothing. */
export function nvmVerify(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: nvmOpcodes.verify,
    allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: TRANSFER_CDW12 },
    namespace: 'one',
    run: (context) => verify(context, options, modules),
  };
}

async function verify(
  { entry, signal, job }: CommandContext,
  { limits }: CommandOptions,
  { arena, blocks, durability, counters }: CommandModules,
): Promise<CommandResult> {
  const range = lbaRangeOf(entry, blocks);
  const pieceLbaCount = Math.min(range.lbaCount, limits.transferBytesMax / limits.lbaSizeBytes);
  counters.blockReadCommands++;
  const fua = (entry.cdw12 & FUA) !== 0;
  return withArena(arena, async (scope) => {
    job.firmware('read', range.lbaCount * limits.lbaSizeBytes);
    blocks.bookRead(range.lba, range.lbaCount, job, 'controller');
    const target = scope.view(scope.allocate(pieceLbaCount * limits.lbaSizeBytes), pieceLbaCount * limits.lbaSizeBytes);
    for (let done = 0; done < range.lbaCount && !signal.aborted; done += pieceLbaCount) {
      const lbaCount = Math.min(pieceLbaCount, range.lbaCount - done);
      await blocks.read(range.lba + done, lbaCount, target.subarray(0, lbaCount * limits.lbaSizeBytes));
    }
    if (fua) await durability.syncStaging();
    return SUCCESS;
  });
}
