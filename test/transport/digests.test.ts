/** Header and data digests: what was agreed on, what travels, and what happens to bytes that changed on the way. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { errorTable } from '../../spec/errors.ts';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { c2hTermReq, DIGEST_BYTES, fatalErrors, pduFlags, pduTypes } from '../../spec/pdu.ts';
import { RawHost } from '../controller/raw-host.ts';
import { CC_ENABLED, createRig, PROPERTY_CC, type Rig } from '../controller/rig.ts';

const LBA = 4096;
const { transientTransport } = errorTable;
const TRANSIENT = (transientTransport.sct << 8) | transientTransport.sc;
const write = (lba: number, count: number) => ({
  opcode: nvmOpcodes.write.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: count - 1,
});
const read = (lba: number, count: number) => ({ ...write(lba, count), opcode: nvmOpcodes.read.opcode });
const pattern = (lba: number, count: number) =>
  Buffer.from(Array.from({ length: count * LBA }, (_, i) => (i * 31 + (i >> 8) + lba) & 0xff));

/** An I/O queue that asked for digests, on an association that did too. */
async function open(rig: Rig, t: TestContext, dgst: number, hpda = 0): Promise<{ admin: RawHost; io: RawHost }> {
  const hosts = await Promise.all([RawHost.open(rig.tcp), RawHost.open(rig.tcp)]);
  t.after(() => hosts.forEach((host) => host.close()));
  const [admin, io] = hosts;
  for (const host of hosts) assert.equal((await host.initialize({ dgst, hpda }))?.header[11], dgst, 'DGST of ICResp');
  const { dw0 } = await admin.connect({}, { subnqn: rig.nqn });
  await admin.propertySet(PROPERTY_CC, CC_ENABLED);
  assert.equal((await io.connect({ qid: 1, sqsize: 31 }, { subnqn: rig.nqn, cntlid: dw0 & 0xffff })).status, 0);
  return { admin, io };
}

for (const dgst of [0, 1, 2, 3]) {
  for (const hpda of [0, 7]) {
    test(`DGST ${dgst}, HPDA ${hpda}: commands, data in capsules and by R2T, data back`, async (t) => {
      const { admin, io } = await open(await createRig(t), t, dgst, hpda);
      assert.equal((await admin.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, LBA)).status, 0);
      for (const count of [1, 2, 3, 4, 5, 70, 256]) {
        const data = pattern(count, count);
        assert.equal((await io.run(write(count, count), data)).status, 0, `${count} blocks out`);
        const back = await io.read(read(count, count), count * LBA);
        assert.equal(back.status, 0);
        assert.ok(back.data.equals(data), `${count} blocks back`);
      }
      assert.equal((await io.run({ opcode: nvmOpcodes.flush.opcode, nsid: BLOCK_NSID })).status, 0);
      assert.equal((await io.run({ opcode: 0x55, nsid: BLOCK_NSID })).status, 1, 'an error comes back as well');
    });
  }
}

