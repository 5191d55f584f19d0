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

/** CDW10-11 first LBA, CDW12 blocks minus 1 and FUA. */
export function nvmWrite(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: nvmOpcodes.write,
    allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: TRANSFER_CDW12, cdw13: HINTS_CDW13 },
    namespace: 'one',
    run: (context) => write(context, options, modules),
  };
}

function write(
  context: CommandContext,
  { limits }: CommandOptions,
  modules: CommandModules,
): CommandResult | Promise<CommandResult> {
  const { entry, data, association, job } = context;
  const { blocks, counters } = modules;
  const range = lbaRangeOf(entry, blocks);
  const lengthBytes = checkTransfer(data, range, limits.lbaSizeBytes);
  const fua = (entry.cdw12 & FUA) !== 0 || !association.features.writeCache;
  const source = !fua && blocks.canWriteNow(range.lbaCount) ? data.inPlace() : undefined;
  if (source === undefined) return writeLater(context, range, lengthBytes, fua, modules);
  job.firmware('write', lengthBytes);
  job.hostToDevice(lengthBytes);
  blocks.writeNow(range.lba, range.lbaCount, source, job);
  counters.blockWriteCommands++;
  counters.blockWrittenBytes += lengthBytes;
  return SUCCESS;
}

/** Data that has yet to come, what is to be durable, and what has to wait for room. */
function writeLater(
  { data, job }: CommandContext,
  range: LbaRange,
  lengthBytes: number,
  fua: boolean,
  { arena, blocks, counters }: CommandModules,
): Promise<CommandResult> {
  return withArena(arena, async (scope) => {
    const source = scope.view(scope.allocate(lengthBytes), lengthBytes);
    await data.read(source);
    job.firmware('write', lengthBytes);
    job.hostToDevice(lengthBytes);
    await blocks.write(range.lba, range.lbaCount, source, fua, job);
    counters.blockWriteCommands++;
    counters.blockWrittenBytes += lengthBytes;
    return SUCCESS;
  });
}
