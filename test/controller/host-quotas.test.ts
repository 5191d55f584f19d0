/** What one host takes of the drive, and what is left for another: queues, commands, memory, regions, slots. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { type ErrorCode, errorTable } from '../../spec/errors.ts';
import { type HostQuotas, standardQuotas } from '../../spec/host-quotas.ts';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import type { Limits } from '../../daemon/commands/contract.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import type { HostsFile } from '../../daemon/hosts/hosts-file.ts';
import type { RawHost } from './raw-host.ts';
import { CC_ENABLED, createRig, PROPERTY_CC, type Rig } from './rig.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const greedy = 'nqn.2026-11.dev.attndrive.test:greedy';
const modest = 'nqn.2026-11.dev.attndrive.test:modest';
const LBA = 4096;
const turn = () => new Promise((resolve) => setImmediate(resolve));

const ruled = (nqn: string, own: Partial<HostQuotas>) => ({
  nqn,
  authentication: undefined,
  quotas: { ...standardQuotas, ...own },
  isConfined: true,
});
const fileOf = (quotas: Partial<HostQuotas>): HostsFile => ({
  hosts: [ruled(greedy, quotas), ruled(modest, {})],
  allowsOthers: false,
  coversUnix: true,
});

interface Shared {
  readonly rig: Rig;
  readonly hosts: HostDirectory;
  admin(hostnqn: string): Promise<{ host: RawHost; cntlid: number }>;
  io(hostnqn: string, cntlid: number, qid?: number): Promise<RawHost>;
}

async function share(t: TestContext, quotas: Partial<HostQuotas>, limits: Partial<Limits> = {}): Promise<Shared> {
  const hosts = new HostDirectory(fileOf(quotas));
  const rig = await createRig(t, { modules: { hosts }, limits });
  return {
    rig,
    hosts,
    async admin(hostnqn) {
      const host = await rig.host();
      const { status, dw0 } = await host.connect({}, { subnqn: rig.nqn, hostnqn });
      assert.equal(status, 0);
      await host.propertySet(PROPERTY_CC, CC_ENABLED);
      return { host, cntlid: dw0 & 0xffff };
    },
    async io(hostnqn, cntlid, qid = 1) {
      const host = await rig.host();
      const { status } = await host.connect({ qid, sqsize: 127 }, { subnqn: rig.nqn, hostnqn, cntlid });
      assert.equal(status, 0);
      return host;
    },
  };
}

const write = (lbaCount: number) => ({ opcode: nvmOpcodes.write.opcode, nsid: BLOCK_NSID, cdw12: lbaCount - 1 });
const createRegion = (sizeBytes: number) => ({ opcode: adminOpcodes.regionCreate.opcode, cdw10: sizeBytes });
const refusals = ({ rig }: Shared) => Object.fromEntries(rig.subsystem.snapshot().quotaRefusals);

test('associations and queues: refused at Connect, and given back by the end of a connection', async (t) => {
  const shared = await share(t, { associations: 2, queues: 3 });
  const { rig } = shared;
  const first = await shared.admin(greedy);
  const second = await shared.admin(greedy);
  const third = await rig.host();
  assert.equal((await third.connect({}, { subnqn: rig.nqn, hostnqn: greedy })).status, statusOf('hostQuota'));
  const io = await shared.io(greedy, first.cntlid);
  const another = await rig.host();
  const fourth = { subnqn: rig.nqn, hostnqn: greedy, cntlid: first.cntlid };
  assert.equal((await another.connect({ qid: 2 }, fourth)).status, statusOf('hostQuota'));
  // Nobody else is concerned.
  await shared.io(modest, (await shared.admin(modest)).cntlid);
  io.close();
  second.host.close();
  while (rig.subsystem.snapshot().associations.length > 2) await turn();
  assert.equal((await another.connect({ qid: 2 }, fourth)).status, 0);
  assert.equal((await third.connect({}, { subnqn: rig.nqn, hostnqn: greedy })).status, 0);
  assert.deepEqual([refusals(shared)['associations'], refusals(shared)['queues']], [1, 1]);
});

test('regions, over all associations of a host; all of it comes back when they end', async (t) => {
  const shared = await share(t, { regions: 3, regionBytes: 10_000 });
  const first = await shared.admin(greedy);
  const second = await shared.admin(greedy);
  const create = async ({ host }: { host: RawHost }, sizeBytes: number) =>
    (await host.read(createRegion(sizeBytes), 512)).status;
  assert.equal(await create(first, 4000), 0);
  assert.equal(await create(second, 4000), 0);
  assert.equal(await create(second, 4000), statusOf('hostQuota'));
  assert.equal(await create(second, 1000), 0);
  assert.equal(await create(first, 1), statusOf('hostQuota'));
  assert.equal(await create(await shared.admin(modest), 100_000), 0);
  first.host.close();
  while (shared.rig.subsystem.snapshot().associations.length > 2) await turn();
  assert.equal(readdirSync(join(shared.rig.folder, 'regions')).length, 3);
  assert.equal(await create(second, 5000), 0);
  assert.equal(await create(second, 1), statusOf('hostQuota'));
});

test('keys of regions and numbers of slots mean nothing to another association', async (t) => {
  const shared = await share(t, {});
  const a = await shared.admin(greedy);
  const { data } = await a.host.read(createRegion(LBA), 512);
  const key = data.readUInt32LE(4) || data.readUInt32LE(8);
  const b = await shared.admin(modest);
  const io = await shared.io(modest, b.cntlid);
  for (const guess of [key, key + 1, 1]) {
    const sgl = { kind: 'keyed', key: guess, offset: 0, length: LBA } as const;
    assert.equal((await io.run({ ...write(1), sgl })).status, statusOf('sglDataBlock'));
  }
  assert.equal(
    (await b.host.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: key })).status,
    statusOf('sglDataBlock'),
  );
});

describe('a host that asks for everything at once', () => {
  test('commands in flight: more are refused, to be tried again, and come back as they end', async (t) => {
    const shared = await share(t, { commands: 8 });
    const { cntlid } = await shared.admin(greedy);
    const [one, two] = [await shared.io(greedy, cntlid, 1), await shared.io(greedy, cntlid, 2)];
    shared.rig.blocks.gate.shut();
    const block = Buffer.alloc(LBA);
    for (let i = 0; i < 4; i++) one.send(write(1), block);
    for (let i = 0; i < 4; i++) two.send(write(1), block);
    while (shared.rig.blocks.gate.waitingCount < 8) await turn();
    two.send(write(1), block);
    const refused = await two.completion();
    assert.deepEqual([refused.status, refused.doNotRetry], [statusOf('hostQuota'), false]);
    const other = await shared.io(modest, (await shared.admin(modest)).cntlid);
    other.send(write(1), block);
    while (shared.rig.blocks.gate.waitingCount < 9) await turn();
    shared.rig.blocks.gate.open();
    assert.equal((await other.completion()).status, 0);
    for (let i = 0; i < 4; i++) assert.equal((await one.completion()).status, 0);
    for (let i = 0; i < 4; i++) assert.equal((await two.completion()).status, 0);
    two.send(write(1), block);
    assert.equal((await two.completion()).status, 0);
  });

  test('quotas of commands and data that change are those of the commands that come then', async (t) => {
    const shared = await share(t, { commands: 2 });
    const { rig, hosts } = shared;
    const { cntlid } = await shared.admin(greedy);
    const io = await shared.io(greedy, cntlid);
    const block = Buffer.alloc(LBA);
    const fill = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) io.send(write(1), block);
      while (rig.subsystem.snapshot().inFlightCount < count) await turn();
    };
    const sgl = { kind: 'inCapsule', offset: 0, length: LBA } as const;
    rig.blocks.gate.shut();
    await fill(2);
    io.send(write(1), block);
    assert.equal((await io.completion()).status, statusOf('hostQuota'));
    hosts.replace(fileOf({ commands: 100, dataBytes: 3 * LBA }));
    rig.subsystem.hostsChanged();
    const both = [0, 1].map(() => io.capsuleBytes(io.entryBytes({ ...write(1), sgl }, io.commandId()), block));
    io.write(Buffer.concat(both));
    for (let i = 0; i < 50; i++) await turn();
    const { inFlightCount, runningBytes } = rig.subsystem.snapshot();
    rig.blocks.gate.open();
    assert.deepEqual([inFlightCount, runningBytes], [4, 3 * LBA], 'none is refused, and the fourth waits for room');
    for (let i = 0; i < 4; i++) assert.equal((await io.completion()).status, 0);
  });

  test('data under way: its own commands wait for each other, and large ones of others do not', async (t) => {
    const MIB = 2 ** 20;
    const shared = await share(t, { dataBytes: 4 * MIB, waitingBytes: 64 * 1024 }, { dataBytesTotalMax: 8 * MIB });
    const { rig } = shared;
    const { cntlid } = await shared.admin(greedy);
    rig.blocks.gate.shut();
    const queues: RawHost[] = [];
    for (let qid = 1; qid <= 8; qid++) queues.push(await shared.io(greedy, cntlid, qid));
    const large = { ...write(256), sgl: { kind: 'transport', length: MIB } } as const;
    // Each queue asks for 8 MiB: 64 MiB together, twice and more of what the drive works with.
    for (const queue of queues) for (let i = 0; i < 8; i++) queue.send(large);
    while (rig.subsystem.snapshot().runningBytes < 4 * MIB) await turn();
    for (let i = 0; i < 50; i++) await turn();
    assert.equal(rig.subsystem.snapshot().runningBytes, 4 * MIB, 'no more than its quota');
    const other = await shared.io(modest, (await shared.admin(modest)).cntlid);
    other.send(large);
    const r2t = await other.next();
    assert.equal(r2t?.type, 9, 'the other host is asked for its data at once');
    rig.blocks.gate.open();
    other.answerR2t(r2t, Buffer.alloc(MIB, 7));
    assert.equal((await other.completion()).status, 0);
    assert.equal(rig.blocks.bytes[0], 7);
    for (const queue of queues) queue.close();
    while (rig.subsystem.snapshot().associations.some(({ queues: open }) => open.length > 2)) await turn();
    while (rig.subsystem.snapshot().runningBytes > 0) await turn();
    assert.deepEqual(rig.fatals, []);
  });
});

test('an I/O queue that comes by another way than its admin queue is refused: other rules go there', async (t) => {
  const rig = await createRig(t);
  const { cntlid } = await rig.admin();
  const stranger = await rig.host(rig.tcp);
  const { status, dw0 } = await stranger.connect({ qid: 1 }, { subnqn: rig.nqn, cntlid });
  assert.deepEqual([status, dw0], [statusOf('connectInvalidParameters'), 16 | (1 << 16)]);
});
