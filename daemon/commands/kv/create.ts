import { kvOpcodes } from '../../../spec/opcodes.ts';
import type { CommandContext, CommandDefinition, CommandModules, CommandResult } from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { idResult, requiredElementType } from '../fields.ts';
import { readCreateDescriptor, requestOf } from './create-request.ts';

/** Data: create descriptor. DW0-1: the new sequence's id. */
export const kvCreate = (modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.create,
  allowedBits: {},
  namespace: 'one',
  run: (context) => create(context, modules),
});

async function create(context: CommandContext, { durability }: CommandModules): Promise<CommandResult> {
  const descriptor = await readCreateDescriptor(context);
  const { layerCount, kvHeadCount, headDimK, headDimV, groupTokens } = descriptor;
  const shape = {
    layerCount,
    kvHeadCount,
    headDimK,
    headDimV,
    elementTypeK: requiredElementType(descriptor.elementTypeK, 'element type of K'),
    elementTypeV: requiredElementType(descriptor.elementTypeV, 'element type of V'),
    groupTokens,
  };
  const id = context.association.kv.create({ shape, ...requestOf(descriptor, context.association.hostHash) });
  await settleDurability(context, durability);
  return idResult(id);
}
