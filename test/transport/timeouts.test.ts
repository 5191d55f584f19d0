import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { pduTypes } from '../../spec/pdu.ts';
import { RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig } from '../controller/rig.ts';

const LBA = 4096;

/** Until the drive has read what was sent to it. */
async function received(rig: Rig, bytes: number): Promise<void> {
  const total = (): number =>
    rig.transport.snapshot().connections.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0);
  while (total() < bytes) await new Promise((resolve) => setImmediate(resolve));
}

async function connectionCount(rig: Rig, count: number): Promise<void> {
  while (rig.transport.snapshot().connections.length !== count) await new Promise((resolve) => setImmediate(resolve));
}

describe('a connection that does not get on', () => {
  test('never speaks: dropped after the handshake timeout, others live on', async (t) => {
    const rig = await createRig(t);
    const silent = await RawHost.open(rig.unix);
    await connectionCount(rig, 1);
    rig.clock.advance(rig.limits.handshakeTimeoutMs - 1);
    const { host } = await rig.admin();
    await connectionCount(rig, 2);
    rig.clock.advance(1);
    await silent.untilClosed();
    await connectionCount(rig, 1);
    const identify = await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, 4096);
    assert.equal(identify.status, 0);
  });

  test('sends ICReq and no Connect', async (t) => {
    const rig = await createRig(t);
    const host = await rig.host();
    rig.clock.advance(rig.limits.handshakeTimeoutMs);
    await host.untilClosed();
    await connectionCount(rig, 0);
    assert.deepEqual(rig.transport.snapshot().refusedCounts, { limit: 0, timeout: 1, protocol: 0 });
  });

  test('trickles: bytes do not count, PDUs do', async (t) => {
    const rig = await createRig(t);
    const host = await RawHost.open(rig.unix);
    t.after(() => host.close());
    const bytes = host.icReqBytes();
    host.write(bytes.subarray(0, 60));
    await received(rig, 60);
    rig.clock.advance(rig.limits.handshakeTimeoutMs / 2);
    host.write(bytes.subarray(60, 100));
    await received(rig, 100);
    rig.clock.advance(rig.limits.handshakeTimeoutMs / 2);
    await host.untilClosed();
  });

  test('stops in the middle of a capsule', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    const before = rig.transport.snapshot().connections.reduce((sum, c) => sum + c.receivedBytes, 0);
    const capsule = io.capsuleBytes(io.entryBytes({ opcode: 1, nsid: 1 }, 1), Buffer.alloc(LBA));
    io.write(capsule.subarray(0, 500));
    await received(rig, before + 500);
    rig.clock.advance(2 * rig.limits.handshakeTimeoutMs);
    await io.untilClosed();
    assert.equal(host.closed, false);
    assert.equal((await host.run({ opcode: adminOpcodes.keepAlive.opcode })).status, 0);
  });

  test('stops in the middle of a transfer: its buffer is given back', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    io.send({ opcode: 1, nsid: BLOCK_NSID, cdw12: 15, sgl: { kind: 'transport', length: 16 * LBA } });
    const r2t = await io.next();
    assert.equal(r2t?.type, pduTypes.r2t.type);
    rig.clock.advance(2 * rig.limits.handshakeTimeoutMs);
    await io.untilClosed();
    while (rig.subsystem.snapshot().inFlightCount > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes);
  });

  test('is idle: that is no reason to drop it', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    rig.clock.advance(20 * rig.limits.handshakeTimeoutMs);
    assert.equal((await host.run({ opcode: adminOpcodes.keepAlive.opcode })).status, 0);
  });
});

describe('the host closes its side', () => {
  test('running commands finish and their completions arrive', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    io.send({ opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID, sgl: { kind: 'transport', length: LBA } });
    while (rig.blocks.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
    io.socket.end();
    await new Promise((resolve) => setTimeout(resolve, 20));
    rig.blocks.gate.open();
    const completion = await io.completion();
    assert.equal(completion.status, 0);
    assert.equal(completion.data.length, LBA);
    await io.untilClosed();
  });

  test('a disconnect in the middle of commands leaves nothing behind', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    for (let i = 0; i < 20; i++) {
      io.send({
        opcode: nvmOpcodes.read.opcode,
        nsid: BLOCK_NSID,
        cdw12: 31,
        sgl: { kind: 'transport', length: 32 * LBA },
      });
    }
    while (rig.blocks.gate.waitingCount < 20) await new Promise((resolve) => setImmediate(resolve));
    io.socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    rig.blocks.gate.open();
    await connectionCount(rig, 1);
    while (rig.subsystem.snapshot().inFlightCount > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes);
    assert.deepEqual(rig.fatals, []);
    assert.equal(rig.subsystem.snapshot().associations[0]?.queues.length, 1);
  });
});
