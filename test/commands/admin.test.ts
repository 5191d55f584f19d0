import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { features as featureTable } from '../../spec/features.ts';
import {
  decodeNamespaceDescriptors,
  decodeNamespaceList,
  ENDURANCE_GROUP_ID,
  identifyController,
  identifyNamespace,
} from '../../spec/identify.ts';
import { independentNamespace } from '../../spec/identify.ts';
import { kvController, kvNamespace } from '../../spec/identify-kv.ts';
import { BLOCK_NSID, KV_CACHE_CSI } from '../../spec/kv-commands.ts';
import {
  driveStatistics,
  EFFECTS_IO_OFFSET,
  enduranceGroupLog,
  firmwareSlotLog,
  logPages,
  smartLog,
} from '../../spec/log-pages.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import type { RawHost } from '../controller/raw-host.ts';
import { CC_ENABLED, createRig, PROPERTY_CC, type Rig } from '../controller/rig.ts';
import { statusOf } from './kv-host.ts';

async function open(t: TestContext): Promise<{ rig: Rig; host: RawHost; cntlid: number }> {
  const rig = await createRig(t);
  return { rig, ...(await rig.admin()) };
}

const log = (
  host: RawHost,
  lid: number,
  length: number,
  fields: { offset?: number; csi?: number; nsid?: number; identifier?: number } = {},
) => {
  const dwords = length / 4 - 1;
  const { offset = 0, csi = 0, nsid = 0xffff_ffff, identifier = 0 } = fields;
  return host.read(
    {
      opcode: adminOpcodes.getLogPage.opcode,
      nsid,
      cdw10: (lid | ((dwords & 0xffff) << 16)) >>> 0,
      cdw11: ((dwords >>> 16) | (identifier << 16)) >>> 0,
      cdw12: offset % 2 ** 32,
      cdw13: Math.floor(offset / 2 ** 32),
      cdw14: csiOf(csi),
    },
    length,
  );
};

const csiOf = (csi: number): number => csi * 2 ** 24;

