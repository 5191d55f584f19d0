import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { nvmOpcodes } from '../../spec/opcodes.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig } from '../controller/rig.ts';
import { statusOf } from './kv-host.ts';

const LBA = 4096;
const FUA = 2 ** 30;
const DEALLOCATE = 2 ** 25;

async function open(t: TestContext): Promise<{ rig: Rig; io: RawHost }> {
  const rig = await createRig(t);
  const { cntlid } = await rig.admin();
  rig.blocks.bytes.fill(0x5a);
  return { rig, io: await rig.io(cntlid) };
}

const fields = (row: { opcode: number }, lba: number, lbaCount: number, bits = 0) => ({
  opcode: row.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba % 2 ** 32,
  cdw11: Math.floor(lba / 2 ** 32),
  cdw12: lbaCount - 1 + bits,
});

describe('LBA ranges', () => {
  test('the last block, and one beyond', async (t) => {
    const { rig, io } = await open(t);
    const { lbaCount } = rig.blocks;
    for (const [lba, count, ok] of [
      [lbaCount - 1, 1, true],
      [lbaCount - 1, 2, false],
      [lbaCount, 1, false],
      [2 ** 32, 1, false],
      [2 ** 63, 1, false],
    ] as const) {
      const status = ok ? 0 : statusOf('lbaRange');
      assert.equal((await io.read(fields(nvmOpcodes.read, lba, count), count * LBA)).status, status, `read ${lba}`);
      assert.equal(
        (await io.run(fields(nvmOpcodes.write, lba, count), Buffer.alloc(count * LBA))).status,
        status,
        `write ${lba}`,
      );
      assert.equal((await io.run(fields(nvmOpcodes.writeZeroes, lba, count))).status, status, `zero ${lba}`);
    }
  });

  test('a length that is not that of the blocks', async (t) => {
    const { io } = await open(t);
    assert.equal((await io.read(fields(nvmOpcodes.read, 0, 2), LBA)).status, statusOf('sglDataLength'));
    assert.equal((await io.run(fields(nvmOpcodes.write, 0, 2), Buffer.alloc(LBA))).status, statusOf('sglDataLength'));
    assert.equal((await io.run(fields(nvmOpcodes.read, 0, 1))).status, statusOf('sglDataLength'));
  });
});

describe('FUA', () => {
  test('a write says so to the namespace; a read makes durable what it returns', async (t) => {
    const { rig, io } = await open(t);
    await io.run(fields(nvmOpcodes.write, 0, 1), Buffer.alloc(LBA));
    assert.equal(rig.blocks.fuaCount, 0);
    await io.run(fields(nvmOpcodes.write, 0, 1, FUA), Buffer.alloc(LBA));
    assert.equal(rig.blocks.fuaCount, 1);
    rig.durability.onStagingSync = () => rig.blocks.bytes.fill(1);
    const { data } = await io.read(fields(nvmOpcodes.read, 0, 1, FUA), LBA);
    assert.equal(rig.durability.stagingSyncCount, 1);
    assert.ok(
      data.every((byte) => byte === 0),
      'what is written while the sync is on its way is not returned',
    );
  });
});

describe('Compare', () => {
  test('what is there, what is not, in the first and the last byte', async (t) => {
    const { rig, io } = await open(t);
    const same = Buffer.alloc(70 * LBA, 0x5a);
    assert.equal((await io.run(fields(nvmOpcodes.compare, 5, 1), same.subarray(0, LBA))).status, 0);
    assert.equal((await io.run(fields(nvmOpcodes.compare, 5, 70), same)).status, 0);
    for (const at of [0, 70 * LBA - 1]) {
      const other = Buffer.from(same);
      other[at]! ^= 1;
      const { status, doNotRetry } = await io.run(fields(nvmOpcodes.compare, 5, 70), other);
      assert.deepEqual([status, doNotRetry], [statusOf('compareFailure'), true]);
    }
    assert.ok(
      rig.blocks.bytes.every((byte) => byte === 0x5a),
      'nothing is written',
    );
    assert.equal(
      (await io.run(fields(nvmOpcodes.compare, 5, 2), same.subarray(0, LBA))).status,
      statusOf('sglDataLength'),
    );
    await io.run(fields(nvmOpcodes.compare, 0, 1, FUA), same.subarray(0, LBA));
    assert.equal(rig.durability.stagingSyncCount, 1);
    assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes, 'buffers are given back');
  });
});

