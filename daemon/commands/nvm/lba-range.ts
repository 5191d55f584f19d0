import { DriveError } from '../../base/errors.ts';
import type { BlockNamespace } from '../../ftl/contract.ts';
import type { CommandData, SubmissionEntry } from '../contract.ts';

/** CDW12 of Read, Write and Write Zeroes. */
export const transferBits = {
  nlb: { shift: 0, width: 16, meaning: 'blocks, minus 1' },
  deallocate: { shift: 25, width: 1, meaning: 'Write Zeroes: deallocate' },
  fua: { shift: 30, width: 1, meaning: 'complete once durable' },
  limitedRetry: { shift: 31, width: 1, meaning: 'fewer retries; the drive has none' },
} as const;

export const FUA = 2 ** transferBits.fua.shift;
export const DEALLOCATE = 2 ** transferBits.deallocate.shift;
/** NLB, FUA and LR. Protection information is not supported, so its bits must be zero. */
export const TRANSFER_CDW12 = (0xffff | FUA | (2 ** transferBits.limitedRetry.shift)) >>> 0;
/** Dataset management hints in CDW13 of Read and Write: taken, and without effect. */
export const HINTS_CDW13 = 0xff;

export interface LbaRange {
  readonly lba: number;
  readonly lbaCount: number;
}

/** CDW10-12. DriveError lbaRange. */
export function lbaRangeOf(entry: SubmissionEntry, blocks: BlockNamespace): LbaRange {
  const range = { lba: firstLbaOf(entry), lbaCount: lbaCountOf(entry) };
  checkRange(range, blocks);
  return range;
}

/** CDW10-11. */
export const firstLbaOf = ({ cdw10, cdw11 }: SubmissionEntry): number => cdw11 * 0x1_0000_0000 + cdw10;

/** CDW12. */
export const lbaCountOf = ({ cdw12 }: SubmissionEntry): number => (cdw12 & 0xffff) + 1;

export const checkRange = ({ lba, lbaCount }: LbaRange, blocks: BlockNamespace): void =>
  checkLbas(lba, lbaCount, blocks);

/** The same by numbers, for a command that makes no garbage. DriveError lbaRange. */
export function checkLbas(lba: number, lbaCount: number, blocks: BlockNamespace): void {
  if (lba + lbaCount > blocks.lbaCount) {
    throw new DriveError('lbaRange', `LBA ${lba}+${lbaCount}, the namespace has ${blocks.lbaCount}`);
  }
}

export function checkTransfer(data: CommandData, { lbaCount }: LbaRange, lbaSizeBytes: number): number {
  const lengthBytes = lbaCount * lbaSizeBytes;
  if (data.lengthBytes !== lengthBytes) {
    throw new DriveError(
      'sglDataLength',
      `${data.lengthBytes} bytes of data for ${lbaCount} blocks (${lengthBytes} bytes)`,
    );
  }
  return lengthBytes;
}
