import { elementTypes } from '../../../spec/element-type.ts';
import { DESCRIPTOR_VERSION, querySelectors, sequenceInfo } from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import type { SequenceSummary } from '../../kv/contract.ts';
import { type CommandContext, type CommandDefinition, type CommandResult, SUCCESS } from '../contract.ts';
import { ALL_BITS, refuse, sequenceIdOf } from '../fields.ts';

const ID_BYTES = 8;
const LENGTH_BYTES = 4;
const STATE_LIVE = 1;
/** Ids of one answer; more takes several queries, each going on after the last id of the one before. */
const LIST_BYTES_MAX = 65_536;

/** CDW10-11 sequence, CDW12 querySelectors. The data's length says how much is wanted. */
export const kvQuery = (): CommandDefinition => ({
  row: kvOpcodes.query,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS, cdw12: ALL_BITS },
  namespace: 'one',
  run: query,
});

async function query({ entry, data, job, association: { kv } }: CommandContext): Promise<CommandResult> {
  const id = sequenceIdOf(entry);
  const { lengthBytes } = data;
  job.firmware('other', lengthBytes);
  job.deviceToHost(lengthBytes);
  switch (entry.cdw12) {
    case querySelectors.sequence:
      await data.write(sequenceAnswer(kv.summary(id), lengthBytes));
      return SUCCESS;
    case querySelectors.list: {
      if (lengthBytes === 0 || lengthBytes % ID_BYTES !== 0 || lengthBytes > LIST_BYTES_MAX) {
        throw new DriveError(
          'sglDataLength',
          `${lengthBytes} bytes, allowed: multiples of ${ID_BYTES} up to ${LIST_BYTES_MAX}`,
        );
      }
      const target = new BigUint64Array(lengthBytes / ID_BYTES);
      const ids = kv.list(id, target.length);
      target.set(ids);
      await data.write(new Uint8Array(target.buffer));
      return { dw0: ids.length, dw1: 0 };
    }
    default:
      throw refuse(`selector ${entry.cdw12}, allowed: ${Object.values(querySelectors).join(', ')}`);
  }
}

/** At least the fixed part; then as many lengths as there is room for, and zeros behind the last. */
function sequenceAnswer(summary: SequenceSummary, lengthBytes: number): Uint8Array {
  const { shape, lengths } = summary;
  const wholeBytes = sequenceInfo.sizeBytes + lengths.length * LENGTH_BYTES;
  if (lengthBytes < sequenceInfo.sizeBytes) {
    throw new DriveError(
      'sglDataLength',
      `${lengthBytes} bytes, at least ${sequenceInfo.sizeBytes}; all: ${wholeBytes}`,
    );
  }
  const target = new Uint8Array(Math.min(lengthBytes, wholeBytes));
  sequenceInfo.encode(
    {
      version: DESCRIPTOR_VERSION,
      ...shape,
      elementTypeK: elementTypes[shape.elementTypeK].code,
      elementTypeV: elementTypes[shape.elementTypeV].code,
      sequenceId: summary.id,
      leaseSeconds: summary.leaseSeconds,
      state: STATE_LIVE,
      parentSequenceId: summary.parentId,
      pageCount: summary.pageCount,
      sharedPageCount: summary.sharedPageCount,
      paddingBytesPerPageK: summary.paddingBytesPerPageK,
      paddingBytesPerPageV: summary.paddingBytesPerPageV,
      label: summary.label,
      owner: summary.owner,
      bufferedTokenCount: summary.bufferedTokenCount,
    },
    target,
  );
  const view = new DataView(target.buffer);
  const room = Math.floor((target.length - sequenceInfo.sizeBytes) / LENGTH_BYTES);
  for (let i = 0; i < room; i++) view.setUint32(sequenceInfo.sizeBytes + i * LENGTH_BYTES, lengths[i] as number, true);
  return target;
}
