import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { c2hTermReq, fatalErrors, pduTypes } from '../../spec/pdu.ts';
import { InvariantError } from '../../daemon/base/assert.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { CommandFields } from './submissions.ts';
import { createRig } from './rig.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const LBA = 4096;
const flush = { opcode: nvmOpcodes.flush.opcode, nsid: BLOCK_NSID };
const read = { opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID, sgl: { kind: 'transport', length: LBA } } as const;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('a queue', () => {
  test('runs as many commands as it has entries; one more is a fatal error', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid, { sqsize: 3 });
    rig.blocks.gate.shut();
    for (let i = 0; i < 4; i++) io.send(read);
    while (rig.blocks.gate.waitingCount < 4) await turn();
    io.send(read);
    const pdu = await io.next();
    assert.equal(pdu?.type, pduTypes.c2hTermReq.type);
    assert.equal(c2hTermReq.decode(pdu.header).fes, fatalErrors.sequence);
    await io.untilClosed();
    rig.blocks.gate.open();
  });

  test('completes out of order: a slow command blocks nobody', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    const slow = io.send(read);
    const quick = io.send(flush);
    assert.equal((await io.completion()).commandId, quick);
    rig.blocks.gate.open();
    assert.equal((await io.completion()).commandId, slow);
  });

  test('says how far it has consumed the submission queue', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid, { sqsize: 3 });
    const heads: number[] = [];
    for (let i = 0; i < 6; i++) heads.push((await io.run(flush)).sqHead);
    // Connect was the first of four entries.
    assert.deepEqual(heads, [2, 3, 0, 1, 2, 3]);
  });

  test('says nothing of it where the host disabled flow control', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid, { cattr: 4 });
    assert.equal((await io.run(flush)).sqHead, 0xffff);
  });

  test('a command id in use is a conflict; the first command is not disturbed', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    const first = io.entryBytes(read, 77);
    io.write(io.capsuleBytes(first));
    while (rig.blocks.gate.waitingCount === 0) await turn();
    io.write(io.capsuleBytes(io.entryBytes(flush, 77)));
    assert.equal((await io.completion()).status, statusOf('commandIdConflict'));
    rig.blocks.gate.open();
    const completion = await io.completion();
    assert.equal(completion.status, 0);
    assert.equal(completion.data.length, LBA);
  });

  test('a thousand commands in one write', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    for (let round = 0; round < 10; round++) {
      const ids = Array.from({ length: 100 }, () => io.commandId());
      io.write(Buffer.concat(ids.map((id) => io.capsuleBytes(io.entryBytes(flush, id)))));
      const seen = new Set<number>();
      for (let i = 0; i < 100; i++) seen.add((await io.completion()).commandId);
      assert.deepEqual(
        [...seen].sort((a, b) => a - b),
        ids,
      );
    }
  });

  test('I/O commands are of their namespace', async (t) => {
    const rig = await createRig(t);
    const { cntlid, host } = await rig.admin();
    const io = await rig.io(cntlid);
    assert.equal((await io.run({ ...flush, nsid: 3 })).status, statusOf('invalidNamespace'));
    assert.equal((await io.run({ ...flush, nsid: 0 })).status, statusOf('invalidNamespace'));
    assert.equal((await io.run({ ...flush, nsid: 0xffff_ffff })).status, 0);
    assert.equal((await io.run({ ...read, nsid: 0xffff_ffff })).status, statusOf('invalidOpcode'));
    assert.equal((await io.run({ ...read, nsid: KV_CACHE_NSID })).status, statusOf('invalidOpcode'));
    assert.equal((await io.run({ opcode: adminOpcodes.keepAlive.opcode, nsid: 1 })).status, statusOf('invalidOpcode'));
    assert.equal((await host.run({ opcode: 0x85 })).status, statusOf('invalidOpcode'));
  });
});

describe('errors', () => {
  test('a media error: status and page', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    const page = 5 * 2 ** 32 + 17;
    rig.blocks.failure = new DriveError('unrecoveredRead', `page ${page}`, { result: page });
    const completion = await io.run(read);
    assert.equal(completion.status, statusOf('unrecoveredRead'));
    assert.deepEqual([completion.dw0, completion.dw1], [17, 5]);
    assert.equal(completion.doNotRetry, true);
    assert.deepEqual(rig.fatals, []);
    assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes);
  });

  for (const failure of [new InvariantError('a test'), new TypeError('a bug')]) {
    test(`${failure.name}: internal error to the host, and the composition root is told`, async (t) => {
      const rig = await createRig(t);
      const { cntlid } = await rig.admin();
      const io = await rig.io(cntlid);
      rig.blocks.failure = failure;
      const completion = await io.run(read);
      assert.equal(completion.status, statusOf('internal'));
      assert.deepEqual(rig.fatals, [failure]);
    });
  }

  test('are counted by opcode and status, with latencies', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    await io.run(flush);
    await io.run(flush);
    await io.run({ ...flush, nsid: 9 });
    await io.run({ ...flush, cdw10: 1 });
    const { commands, latencies, counters } = rig.subsystem.snapshot();
    const of = (opcode: string, status: string) =>
      commands.find((row) => row.queue === 'nvm' && row.opcode === opcode && row.status === status)?.count;
    assert.equal(of('Flush', 'success'), 2);
    assert.equal(of('Flush', 'invalidNamespace'), 1);
    assert.equal(of('Flush', 'invalidField'), 1);
    assert.equal(counters.commandsFailed, 2);
    const latency = latencies.find((row) => row.queue === 'nvm' && row.opcode === 'Flush');
    assert.equal(
      latency?.counts.reduce((sum, count) => sum + count, 0),
      4,
    );
  });

  test('commands that come together are counted one by one, whatever comes between them', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.isCached = true;
    const capsuleOf = (fields: CommandFields, data?: Uint8Array): Buffer =>
      io.capsuleBytes(io.entryBytes(fields, io.commandId()), data);
    const verify = (fields: Partial<CommandFields> = {}): Buffer =>
      capsuleOf({ opcode: nvmOpcodes.verify.opcode, nsid: BLOCK_NSID, ...fields });
    const sgl = { kind: 'inCapsule', offset: 0, length: LBA } as const;
    const write = (): Buffer =>
      capsuleOf({ opcode: nvmOpcodes.write.opcode, nsid: BLOCK_NSID, sgl }, new Uint8Array(LBA));
    for (let round = 1; round <= 3; round++) {
      const few = (): Buffer[] => [
        verify(),
        verify({ cdw10: 2 ** 31 }),
        write(),
        write(),
        verify({ cdw13: 1 }),
        verify(),
      ];
      const capsules = Array.from({ length: 5 }, few).flat();
      io.write(Buffer.concat(capsules));
      for (let i = 0; i < capsules.length; i++) await io.completion();
      const { commands, latencies } = rig.subsystem.snapshot();
      const counts = commands.filter(({ queue }) => queue === 'nvm');
      assert.deepEqual(Object.fromEntries(counts.map((row) => [`${row.opcode} ${row.status}`, row.count])), {
        'Write success': 10 * round,
        'Verify success': 10 * round,
        'Verify lbaRange': 5 * round,
        'Verify invalidField': 5 * round,
      });
      for (const [opcode, count] of Object.entries({ Write: 10 * round, Verify: 20 * round })) {
        const latency = latencies.find((row) => row.opcode === opcode);
        assert.equal(
          latency?.counts.reduce((sum, each) => sum + each, 0),
          count,
        );
      }
    }
  });
});