describe('Identify', () => {
  const identify = (host: RawHost, cns: number, nsid = 0, csi = 0) =>
    host.read({ opcode: adminOpcodes.identify.opcode, nsid, cdw10: cns, cdw11: csiOf(csi) }, 4096);

  test('controller', async (t) => {
    const { host } = await open(t);
    const controller = identifyController.decode((await identify(host, 1)).data);
    assert.equal(controller.mn, 'attndrive test');
    assert.equal(controller.sqes, 0x66);
    assert.equal(controller.cqes, 0x44);
    assert.equal(controller.oncs, 0b1100_1101, 'Compare, DSM, Write Zeroes, Timestamp, Verify');
    assert.equal(controller.sgls & 0b111, 0b101, 'SGLs, keyed too');
    assert.equal(controller.nn, 2);
    assert.equal(controller.oaes, 1 << 8, 'namespace attribute notices');
    assert.deepEqual([controller.acl, controller.aerl, controller.elpe], [3, 3, 63]);
    assert.equal(controller.kas, 1);
    assert.equal(controller.ioccsz, (64 + 32_768) / 16);
  });

  test('namespace lists', async (t) => {
    const { host } = await open(t);
    const list = async (cns: number, nsid: number, csi = 0) =>
      decodeNamespaceList((await identify(host, cns, nsid, csi)).data);
    assert.deepEqual(await list(2, 0), [1, 2]);
    assert.deepEqual(await list(2, 1), [2]);
    assert.deepEqual(await list(2, 2), []);
    assert.deepEqual(await list(7, 0, 0), [1]);
    assert.deepEqual(await list(7, 0, KV_CACHE_CSI), [2]);
    assert.equal((await identify(host, 2, 0xffff_ffff)).status, statusOf('invalidNamespace'));
    assert.equal((await identify(host, 7, 0, 1)).status, statusOf('invalidCommandSet'));
  });

  test('namespace descriptors: the command set, and names that differ', async (t) => {
    const { host } = await open(t);
    const one = decodeNamespaceDescriptors((await identify(host, 3, 1)).data);
    const two = decodeNamespaceDescriptors((await identify(host, 3, 2)).data);
    assert.deepEqual([one.csi, two.csi], [0, KV_CACHE_CSI]);
    assert.notDeepEqual(one.uuid, two.uuid);
    assert.deepEqual(one.uuid, one.nguid);
    const again = decodeNamespaceDescriptors((await identify(host, 3, 1)).data);
    assert.deepEqual(again, one, 'a namespace keeps its names');
    assert.equal((await identify(host, 3, 3)).status, statusOf('invalidNamespace'));
  });

  test('the block namespace', async (t) => {
    const { host } = await open(t);
    for (const nsid of [1, 0xffff_ffff]) {
      const namespace = identifyNamespace.decode((await identify(host, 0, nsid)).data);
      assert.deepEqual([namespace.nsze, namespace.ncap, namespace.nuse], [4096, 4096, 3]);
      assert.equal((namespace.lbaf0 >>> 16) & 0xff, 12);
      assert.equal(namespace.dlfeat, 0b1001);
    }
    assert.equal((await identify(host, 0, 2)).status, statusOf('invalidCommandSet'));
    assert.equal((await identify(host, 0, 0)).status, statusOf('invalidNamespace'));
    assert.equal((await identify(host, 5, 1)).status, 0);
    assert.equal((await identify(host, 6)).status, 0);
  });

  test('the KV-cache namespace', async (t) => {
    const { host } = await open(t);
    const namespace = kvNamespace.decode((await identify(host, 5, 2, KV_CACHE_CSI)).data);
    assert.deepEqual([namespace.pageCount, namespace.pageSizeBytes, namespace.headDimMax], [100, 16_384, 256]);
    assert.equal(namespace.elementTypeMask, 0b11_1110);
    const controller = kvController.decode((await identify(host, 6, 0, KV_CACHE_CSI)).data);
    assert.deepEqual([controller.attendModeMask, controller.attendFlagMask], [1, 7]);
    assert.equal((await identify(host, 5, 1, KV_CACHE_CSI)).status, statusOf('invalidCommandSet'));
    assert.equal((await identify(host, 6, 0, 4)).status, statusOf('invalidCommandSet'));
  });

  test('what is common to command sets', async (t) => {
    const { host } = await open(t);
    for (const nsid of [1, 2]) assert.equal(independentNamespace.decode((await identify(host, 8, nsid)).data).nstat, 1);
    assert.equal((await identify(host, 8, 3)).status, statusOf('invalidNamespace'));
    const vector = (await identify(host, 0x1c)).data.readBigUInt64LE(0);
    assert.equal(vector, 1n | (1n << BigInt(KV_CACHE_CSI)));
  });

  test('the endurance group, and which namespaces are of it', async (t) => {
    const { host } = await open(t);
    const controller = identifyController.decode((await identify(host, 1)).data);
    assert.equal(controller.ctratt & (1 << 4), 1 << 4);
    assert.equal(controller.endgidmax, ENDURANCE_GROUP_ID);
    const list = async (from: number): Promise<number[]> => {
      const fields = { opcode: adminOpcodes.identify.opcode, cdw10: 0x19, cdw11: from };
      const { data } = await host.read(fields, 4096);
      return Array.from({ length: data.readUInt16LE(0) }, (_, index) => data.readUInt16LE(2 + 2 * index));
    };
    assert.deepEqual([await list(0), await list(1), await list(2)], [[1], [1], []]);
    const block = identifyNamespace.decode((await identify(host, 0, 1)).data);
    assert.deepEqual([block.endgid, block.nsattr], [1, 0]);
    for (const nsid of [1, 2]) {
      assert.equal(independentNamespace.decode((await identify(host, 8, nsid)).data).endgid, 1);
    }
  });

  test('unknown CNS, and fields that no CNS uses', async (t) => {
    const { host } = await open(t);
    const status = async (dwords: object) =>
      (await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1, ...dwords }, 4096)).status;
    for (const cns of [0x04, 0x09, 0x10, 0x13, 0x1b, 0xff]) {
      assert.equal(await status({ cdw10: cns }), statusOf('invalidField'), `CNS ${cns}`);
    }
    assert.equal(await status({ cdw10: 0x0001_0001 }), statusOf('invalidField'));
    assert.equal(await status({ cdw11: 1 }), statusOf('invalidField'));
    assert.equal(await status({ cdw14: 1 }), statusOf('invalidField'));
  });
});

