/** With the volatile write cache off, every command that changes the drive is durable when it completes. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import type { Durability } from '../../daemon/ftl/contract.ts';
import { BLOCK_NSID, KV_CACHE_NSID, kvTransferBits } from '../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import type { CommandFields, Completion, RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig } from '../controller/rig.ts';
import {
  append,
  appendFields,
  attendBytes,
  bytesOf,
  createBytes,
  createSequence,
  idFields,
  payloadAt,
  queries,
  rows,
  statusOf,
} from './kv-host.ts';

const LBA = 4096;
const VOLATILE_WRITE_CACHE = 0x06;

/** Syncs end when told. */
class HeldDurability implements Durability {
  syncs: { resolve: () => void; reject: (error: Error) => void }[] = [];
  hold = false;

  flush(): Promise<void> {
    return this.syncStaging();
  }

  syncStaging(): Promise<void> {
    if (!this.hold) return Promise.resolve();
    return new Promise((resolve, reject) => this.syncs.push({ resolve, reject }));
  }
}

interface Host {
  readonly admin: RawHost;
  readonly io: RawHost;
  readonly rig: Rig;
  readonly durability: HeldDurability;
  setWriteCache(isOn: boolean): Promise<Completion>;
}

async function open(t: TestContext): Promise<Host> {
  const durability = new HeldDurability();
  const rig = await createRig(t, { modules: { durability } });
  const { host, cntlid } = await rig.admin();
  const { opcode } = adminOpcodes.setFeatures;
  const setWriteCache = (isOn: boolean) => host.run({ opcode, cdw10: VOLATILE_WRITE_CACHE, cdw11: isOn ? 1 : 0 });
  return { rig, admin: host, io: await rig.io(cntlid), durability, setWriteCache };
}

const range = Buffer.alloc(16);
range.writeUInt32LE(3, 4);

type Send = (io: RawHost, id: bigint) => Promise<Completion>;
const fields = (row: { opcode: number }, more: CommandFields | object): CommandFields => ({
  ...more,
  opcode: row.opcode,
});
const block = { nsid: BLOCK_NSID, cdw10: 5 };

/** One token that ATTN carries, and a query for it. */
function carrying(id: bigint, position: number): Uint8Array {
  const carried = bytesOf(rows(position, 1));
  const entry = {
    sequenceId: id,
    queryHeadsPerKvHead: 1,
    queryTokenCount: 1,
    appendTokenCount: 1,
    appendPosition: position,
    appendOffset: payloadAt(1),
    queryOffset: payloadAt(1) + carried.length,
    tokenEnd: 0xffff_ffff,
    outKind: 2,
    // A slot of its own for each sequence.
    outKey: Number(id) % 64,
  };
  return attendBytes({}, [entry], Buffer.concat([carried, bytesOf(queries(1, 2))]));
}

const changes: Record<string, Send> = {
  'write zeroes': (io) => io.run(fields(nvmOpcodes.writeZeroes, block)),
  deallocate: (io) => io.run(fields(nvmOpcodes.datasetManagement, { nsid: BLOCK_NSID, cdw11: 4 }), range),
  create: (io) => io.run(fields(kvOpcodes.create, { nsid: KV_CACHE_NSID }), createBytes()),
  append: (io, id) => append(io, id, 2, 1),
  ATTN: (io, id) => io.run(fields(kvOpcodes.attend, { nsid: KV_CACHE_NSID }), carrying(id, 3)),
  fork: (io, id) =>
    io.run(
      fields(kvOpcodes.fork, { ...idFields(id), cdw12: 1 }),
      createBytes({ layerCount: 0, kvHeadCount: 0, headDimK: 0, headDimV: 0, elementTypeK: 0, elementTypeV: 0 }),
    ),
  truncate: (io, id) => io.run(fields(kvOpcodes.truncate, { ...idFields(id), cdw12: 0, cdw13: 1 })),
  reclaim: (io, id) => io.run(fields(kvOpcodes.reclaim, idFields(id))),
};

