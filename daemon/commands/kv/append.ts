import { kvTransferBits } from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { rowSizeBytes } from '../../../spec/quantised-row.ts';
import type { ElementType } from '../../../spec/element-type.ts';
import { DriveError } from '../../base/errors.ts';
import type { AppendSource, SequenceShape } from '../../kv/contract.ts';
import { withArena } from '../arena-scope.ts';
import type { CommandContext, CommandDefinition, CommandModules, CommandOptions, CommandResult } from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, checkLength, elementTypeIn, field, maskOf, refuse, sequenceIdOf } from '../fields.ts';

const { layer, elementType, headMajor, fua } = kvTransferBits;

/**
 * CDW10-11 sequence, CDW12 kvTransferBits, CDW13 position, CDW14 tokens, CDW15 bytes from K rows to V rows. Data: K rows, then
 * V rows. DW0: length.
 */
export const kvAppend = (options: CommandOptions, modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.append,
  allowedBits: {
    cdw10: ALL_BITS,
    cdw11: ALL_BITS,
    cdw12: maskOf({ layer, elementType, headMajor, fua }),
    cdw13: ALL_BITS,
    cdw14: ALL_BITS,
    cdw15: ALL_BITS,
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
  const { cdw12, cdw13: position, cdw14: tokenCount, cdw15 } = entry;
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
  const appendFrom = async (rows: Pick<AppendSource, 'offset' | 'host' | 'valuesOffset'>): Promise<CommandResult> => {
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
    try {
      const keyBytes = keyBytesOf(kv.shape(id), tokenCount, type);
      const valuesOffset = cdw15 === 0 ? undefined : offset + cdw15;
      if (valuesOffset !== undefined) {
        if (cdw15 < keyBytes) throw refuse(`V rows ${cdw15} bytes behind the first of ${keyBytes} bytes of K rows`);
        region.check(valuesOffset, lengthBytes - keyBytes);
      }
      return await appendFrom({ offset, host: region, valuesOffset });
    } finally {
      region.release();
    }
  }
  if (cdw15 !== 0)
    throw refuse(`V rows apart from K rows: only in a region, at most ${limits.regionReadNowBytesMax} bytes`);
  return withArena(arena, async (scope) => {
    const offset = scope.allocate(lengthBytes);
    const reading = data.read(scope.view(offset, lengthBytes));
    if (reading !== undefined) await reading;
    return appendFrom({ offset });
  });
}

const keyBytesOf = (shape: SequenceShape, tokenCount: number, type: ElementType | undefined): number =>
  tokenCount * shape.kvHeadCount * rowSizeBytes(type ?? shape.elementTypeK, shape.headDimK);