describe('Get Log Page', () => {
  test('supported pages are those that answer', async (t) => {
    const { host } = await open(t);
    const { data } = await log(host, 0, 1024);
    for (let lid = 0; lid < 256; lid++) {
      const supported = (data.readUInt32LE(4 * lid) & 1) === 1;
      const identifier = lid === logPages.enduranceGroup.lid ? ENDURANCE_GROUP_ID : 0;
      const { status } = await log(host, lid, 16, { identifier });
      assert.equal(status, supported ? 0 : statusOf('invalidLogPage'), `log page ${lid}`);
    }
  });

  test('SMART', async (t) => {
    const { host } = await open(t);
    const { data } = await log(host, logPages.smart.lid, 512);
    assert.deepEqual([smartLog.decode(data).temperature, smartLog.decode(data).availSpare], [300, 100]);
    assert.equal((await log(host, logPages.smart.lid, 512, { nsid: BLOCK_NSID })).status, statusOf('invalidNamespace'));
  });

  test('firmware slots: one, read only', async (t) => {
    const { host } = await open(t);
    const { afi, frs1 } = firmwareSlotLog.decode((await log(host, logPages.firmwareSlot.lid, 512)).data);
    assert.deepEqual([afi, frs1], [1, '0.1.0']);
  });

  test('features: those of the table, each of one controller', async (t) => {
    const { host } = await open(t);
    const { data } = await log(host, logPages.featureEffects.lid, 1024);
    for (let fid = 0; fid < 256; fid++) {
      const isFeature = Object.values(featureTable).some((row) => row.fid === fid);
      assert.equal(data.readUInt32LE(4 * fid), isFeature ? 0x20_0001 : 0, `feature ${fid}`);
    }
  });

  test('the endurance group: there is one', async (t) => {
    const { host } = await open(t);
    const { lid } = logPages.enduranceGroup;
    const answer = await log(host, lid, 512, { identifier: ENDURANCE_GROUP_ID, nsid: 0 });
    assert.equal(enduranceGroupLog.decode(answer.data).percentUsed, 7);
    for (const identifier of [0, 2, 0xffff]) {
      assert.equal((await log(host, lid, 512, { identifier })).status, statusOf('invalidField'), `group ${identifier}`);
    }
  });

  test('effects: of every command set its opcodes', async (t) => {
    const { host } = await open(t);
    for (const [csi, table] of [
      [0, nvmOpcodes],
      [KV_CACHE_CSI, kvOpcodes],
    ] as const) {
      const { data } = await log(host, logPages.effects.lid, 4096, { csi });
      const supported = (at: number) =>
        Array.from({ length: 256 }, (_, opcode) => opcode).filter(
          (opcode) => (data.readUInt32LE(at + 4 * opcode) & 1) === 1,
        );
      const opcodes = (rows: object) =>
        Object.values(rows)
          .map(({ opcode }) => opcode as number)
          .sort((a, b) => a - b);
      assert.deepEqual(supported(0), opcodes(adminOpcodes));
      assert.deepEqual(supported(EFFECTS_IO_OFFSET), opcodes(table));
    }
    const unknown = await log(host, logPages.effects.lid, 4096, { csi: 2 });
    assert.equal(unknown.status, 0, 'hosts ask for more sets than one at once');
    assert.ok(unknown.data.subarray(EFFECTS_IO_OFFSET).every((byte) => byte === 0));
    assert.equal((await log(host, logPages.smart.lid, 512, { csi: 2 })).status, statusOf('invalidCommandSet'));
  });

  test('statistics: what rooms below know and what only the front knows', async (t) => {
    const { host } = await open(t);
    const statistics = driveStatistics.decode((await log(host, logPages.driveStatistics.lid, 1024)).data);
    assert.equal(statistics.uptimeSeconds, 5);
    assert.equal(statistics.kernelSet, 'reference');
    assert.ok(statistics.linkReceivedBytes > 1000);
    assert.ok(statistics.linkSentBytes > 100);
  });

  test('offset and length: pieces fit together, behind the end are zeros', async (t) => {
    const { host } = await open(t);
    const { lid } = logPages.supported;
    const whole = (await log(host, lid, 1024)).data;
    const pieces = [await log(host, lid, 100), await log(host, lid, 1000, { offset: 100 })];
    assert.deepEqual(Buffer.concat(pieces.map(({ data }) => data)).subarray(0, 1024), whole);
    assert.ok(pieces[1]?.data.subarray(924).every((byte) => byte === 0));
    assert.equal((await log(host, lid, 4, { offset: 1024 })).status, 0);
    assert.equal((await log(host, lid, 4, { offset: 1028 })).status, statusOf('invalidField'));
    assert.equal((await log(host, lid, 4, { offset: 2 })).status, statusOf('invalidField'));
    assert.equal((await log(host, lid, 4, { offset: 2 ** 32 })).status, statusOf('invalidField'));
    assert.equal((await log(host, lid, 1 << 20)).status, 0);
  });

  test('parameters that no page takes', async (t) => {
    const { host } = await open(t);
    const status = async (dwords: object) =>
      (await host.read({ opcode: adminOpcodes.getLogPage.opcode, cdw10: 2 | (3 << 16), ...dwords }, 16)).status;
    assert.equal(await status({}), 0);
    assert.equal(await status({ cdw10: 2 | (3 << 16) | (1 << 15) }), 0, 'RAE');
    assert.equal(await status({ cdw10: 2 | (3 << 16) | (1 << 8) }), statusOf('invalidField'), 'LSP');
    assert.equal(await status({ cdw11: 1 << 16 }), statusOf('invalidField'), 'LSI');
    assert.equal(await status({ cdw14: 1 }), statusOf('invalidField'), 'UUID index');
    assert.equal(await status({ cdw14: 1 << 23 }), statusOf('invalidField'), 'offset type');
    assert.equal(await status({ cdw14: csiOf(1) }), statusOf('invalidCommandSet'), 'CSI');
    assert.equal(await status({ cdw11: 0xff }), statusOf('invalidField'), 'longer than MDTS');
  });
});

