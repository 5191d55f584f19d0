/** Discovery controllers over sockets: a drive's own, and one that takes registrations. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { unpackBits, unpackBits64 } from '../../spec/bits.ts';
import { asyncEventBits } from '../../spec/async-events.ts';
import { dimHeader, DISCOVERY_UNIT_BYTES, discoveryLogEntry, discoveryLogHeader } from '../../spec/discovery.ts';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { capBits, DISCOVERY_NQN } from '../../spec/fabrics.ts';
import { identifyController } from '../../spec/identify.ts';
import { limits } from '../../spec/limits.ts';
import { adminOpcodes, discoveryOpcodes } from '../../spec/opcodes.ts';
import { crc32c } from '../../spec/crc32c.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { Limits } from '../../daemon/commands/contract.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { createDiscoverySubsystem, type Subsystem } from '../../daemon/controller/subsystem.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import { ThreadedKeyExchange } from '../../daemon/hosts/threaded-key-exchange.ts';
import { DiscoveryDirectory } from '../../daemon/discovery/directory.ts';
import { Transport } from '../../daemon/transport/listener.ts';
import { RawHost } from './raw-host.ts';
import { CC_ENABLED, createRig, ManualClock, PROPERTY_CC } from './rig.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const CC_DISCOVERY = CC_ENABLED & ~0x60;
const NQN = 'nqn.2026-11.dev.attndrive:D1';

interface Service {
  readonly directory: DiscoveryDirectory;
  readonly subsystem: Subsystem;
  readonly clock: ManualClock;
  admin(kato?: number): Promise<RawHost>;
}

async function enable(host: RawHost, kato = 0): Promise<RawHost> {
  await host.initialize();
  assert.equal((await host.connect({ kato }, { subnqn: DISCOVERY_NQN })).status, 0);
  assert.equal((await host.propertySet(PROPERTY_CC, CC_DISCOVERY)).status, 0);
  return host;
}

async function startService(t: TestContext, lowered: Partial<Limits> = {}): Promise<Service> {
  const folder = mkdtempSync(join(tmpdir(), 'discovery-'));
  const bounds = { ...limits, ...lowered };
  const clock = new ManualClock();
  const fatals: unknown[] = [];
  const directory = new DiscoveryDirectory({ limits: bounds }, { onChange: () => subsystem.discoveryChanged() });
  const identity = { serial: 'RACK', model: 'discovery', firmware: '1' };
  const door = { hosts: new HostDirectory(), keyExchange: new ThreadedKeyExchange(), random: createSeededRandom(1) };
  const modules = { ...door, clock, logger: silentLogger, onFatal: (error: unknown) => void fatals.push(error) };
  const subsystem: Subsystem = createDiscoverySubsystem(
    { identity, limits: bounds },
    { ...modules, discovery: directory },
  );
  const transport = new Transport({ limits: bounds }, { ...modules, subsystem, checksum: crc32c });
  const address = await transport.listen({ kind: 'unix', path: join(folder, 's'), mode: 0o600 });
  const hosts: RawHost[] = [];
  t.after(async () => {
    for (const host of hosts) host.close();
    await subsystem.close();
    await transport.close();
    rmSync(folder, { recursive: true, force: true });
    assert.deepEqual(fatals, []);
  });
  const admin = async (kato = 0): Promise<RawHost> => {
    const host = await RawHost.open(address);
    hosts.push(host);
    return enable(host, kato);
  };
  return { directory, subsystem, clock, admin };
}

const readLog = (host: RawHost, lid: number, length: number, offset = 0) =>
  host.read({ opcode: adminOpcodes.getLogPage.opcode, cdw10: lid | ((length / 4 - 1) << 16), cdw12: offset }, length);

async function discoveryLog(host: RawHost) {
  const { numrec } = discoveryLogHeader.decode((await readLog(host, 0x70, 1024)).data);
  const { data, status } = await readLog(host, 0x70, 1024 * (1 + numrec));
  assert.equal(status, 0);
  return Array.from({ length: numrec }, (_, i) => discoveryLogEntry.decode(data, 1024 * (1 + i)));
}

interface EntryFields {
  trtype?: number;
  adrfam?: number;
  subtype?: number;
  subnqn?: string;
  traddr?: string;
  trsvcid?: string;
}
const goodEntry = { trtype: 3, adrfam: 1, subtype: 2, subnqn: NQN, traddr: '192.0.2.1', trsvcid: '4420' };

function registration(head: object = {}, entries: readonly EntryFields[] = [goodEntry]): Buffer {
  const data = Buffer.alloc(DISCOVERY_UNIT_BYTES * (1 + entries.length));
  dimHeader.encode({ tdl: data.length, nument: entries.length, entfmt: 1, etype: 2, eid: NQN, ...head }, data);
  entries.forEach((entry, i) => discoveryLogEntry.encode({ ...goodEntry, ...entry }, data, 1024 * (1 + i)));
  return data;
}

const manage = (host: RawHost, task: number, data: Buffer) =>
  host.run({ opcode: discoveryOpcodes.discoveryInformationManagement.opcode, cdw10: task }, data);

describe("a drive's own discovery controller", () => {
  test('tells the drive, at the address that it listens on', async (t) => {
    const rig = await createRig(t);
    const host = await enable(await RawHost.open(rig.tcp));
    t.after(() => host.close());
    const [entry, ...more] = await discoveryLog(host);
    assert.deepEqual(more, []);
    const { subnqn, traddr, trsvcid, trtype, adrfam, subtype, cntlid, asqsz } = entry!;
    assert.deepEqual([subnqn, traddr], [rig.nqn, '127.0.0.1']);
    assert.equal(`tcp:127.0.0.1:${trsvcid}`, rig.tcp);
    assert.deepEqual([trtype, adrfam, subtype, cntlid, asqsz], [3, 1, 2, 0xffff, 32]);
  });

  test('is a controller of its own kind', async (t) => {
    const rig = await createRig(t);
    const host = await enable(await RawHost.open(rig.unix));
    t.after(() => host.close());
    const { dw0, dw1 } = await host.propertyGet(0, 1);
    const cap = unpackBits64(capBits, (BigInt(dw1) << 32n) | BigInt(dw0));
    assert.deepEqual([cap.cssNvm, cap.cssIocs], [1, 0]);
    const { data } = await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, 4096);
    const identity = identifyController.decode(data);
    assert.deepEqual([identity.cntrltype, identity.dctype, identity.nn, identity.oaes], [2, 1, 0, 0x8000_0000]);
    assert.equal(identity.subnqn, DISCOVERY_NQN);
    assert.equal(
      (await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 2 }, 4096)).status,
      statusOf('invalidField'),
    );
    for (const lid of [1, 2, 5, 0xc0]) {
      assert.equal((await readLog(host, lid, 64)).status, lid === 1 ? 0 : statusOf('invalidLogPage'), `page ${lid}`);
    }
    for (const opcode of [adminOpcodes.regionCreate.opcode, 0x21, 0x80]) {
      assert.equal((await host.run({ opcode })).status, statusOf('invalidOpcode'), `opcode ${opcode}`);
    }
    const features = async (fid: number) =>
      (await host.run({ opcode: adminOpcodes.getFeatures.opcode, cdw10: fid })).status;
    assert.deepEqual([await features(0x0b), await features(0x0f), await features(6)], [0, 0, statusOf('invalidField')]);
  });

  test('has no I/O queues, and its controllers are none of the drive', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const host = await rig.host();
    const discovery = await host.connect({ qid: 1 }, { subnqn: DISCOVERY_NQN, cntlid });
    assert.equal(discovery.status, statusOf('connectInvalidParameters'));
    const own = await enable(await RawHost.open(rig.unix));
    t.after(() => own.close());
    const ownId = rig.subsystem.snapshot().associations.at(-1)!.controllerId;
    const io = await rig.host();
    assert.equal(
      (await io.connect({ qid: 1 }, { subnqn: DISCOVERY_NQN, cntlid: ownId })).status,
      statusOf('connectInvalidParameters'),
    );
    assert.equal(
      (await io.connect({ qid: 1 }, { subnqn: rig.nqn, cntlid: ownId })).status,
      statusOf('connectInvalidParameters'),
    );
  });
});

describe('a discovery service', () => {
  test('tells what registered until it takes that back or its connection ends', async (t) => {
    const service = await startService(t);
    const [drive, other, host] = [await service.admin(), await service.admin(), await service.admin()];
    assert.deepEqual(await discoveryLog(host), []);
    assert.equal((await manage(drive, 0, registration())).status, 0);
    const second = 'nqn.2026-11.dev.attndrive:D2';
    assert.equal(
      (
        await manage(
          other,
          0,
          registration({ eid: second }, [{ subnqn: second }, { subnqn: second, traddr: '2001:db8::1', adrfam: 2 }]),
        )
      ).status,
      0,
    );
    const names = async () =>
      (await discoveryLog(host)).map(({ subnqn, portid, traddr }) => `${subnqn.at(-1)} ${portid} ${traddr}`);
    assert.deepEqual(await names(), ['1 1 192.0.2.1', '2 1 192.0.2.1', '2 2 2001:db8::1']);
    assert.equal((await manage(drive, 2, registration({}, [{ trsvcid: '4421' }]))).status, 0, 'update');
    assert.equal((await discoveryLog(host))[0]?.trsvcid, '4421');
    assert.equal((await manage(drive, 1, registration({}, []))).status, 0, 'deregister');
    assert.equal((await manage(drive, 1, registration({}, []))).status, statusOf('invalidDiscoveryInformation'));
    assert.deepEqual(await names(), ['2 1 192.0.2.1', '2 2 2001:db8::1']);
    other.close();
    while (service.directory.records().length > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(await discoveryLog(host), []);
  });

  test('tells hosts that wait for a change, once until they read', async (t) => {
    const service = await startService(t);
    const [drive, host] = [await service.admin(), await service.admin()];
    const { setFeatures, asyncEventRequest, keepAlive } = adminOpcodes;
    assert.equal(
      (await host.run({ opcode: setFeatures.opcode, cdw10: 0x0b, cdw11: 0x100 })).status,
      statusOf('invalidField'),
    );
    assert.equal((await host.run({ opcode: setFeatures.opcode, cdw10: 0x0b, cdw11: 0x8000_0000 })).status, 0);
    const waiting = host.send({ opcode: asyncEventRequest.opcode });
    await manage(drive, 0, registration());
    const event = await host.completion();
    assert.equal(event.commandId, waiting);
    assert.deepEqual(unpackBits(asyncEventBits, event.dw0), { type: 2, info: 0xf0, lid: 0x70 });
    const again = host.send({ opcode: asyncEventRequest.opcode });
    await manage(drive, 1, registration({}, []));
    const silence = host.send({ opcode: keepAlive.opcode });
    assert.equal((await host.completion()).commandId, silence);
    await discoveryLog(host);
    await manage(drive, 0, registration());
    assert.equal((await host.completion()).commandId, again);
  });

  test('ends associations that are silent too long, with and without keep alive', async (t) => {
    const service = await startService(t);
    const [silent, kept] = [await service.admin(), await service.admin(10_000)];
    await manage(silent, 0, registration());
    await manage(kept, 0, registration({ eid: `${NQN}2` }, [{ subnqn: `${NQN}2` }]));
    service.clock.advance(20_000);
    await kept.untilClosed();
    assert.equal(service.directory.records().length, 1);
    service.clock.advance(240_000);
    await silent.untilClosed();
    assert.equal(service.directory.records().length, 0);
  });

  const wrong: readonly (readonly [string, Buffer, ErrorCode])[] = [
    ['TDL', registration({ tdl: 1024 }), 'invalidDiscoveryInformation'],
    ['more entries than data', registration({ nument: 2 }), 'invalidDiscoveryInformation'],
    ['fewer entries than data', registration({ nument: 0 }), 'invalidDiscoveryInformation'],
    ['2^63 entries', registration({ nument: 2 ** 53 - 1 }), 'discoveryLimit'],
    ['entry format', registration({ entfmt: 2 }), 'invalidDiscoveryInformation'],
    ['entity type', registration({ etype: 3 }), 'invalidDiscoveryInformation'],
    ['entity identifier', registration({ eid: 'drive one' }), 'invalidDiscoveryInformation'],
    ['transport type', registration({}, [{ trtype: 1 }]), 'invalidDiscoveryInformation'],
    ['subsystem type', registration({}, [{ subtype: 1 }]), 'invalidDiscoveryInformation'],
    ['address family', registration({}, [{ adrfam: 2 }]), 'invalidDiscoveryInformation'],
    ['a name for an address', registration({}, [{ traddr: 'rack' }]), 'invalidDiscoveryInformation'],
    ['port 0', registration({}, [{ trsvcid: '0' }]), 'invalidDiscoveryInformation'],
    ['port 65536', registration({}, [{ trsvcid: '65536' }]), 'invalidDiscoveryInformation'],
    ['no port', registration({}, [{ trsvcid: '' }]), 'invalidDiscoveryInformation'],
    ['subsystem NQN', registration({}, [{ subnqn: 'x' }]), 'invalidDiscoveryInformation'],
    ['half a header', Buffer.alloc(512), 'sglDataLength'],
    ['no data', Buffer.alloc(0), 'sglDataLength'],
  ];
  test('refuses registrations that say something wrong, and keeps the one before', async (t) => {
    const service = await startService(t);
    const host = await service.admin();
    await manage(host, 0, registration());
    for (const [what, data, code] of wrong) {
      assert.equal((await manage(host, 0, data)).status, statusOf(code), what);
    }
    for (const at of [4, 21, 700, 1024 + 12, 1024 + 64]) {
      const data = registration();
      data[at] = 1;
      assert.equal(
        (await manage(host, 0, data)).status,
        statusOf('invalidDiscoveryInformation'),
        `reserved byte ${at}`,
      );
    }
    assert.equal((await manage(host, 3, registration())).status, statusOf('invalidField'), 'task');
    assert.equal((await manage(host, 0x10, registration())).status, statusOf('invalidField'), 'reserved bit');
    assert.equal((await discoveryLog(host)).length, 1);
  });

  test('bounds entries; a long registration comes by R2T', async (t) => {
    const service = await startService(t, { discoveryEntryCountMax: 70 });
    const host = await service.admin();
    const entries = (count: number) => Array.from({ length: count }, (_, i) => ({ trsvcid: String(1000 + i) }));
    assert.equal((await manage(host, 0, registration({}, entries(65)))).status, statusOf('discoveryLimit'));
    assert.equal((await manage(host, 0, registration({}, entries(64)))).status, 0);
    assert.equal(
      (await manage(host, 0, registration({ eid: `${NQN}2` }, entries(7)))).status,
      statusOf('discoveryLimit'),
    );
    assert.equal((await discoveryLog(host)).length, 64);
  });

  test('lets hosts register, and tells of none of them', async (t) => {
    const service = await startService(t);
    const host = await service.admin();
    assert.equal((await manage(host, 0, registration({ etype: 1, entfmt: 2 }))).status, 0);
    assert.equal((await manage(host, 1, registration({ etype: 1, entfmt: 2 }))).status, 0);
    assert.deepEqual(await discoveryLog(host), []);
  });
});
