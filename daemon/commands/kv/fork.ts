import { ALL_TOKENS } from '../../../spec/kv-commands.ts';
import { limits } from '../../../spec/limits.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import type { CommandContext, CommandDefinition, CommandModules, CommandResult } from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, idResult, refuse, sequenceIdOf } from '../fields.ts';
import { type CreateDescriptor, readCreateDescriptor, requestOf } from './create-request.ts';

const inherited = [
  'layerCount',
  'kvHeadCount',
  'headDimK',
  'headDimV',
  'elementTypeK',
  'elementTypeV',
  'groupTokens',
] as const;

/** CDW10-11 source, CDW12 tokens per layer to share. Data: create descriptor without a shape. DW0-1: the new id. */
export const kvFork = (modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.fork,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: ALL_BITS },
  namespace: 'one',
  run: (context) => fork(context, modules),
});

async function fork(context: CommandContext, { durability }: CommandModules): Promise<CommandResult> {
  const { cdw12 } = context.entry;
  const sourceId = sequenceIdOf(context.entry);
  const descriptor = await readCreateDescriptor(context);
  checkInherited(descriptor);
  const tokenCount = cdw12 === ALL_TOKENS ? limits.sequenceTokensMax : cdw12;
  const id = await context.association.kv.fork(
    sourceId,
    tokenCount,
    requestOf(descriptor, context.association.hostHash),
    context.job,
  );
  await settleDurability(context, durability);
  return idResult(id);
}

function checkInherited(descriptor: CreateDescriptor): void {
  for (const name of inherited) {
    if (descriptor[name] !== 0) throw refuse(`${name} ${descriptor[name]}: a fork inherits its shape, give 0`);
  }
}
