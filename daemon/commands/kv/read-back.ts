import { kvTransferBits } from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import type { ReadBackRequest } from '../../kv/contract.ts';
import { withArena } from '../arena-scope.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandOptions,
  type CommandResult,
  SUCCESS,
  type SubmissionEntry,
} from '../contract.ts';
import { ALL_BITS, checkLength, elementTypeIn, field, maskOf, refuse, sequenceIdOf } from '../fields.ts';

const { layer, elementType, headMajor, part } = kvTransferBits;

/** CDW10-11 sequence, CDW12 kvTransferBits, CDW13 first token, CDW14 tokens, CDW15 first head | head count << 16. */
export const kvReadBack = (options: CommandOptions, modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.readBack,
  allowedBits: {
    cdw10: ALL_BITS,
    cdw11: ALL_BITS,
    cdw12: maskOf({ layer, elementType, headMajor, part }),
    cdw13: ALL_BITS,
    cdw14: ALL_BITS,
    cdw15: ALL_BITS,
  },
  namespace: 'one',
  run: (context) => readBack(context, options, modules),
});

async function readBack(
  { entry, data, job, association: { kv } }: CommandContext,
  options: CommandOptions,
  { arena, counters }: CommandModules,
): Promise<CommandResult> {
  const request = requestIn(entry, kv.shape(sequenceIdOf(entry)).kvHeadCount, options);
  const lengthBytes = kv.readBackSizeBytes(request);
  checkLength(data, lengthBytes);
  return withArena(arena, async (scope) => {
    const offset = scope.allocate(lengthBytes);
    job.firmware('read', lengthBytes);
    await kv.readBack(request, offset, job);
    counters.kvReadBackBytes += lengthBytes;
    await data.write(scope.view(offset, lengthBytes), scope.detach());
    return SUCCESS;
  });
}

function requestIn(entry: SubmissionEntry, kvHeadCount: number, { limits }: CommandOptions): ReadBackRequest {
  const { cdw12, cdw13: tokenStart, cdw14: tokenCount, cdw15 } = entry;
  const wantedPart = field(cdw12, part);
  if (wantedPart === 0) throw refuse('part 0, allowed: 1 K, 2 V, 3 both');
  if (tokenCount < 1 || tokenStart + tokenCount > limits.sequenceTokensMax) {
    throw new DriveError(
      'tokenRange',
      `tokens ${tokenStart}+${tokenCount}, at least one, up to ${limits.sequenceTokensMax}`,
    );
  }
  const firstHead = cdw15 & 0xffff;
  const headCount = cdw15 >>> 16 === 0 ? kvHeadCount - firstHead : cdw15 >>> 16;
  if (headCount < 1 || firstHead + headCount > kvHeadCount) {
    throw new DriveError('headRange', `heads ${firstHead}+${headCount}, the sequence has ${kvHeadCount}`);
  }
  return {
    id: sequenceIdOf(entry),
    layer: field(cdw12, layer),
    part: wantedPart as 1 | 2 | 3,
    tokenStart,
    tokenCount,
    firstHead,
    headCount,
    elementType: elementTypeIn(field(cdw12, elementType), 'element type'),
    headMajor: field(cdw12, headMajor) === 1,
  };
}
