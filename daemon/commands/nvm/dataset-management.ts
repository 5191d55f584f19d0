import { nvmOpcodes } from '../../../spec/opcodes.ts';
import { defineStruct, u32, uint64 } from '../../../spec/struct.ts';
import { DriveError } from '../../base/errors.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandResult,
  SUCCESS,
} from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { checkRange, type LbaRange } from './lba-range.ts';

const rangeStruct = defineStruct('dataset management range', 16, {
  attributes: u32(0, 'context attributes: hints, without effect'),
  lbaCount: u32(4, 'blocks'),
  lba: uint64(8, 'first block'),
});

const RANGE_COUNT_MAX = 256;
const ATTRIBUTE_DEALLOCATE = 1 << 2;
/** CDW11: integral dataset for read, for write (hints), deallocate. */
const ATTRIBUTE_BITS = 0b111;

/** CDW10 ranges minus 1, CDW11 attributes. Only deallocate does something. */
export const datasetManagement = (modules: CommandModules): CommandDefinition => ({
  row: nvmOpcodes.datasetManagement,
  allowedBits: { cdw10: 0xff, cdw11: ATTRIBUTE_BITS },
  namespace: 'one',
  run: (context) => manage(context, modules),
});

async function manage(context: CommandContext, { blocks, durability }: CommandModules): Promise<CommandResult> {
  const { entry, data, job } = context;
  const rangeCount = (entry.cdw10 & 0xff) + 1;
  const lengthBytes = rangeCount * rangeStruct.sizeBytes;
  // Hosts may give a buffer for all 256 ranges, whatever the number in use.
  if (data.lengthBytes < lengthBytes || data.lengthBytes > RANGE_COUNT_MAX * rangeStruct.sizeBytes) {
    throw new DriveError(
      'sglDataLength',
      `${data.lengthBytes} bytes for ${rangeCount} ranges of ${rangeStruct.sizeBytes}`,
    );
  }
  // All of it is taken even where less is used: a host that was asked for its data sends all of it.
  const bytes = new Uint8Array(data.lengthBytes);
  await data.read(bytes);
  job.firmware('other', lengthBytes);
  job.hostToDevice(lengthBytes);
  const ranges: LbaRange[] = [];
  for (let i = 0; i < rangeCount; i++) {
    const range = rangeStruct.decode(bytes, i * rangeStruct.sizeBytes);
    checkRange(range, blocks);
    ranges.push(range);
  }
  if ((entry.cdw11 & ATTRIBUTE_DEALLOCATE) === 0) return SUCCESS;
  for (const { lba, lbaCount } of ranges) if (lbaCount > 0) await blocks.deallocate(lba, lbaCount);
  await settleDurability(context, durability);
  return SUCCESS;
}