describe('Verify', () => {
  test('reads every block and moves none; an unreadable one is its status', async (t) => {
    const { rig, io } = await open(t);
    const read: number[] = [];
    const { blocks } = rig;
    const plain = blocks.read.bind(blocks);
    blocks.read = (lba, lbaCount, target) => {
      read.push(lba, lbaCount);
      return plain(lba, lbaCount, target);
    };
    assert.equal((await io.run(fields(nvmOpcodes.verify, 3, 600))).status, 0);
    assert.deepEqual(read, [3, 256, 259, 256, 515, 88], 'in pieces of MDTS');
    assert.equal(rig.durability.stagingSyncCount, 0);
    await io.run(fields(nvmOpcodes.verify, 0, 1, FUA));
    assert.equal(rig.durability.stagingSyncCount, 1);
    assert.equal((await io.run(fields(nvmOpcodes.verify, 4000, 97))).status, statusOf('lbaRange'));
    blocks.failure = new DriveError('unrecoveredRead', 'page 7');
    assert.equal((await io.run(fields(nvmOpcodes.verify, 0, 1))).status, statusOf('unrecoveredRead'));
    assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes, 'buffers are given back');
  });
});

test('Flush waits for a checkpoint, of either namespace id', async (t) => {
  const { rig, io } = await open(t);
  for (const [count, nsid] of [BLOCK_NSID, 0xffff_ffff].entries()) {
    assert.equal((await io.run({ opcode: nvmOpcodes.flush.opcode, nsid })).status, 0);
    assert.equal(rig.durability.flushCount, count + 1);
  }
});

describe('Write Zeroes', () => {
  test('65536 blocks at most are one command; with and without deallocate they read as zeros', async (t) => {
    const { rig, io } = await open(t);
    for (const bits of [0, DEALLOCATE]) {
      rig.blocks.bytes.fill(0x5a);
      assert.equal((await io.run(fields(nvmOpcodes.writeZeroes, 10, 300, bits))).status, 0);
      assert.equal(rig.blocks.bytes.indexOf(0), 10 * LBA);
      assert.equal(rig.blocks.bytes.lastIndexOf(0), 310 * LBA - 1);
    }
    assert.equal(rig.durability.stagingSyncCount, 0);
    await io.run(fields(nvmOpcodes.writeZeroes, 10, 1, FUA));
    assert.equal(rig.durability.stagingSyncCount, 1);
    assert.equal((await io.run(fields(nvmOpcodes.writeZeroes, 0, 65_536))).status, statusOf('lbaRange'));
  });
});

describe('Dataset Management', () => {
  const ranges = (list: readonly (readonly [number, number])[], room = list.length): Buffer => {
    const bytes = Buffer.alloc(room * 16);
    list.forEach(([lba, count], i) => {
      bytes.writeUInt32LE(count, i * 16 + 4);
      bytes.writeBigUInt64LE(BigInt(lba), i * 16 + 8);
    });
    return bytes;
  };
  const manage = (io: RawHost, count: number, attributes: number, data: Buffer) =>
    io.run(
      { opcode: nvmOpcodes.datasetManagement.opcode, nsid: BLOCK_NSID, cdw10: count - 1, cdw11: attributes },
      data,
    );
  const zeroBlocks = (rig: Rig): number[] =>
    Array.from({ length: rig.blocks.lbaCount }, (_, lba) => lba).filter((lba) => rig.blocks.bytes[lba * LBA] === 0);

  test('deallocates up to 256 ranges, also from a buffer for all of them', async (t) => {
    const { rig, io } = await open(t);
    assert.equal(
      (
        await manage(
          io,
          2,
          4,
          ranges(
            [
              [3, 2],
              [100, 1],
            ],
            256,
          ),
        )
      ).status,
      0,
    );
    assert.deepEqual(zeroBlocks(rig), [3, 4, 100]);
    const many = Array.from({ length: 256 }, (_, i) => [1000 + 2 * i, 1] as const);
    assert.equal((await manage(io, 256, 4, ranges(many))).status, 0);
    assert.equal(zeroBlocks(rig).length, 3 + 256);
  });

  test('one bad range: nothing is deallocated', async (t) => {
    const { rig, io } = await open(t);
    assert.equal(
      (
        await manage(
          io,
          2,
          4,
          ranges([
            [0, 1],
            [rig.blocks.lbaCount, 1],
          ]),
        )
      ).status,
      statusOf('lbaRange'),
    );
    assert.equal((await manage(io, 1, 4, ranges([[0, 0xffff_ffff]]))).status, statusOf('lbaRange'));
    assert.deepEqual(zeroBlocks(rig), []);
  });

  test('hints alone, empty ranges, too little data, too much', async (t) => {
    const { rig, io } = await open(t);
    assert.equal((await manage(io, 1, 3, ranges([[0, 5]]))).status, 0);
    assert.equal((await manage(io, 1, 4, ranges([[0, 0]]))).status, 0);
    assert.deepEqual(zeroBlocks(rig), []);
    assert.equal((await manage(io, 2, 4, ranges([[0, 1]]))).status, statusOf('sglDataLength'));
    assert.equal((await manage(io, 1, 4, ranges([[0, 1]], 257))).status, statusOf('sglDataLength'));
  });
});
