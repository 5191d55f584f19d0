import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { errorTable } from '../../spec/errors.ts';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { nvmOpcodes } from '../../spec/opcodes.ts';
import { c2hTermReq, fatalErrors, pduFlags, pduTypes } from '../../spec/pdu.ts';
import { completionOf, type Pdu, RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig, type RigOptions } from '../controller/rig.ts';

const LBA = 4096;
const statusOf = (code: keyof typeof errorTable): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const pattern = (length: number, seed = 1): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 31 + seed) & 0xff));
const write = (lbaCount: number, lba = 0) => ({
  opcode: nvmOpcodes.write.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: lbaCount - 1,
});
const read = (lbaCount: number, lba = 0) => ({ ...write(lbaCount, lba), opcode: nvmOpcodes.read.opcode });

async function openIo(t: TestContext, options: RigOptions = {}): Promise<{ rig: Rig; host: RawHost }> {
  const rig = await createRig(t, options);
  const { cntlid } = await rig.admin();
  return { rig, host: await rig.io(cntlid) };
}

async function nextOf(host: RawHost, type: number): Promise<Pdu> {
  const pdu = await host.next();
  assert.equal(pdu?.type, type);
  return pdu;
}

describe('data in the capsule', () => {
  test('up to the limit, read back by C2HData', async (t) => {
    const { rig, host } = await openIo(t);
    const data = pattern(8 * LBA);
    host.send(write(8, 3), data);
    assert.equal((await host.completion()).status, 0);
    const completion = await host.read(read(8, 3), data.length);
    assert.equal(completion.status, 0);
    assert.deepEqual(completion.data, data);
    assert.deepEqual(Buffer.from(rig.blocks.bytes.subarray(3 * LBA, 11 * LBA)), data);
    assert.equal(rig.subsystem.snapshot().hostBytes.inCapsule, data.length);
  });

  test('at an offset in the capsule, behind padding', async (t) => {
    const { rig, host } = await openIo(t);
    const data = pattern(LBA, 9);
    const capsule = Buffer.concat([Buffer.alloc(100, 0xaa), data]);
    host.send({ ...write(1), sgl: { kind: 'inCapsule', offset: 100, length: LBA } }, capsule);
    assert.equal((await host.completion()).status, 0);
    assert.deepEqual(Buffer.from(rig.blocks.bytes.subarray(0, LBA)), data);
  });

  const bad = [
    ['offset beyond the capsule', { kind: 'inCapsule', offset: LBA + 1, length: LBA }, 'sglOffset'],
    ['length beyond the capsule', { kind: 'inCapsule', offset: 4, length: LBA }, 'sglDataLength'],
    ['a transport SGL with capsule data', { kind: 'transport', length: LBA }, 'sglInvalid'],
    ['no SGL with capsule data', { kind: 'none' }, 'sglInvalid'],
  ] as const;
  for (const [what, sgl, code] of bad) {
    test(what, async (t) => {
      const { host } = await openIo(t);
      host.send({ ...write(1), sgl }, pattern(LBA));
      assert.equal((await host.completion()).status, statusOf(code));
    });
  }
});

