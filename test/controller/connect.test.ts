import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { type connectCommand, type connectData, DISCOVERY_NQN } from '../../spec/fabrics.ts';
import { adminOpcodes, FABRICS_OPCODE, fabricsTypes } from '../../spec/opcodes.ts';
import { encodeSgl, SGL_FLAGS } from '../../spec/sgl.ts';
import { disconnectCommand } from '../../spec/fabrics.ts';
import type { RawHost } from './raw-host.ts';
import { createRig } from './rig.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
type CommandFields = Partial<Parameters<typeof connectCommand.encode>[0]>;
type DataFields = Partial<Parameters<typeof connectData.encode>[0]>;
const IN_DATA = 1 << 16;

/** What is wrong, the fields that differ from a good Connect, the status, and DW0 (offset, and where it counts from). */
type Row = readonly [string, CommandFields, DataFields, ErrorCode, number];
const uuidHost = 'nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555';

const adminRows: readonly Row[] = [
  ['record format', { recfmt: 1 }, {}, 'connectIncompatibleFormat', 0],
  ['queue of one entry', { sqsize: 0 }, {}, 'connectInvalidParameters', 44],
  ['queue too large', { sqsize: 32 }, {}, 'connectInvalidParameters', 44],
  ['attributes', { cattr: 0x10 }, {}, 'connectInvalidParameters', 46],
  ['keep alive above the limit', { kato: 3_600_001 }, {}, 'keepAliveTimeout', 0],
  ['host id of zeros', {}, { hostid: new Uint8Array(16) }, 'connectInvalidParameters', 0 | IN_DATA],
  ['static controller', {}, { cntlid: 1 }, 'connectInvalidParameters', 16 | IN_DATA],
  ['another subsystem', {}, { subnqn: 'nqn.2026-11.dev.attndrive:OTHER' }, 'connectInvalidParameters', 256 | IN_DATA],
  ['discovery I/O queue', { qid: 1 }, { subnqn: DISCOVERY_NQN, cntlid: 1 }, 'connectInvalidParameters', 16 | IN_DATA],
  ['no host name', {}, { hostnqn: '' }, 'connectInvalidParameters', 512 | IN_DATA],
  ['malformed host name', {}, { hostnqn: 'host' }, 'connectInvalidParameters', 512 | IN_DATA],
  ['PRP', { flags: 0 }, {}, 'invalidField', 0],
  ['transport SGL', { sgl: encodeSgl({ kind: 'transport', length: 1024 }) }, {}, 'sglType', 0],
  ['keyed SGL', { sgl: encodeSgl({ kind: 'keyed', key: 1, offset: 0, length: 1024 }) }, {}, 'sglType', 0],
  ['short data', { sgl: encodeSgl({ kind: 'inCapsule', offset: 0, length: 1020 }) }, {}, 'sglDataLength', 0],
  ['offset', { sgl: encodeSgl({ kind: 'inCapsule', offset: 4, length: 1024 }) }, {}, 'sglOffset', 0],
];

const ioRows: readonly Row[] = [
  ['unknown controller', { qid: 1 }, { cntlid: 99 }, 'connectInvalidParameters', 16 | IN_DATA],
  ['queue id above the limit', { qid: 65 }, {}, 'connectInvalidParameters', 42],
  ['queue too large', { qid: 1, sqsize: 128 }, {}, 'connectInvalidParameters', 44],
  [
    'another host',
    { qid: 1 },
    { hostnqn: uuidHost.replace('1111', '9999') },
    'connectInvalidParameters',
    512 | IN_DATA,
  ],
  ['another host id', { qid: 1 }, { hostid: new Uint8Array(16).fill(8) }, 'connectInvalidParameters', 0 | IN_DATA],
];

