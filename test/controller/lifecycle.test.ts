import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { unpackBits, unpackBits64 } from '../../spec/bits.ts';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { capBits, cstsBits, NVME_VERSION, propertyGetCommand } from '../../spec/fabrics.ts';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, FABRICS_OPCODE, fabricsTypes, nvmOpcodes } from '../../spec/opcodes.ts';
import { encodeSgl } from '../../spec/sgl.ts';
import { type ControllerState, controllerTransitions } from '../../daemon/controller/controller-state.ts';
import { connectionTransitions } from '../../daemon/transport/connection-state.ts';
import { CC_ENABLED, createRig, PROPERTY_CC, PROPERTY_CSTS, type Rig } from './rig.ts';
import type { RawHost } from './raw-host.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const NORMAL_SHUTDOWN = 1 << 14;
const keepAlive = { opcode: adminOpcodes.keepAlive.opcode };
const read = { opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID };

const csts = async (host: RawHost) => unpackBits(cstsBits, (await host.propertyGet(PROPERTY_CSTS)).dw0);

async function connected(rig: Rig): Promise<RawHost> {
  const host = await rig.host();
  await host.connect({}, { subnqn: rig.nqn });
  return host;
}

describe('properties', () => {
  test('CAP and VS', async (t) => {
    const rig = await createRig(t);
    const host = await connected(rig);
    const { dw0, dw1 } = await host.propertyGet(0, 1);
    const cap = unpackBits64(capBits, (BigInt(dw1) << 32n) | BigInt(dw0));
    assert.equal(cap.mqes, 127);
    assert.equal(cap.cqr, 1);
    assert.equal(cap.cssNvm, 1);
    assert.equal(cap.cssIocs, 1);
    assert.equal(cap.dstrd, 0);
    assert.equal((await host.propertyGet(8)).dw0, NVME_VERSION);
    assert.equal(cap.crms, 1);
    assert.equal((await host.propertyGet(0x68)).dw0, cap.to, 'hosts that see CRMS read CRTO');
  });

  test('unknown offset, wrong size, read-only property, reserved bits', async (t) => {
    const rig = await createRig(t);
    const host = await connected(rig);
    const invalid = statusOf('invalidField');
    assert.equal((await host.propertyGet(0x20)).status, invalid);
    assert.equal((await host.propertyGet(0, 0)).status, invalid);
    assert.equal((await host.propertyGet(8, 1)).status, invalid);
    assert.equal((await host.propertySet(8, 1)).status, invalid);
    assert.equal((await host.propertySet(PROPERTY_CSTS, 1)).status, invalid);
    assert.equal((await host.propertySet(PROPERTY_CC, 0x8000_0000)).status, invalid);
    assert.equal((await host.propertySet(PROPERTY_CC, CC_ENABLED, 1)).status, invalid);
    assert.equal((await host.propertyGet(PROPERTY_CC)).dw0, 0);
  });

  test('take a descriptor of no data, as Linux sends it, sixteen zeros, and no other', async (t) => {
    const host = await connected(await createRig(t));
    const get = async (sgl: Uint8Array) => {
      const { propertyGet } = fabricsTypes;
      const fields = { opcode: FABRICS_OPCODE, flags: 0x40, commandId: host.commandId(), fctype: propertyGet.opcode };
      host.write(host.capsuleBytes(propertyGetCommand.encode({ ...fields, ofst: PROPERTY_CSTS, sgl })));
      return (await host.completion()).status;
    };
    assert.equal(await get(encodeSgl({ kind: 'none' })), 0);
    assert.equal(await get(new Uint8Array(16)), 0);
    assert.equal(await get(encodeSgl({ kind: 'transport', length: 4 })), statusOf('sglInvalid'));
    assert.equal(await get(new Uint8Array(16).fill(0x20)), statusOf('sglType'));
  });

  test('are for the admin queue', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    assert.equal((await io.propertyGet(PROPERTY_CSTS)).status, statusOf('commandSequence'));
    assert.equal((await io.propertySet(PROPERTY_CC, CC_ENABLED)).status, statusOf('commandSequence'));
  });
});

describe('enabling', () => {
  test('before it, only Fabrics commands; then RDY', async (t) => {
    const rig = await createRig(t);
    const host = await connected(rig);
    assert.equal((await csts(host)).rdy, 0);
    assert.equal((await host.run(keepAlive)).status, statusOf('commandSequence'));
    assert.equal((await host.propertySet(PROPERTY_CC, 0x0046_0000)).status, 0);
    assert.equal((await csts(host)).rdy, 0);
    assert.equal((await host.propertySet(PROPERTY_CC, CC_ENABLED)).status, 0);
    assert.equal((await host.propertyGet(PROPERTY_CC)).dw0, CC_ENABLED);
    assert.equal((await csts(host)).rdy, 1);
    assert.equal((await host.run(keepAlive)).status, 0);
  });

  const bad: readonly (readonly [string, number])[] = [
    ['CSS', (CC_ENABLED & ~0x70) | 0x10],
    ['MPS', CC_ENABLED | (1 << 7)],
    ['AMS', CC_ENABLED | (1 << 11)],
    ['IOSQES', (CC_ENABLED & ~0xf_0000) | 0x7_0000],
    ['IOCQES', CC_ENABLED & ~0xf0_0000],
  ];
  for (const [what, value] of bad) {
    test(`with a ${what} that the drive can't do is a fatal status, until it is disabled`, async (t) => {
      const rig = await createRig(t);
      const host = await connected(rig);
      assert.equal((await host.propertySet(PROPERTY_CC, value)).status, 0);
      const failed = await csts(host);
      assert.deepEqual([failed.rdy, failed.cfs], [0, 1]);
      assert.equal((await host.run(keepAlive)).status, statusOf('commandSequence'));
      await host.propertySet(PROPERTY_CC, 0);
      assert.equal((await csts(host)).cfs, 0);
      await host.propertySet(PROPERTY_CC, CC_ENABLED);
      assert.equal((await csts(host)).rdy, 1);
    });
  }

  test('disabling ends the I/O queues and nothing else', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    await host.propertySet(PROPERTY_CC, CC_ENABLED & ~1);
    await io.untilClosed();
    assert.equal((await csts(host)).rdy, 0);
    await host.propertySet(PROPERTY_CC, CC_ENABLED);
    const again = await rig.io(cntlid);
    assert.equal((await again.read(read, 4096)).status, 0);
  });
});