describe('R2T', () => {
  test('one R2T for all data; H2CData in several PDUs; a large read in one C2HData', async (t) => {
    const { rig, host } = await openIo(t);
    const data = pattern(256 * LBA);
    const commandId = host.send({ ...write(256, 5), sgl: { kind: 'transport', length: data.length } });
    const r2t = await nextOf(host, pduTypes.r2t.type);
    assert.equal(r2t.header.readUInt16LE(8), commandId);
    assert.equal(r2t.header.readUInt32LE(12), 0);
    assert.equal(r2t.header.readUInt32LE(16), data.length);
    host.answerR2t(r2t, data, 100_000);
    assert.equal((await host.completion()).status, 0);
    assert.deepEqual(Buffer.from(rig.blocks.bytes.subarray(5 * LBA, 261 * LBA)), data);
    host.send({ ...read(256, 5), sgl: { kind: 'transport', length: data.length } });
    const c2h = await nextOf(host, pduTypes.c2hData.type);
    assert.equal(c2h.flags, pduFlags.last);
    assert.deepEqual(c2h.data, data);
    assert.equal((await host.completion()).status, 0);
    while (rig.subsystem.snapshot().runningBytes > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(rig.arena.freeBytes, rig.arena.sizeBytes - rig.arenaUsedBytes);
  });

  test('transfers of several commands are interleaved freely', async (t) => {
    const { rig, host } = await openIo(t);
    const first = pattern(16 * LBA, 1);
    const second = pattern(16 * LBA, 2);
    const firstId = host.send({ ...write(16, 0), sgl: { kind: 'transport', length: first.length } });
    const secondId = host.send({ ...write(16, 16), sgl: { kind: 'transport', length: second.length } });
    const tags = new Map<number, number>();
    for (let i = 0; i < 2; i++) {
      const { header } = await nextOf(host, pduTypes.r2t.type);
      tags.set(header.readUInt16LE(8), header.readUInt16LE(10));
    }
    const half = 8 * LBA;
    const piece = (id: number, data: Buffer, at: number): void =>
      host.write(host.h2cDataBytes(id, tags.get(id) as number, at, data.subarray(at, at + half), at > 0));
    piece(secondId, second, 0);
    piece(firstId, first, 0);
    piece(secondId, second, half);
    assert.equal((await host.completion()).commandId, secondId);
    piece(firstId, first, half);
    assert.equal((await host.completion()).commandId, firstId);
    assert.deepEqual(Buffer.from(rig.blocks.bytes.subarray(0, 32 * LBA)), Buffer.concat([first, second]));
  });

  test('a command that fails its checks is not asked for its data', async (t) => {
    const { rig, host } = await openIo(t);
    const length = 16 * LBA;
    host.send({ ...write(16, rig.blocks.lbaCount), sgl: { kind: 'transport', length } });
    const pdu = await nextOf(host, pduTypes.capsuleResp.type);
    assert.equal(completionOf(pdu).status, statusOf('lbaRange'));
  });

  const wrongPieces: readonly (readonly [
    string,
    (host: RawHost, id: number, tag: number) => Buffer,
    number,
    number,
  ])[] = [
    [
      'TTAG',
      (host, id, tag) => host.h2cDataBytes(id, tag + 1, 0, pattern(LBA), false),
      fatalErrors.invalidHeaderField,
      10,
    ],
    [
      'CCCID',
      (host, id, tag) => host.h2cDataBytes(id + 1, tag, 0, pattern(LBA), false),
      fatalErrors.invalidHeaderField,
      8,
    ],
    [
      'DATAO ahead',
      (host, id, tag) => host.h2cDataBytes(id, tag, 4, pattern(LBA), false),
      fatalErrors.dataOutOfRange,
      12,
    ],
    [
      'too much',
      (host, id, tag) => host.h2cDataBytes(id, tag, 0, pattern(17 * LBA), true),
      fatalErrors.dataOutOfRange,
      16,
    ],
    [
      'LAST too early',
      (host, id, tag) => host.h2cDataBytes(id, tag, 0, pattern(LBA), true),
      fatalErrors.invalidHeaderField,
      1,
    ],
    [
      'no LAST at the end',
      (host, id, tag) => host.h2cDataBytes(id, tag, 0, pattern(16 * LBA), false),
      fatalErrors.invalidHeaderField,
      1,
    ],
    [
      'DATAL unlike the PDU',
      (host, id, tag) => {
        const pdu = host.h2cDataBytes(id, tag, 0, pattern(LBA), false);
        pdu.writeUInt32LE(LBA - 4, 16);
        return pdu;
      },
      fatalErrors.invalidHeaderField,
      16,
    ],
    ...[20, 23].map(
      (at) =>
        [
          `reserved byte ${at}`,
          (host: RawHost, id: number, tag: number): Buffer => {
            const pdu = host.h2cDataBytes(id, tag, 0, pattern(LBA), false);
            pdu[at] = 1;
            return pdu;
          },
          fatalErrors.invalidHeaderField,
          at,
        ] as const,
    ),
  ];
  for (const [what, build, fes, fei] of wrongPieces) {
    test(`H2CData with wrong ${what}`, async (t) => {
      const { rig, host } = await openIo(t);
      const commandId = host.send({ ...write(16), sgl: { kind: 'transport', length: 16 * LBA } });
      const r2t = await nextOf(host, pduTypes.r2t.type);
      host.write(build(host, commandId, r2t.header.readUInt16LE(10)));
      const pdu = await nextOf(host, pduTypes.c2hTermReq.type);
      const request = c2hTermReq.decode(pdu.header);
      assert.deepEqual([request.fes, request.fei], [fes, fei]);
      await host.untilClosed();
      await settled(rig);
      assert.ok(rig.blocks.bytes.every((byte) => byte === 0));
    });
  }
});

describe('limits', () => {
  test('MDTS: a larger transfer is refused, the largest works', async (t) => {
    const { host } = await openIo(t);
    host.send({ ...read(257), sgl: { kind: 'transport', length: 257 * LBA } });
    assert.equal((await host.completion()).status, statusOf('invalidField'));
    const completion = await host.read(read(256), 256 * LBA);
    assert.equal(completion.status, 0);
    assert.equal(completion.data.length, 256 * LBA);
  });

  test('HPDA: data is aligned as the host asked', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const host = await RawHost.open(rig.unix);
    t.after(() => host.close());
    await host.initialize({ hpda: 15 });
    await host.connect({ qid: 1, sqsize: 7 }, { subnqn: rig.nqn, cntlid });
    for (const lbaCount of [1, 64]) {
      host.send({ ...read(lbaCount), sgl: { kind: 'transport', length: lbaCount * LBA } });
      const pdu = await host.next();
      assert.equal(pdu?.type, pduTypes.c2hData.type);
      assert.equal(pdu.header[3], 64);
      assert.equal(pdu.data.length, lbaCount * LBA);
      assert.equal((await host.completion()).status, 0);
    }
  });
});

async function settled(rig: Rig): Promise<void> {
  while (rig.subsystem.snapshot().inFlightCount > 0) await new Promise((resolve) => setImmediate(resolve));
}