describe('Connect of an admin queue', () => {
  for (const [what, command, data, code, dw0] of adminRows) {
    test(`refuses: ${what}`, async (t) => {
      const rig = await createRig(t);
      const host = await rig.host();
      const completion = await host.connect(command, { subnqn: rig.nqn, ...data });
      assert.equal(completion.status, statusOf(code));
      assert.equal(completion.dw0, dw0);
      // It may try again, and then it works.
      assert.equal((await host.connect({}, { subnqn: rig.nqn })).status, 0);
    });
  }

  test('a reserved byte of command or data', async (t) => {
    const rig = await createRig(t);
    const host = await rig.host();
    const bytes = host.connectBytes({}, { subnqn: rig.nqn });
    bytes[8 + 60] = 1;
    host.write(bytes);
    assert.equal((await host.completion()).status, statusOf('invalidField'));
    const second = host.connectBytes({}, { subnqn: rig.nqn });
    second[72 + 800] = 1;
    host.write(second);
    const completion = await host.completion();
    assert.equal(completion.status, statusOf('connectInvalidParameters'));
    assert.equal(completion.dw0, 800 | IN_DATA);
  });

  test('anything else first, and a second Connect, are sequence errors', async (t) => {
    const rig = await createRig(t);
    const host = await rig.host();
    assert.equal((await host.run({ opcode: adminOpcodes.keepAlive.opcode })).status, statusOf('commandSequence'));
    assert.equal((await host.propertyGet(0x1c)).status, statusOf('commandSequence'));
    assert.equal((await host.connect({}, { subnqn: rig.nqn })).status, 0);
    assert.equal((await host.connect({}, { subnqn: rig.nqn })).status, statusOf('commandSequence'));
  });

  test('controller ids differ; above the association limit the drive is busy', async (t) => {
    const rig = await createRig(t, { limits: { associationCountMax: 2 } });
    const first = await rig.admin();
    const second = await rig.admin();
    assert.notEqual(first.cntlid, second.cntlid);
    const third = await rig.host();
    const refused = await third.connect({}, { subnqn: rig.nqn });
    assert.equal(refused.status, statusOf('connectBusy'));
    assert.equal(refused.doNotRetry, false);
    first.host.close();
    while (rig.subsystem.snapshot().associations.length > 1) await new Promise((resolve) => setImmediate(resolve));
    const answer = await third.connect({}, { subnqn: rig.nqn });
    assert.equal(answer.status, 0);
    assert.notEqual(answer.dw0, first.cntlid, 'an id is not used again at once');
  });

  test('unknown Fabrics types are invalid opcodes', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    const entry = host.entryBytes({ opcode: FABRICS_OPCODE }, host.commandId());
    entry[4] = 0x07;
    host.write(host.capsuleBytes(entry));
    assert.equal((await host.completion()).status, statusOf('invalidOpcode'));
  });
});

describe('Connect of an I/O queue', () => {
  for (const [what, command, data, code, dw0] of ioRows) {
    test(`refuses: ${what}`, async (t) => {
      const rig = await createRig(t);
      const { cntlid } = await rig.admin();
      const host = await rig.host();
      const completion = await host.connect(command, { subnqn: rig.nqn, cntlid, ...data });
      assert.equal(completion.status, statusOf(code));
      assert.equal(completion.dw0, dw0);
    });
  }

  test('a queue id in use, and a controller that is not enabled, are sequence errors', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    await rig.io(cntlid, { qid: 3 });
    const again = await rig.host();
    const taken = await again.connect({ qid: 3 }, { subnqn: rig.nqn, cntlid });
    assert.equal(taken.status, statusOf('commandSequence'));
    const fresh = await rig.host();
    const { dw0 } = await fresh.connect({}, { subnqn: rig.nqn });
    const early = await (await rig.host()).connect({ qid: 1 }, { subnqn: rig.nqn, cntlid: dw0 });
    assert.equal(early.status, statusOf('commandSequence'));
  });

  test('Disconnect ends an I/O queue, whose id is then free, and not the admin queue', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin();
    const disconnect = (target: RawHost, recfmt = 0) => {
      const { opcode: fctype } = fabricsTypes.disconnect;
      const fields = { opcode: FABRICS_OPCODE, flags: SGL_FLAGS, commandId: target.commandId(), fctype, recfmt };
      target.write(target.capsuleBytes(disconnectCommand.encode(fields)));
      return target.completion();
    };
    assert.equal((await disconnect(host)).status, statusOf('invalidQueueType'));
    const io = await rig.io(cntlid);
    assert.equal((await disconnect(io, 1)).status, statusOf('connectIncompatibleFormat'));
    assert.equal((await disconnect(io)).status, 0);
    await io.untilClosed();
    await rig.io(cntlid);
    assert.equal((await host.run({ opcode: adminOpcodes.keepAlive.opcode })).status, 0);
  });
});