describe('shutdown', () => {
  test('flushes first: SHST goes from occurring to complete', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.durability.gate.shut();
    await host.propertySet(PROPERTY_CC, CC_ENABLED | NORMAL_SHUTDOWN);
    assert.equal((await csts(host)).shst, 1);
    assert.equal((await io.read(read, 4096)).status, statusOf('commandSequence'));
    rig.durability.gate.open();
    while ((await csts(host)).shst !== 2);
    assert.equal(rig.durability.flushCount, 1);
    assert.equal((await host.run(keepAlive)).status, 0);
    // Only a reset brings it back.
    await host.propertySet(PROPERTY_CC, CC_ENABLED);
    assert.equal((await csts(host)).shst, 2);
    await host.propertySet(PROPERTY_CC, 0);
    await host.propertySet(PROPERTY_CC, CC_ENABLED);
    const status = await csts(host);
    assert.deepEqual([status.rdy, status.shst], [1, 0]);
  });

  test('of a controller that was never enabled', async (t) => {
    const rig = await createRig(t);
    const host = await connected(rig);
    await host.propertySet(PROPERTY_CC, NORMAL_SHUTDOWN);
    while ((await csts(host)).shst !== 2);
  });
});

describe('the association ends', () => {
  test('with its admin queue: I/O queues and regions go too', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    await host.read({ opcode: adminOpcodes.regionCreate.opcode, cdw10: 4096 }, 512);
    assert.equal(rig.subsystem.snapshot().associations[0]?.regionCount, 1);
    host.close();
    await io.untilClosed();
    assert.deepEqual(rig.subsystem.snapshot().associations, []);
    assert.deepEqual((await import('node:fs')).readdirSync(`${rig.folder}/regions`), []);
  });

  test('not with an I/O queue', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin();
    (await rig.io(cntlid)).close();
    while (rig.subsystem.snapshot().associations[0]?.queues.length !== 1) await new Promise((r) => setImmediate(r));
    assert.equal((await host.run(keepAlive)).status, 0);
    await rig.io(cntlid);
  });

  test('when the host is silent for a keep alive timeout', async (t) => {
    const rig = await createRig(t);
    const { host, cntlid } = await rig.admin({ kato: 5000 });
    const io = await rig.io(cntlid);
    for (let i = 0; i < 5; i++) {
      // Traffic on any queue counts, admin or I/O.
      if (i % 2 === 0) await host.run(keepAlive);
      else await io.read(read, 4096);
      rig.clock.advance(5000);
    }
    assert.equal(host.closed, false);
    rig.clock.advance(5000);
    await host.untilClosed();
    await io.untilClosed();
    assert.deepEqual(rig.subsystem.snapshot().associations, []);
  });

  test('never for silence, with a timeout of 0', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin({ kato: 0 });
    rig.clock.advance(3_600_000);
    assert.equal((await host.run(keepAlive)).status, 0);
  });

  test('closing the subsystem waits for running commands', async (t) => {
    const rig = await createRig(t);
    const { cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    rig.blocks.gate.shut();
    io.send({ ...read, sgl: { kind: 'transport', length: 4096 } });
    while (rig.blocks.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
    let closed = false;
    const closing = rig.subsystem.close().then(() => (closed = true));
    await io.untilClosed();
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(closed, false);
    rig.blocks.gate.open();
    await closing;
    const refused = await (await rig.host()).connect({}, { subnqn: rig.nqn });
    assert.equal(refused.status, statusOf('connectBusy'));
  });
});

describe('state tables', () => {
  const tables: readonly (readonly [string, Readonly<Record<string, readonly string[]>>, string, string])[] = [
    ['controller', controllerTransitions, 'disabled', 'ended' satisfies ControllerState],
    ['connection', connectionTransitions, 'opening', 'closed'],
  ];
  for (const [name, table, first, last] of tables) {
    test(`${name}: every state can be reached, and left for the end`, () => {
      const reached = new Set([first]);
      for (const state of reached) for (const next of table[state] ?? []) reached.add(next);
      assert.deepEqual([...reached].sort(), Object.keys(table).sort());
      for (const [state, nexts] of Object.entries(table)) {
        if (state === last) assert.deepEqual(nexts, []);
        else assert.ok(nexts.includes(last), `${state} -> ${last}`);
      }
    });
  }
});