/** Whether the command completed while the sync that it began was held. */
async function completesBeforeSync(durability: HeldDurability, sent: Promise<Completion>): Promise<boolean> {
  let isCompleted = false;
  void sent.then(() => (isCompleted = true));
  while (!isCompleted && durability.syncs.length === 0) await new Promise((resolve) => setImmediate(resolve));
  return isCompleted;
}

test('each change waits for its sync with the cache off, none with it on', async (t) => {
  const { io, durability, setWriteCache } = await open(t);
  for (const isOn of [true, false]) {
    assert.equal((await setWriteCache(isOn)).status, 0);
    const id = await createSequence(io);
    await append(io, id, 0, 2);
    await append(io, id, 0, 2, 1);
    durability.hold = true;
    for (const [name, send] of Object.entries(changes)) {
      const sent = send(io, id);
      assert.equal(await completesBeforeSync(durability, sent), isOn, `${name}, cache ${isOn ? 'on' : 'off'}`);
      assert.equal(durability.syncs.length, isOn ? 0 : 1, name);
      for (const { resolve } of durability.syncs.splice(0)) resolve();
      assert.equal((await sent).status, 0, name);
    }
    durability.hold = false;
  }
});

test('a write is as one with FUA with the cache off', async (t) => {
  const { rig, io, setWriteCache } = await open(t);
  for (const isOn of [true, false, true]) {
    await setWriteCache(isOn);
    const before = rig.blocks.fuaCount;
    assert.equal((await io.run(fields(nvmOpcodes.write, block), Buffer.alloc(LBA))).status, 0);
    assert.equal(rig.blocks.fuaCount - before, isOn ? 0 : 1);
  }
});

test('FUA makes one append wait', async (t) => {
  const { io, durability } = await open(t);
  const id = await createSequence(io);
  durability.hold = true;
  const { cdw12 = 0, ...rest } = appendFields(id, 0, 1);
  const fua = (cdw12 | (1 << kvTransferBits.fua.shift)) >>> 0;
  const sent = io.run({ ...rest, cdw12: fua }, bytesOf(rows(0, 1)));
  assert.equal(await completesBeforeSync(durability, sent), false);
  for (const { resolve } of durability.syncs.splice(0)) resolve();
  assert.equal((await sent).status, 0);
});

test('turning the cache off waits until what completed before is durable', async (t) => {
  const { durability, setWriteCache } = await open(t);
  durability.hold = true;
  const sent = setWriteCache(false);
  assert.equal(await completesBeforeSync(durability, sent), false);
  for (const { resolve } of durability.syncs.splice(0)) resolve();
  assert.equal((await sent).status, 0);
});

test('Format NVM waits for its flush, with the cache on too', async (t) => {
  const { admin, durability } = await open(t);
  for (const nsid of [BLOCK_NSID, KV_CACHE_NSID]) {
    durability.hold = true;
    const sent = admin.run({ opcode: adminOpcodes.formatNvm.opcode, nsid });
    assert.equal(await completesBeforeSync(durability, sent), false, `namespace ${nsid}`);
    durability.hold = false;
    for (const { resolve } of durability.syncs.splice(0)) resolve();
    assert.equal((await sent).status, 0);
  }
});

test('a sync that fails is a write fault, and the change is seen all the same', async (t) => {
  const { io, durability, setWriteCache } = await open(t);
  await setWriteCache(false);
  const id = await createSequence(io);
  durability.hold = true;
  const sent = append(io, id, 0, 1);
  assert.equal(await completesBeforeSync(durability, sent), false);
  for (const { reject } of durability.syncs.splice(0)) reject(new DriveError('writeFault', 'planted'));
  assert.equal((await sent).status, statusOf('writeFault'));
  durability.hold = false;
  const again = await append(io, id, 0, 1);
  assert.deepEqual([again.status, again.dw0], [0, 1], 'sent again');
});
