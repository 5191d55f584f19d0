/** Asynchronous events, Abort and the error log: what a host is told of, and what it can take back. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { unpackBits } from '../../spec/bits.ts';
import { asyncEventBits, asyncEvents } from '../../spec/async-events.ts';
import { decodeStatus } from '../../spec/completion-entry.ts';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { decodeNamespaceList } from '../../spec/identify.ts';
import { BLOCK_NSID, KV_CACHE_CSI, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { errorInformationEntry, logPages, smartLog } from '../../spec/log-pages.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { pduTypes } from '../../spec/pdu.ts';
import { completionOf, type RawHost } from './raw-host.ts';
import { CC_ENABLED, createRig, PROPERTY_CC, type Rig } from './rig.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const request = { opcode: adminOpcodes.asyncEventRequest.opcode };
const abortOf = (queueId: number, commandId: number) => ({
  opcode: adminOpcodes.abort.opcode,
  cdw10: (queueId | (commandId << 16)) >>> 0,
});
const configure = (host: RawHost, cdw11: number) =>
  host.run({ opcode: adminOpcodes.setFeatures.opcode, cdw10: 0x0b, cdw11 });
const readLog = (
  host: RawHost,
  page: keyof typeof logPages,
  retain = false,
  length: number = logPages[page].sizeBytes,
) =>
  host.read(
    {
      opcode: adminOpcodes.getLogPage.opcode,
      nsid: 0xffff_ffff,
      cdw10: logPages[page].lid | (retain ? 1 << 15 : 0) | ((length / 4 - 1) << 16),
    },
    length,
  );

const NAMESPACE_ATTRIBUTES = 1 << 8;
const health = { temperature: 300, availSpare: 100, criticalWarning: 0 };

async function open(t: TestContext): Promise<{ rig: Rig; host: RawHost; cntlid: number }> {
  health.temperature = 300;
  health.criticalWarning = 0;
  const status = {
    health: () => ({ ...health }),
    endurance: () => ({}),
    isReadOnly: () => false,
    statistics: () => ({}),
    kvNamespace: () => ({}),
    blockUsedLbaCount: () => 0,
  };
  const rig = await createRig(t, { modules: { status } });
  return { rig, ...(await rig.admin()) };
}

/** The next completion, which must be of an event. */
async function event(host: RawHost, commandId: number): Promise<unknown> {
  const completion = await host.completion();
  assert.equal(completion.commandId, commandId);
  assert.equal(completion.status, 0);
  const found = unpackBits(asyncEventBits, completion.dw0);
  return Object.entries(asyncEvents).find(
    ([, { type, info, lid }]) => type === found.type && info === found.info && lid === found.lid,
  )?.[0];
}

/** Nothing has come: the next answer is that to a Keep Alive. */
async function expectSilence(host: RawHost): Promise<void> {
  const commandId = host.send({ opcode: adminOpcodes.keepAlive.opcode });
  assert.equal((await host.completion()).commandId, commandId, 'an event that should not have come');
}