describe('bytes that changed on the way', () => {
  for (const place of ['common header', 'submission entry', 'header digest'] as const) {
    test(`in the ${place}: the connection ends, naming the digest`, async (t) => {
      const { admin } = await open(await createRig(t), t, 3);
      const capsule = admin.capsuleBytes(admin.entryBytes({ opcode: adminOpcodes.keepAlive.opcode }, 7));
      capsule[{ 'common header': 5, 'submission entry': 20, 'header digest': 73 }[place]]! ^= 0x10;
      admin.write(capsule);
      const pdu = await admin.next();
      assert.equal(pdu?.type, pduTypes.c2hTermReq.type);
      const { fes, fei } = c2hTermReq.decode(pdu.header);
      assert.equal(fes, fatalErrors.headerDigest);
      assert.equal(fei, capsule.readUInt32LE(72));
      assert.deepEqual(pdu.data, capsule.subarray(0, 72));
      await admin.untilClosed();
    });
  }

  test('in a capsule: the command fails and may be sent again', async (t) => {
    const rig = await createRig(t);
    const { io } = await open(rig, t, 3);
    const data = pattern(9, 1);
    const fields = { ...write(9, 1), sgl: { kind: 'inCapsule', offset: 0, length: LBA } } as const;
    const capsule = io.capsuleBytes(io.entryBytes(fields, 7), data);
    capsule[100 + DIGEST_BYTES]! ^= 1;
    io.write(capsule);
    const damaged = await io.completion();
    assert.deepEqual([damaged.commandId, damaged.status, damaged.doNotRetry], [7, TRANSIENT, false]);
    assert.ok(
      rig.blocks.bytes.subarray(9 * LBA, 10 * LBA).every((byte) => byte === 0),
      'nothing was written',
    );
    assert.equal((await io.run(write(9, 1), data)).status, 0);
  });

  test('in one of several H2CData: the command fails when all of them are there', async (t) => {
    const rig = await createRig(t);
    const { io } = await open(rig, t, 2);
    const data = pattern(0, 8);
    io.send({ ...write(0, 8), sgl: { kind: 'transport', length: data.length } });
    const r2t = await io.next();
    assert.equal(r2t?.type, pduTypes.r2t.type);
    const commandId = r2t.header.readUInt16LE(8);
    const tag = r2t.header.readUInt16LE(10);
    for (const [index, offset] of [0, 2 * LBA, 4 * LBA].entries()) {
      const piece = data.subarray(offset, index === 2 ? undefined : offset + 2 * LBA);
      const pdu = io.h2cDataBytes(commandId, tag, offset, piece, index === 2);
      if (index === 1) pdu[pdu.length - 1]! ^= 1;
      io.write(pdu);
    }
    const damaged = await io.completion();
    assert.deepEqual([damaged.status, damaged.doNotRetry], [TRANSIENT, false]);
    assert.ok(
      rig.blocks.bytes.subarray(0, 8 * LBA).every((byte) => byte === 0),
      'nothing was written',
    );
    assert.equal((await io.run(write(0, 8), data)).status, 0);
    assert.deepEqual(rig.fatals, []);
  });

  test('in the data of Connect', async (t) => {
    const rig = await createRig(t);
    const fresh = await RawHost.open(rig.unix);
    t.after(() => fresh.close());
    await fresh.initialize({ dgst: 2 });
    const capsule = fresh.connectBytes({}, { subnqn: rig.nqn });
    capsule[72 + 300]! ^= 1;
    fresh.write(capsule);
    assert.equal((await fresh.completion()).status, TRANSIENT);
    assert.equal((await fresh.connect({}, { subnqn: rig.nqn })).status, 0);
  });
});

describe('flags that do not fit what was agreed on', () => {
  const spoil: readonly (readonly [string, number, number])[] = [
    ['no header digest', 3, pduFlags.ddgst],
    ['no data digest', 2, 0],
    ['a header digest', 2, pduFlags.hdgst | pduFlags.ddgst],
  ];
  for (const [what, dgst, flags] of spoil) {
    test(what, async (t) => {
      const { io } = await open(await createRig(t), t, dgst);
      const wanted = io.digests;
      io.digests = { header: (flags & pduFlags.hdgst) !== 0, data: (flags & pduFlags.ddgst) !== 0 };
      const fields = { ...write(0, 1), sgl: { kind: 'inCapsule', offset: 0, length: LBA } } as const;
      const capsule = io.capsuleBytes(io.entryBytes(fields, 7), pattern(0, 1));
      io.digests = wanted;
      io.write(capsule);
      const pdu = await io.next();
      assert.equal(pdu?.type, pduTypes.c2hTermReq.type);
      const { fes } = c2hTermReq.decode(pdu.header);
      assert.ok(fes === fatalErrors.invalidHeaderField || fes === fatalErrors.headerDigest, `FES ${fes}`);
    });
  }
});
