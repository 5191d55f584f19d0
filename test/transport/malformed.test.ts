import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { c2hTermReq, fatalErrors, pduTypes } from '../../spec/pdu.ts';
import { adminOpcodes } from '../../spec/opcodes.ts';
import { type RawHost, RawHost as Raw } from '../controller/raw-host.ts';
import { createRig, type Rig } from '../controller/rig.ts';

const { invalidHeaderField, sequence, unsupportedParameter } = fatalErrors;

/** The next PDU is C2HTermReq with this reason, the bad header comes back, and the connection ends. */
async function expectTermination(host: RawHost, fes: number, fei: number, header?: Uint8Array): Promise<void> {
  const pdu = await host.next();
  assert.equal(pdu?.type, pduTypes.c2hTermReq.type);
  const request = c2hTermReq.decode(pdu.header);
  assert.deepEqual({ fes: request.fes, fei: request.fei }, { fes, fei });
  if (header !== undefined) assert.deepEqual(pdu.data, Buffer.from(header));
  await host.untilClosed();
}

/** Others are not disturbed by a connection that went wrong. */
async function expectStillServing(rig: Rig): Promise<void> {
  const { host } = await rig.admin();
  const identify = await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, 4096);
  assert.equal(identify.status, 0);
  host.close();
}

async function open(rig: Rig, t: TestContext): Promise<RawHost> {
  const host = await Raw.open(rig.unix);
  t.after(() => host.close());
  return host;
}

describe('before ICReq', () => {
  test('a command is a sequence error', async (t) => {
    const rig = await createRig(t);
    const host = await open(rig, t);
    const capsule = host.capsuleBytes(host.entryBytes({ opcode: 6 }, 1));
    host.write(capsule);
    await expectTermination(host, sequence, 0, capsule.subarray(0, 72));
    await expectStillServing(rig);
  });

  test('what is no PDU at all', async (t) => {
    const rig = await createRig(t);
    const host = await open(rig, t);
    host.write(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await expectTermination(host, invalidHeaderField, 0, Buffer.from('GET / HT'));
    await expectStillServing(rig);
  });

  const fields: readonly (readonly [string, object, number, number])[] = [
    ['PFV 1', { pfv: 1 }, unsupportedParameter, 8],
    ['HPDA 32', { hpda: 32 }, invalidHeaderField, 10],
    ['DGST 4', { dgst: 4 }, invalidHeaderField, 11],
  ];
  for (const [what, icReqFields, fes, fei] of fields) {
    test(`ICReq with ${what}`, async (t) => {
      const rig = await createRig(t);
      const host = await open(rig, t);
      host.write(host.icReqBytes(icReqFields));
      await expectTermination(host, fes, fei, host.icReqBytes(icReqFields));
    });
  }

  test('ICReq with a reserved byte', async (t) => {
    const rig = await createRig(t);
    const host = await open(rig, t);
    const bytes = host.icReqBytes();
    bytes[100] = 1;
    host.write(bytes);
    await expectTermination(host, invalidHeaderField, 100, bytes);
  });

  test('ICReq that is longer than an ICReq', async (t) => {
    const rig = await createRig(t);
    const host = await open(rig, t);
    const bytes = host.icReqBytes();
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(4, 129, true);
    host.write(bytes);
    await expectTermination(host, invalidHeaderField, 4, bytes.subarray(0, 8));
  });
});

describe('after ICReq', () => {
  test('a second ICReq', async (t) => {
    const rig = await createRig(t);
    const host = await rig.host();
    host.write(host.icReqBytes());
    await expectTermination(host, sequence, 0);
  });

  test('a capsule larger than an admin queue takes', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    const capsule = host.capsuleBytes(host.entryBytes({ opcode: 6 }, 1), Buffer.alloc(8193));
    host.write(capsule);
    await expectTermination(host, invalidHeaderField, 4, capsule.subarray(0, 8));
    await expectStillServing(rig);
  });

  test('a capsule larger than an I/O queue takes', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const host = await rig.io(cntlid);
    host.write(host.capsuleBytes(host.entryBytes({ opcode: 1 }, 1), Buffer.alloc(32_769)));
    await expectTermination(host, invalidHeaderField, 4);
  });

  test('H2CData that nobody asked for', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    const pdu = host.h2cDataBytes(1, 5, 0, Buffer.alloc(16), true);
    host.write(pdu);
    await expectTermination(host, invalidHeaderField, 10, pdu.subarray(0, 24));
  });

  test('H2CTermReq ends the connection without an answer', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    const pdu = Buffer.alloc(24 + 8);
    pdu[0] = pduTypes.h2cTermReq.type;
    pdu[2] = 24;
    pdu.writeUInt32LE(32, 4);
    pdu.writeUInt16LE(2, 8);
    host.write(pdu);
    assert.equal(await host.next(), undefined);
    await expectStillServing(rig);
  });

  test('what follows a bad PDU is not looked at', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    const bad = host.h2cDataBytes(1, 5, 0, Buffer.alloc(16), true);
    const good = host.capsuleBytes(host.entryBytes({ opcode: adminOpcodes.keepAlive.opcode }, 9));
    host.write(Buffer.concat([bad, good]));
    await expectTermination(host, invalidHeaderField, 10);
    assert.equal(await host.next(), undefined);
  });
});
