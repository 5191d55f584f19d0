/**
 * What bad input gets from a real daemon: the status or the line that names it; a client that was there before goes on,
 * and finds everything that it had stored.
 */
import assert from 'node:assert/strict';
import { truncateSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { DriveClient } from '../../client/index.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { limits } from '../../spec/limits.ts';
import { pduTypes } from '../../spec/pdu.ts';
import { type CommandFields, describeTermReq, RawHost } from '../controller/raw-host.ts';
import { createRegion, statusOf } from '../commands/kv-host.ts';
import type { ErrorCode } from '../../spec/errors.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { blocks, connectTo, rows, runningDrive, shape, Witness } from './served-drive.ts';

let daemon: DaemonProcess;
let witness: Witness;
/** Connections that do nothing more, opened first: their timeout runs while the other tests do. */
let stuck: RawHost[];

const rawHost = (): Promise<RawHost> => RawHost.open(`unix:${runningDrive(daemon).nvmeSocket}`);

/** A host with an enabled controller, and one I/O queue. */
async function association(): Promise<{ admin: RawHost; io: RawHost }> {
  const admin = await rawHost();
  await admin.initialize();
  const subnqn = witness.client.identity.subnqn;
  const connected = await admin.connect({ qid: 0, sqsize: 31 }, { subnqn });
  assert.equal(connected.status, 0);
  assert.equal((await admin.propertySet(0x14, 0x0046_0061)).status, 0);
  const io = await rawHost();
  await io.initialize();
  assert.equal((await io.connect({ qid: 1, sqsize: 31 }, { subnqn, cntlid: connected.dw0 & 0xffff })).status, 0);
  return { admin, io };
}

before(async () => {
  daemon = new DaemonProcess('16MiB');
  await daemon.start();
  witness = await Witness.write(await connectTo(daemon));
  const silent = await rawHost();
  const stopped = await rawHost();
  await stopped.initialize();
  const connect = stopped.connectBytes({ qid: 0, sqsize: 31 }, { subnqn: witness.client.identity.subnqn });
  stopped.write(connect.subarray(0, connect.length / 2));
  stuck = [silent, stopped];
});

after(async () => {
  await witness?.client.close();
  await daemon?.remove();
});

describe('a command that is wrong gets its status', () => {
  const read = (fields: Partial<CommandFields> = {}): CommandFields => ({
    opcode: nvmOpcodes.read.opcode,
    nsid: 1,
    sgl: { kind: 'transport', length: 4096 },
    ...fields,
  });
  const sgl = (type: number): Uint8Array => Uint8Array.from({ length: 16 }, (_, i) => (i === 15 ? type : 0));
  const cases: readonly [string, CommandFields, ErrorCode][] = [
    ['unknown opcode', { opcode: 0x3f, nsid: 1 }, 'invalidOpcode'],
    ['unknown KV opcode', { opcode: 0xff, nsid: 2 }, 'invalidOpcode'],
    ['namespace that is not there', read({ nsid: 3 }), 'invalidNamespace'],
    ["a block command for the KV cache's namespace", read({ nsid: 2 }), 'invalidOpcode'],
    ['reserved bits', read({ cdw15: 1 }), 'invalidField'],
    ['reserved SGL type', read({ sglBytes: sgl(0xf0) }), 'sglType'],
    ['keyed SGL with a key that nobody has', { opcode: 2, nsid: 1, sglBytes: keyed(4096, 77) }, 'sglDataBlock'],
    ['transfer above MDTS', read({ cdw12: 511, sgl: { kind: 'transport', length: 2 << 20 } }), 'invalidField'],
    ['block beyond the end', read({ cdw10: 0x7fff_ffff }), 'lbaRange'],
    ['unknown sequence', { opcode: kvOpcodes.truncate.opcode, nsid: 2, cdw10: 12_345 }, 'unknownSequence'],
  ];
  test('on the I/O queue', async () => {
    const { admin, io } = await association();
    for (const [what, fields, code] of cases) {
      assert.equal((await io.run(fields)).status, statusOf(code), what);
      assert.equal((await io.read(read(), 4096)).status, 0, `after ${what}`);
    }
    assert.equal((await admin.run({ opcode: 0x7e })).status, statusOf('invalidOpcode'));
    const key = { opcode: adminOpcodes.regionDelete.opcode, cdw10: 77 };
    assert.equal((await admin.run(key)).status, statusOf('sglDataBlock'));
    admin.close();
    await witness.check();
  });

  test('through the SDK, naming what it was about', async () => {
    const client = await connectTo(daemon);
    const refused = (work: Promise<unknown>, code: string, message: RegExp) =>
      assert.rejects(work, (error: Error & { code?: string }) => {
        assert.equal(error.code, code, error.message);
        assert.match(error.message, message);
        return true;
      });
    const { id } = witness.sequence;
    const sequence = await client.kv.open(id);
    const queries = rows(0, 1);
    const entry = { sequence, layer: 0, queryHeadsPerKvHead: 1, queries };
    await refused(client.attend([{ ...entry, tokenEnd: 41 }]), 'tokenRange', /ATTN/);
    await refused(client.attend([{ ...entry, layer: 2 }]), 'layerRange', /ATTN/);
    await refused(sequence.truncate(99), 'tokenRange', /99/);
    await refused(sequence.append(0, 41, rows(41, 1), rows(41, 1)), 'appendGap', /41/);
    await refused(sequence.append(0, 39, rows(7, 1), rows(7, 1)), 'appendConflict', /39/);
    await refused(client.kv.open(4711n), 'unknownSequence', /4711/);
    await refused(client.kv.create({ ...shape, headDimK: 7 }), 'invalidShape', /"headDimK":7/);
    await refused(client.kv.create({ ...shape, groupTokens: 4000 }), 'invalidShape', /4000/);
    await client.close();
    await witness.check();
  });
});

test('a full drive says so, keeps what it has, and has room again once something is reclaimed', async () => {
  const client = await connectTo(daemon);
  const sequence = await client.kv.create(shape, { label: 'glutton' });
  const piece = 4096;
  let stored = 0;
  const fill = async (): Promise<void> => {
    for (; stored < 100 * piece; stored += piece) await sequence.append(0, stored, rows(stored, piece), rows(0, piece));
  };
  await assert.rejects(fill(), { code: 'capacityExceeded', retry: true });
  assert.ok(stored > piece, `${stored} tokens`);
  const { length } = rows(0, 1);
  const { keys } = await sequence.readBack({ layer: 0, tokenStart: stored - piece, tokenEnd: stored });
  assert.deepEqual(keys?.subarray(0, length), rows(stored - piece, 1));
  await witness.check();
  await client.block.write(500, blocks(500, 4));
  await sequence.reclaim();
  const next = await client.kv.create(shape);
  assert.equal(await next.append(0, 0, rows(0, piece), rows(0, piece)), piece);
  await next.reclaim();
  await client.close();
});

describe('a connection that is wrong ends alone', () => {
  const header = (type: number, plen: number): Buffer => {
    const bytes = Buffer.alloc(128);
    bytes[0] = type;
    bytes[2] = 128;
    bytes.writeUInt32LE(plen, 4);
    return bytes;
  };

  test('no PDU at all, an unknown type, an absurd length', async () => {
    const streams = [Buffer.from('GET / HTTP/1.1\r\nHost: drive\r\n\r\n'), header(0x77, 128), header(0, 0xffff_ff00)];
    for (const bytes of streams) {
      const host = await rawHost();
      host.write(bytes);
      assert.match(describeTermReq(await host.next()), /C2HTermReq/);
      await host.untilClosed();
      host.close();
    }
    await witness.check();
  });

  test('an oversized capsule on a queue that worked', async () => {
    const { admin, io } = await association();
    const { opcode } = nvmOpcodes.write;
    const data = Buffer.alloc(limits.inCapsuleBytesMax + 4096);
    io.send({ opcode, nsid: 1, cdw12: data.length / 4096 - 1 }, data);
    assert.equal((await io.next())?.type, pduTypes.c2hTermReq.type);
    await io.untilClosed();
    assert.equal((await admin.run({ opcode: adminOpcodes.keepAlive.opcode })).status, 0);
    admin.close();
    await witness.check();
  });

  test('in the middle of a capsule, in the middle of a transfer', async () => {
    const { admin, io } = await association();
    const { opcode } = nvmOpcodes.write;
    const { firstLba } = Witness;
    const commandId = io.send({
      opcode,
      nsid: 1,
      cdw10: firstLba,
      cdw12: 15,
      sgl: { kind: 'transport', length: 65_536 },
    });
    const r2t = await io.next();
    assert.equal(r2t?.type, pduTypes.r2t.type);
    io.write(io.h2cDataBytes(commandId, r2t.header.readUInt16LE(10), 0, Buffer.alloc(4096), false));
    io.close();
    const capsule = admin.capsuleBytes(admin.entryBytes({ opcode: adminOpcodes.keepAlive.opcode }, 9));
    admin.write(capsule.subarray(0, 40));
    admin.close();
    await witness.check();
  });
});

test('a region file that its client truncates is a status for that client', async () => {
  const { admin, io } = await association();
  const { key, path } = await createRegion(admin, 65_536);
  truncateSync(path, 1000);
  for (const [opcode, code] of [
    [nvmOpcodes.write.opcode, 'sglDataBlock'],
    [nvmOpcodes.read.opcode, 'sglDataBlock'],
  ] as const) {
    const { status } = await io.run({ opcode, nsid: 1, cdw10: 900, sglBytes: keyed(4096, key) });
    // The drive may write beyond the end of a shortened file: that extends it, and harms nobody.
    if (opcode === nvmOpcodes.write.opcode) assert.equal(status, statusOf(code));
    else assert.ok(status === 0 || status === statusOf(code), `status ${status.toString(16)}`);
  }
  assert.equal((await io.read({ opcode: nvmOpcodes.read.opcode, nsid: 1, cdw10: 900 }, 4096)).status, 0);
  admin.close();
  await witness.check();
});

test('a host that never speaks and one that stopped in a capsule are sent away', async () => {
  for (const host of stuck) {
    await host.untilClosed();
    host.close();
  }
  await witness.check();
  assert.doesNotMatch(daemon.said, /"level":"(error|fatal)"/);
});

test('after all this the daemon stops cleanly and everything is there again', async () => {
  await witness.client.close();
  assert.equal(await daemon.end('SIGTERM'), 0);
  await daemon.start();
  const client: DriveClient = await connectTo(daemon);
  await (await witness.through(client)).check();
  await client.close();
});

/** A keyed SGL data block at the start of a region. */
function keyed(length: number, key: number): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntLE(length, 8, 3);
  bytes.writeUInt32LE(key, 11);
  bytes[15] = 0x40;
  return bytes;
}
