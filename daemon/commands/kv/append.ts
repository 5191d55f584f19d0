import { kvTransferBits } from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import type { AppendSource } from '../../kv/contract.ts';
import { withArena } from '../arena-scope.ts';
import type { CommandContext, CommandDefinition, CommandModules, CommandOptions, CommandResult } from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, checkLength, elementTypeIn, field, maskOf, sequenceIdOf } from '../fields.ts';

const { layer, elementType, headMajor, fua } = kvTransferBits;

/** CDW10-11 sequence, CDW12 kvTransferBits, CDW13 position, CDW14 tokens. Data: K rows, then V rows. DW0: length. */
export const kvAppend = (options: CommandOptions, modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.append,
  allowedBits: {
    cdw10: ALL_BITS,
    cdw11: ALL_BITS,
    cdw12: maskOf({ layer, elementType, headMajor, fua }),
    cdw13: ALL_BITS,
    cdw14: ALL_BITS,
  },
  namespace: 'one',
  run: (context) => append(context, options, modules),
});

async function append(
  context: CommandContext,
  { limits }: CommandOptions,
  { arena, durability, counters }: CommandModules,
): Promise<CommandResult> {
  const { entry, data, job } = context;
  const { kv } = context.association;
  const { cdw12, cdw13: position, cdw14: tokenCount } = entry;
  const id = sequenceIdOf(entry);
  const layerIndex = field(cdw12, layer);
  const type = elementTypeIn(field(cdw12, elementType), 'element type');
  const isHeadMajor = field(cdw12, headMajor) === 1;
  const isFua = field(cdw12, fua) === 1;
  if (tokenCount < 1 || position + tokenCount > limits.sequenceTokensMax) {
    throw new DriveError(
      'tokenRange',
      `tokens ${position}+${tokenCount}, at least one, up to ${limits.sequenceTokensMax}`,
    );
  }
  const lengthBytes = kv.appendSizeBytes(id, tokenCount, type);
  checkLength(data, lengthBytes);
  const appendFrom = async (rows: Pick<AppendSource, 'offset' | 'host'>): Promise<CommandResult> => {
    const source = { ...rows, elementType: type, headMajor: isHeadMajor };
    job.firmware('write', lengthBytes);
    job.hostToDevice(lengthBytes);
    const length = await kv.append(id, layerIndex, position, tokenCount, source, job);
    counters.kvAppendedBytes += lengthBytes;
    await settleDurability(context, durability, isFua);
    return { dw0: length, dw1: 0 };
  };
  // Data that is at hand is not waited for: so appends of one queue get to the sequence in the order in which they came.
  const held = data.hold();
  if (held !== undefined) {
    const { region, offset } = held;
    return appendFrom({ offset, host: region }).finally(() => region.release());
  }
  return withArena(arena, async (scope) => {
    const offset = scope.allocate(lengthBytes);
    const reading = data.read(scope.view(offset, lengthBytes));
    if (reading !== undefined) await reading;
    return appendFrom({ offset });
  });
}
