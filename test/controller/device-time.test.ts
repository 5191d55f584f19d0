import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { smallProfile } from '../timing/model.ts';
import { createRig, PROPERTY_CC, type Rig } from './rig.ts';

const LBA = 4096;
const TR_NS = 40_000_000;
/** The only cost: a read takes 40 ms, so that a clock of milliseconds can show it. */
const enforced = smallProfile({ flash: { readNs: [TR_NS] } });
const read = (lba: number) => ({ opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID, cdw10: lba });
/** As a read, but without data. */
const verify = (lba: number) => ({ opcode: nvmOpcodes.verify.opcode, nsid: BLOCK_NSID, cdw10: lba });
const flush = { opcode: nvmOpcodes.flush.opcode, nsid: BLOCK_NSID };

/** Lets everything happen that can happen without time. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

test('a completion leaves when the device would have had it, and says how long that took', async (t) => {
  const rig = await createRig(t, { enforced });
  const { cntlid } = await rig.admin();
  const host = await rig.io(cntlid);
  let isThere = false;
  const first = host.read(read(0), LBA).then((completion) => {
    isThere = true;
    return completion;
  });
  await settle();
  assert.equal(rig.subsystem.snapshot().hold?.waitingCount, 1);
  rig.clock.advance(39);
  await settle();
  assert.equal(isThere, false);
  rig.clock.advance(1);
  const completion = await first;
  assert.equal(completion.status, 0);
  assert.equal(completion.dw1, TR_NS);
  // What takes no device time leaves at once.
  assert.equal((await host.run(flush)).dw1, 0);
  const { deviceLatencies, hold } = rig.subsystem.snapshot();
  assert.deepEqual(
    deviceLatencies.map(({ opcode, sumSeconds }) => [opcode, sumSeconds]),
    [
      ['Flush', 0],
      ['Read', 0.04],
    ],
  );
  assert.deepEqual([hold?.heldCount, hold?.waitingCount], [1, 0]);
});

test('commands of a queue leave in the order of their device times', async (t) => {
  const rig = await createRig(t, { enforced });
  const { cntlid } = await rig.admin();
  const host = await rig.io(cntlid);
  // One die: they queue there, 40, 80 and 120 ms; the one that needs no flash goes first.
  const ids = [host.send(verify(0)), host.send(verify(1)), host.send(verify(2)), host.send(flush)];
  await settle();
  const order: number[] = [];
  for (const ms of [0, 40, 40, 40]) {
    rig.clock.advance(ms);
    await settle();
    const { commandId } = await host.completion();
    order.push(ids.indexOf(commandId));
  }
  assert.deepEqual(order, [3, 0, 1, 2]);
});

test('late completions leave at once and are counted', async (t) => {
  const rig = await createRig(t, { enforced });
  const { cntlid } = await rig.admin();
  const host = await rig.io(cntlid);
  rig.blocks.gate.shut();
  const late = host.read(read(0), LBA);
  await settle();
  rig.clock.advance(100);
  rig.blocks.gate.open();
  assert.equal((await late).dw1, TR_NS);
  const { lateCount, heldCount } = rig.subsystem.snapshot().hold!;
  assert.deepEqual([lateCount, heldCount], [1, 0]);
});

const inFlight = (rig: Rig): number => rig.subsystem.snapshot().inFlightCount;

test('held completions go with their connection, their controller, and the drive', async (t) => {
  const rig = await createRig(t, { enforced });
  const { host: admin, cntlid } = await rig.admin({ address: rig.tcp });
  const gone = await rig.io(cntlid, { qid: 1, address: rig.tcp });
  const stays = await rig.io(cntlid, { qid: 2, address: rig.tcp });
  gone.send(verify(0));
  stays.send(verify(1));
  await settle();
  assert.equal(rig.subsystem.snapshot().hold?.waitingCount, 2);
  gone.socket.resetAndDestroy();
  await settle();
  assert.deepEqual([rig.subsystem.snapshot().hold?.waitingCount, inFlight(rig)], [1, 1]);
  // Controller reset: its I/O queues end.
  await admin.propertySet(PROPERTY_CC, 0);
  await settle();
  assert.deepEqual([rig.subsystem.snapshot().hold?.waitingCount, inFlight(rig)], [0, 0]);
  const { cntlid: other } = await rig.admin();
  const last = await rig.io(other);
  last.send(verify(2));
  await settle();
  assert.equal(rig.subsystem.snapshot().hold?.waitingCount, 1);
  await rig.subsystem.close();
  assert.deepEqual([rig.subsystem.snapshot().hold?.waitingCount, inFlight(rig)], [0, 0]);
  assert.deepEqual(rig.fatals, []);
});

test('a host that closed its sending side still gets what is held', async (t) => {
  const rig = await createRig(t, { enforced });
  const { cntlid } = await rig.admin();
  const host = await rig.io(cntlid);
  const id = host.send(verify(0));
  await settle();
  host.socket.end();
  await settle();
  assert.equal(rig.subsystem.snapshot().hold?.waitingCount, 1);
  rig.clock.advance(40);
  assert.equal((await host.completion()).commandId, id);
});

test('admin commands have no device time, errors have one and keep their result', async (t) => {
  const rig = await createRig(t, { enforced });
  const { host: admin, cntlid } = await rig.admin();
  const host = await rig.io(cntlid);
  assert.equal((await admin.run({ opcode: adminOpcodes.keepAlive.opcode })).status, 0);
  const failed = await host.read(read(4096), LBA);
  assert.notEqual(failed.status, 0);
  const unknown = await host.run({ opcode: 0xff, nsid: KV_CACHE_NSID });
  assert.notEqual(unknown.status, 0);
  assert.equal(
    rig.subsystem.snapshot().deviceLatencies.some(({ queue }) => queue === 'admin'),
    false,
  );
});

test('without enforcing, completions leave when they are ready and DW1 is what the commands say', async (t) => {
  const rig = await createRig(t);
  const { cntlid } = await rig.admin();
  const host = await rig.io(cntlid);
  const { status, dw1 } = await host.read(read(0), LBA);
  assert.deepEqual([status, dw1], [0, 0]);
  const { deviceLatencies, hold } = rig.subsystem.snapshot();
  assert.deepEqual([deviceLatencies, hold], [[], undefined]);
});