describe('features', () => {
  const set = (host: RawHost, fid: number, value: number, fields: object = {}) =>
    host.run({ opcode: adminOpcodes.setFeatures.opcode, cdw10: fid, cdw11: value, ...fields });
  const get = (host: RawHost, fid: number, select = 0, fields: object = {}) =>
    host.run({ opcode: adminOpcodes.getFeatures.opcode, cdw10: fid | (select << 8), ...fields });

  test('number of queues: all of them, and not once there are any', async (t) => {
    const { rig, host, cntlid } = await open(t);
    assert.equal((await set(host, 7, 0)).dw0, (63 << 16) | 63);
    assert.equal((await get(host, 7)).dw0, (63 << 16) | 63);
    assert.equal((await set(host, 7, 0xffff)).status, statusOf('invalidField'));
    assert.equal((await set(host, 7, 0xffff_0000)).status, statusOf('invalidField'));
    await rig.io(cntlid);
    assert.equal((await set(host, 7, 0)).status, statusOf('commandSequence'));
  });

  test('write cache: off means FUA for every write', async (t) => {
    const { rig, host, cntlid } = await open(t);
    const io = await rig.io(cntlid);
    const write = () => io.run({ opcode: nvmOpcodes.write.opcode, nsid: BLOCK_NSID }, Buffer.alloc(4096));
    assert.equal((await get(host, 6)).dw0, 1);
    await write();
    assert.equal(rig.blocks.fuaCount, 0);
    assert.equal((await set(host, 6, 0)).status, 0);
    assert.equal((await get(host, 6)).dw0, 0);
    assert.equal((await get(host, 6, 1)).dw0, 1, 'default');
    await write();
    assert.equal(rig.blocks.fuaCount, 1);
    assert.equal((await set(host, 6, 2)).status, statusOf('invalidField'));
  });

  test('keep alive timer: takes effect at once', async (t) => {
    const { rig, host } = await open(t);
    assert.equal((await get(host, 0x0f)).dw0, 0);
    assert.equal((await set(host, 0x0f, 250)).status, 0);
    assert.equal((await get(host, 0x0f)).dw0, 300, 'rounded up to the granularity');
    assert.equal((await set(host, 0x0f, 3_600_001)).status, statusOf('keepAliveTimeout'));
    rig.clock.advance(300);
    rig.clock.advance(300);
    await host.untilClosed();
  });

  test('what can be asked and set', async (t) => {
    const { host } = await open(t);
    const fids = Object.values(featureTable).map(({ fid }) => fid);
    for (const { fid, changeable, dataBytes } of Object.values(featureTable)) {
      assert.equal((await get(host, fid, 3)).dw0, changeable ? 4 : 0, `${fid}: changeable, not saveable`);
      assert.equal((await get(host, fid, 4)).status, statusOf('invalidField'));
      const save = (await set(host, fid, 0, { cdw10: (fid | 0x8000_0000) >>> 0 })).status;
      assert.equal(save, statusOf('featureNotSaveable'));
      if (!changeable) continue;
      assert.equal((await set(host, fid, 0, { nsid: 1 })).status, statusOf('featureNotNamespaceSpecific'));
      if (dataBytes > 0) assert.equal((await set(host, fid, 0)).status, statusOf('sglDataLength'));
    }
    for (let fid = 0; fid < 256; fid++) {
      if (fids.includes(fid)) continue;
      assert.equal((await get(host, fid)).status, statusOf('invalidField'));
      assert.equal((await set(host, fid, 0)).status, statusOf('invalidField'));
    }
  });

  test('features that are a number: what was set, the default, bits that mean nothing', async (t) => {
    const { host } = await open(t);
    const numbers: readonly (readonly [number, number, number, number])[] = [
      // Feature, a good value, default, a bad value.
      [0x01, 0x0403_0207, 0, 0x08],
      [0x02, 0x20, 0, 0x01],
      [0x05, 0xffff, 0, 0x1_0000],
      [0x06, 0, 1, 2],
      [0x0a, 1, 0, 2],
      [0x0b, 0x11f, 0, 0x8000_0000],
    ];
    for (const [fid, good, initial, bad] of numbers) {
      assert.equal((await get(host, fid)).dw0, initial, `feature ${fid}`);
      assert.equal((await set(host, fid, good)).status, 0, `feature ${fid}`);
      assert.equal((await get(host, fid)).dw0, good);
      assert.equal((await get(host, fid, 1)).dw0, initial, 'default');
      assert.equal((await set(host, fid, bad)).status, statusOf('invalidField'), `feature ${fid} ${bad}`);
      assert.equal((await get(host, fid)).dw0, good);
    }
    assert.equal((await set(host, 0x19, 0)).status, 0);
    assert.equal((await set(host, 0x19, 1)).status, statusOf('commandSetRejected'));
  });

  test('temperature thresholds: over and under, of the composite sensor', async (t) => {
    const { host } = await open(t);
    const threshold = async (kind: number) => (await get(host, 4, 0, { cdw11: kind << 20 })).dw0;
    assert.deepEqual([await threshold(0), await threshold(1)], [0xffff, 0]);
    assert.equal((await set(host, 4, 350)).status, 0);
    assert.equal((await set(host, 4, 280 | (1 << 20) | (15 << 16))).status, 0, 'of all sensors');
    assert.deepEqual([await threshold(0), await threshold(1)], [350, 280]);
    for (const bad of [1 << 16, 2 << 20, 1 << 22]) {
      assert.equal((await set(host, 4, bad)).status, statusOf('invalidField'));
      assert.equal((await get(host, 4, 0, { cdw11: bad })).status, statusOf('invalidField'));
    }
    const warning = async () => smartLog.decode((await log(host, logPages.smart.lid, 512)).data).criticalWarning;
    assert.equal(await warning(), 0, '300 K');
    await set(host, 4, 300);
    assert.equal(await warning(), 2);
    await set(host, 4, 301);
    await set(host, 4, 300 | (1 << 20));
    assert.equal(await warning(), 2);
  });

  test('timestamp: counted since the controller was enabled, or since a host set it', async (t) => {
    const { rig, host } = await open(t);
    const now = async () => {
      const { data } = await host.read({ opcode: adminOpcodes.getFeatures.opcode, cdw10: 0x0e }, 8);
      return [data.readUIntLE(0, 6), data[6]];
    };
    rig.clock.advance(1500);
    assert.deepEqual(await now(), [1500, 0]);
    const time = Buffer.alloc(8);
    time.writeUIntLE(1_700_000_000_000, 0, 6);
    assert.equal((await host.run({ opcode: adminOpcodes.setFeatures.opcode, cdw10: 0x0e }, time)).status, 0);
    rig.clock.advance(250);
    assert.deepEqual(await now(), [1_700_000_000_250, 2]);
  });

  test('host behavior, host identifier', async (t) => {
    const { host } = await open(t);
    const read = (fid: number, cdw11: number, length: number) =>
      host.read({ opcode: adminOpcodes.getFeatures.opcode, cdw10: fid, cdw11 }, length);
    const behavior = Buffer.alloc(512);
    behavior[0] = 1;
    assert.equal((await host.run({ opcode: adminOpcodes.setFeatures.opcode, cdw10: 0x16 }, behavior)).status, 0);
    assert.deepEqual((await read(0x16, 0, 512)).data, behavior);
    behavior[2] = 1;
    const refused = await host.run({ opcode: adminOpcodes.setFeatures.opcode, cdw10: 0x16 }, behavior);
    assert.equal(refused.status, statusOf('invalidField'));
    assert.deepEqual((await read(0x81, 1, 16)).data, Buffer.alloc(16, 7));
    assert.equal((await read(0x81, 0, 8)).status, statusOf('invalidField'));
    assert.equal((await set(host, 0x81, 1)).status, statusOf('commandSequence'));
  });

  test('a reset brings every default back', async (t) => {
    const { host } = await open(t);
    await set(host, 0x06, 0);
    await set(host, 0x0b, 0x100);
    await set(host, 0x04, 300);
    await host.propertySet(PROPERTY_CC, CC_ENABLED & ~1);
    await host.propertySet(PROPERTY_CC, CC_ENABLED);
    assert.deepEqual([(await get(host, 6)).dw0, (await get(host, 0x0b)).dw0, (await get(host, 4)).dw0], [1, 0, 0xffff]);
  });
});
