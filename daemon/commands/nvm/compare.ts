import { nvmOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
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
import { checkTransfer, FUA, lbaRangeOf, TRANSFER_CDW12 } from './lba-range.ts';

/** CDW10-11 first LBA, CDW12 blocks minus 1, FUA as in Read. `compareFailure` unless the host's data is what is there. */
export function nvmCompare(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: nvmOpcodes.compare,
    allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: TRANSFER_CDW12 },
    namespace: 'one',
    run: (context) => compare(context, options, modules),
  };
}

async function compare(
  { entry, data, job }: CommandContext,
  { limits }: CommandOptions,
  { arena, blocks, durability, counters }: CommandModules,
): Promise<CommandResult> {
  const range = lbaRangeOf(entry, blocks);
  const lengthBytes = checkTransfer(data, range, limits.lbaSizeBytes);
  const fua = (entry.cdw12 & FUA) !== 0;
  return withArena(arena, async (scope) => {
    const expected = scope.view(scope.allocate(lengthBytes), lengthBytes);
    await data.read(expected);
    const stored = scope.view(scope.allocate(lengthBytes), lengthBytes);
    job.firmware('read', lengthBytes);
    job.hostToDevice(lengthBytes);
    blocks.bookRead(range.lba, range.lbaCount, job, 'controller');
    await blocks.read(range.lba, range.lbaCount, stored);
    if (fua) await durability.syncStaging();
    counters.blockReadCommands++;
    counters.blockReadBytes += lengthBytes;
    if (Buffer.compare(expected, stored) !== 0) {
      throw new DriveError('compareFailure', `LBA ${range.lba}+${range.lbaCount}`);
    }
    return SUCCESS;
  });
}
