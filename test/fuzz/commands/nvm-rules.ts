/** spec/nvm-commands.md as rules. */
import assert from 'node:assert/strict';
import { nvmOpcodes } from '../../../spec/opcodes.ts';
import { LBA_BYTES } from './drive-model.ts';
import { ALL, type CommandRule, type RuleContext, type RuleTable } from './rules.ts';

const TRANSFER = 0xc000_ffff;
const DEALLOCATE_BIT = 2 ** 25;
const FUA = 2 ** 30;
const RANGES_BYTES_MAX = 4096;

interface Range {
  readonly lba: number;
  readonly count: number;
}

const rangeOf = ({ submission: { entry } }: RuleContext): Range => ({
  lba: entry.cdw11 * 2 ** 32 + entry.cdw10,
  count: (entry.cdw12 & 0xffff) + 1,
});

/** Its LBAs are those of the namespace. */
function checkRange({ drive, verdict }: RuleContext, { lba, count }: Range): boolean {
  if (lba + count <= drive.traits.lbaCount) return true;
  verdict.fault('lbaRange');
  return false;
}

function touch({ verdict }: RuleContext, { lba, count }: Range): void {
  for (let i = 0; i < count; i++) verdict.touch(`lba ${lba + i}`);
}

/** What a command that transfers blocks has in common: its range, and the length of its data. */
function transfer(context: RuleContext): Range | undefined {
  const { submission, verdict } = context;
  const range = rangeOf(context);
  if (submission.lengthBytes !== range.count * LBA_BYTES) verdict.fault('sglDataLength');
  if (!checkRange(context, range)) return undefined;
  touch(context, range);
  return range;
}

/** Blocks as read, but for those that nobody knows. */
function checkBlocks({ drive }: RuleContext, { lba, count }: Range, bytes: Uint8Array): void {
  for (let i = 0; i < count; i++) {
    if (drive.uncertainLbas.has(lba + i)) continue;
    const isSame = Buffer.compare(bytes.subarray(i * LBA_BYTES, (i + 1) * LBA_BYTES), drive.block(lba + i)) === 0;
    assert.ok(isSame, `LBA ${lba + i} reads as something else than was written`);
  }
}

const isDurable = ({ submission }: RuleContext): boolean => (submission.entry.cdw12 & FUA) !== 0;

const read: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: TRANSFER, cdw13: 0xff },
  judge(context) {
    const { verdict, submission } = context;
    const range = transfer(context);
    verdict.excuse('bufferFull', 'unrecoveredRead');
    if (isDurable(context)) verdict.excuse('writeFault');
    if (range === undefined) return;
    verdict.onSuccess = ({ data }) => {
      if (submission.place.kind === 'keyed') {
        const { key, offset } = submission.place;
        checkBlocks(context, range, context.readRegion(key, offset, submission.lengthBytes));
      } else {
        assert.equal(data.length, range.count * LBA_BYTES, 'bytes of a read');
        checkBlocks(context, range, data);
      }
    };
  },
};

const write: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: TRANSFER, cdw13: 0xff },
  judge(context) {
    const { verdict, drive, data } = context;
    const range = transfer(context);
    verdict.excuse('bufferFull', 'writeFault', 'namespaceWriteProtected');
    verdict.isWriter = true;
    if (range === undefined || data === undefined) return;
    verdict.onSuccess = () => drive.setBlocks(range.lba, range.count, data);
    verdict.onUncertain = () => drive.loseBlocks(range.lba, range.count);
    // Blocks of a write that failed in the middle are old or new.
    verdict.onFailure = (code) => {
      if (code === 'writeFault' || code === 'namespaceWriteProtected') drive.loseBlocks(range.lba, range.count);
    };
  },
};