describe('asynchronous events', () => {
  test('a changed namespace: told once, listed until read, then told again', async (t) => {
    const { rig, host } = await open(t);
    await configure(host, NAMESPACE_ATTRIBUTES);
    const first = host.send(request);
    await expectSilence(host);
    rig.subsystem.namespaceChanged(2);
    assert.equal(await event(host, first), 'namespaceAttributes');
    const second = host.send(request);
    rig.subsystem.namespaceChanged(1);
    await expectSilence(host);
    assert.deepEqual(decodeNamespaceList((await readLog(host, 'changedNamespaces', true)).data), [1, 2]);
    rig.subsystem.namespaceChanged(1);
    await expectSilence(host);
    assert.deepEqual(decodeNamespaceList((await readLog(host, 'changedNamespaces')).data), [1, 2]);
    assert.deepEqual(decodeNamespaceList((await readLog(host, 'changedNamespaces')).data), []);
    rig.subsystem.namespaceChanged(1);
    assert.equal(await event(host, second), 'namespaceAttributes');
  });

  test('an event waits for a request; what is not configured is not told', async (t) => {
    const { rig, host } = await open(t);
    rig.subsystem.namespaceChanged(1);
    await configure(host, NAMESPACE_ATTRIBUTES);
    const first = host.send(request);
    await expectSilence(host);
    rig.subsystem.namespaceChanged(1);
    assert.equal(await event(host, first), 'namespaceAttributes');
    await readLog(host, 'changedNamespaces');
    rig.subsystem.namespaceChanged(2);
    await expectSilence(host);
    assert.equal(await event(host, host.send(request)), 'namespaceAttributes');
  });

  test('bad health: each warning when it comes, and again when it comes back', async (t) => {
    const { rig, host } = await open(t);
    await configure(host, 0x1f);
    const requests = [host.send(request), host.send(request)];
    await expectSilence(host);
    health.criticalWarning = 1;
    rig.clock.advance(1000);
    assert.equal(await event(host, requests[0] as number), 'spare');
    health.criticalWarning = 1 | 8;
    rig.clock.advance(1000);
    await expectSilence(host);
    assert.equal(smartLog.decode((await readLog(host, 'smart')).data).criticalWarning, 9);
    rig.clock.advance(5000);
    await expectSilence(host);
    health.criticalWarning = 1;
    rig.clock.advance(1000);
    health.criticalWarning = 1 | 8;
    rig.clock.advance(1000);
    assert.equal(await event(host, requests[1] as number), 'reliability');
  });

  test('temperature: a threshold that is crossed at once, and one that is crossed later', async (t) => {
    const { rig, host } = await open(t);
    await configure(host, 2);
    const first = host.send(request);
    const { opcode } = adminOpcodes.setFeatures;
    const set = host.send({ opcode, cdw10: 4, cdw11: 299 });
    const answers = [await host.completion(), await host.completion()];
    assert.deepEqual(answers.map(({ commandId }) => commandId).sort(), [first, set].sort());
    assert.equal(smartLog.decode((await readLog(host, 'smart')).data).criticalWarning, 2);
    await host.run({ opcode, cdw10: 4, cdw11: 310 });
    const second = host.send(request);
    await expectSilence(host);
    health.temperature = 311;
    rig.clock.advance(1000);
    assert.equal(await event(host, second), 'temperature');
  });

  test('nobody looks at the health for controllers that do not ask', async (t) => {
    const { rig, host } = await open(t);
    const before = rig.clock.timerCount;
    await configure(host, 0x1f);
    assert.equal(rig.clock.timerCount, before + 1);
    await configure(host, NAMESPACE_ATTRIBUTES);
    assert.equal(rig.clock.timerCount, before);
    await configure(host, 1);
    host.close();
    while (rig.subsystem.snapshot().associations.length > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(rig.clock.timerCount, before - 1, 'no timer but those of the connections');
  });

  test('one request more than AERL allows', async (t) => {
    const { host } = await open(t);
    for (let i = 0; i < 4; i++) host.send(request);
    const commandId = host.send(request);
    const refused = await host.completion();
    assert.deepEqual([refused.commandId, refused.status], [commandId, statusOf('asyncEventLimit')]);
  });

  test("a reset and the end of the host's sending end requests; the end of the association forgets them", async (t) => {
    const { rig, host } = await open(t);
    const first = host.send(request);
    await expectSilence(host);
    const answers = [await host.propertySet(PROPERTY_CC, CC_ENABLED & ~1), await host.completion()];
    const statuses = answers.map(({ commandId, status }) => (commandId === first ? status : -1 - status));
    assert.deepEqual(
      statuses.sort(),
      [-1, statusOf('aborted')].sort(),
      'Property Set succeeds, the request is aborted',
    );
    await host.propertySet(PROPERTY_CC, CC_ENABLED);
    const second = host.send(request);
    await expectSilence(host);
    host.socket.end();
    const last = await host.completion();
    assert.deepEqual([last.commandId, last.status], [second, statusOf('aborted')]);
    await host.untilClosed();

    const other = await rig.admin();
    other.host.send(request);
    await expectSilence(other.host);
    other.host.close();
    while (rig.subsystem.snapshot().inFlightCount > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(rig.fatals, []);
  });
});

describe('Abort', () => {
  test('of an asynchronous event request', async (t) => {
    const { host } = await open(t);
    const waiting = host.send(request);
    const abort = host.send(abortOf(0, waiting));
    const answers = [await host.completion(), await host.completion()];
    const find = (id: number) => answers.find(({ commandId }) => commandId === id);
    assert.equal(find(waiting)?.status, statusOf('aborted'));
    assert.deepEqual([find(abort)?.status, find(abort)?.dw0], [0, 0]);
    const again = await host.run(abortOf(0, waiting));
    assert.deepEqual([again.status, again.dw0], [0, 1], 'nothing of this id');
  });

  test('of a command that runs, of one that is not there, of a queue that is not there', async (t) => {
    const { rig, host, cntlid } = await open(t);
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    const read = {
      opcode: nvmOpcodes.read.opcode,
      nsid: BLOCK_NSID,
      sgl: { kind: 'transport', length: 4096 },
    } as const;
    const running = io.send(read);
    while (rig.blocks.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
    for (const [queueId, commandId] of [
      [1, running],
      [1, running + 1],
      [9, running],
      [0, running],
    ] as const) {
      const { status, dw0 } = await host.run(abortOf(queueId, commandId));
      assert.deepEqual([status, dw0], [0, 1]);
    }
    rig.blocks.gate.open();
    assert.equal((await io.completion()).status, 0);
  });

  test('of a command that waits for room: it never starts', async (t) => {
    const rig = await createRig(t, { limits: { connectionDataBytesMax: 65_536, dataBytesTotalMax: 65_536 } });
    const { host, cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    const read = (lba: number) =>
      ({
        opcode: nvmOpcodes.read.opcode,
        nsid: BLOCK_NSID,
        cdw10: lba,
        cdw12: 15,
        sgl: { kind: 'transport', length: 65_536 },
      }) as const;
    const running = io.send(read(0));
    const waiting = io.send(read(16));
    const last = io.send(read(32));
    while (rig.subsystem.snapshot().inFlightCount < 3) await new Promise((resolve) => setImmediate(resolve));
    assert.equal((await host.run(abortOf(1, waiting))).dw0, 0);
    const aborted = await io.completion();
    assert.deepEqual([aborted.commandId, aborted.status], [waiting, statusOf('aborted')]);
    rig.blocks.gate.open();
    assert.equal((await io.completion()).commandId, running);
    assert.equal((await io.completion()).commandId, last);
    assert.equal(rig.subsystem.snapshot().runningBytes, 0);
    assert.equal(rig.subsystem.snapshot().waitingCapsuleBytes, 0);
  });
});

describe('the error log', () => {
  const entries = async (host: RawHost) => {
    const { data } = await readLog(host, 'error');
    return Array.from({ length: 64 }, (_, i) => errorInformationEntry.decode(data, 64 * i)).filter(
      ({ errorCount }) => errorCount > 0,
    );
  };

  test('has what failed, newest first, and where in the command it was wrong', async (t) => {
    const { rig, host, cntlid } = await open(t);
    const io = await rig.io(cntlid);
    assert.deepEqual(await entries(host), []);
    const identify = await host.run({ opcode: adminOpcodes.identify.opcode, cdw10: 1, cdw12: 0x40_0000 });
    const cases = [
      { name: 'invalidOpcode', host, fields: { opcode: 0x77 }, location: 0 },
      { name: 'invalidNamespace', host: io, fields: { opcode: nvmOpcodes.read.opcode, nsid: 7 }, location: 4 },
      {
        name: 'lbaRange',
        host: io,
        fields: { opcode: nvmOpcodes.verify.opcode, nsid: BLOCK_NSID, cdw10: 5000 },
        location: 40,
      },
      {
        name: 'invalidField',
        host,
        fields: { opcode: adminOpcodes.keepAlive.opcode, cdw13: 1 << 9 },
        location: 53 | (1 << 8),
      },
      {
        name: 'unknownSequence',
        host: io,
        fields: { opcode: kvOpcodes.reclaim.opcode, nsid: KV_CACHE_NSID, cdw10: 99 },
        location: 0xffff,
      },
    ] as const;
    const ids: number[] = [];
    for (const { host: queue, fields, name } of cases) {
      const completion = await queue.run(fields);
      assert.equal(completion.status, statusOf(name));
      ids.push(completion.commandId);
    }
    const log = await entries(host);
    assert.equal(log.length, cases.length + 1);
    assert.deepEqual(
      log.map(({ errorCount }) => errorCount),
      [6, 5, 4, 3, 2, 1],
    );
    assert.equal(log.at(-1)?.cmdid, identify.commandId);
    assert.equal(log.at(-1)?.paramErrorLoc, 50 | (6 << 8), 'CDW12 bit 22');
    for (const [index, { name, fields, location, host: queue }] of cases.entries()) {
      const entry = log[cases.length - 1 - index]!;
      assert.equal(entry.cmdid, ids[index]);
      assert.equal(entry.sqid, queue === io ? 1 : 0);
      assert.equal(entry.opcode, fields.opcode);
      assert.equal(entry.paramErrorLoc, location, name);
      const { sct, sc, more } = decodeStatus(entry.statusField);
      assert.deepEqual([(sct << 8) | sc, more], [statusOf(name), 1]);
      assert.equal(entry.csi, name === 'unknownSequence' ? KV_CACHE_CSI : 0);
      assert.equal(entry.lba, name === 'lbaRange' ? 5000 : 0);
    }
    const smart = smartLog.decode((await readLog(host, 'smart')).data);
    assert.equal(smart.numErrLogEntries, 6);
  });

  test('a status says that there is an entry, and the oldest entries go', async (t) => {
    const { host } = await open(t);
    for (let i = 0; i < 70; i++) {
      host.send({ opcode: 0x77 });
      const pdu = await host.next();
      assert.equal(pdu?.type, pduTypes.capsuleResp.type);
      assert.equal(decodeStatus(pdu.header.readUInt16LE(22)).more, 1);
      assert.equal(completionOf(pdu).status, statusOf('invalidOpcode'));
    }
    const log = await entries(host);
    assert.deepEqual([log.length, log[0]?.errorCount, log.at(-1)?.errorCount], [64, 70, 7]);
  });

  test('is of one controller', async (t) => {
    const { rig, host } = await open(t);
    const other = await rig.admin();
    await other.host.run({ opcode: 0x77 });
    assert.deepEqual(await entries(host), []);
  });
});
