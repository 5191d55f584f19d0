import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { errorTable } from '../../spec/errors.ts';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { nvmOpcodes } from '../../spec/opcodes.ts';
import { pduTypes } from '../../spec/pdu.ts';
import { completionOf } from '../controller/raw-host.ts';
import { createRig } from '../controller/rig.ts';

const LBA = 4096;
const MIB = 1 << 20;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('back-pressure', () => {
  test('a host that does not read holds a bounded number of bytes, and gets everything in the end', async (t) => {
    const limits = { connectionDataBytesMax: 2 * MIB };
    const rig = await createRig(t, { limits });
    const { cntlid } = await rig.admin();
    const slow = await rig.io(cntlid, { qid: 1 });
    const other = await rig.io(cntlid, { qid: 2 });
    slow.socket.pause();
    const count = 100;
    for (let i = 0; i < count; i++) {
      slow.send({
        opcode: nvmOpcodes.read.opcode,
        nsid: BLOCK_NSID,
        cdw12: 255,
        sgl: { kind: 'transport', length: MIB },
      });
    }
    let mostRunning = 0;
    let mostUsed = 0;
    for (let i = 0; i < 300; i++) {
      await turn();
      mostRunning = Math.max(mostRunning, rig.subsystem.snapshot().runningBytes);
      mostUsed = Math.max(mostUsed, rig.arena.sizeBytes - rig.arena.freeBytes - rig.arenaUsedBytes);
    }
    assert.ok(mostRunning <= 2 * MIB, `${mostRunning} bytes running`);
    assert.ok(mostUsed <= 2 * MIB, `${mostUsed} bytes of the arena`);
    const before = rig.subsystem.snapshot().inFlightCount;
    assert.ok(before > 90, `${before} wait`);
    // Meanwhile another queue of the same host works.
    const answer = await other.read({ opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID }, LBA);
    assert.equal(answer.status, 0);
    slow.socket.resume();
    const seen = new Set<number>();
    let bytes = 0;
    while (seen.size < count) {
      const pdu = await slow.next();
      if (pdu?.type === pduTypes.c2hData.type) bytes += pdu.data.length;
      else if (pdu?.type === pduTypes.capsuleResp.type) seen.add(completionOf(pdu).commandId);
      else assert.fail('connection ended');
    }
    assert.equal(bytes, count * MIB);
    assert.equal(rig.subsystem.snapshot().runningBytes, 0);
  });

  test('a host that takes nothing is dropped after the stall timeout', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const slow = await rig.io(cntlid);
    slow.socket.pause();
    for (let i = 0; i < 16; i++) {
      slow.send({
        opcode: nvmOpcodes.read.opcode,
        nsid: BLOCK_NSID,
        cdw12: 255,
        sgl: { kind: 'transport', length: MIB },
      });
    }
    while (rig.subsystem.snapshot().runningBytes === 0) await turn();
    for (let i = 0; i < 50; i++) await turn();
    for (let ms = 0; ms <= rig.limits.sendStallTimeoutMs; ms += rig.limits.handshakeTimeoutMs) {
      rig.clock.advance(rig.limits.handshakeTimeoutMs);
    }
    while (rig.subsystem.snapshot().inFlightCount > 0) await turn();
    // Buffers of data that the socket held come back when it is closed.
    while (rig.subsystem.snapshot().runningBytes > 0) await turn();
    assert.equal(rig.transport.snapshot().connections.length, 1);
    assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes);
  });

  test('writes wait for room before they are asked for their data, and reads behind them too', async (t) => {
    const rig = await createRig(t, { limits: { connectionDataBytesMax: 128 * 1024 } });
    const { cntlid } = await rig.admin();
    const host = await rig.io(cntlid);
    const data = Buffer.alloc(64 * 1024, 5);
    for (let i = 0; i < 4; i++) {
      host.send({
        opcode: nvmOpcodes.write.opcode,
        nsid: BLOCK_NSID,
        cdw10: i * 16,
        cdw12: 15,
        sgl: { kind: 'transport', length: data.length },
      });
    }
    const first = await host.next();
    const second = await host.next();
    assert.equal(first?.type, pduTypes.r2t.type);
    assert.equal(second?.type, pduTypes.r2t.type);
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(rig.subsystem.snapshot().runningBytes, 2 * data.length);
    host.answerR2t(first, data);
    host.answerR2t(second, data);
    for (let completed = 0; completed < 4; ) {
      const pdu = await host.next();
      if (pdu?.type === pduTypes.r2t.type) host.answerR2t(pdu, data);
      else {
        assert.equal(pdu?.type, pduTypes.capsuleResp.type);
        completed++;
      }
    }
    assert.ok(rig.blocks.bytes.subarray(0, 4 * data.length).every((byte) => byte === 5));
  });

  test('the total bound holds over connections, and a small command of an idle one still runs', async (t) => {
    const rig = await createRig(t, { limits: { dataBytesTotalMax: MIB } });
    const { cntlid } = await rig.admin();
    const greedy = await rig.io(cntlid, { qid: 1 });
    const modest = await rig.io(cntlid, { qid: 2 });
    greedy.send({
      opcode: nvmOpcodes.write.opcode,
      nsid: BLOCK_NSID,
      cdw12: 255,
      sgl: { kind: 'transport', length: MIB },
    });
    assert.equal((await greedy.next())?.type, pduTypes.r2t.type);
    const small = await modest.read({ opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID }, LBA);
    assert.equal(small.status, 0);
    modest.send({
      opcode: nvmOpcodes.read.opcode,
      nsid: BLOCK_NSID,
      cdw12: 31,
      sgl: { kind: 'transport', length: 32 * LBA },
    });
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(rig.subsystem.snapshot().runningBytes, MIB);
    greedy.close();
    assert.equal((await modest.completion()).data.length, 32 * LBA);
  });

  test('in-capsule data of waiting commands is bounded: beyond it, try again', async (t) => {
    const limits = { connectionDataBytesMax: LBA, waitingCapsuleBytesTotalMax: 2 * LBA };
    const rig = await createRig(t, { limits });
    const { cntlid } = await rig.admin();
    const host = await rig.io(cntlid);
    rig.blocks.gate.shut();
    const data = Buffer.alloc(LBA, 1);
    for (let i = 0; i < 4; i++) host.send({ opcode: nvmOpcodes.write.opcode, nsid: BLOCK_NSID, cdw10: i }, data);
    const refused = await host.completion();
    assert.equal(refused.commandId, 5);
    assert.equal(refused.status, errorTable.commandInterrupted.sc);
    assert.equal(refused.doNotRetry, false);
    rig.blocks.gate.open();
    for (let i = 0; i < 3; i++) assert.equal((await host.completion()).status, 0);
  });

  test('completions that nobody reads stop the reading of commands', async (t) => {
    const rig = await createRig(t, { limits: { connectionOutputBytesMax: 4096 } });
    const { cntlid } = await rig.admin();
    const host = await rig.io(cntlid);
    host.socket.pause();
    const flood = Buffer.concat(
      Array.from({ length: 1000 }, (_, i) =>
        host.capsuleBytes(host.entryBytes({ opcode: 0xff, nsid: BLOCK_NSID }, i + 1)),
      ),
    );
    // The host never waits for a completion, but no command stays in flight either: only the output can stop it.
    for (let i = 0; i < 200; i++) host.write(flood);
    const connection = () => rig.transport.snapshot().connections.find(({ queueId }) => queueId === 1);
    for (let i = 0; i < 400; i++) await turn();
    const pending = connection()?.pendingBytes ?? 0;
    assert.ok(pending < 16_384 + 65_536, `${pending} bytes pile up`);
    host.socket.resume();
    let seen = 0;
    while (seen < 200 * 1000) {
      const pdu = await host.next();
      assert.equal(pdu?.type, pduTypes.capsuleResp.type);
      seen++;
    }
  });
});