const compare: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: TRANSFER },
  judge(context) {
    const { verdict, drive, data } = context;
    const range = transfer(context);
    verdict.excuse('bufferFull', 'unrecoveredRead');
    if (isDurable(context)) verdict.excuse('writeFault');
    if (range === undefined || data === undefined) return;
    for (let i = 0; i < range.count; i++) {
      if (drive.uncertainLbas.has(range.lba + i)) verdict.excuseAlways('compareFailure');
      else if (Buffer.compare(data.subarray(i * LBA_BYTES, (i + 1) * LBA_BYTES), drive.block(range.lba + i)) !== 0) {
        verdict.fault('compareFailure');
      }
    }
  },
};

const verify: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: TRANSFER },
  judge(context) {
    checkRange(context, rangeOf(context));
    noData(context);
    context.verdict.excuse('bufferFull', 'unrecoveredRead');
    if (isDurable(context)) context.verdict.excuse('writeFault');
  },
};

const writeZeroes: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: TRANSFER + DEALLOCATE_BIT, cdw13: 0xff },
  judge(context) {
    const { verdict, drive } = context;
    const range = rangeOf(context);
    noData(context);
    verdict.isWriter = true;
    verdict.excuse('writeFault', 'namespaceWriteProtected');
    if (!checkRange(context, range)) return;
    touch(context, range);
    verdict.onSuccess = () => drive.setBlocks(range.lba, range.count, undefined);
    verdict.onUncertain = () => drive.loseBlocks(range.lba, range.count);
    verdict.onFailure = (code) => {
      if (code === 'writeFault' || code === 'namespaceWriteProtected') drive.loseBlocks(range.lba, range.count);
    };
  },
};

/** A descriptor of data in a command without is refused; one of length 0 is not. */
function noData({ submission, verdict }: RuleContext): void {
  if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
}

const RANGE_BYTES = 16;
const DEALLOCATE = 4;

const datasetManagement: CommandRule = {
  uses: { cdw10: 0xff, cdw11: 7 },
  judge(context) {
    const { submission, verdict, drive, data } = context;
    const rangeCount = (submission.entry.cdw10 & 0xff) + 1;
    verdict.excuse('writeFault', 'namespaceWriteProtected');
    verdict.isWriter = true;
    if (submission.lengthBytes < rangeCount * RANGE_BYTES || submission.lengthBytes > RANGES_BYTES_MAX) {
      verdict.fault('sglDataLength');
      return;
    }
    if (data === undefined) return;
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    const ranges: Range[] = [];
    for (let at = 0; at < rangeCount * RANGE_BYTES; at += RANGE_BYTES) {
      const lba = view.getUint32(at + 12, true) * 2 ** 32 + view.getUint32(at + 8, true);
      const range = { lba, count: view.getUint32(at + 4, true) };
      if (checkRange(context, range)) ranges.push(range);
    }
    if ((submission.entry.cdw11 & DEALLOCATE) === 0) {
      verdict.isWriter = false;
      return;
    }
    if (verdict.faults.size > 0) return;
    for (const range of ranges) touch(context, range);
    const each = (work: (range: Range) => void): void => ranges.forEach(work);
    verdict.onSuccess = () => each(({ lba, count }) => drive.setBlocks(lba, count, undefined));
    verdict.onUncertain = () => each(({ lba, count }) => drive.loseBlocks(lba, count));
    verdict.onFailure = (code) => {
      if (code === 'writeFault' || code === 'namespaceWriteProtected') verdict.onUncertain();
    };
  },
};

export const flush: CommandRule = {
  uses: {},
  judge(context) {
    noData(context);
    context.verdict.excuse('writeFault');
  },
};

export const nvmRules: RuleTable = {
  [nvmOpcodes.flush.opcode]: flush,
  [nvmOpcodes.write.opcode]: write,
  [nvmOpcodes.read.opcode]: read,
  [nvmOpcodes.compare.opcode]: compare,
  [nvmOpcodes.writeZeroes.opcode]: writeZeroes,
  [nvmOpcodes.datasetManagement.opcode]: datasetManagement,
  [nvmOpcodes.verify.opcode]: verify,
};
