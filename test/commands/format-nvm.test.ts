/** Format NVM on a whole drive in files: what it empties, what it leaves, who waits for whom. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { packBits } from '../../spec/bits.ts';
import { commandEffectBits, EFFECTS_IO_OFFSET, logPages } from '../../spec/log-pages.ts';
import { BLOCK_NSID, KV_CACHE_CSI, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, formatBits, kvOpcodes, nvmOpcodes, secureErase } from '../../spec/opcodes.ts';
import type { Completion, RawHost } from '../controller/raw-host.ts';
import { createRig } from '../controller/rig.ts';
import { formatFolder, openWholeDrive, type WholeDrive } from '../controller/whole-drive.ts';
import { append, bytesOf, createSequence, idFields, rows, statusOf, transfer } from './kv-host.ts';

const LBA = 4096;
const ALL = 0xffff_ffff;
/** Bytes that nothing else writes. */
const SECRET = Buffer.from('what the block namespace held');

const format = (admin: RawHost, nsid: number, fields: Parameters<typeof packBits<typeof formatBits>>[1] = {}) =>
  admin.run({ opcode: adminOpcodes.formatNvm.opcode, nsid, cdw10: packBits(formatBits, fields) });

const blockFields = (opcode: number, lba: number, count: number) => ({
  opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: count - 1,
});

const writeBlocks = (io: RawHost, lba: number, bytes: Uint8Array): Promise<Completion> =>
  io.run(blockFields(nvmOpcodes.write.opcode, lba, bytes.length / LBA), bytes);

const isZero = async (io: RawHost, lba: number): Promise<boolean> => {
  const { status, data } = await io.read(blockFields(nvmOpcodes.read.opcode, lba, 1), LBA);
  assert.equal(status, 0);
  return data.every((byte) => byte === 0);
};

const readBack = (io: RawHost, id: bigint, tokenCount: number): Promise<Completion> =>
  io.read(
    {
      opcode: kvOpcodes.readBack.opcode,
      ...idFields(id),
      cdw12: transfer({ part: 3 }),
      cdw13: 0,
      cdw14: tokenCount,
    },
    bytesOf(rows(0, tokenCount)).length,
  );

async function open(t: TestContext): Promise<{ folder: string; drive: WholeDrive; admin: RawHost; io: RawHost }> {
  const folder = await formatFolder(t);
  const drive = await openWholeDrive(folder);
  return { folder, drive, ...(await drive.connect()) };
}

/** Blocks and sequences, more than the caches hold. */
async function fill(io: RawHost): Promise<bigint[]> {
  for (let lba = 0; lba < 96; lba += 16) {
    const bytes = Buffer.alloc(16 * LBA);
    for (let at = 0; at < bytes.length; at += 64) SECRET.copy(bytes, at);
    assert.equal((await writeBlocks(io, lba, bytes)).status, 0);
  }
  const ids: bigint[] = [];
  for (let i = 0; i < 3; i++) {
    const id = await createSequence(io, { label: 'held' });
    assert.equal((await append(io, id, 0, 150)).status, 0);
    ids.push(id);
  }
  return ids;
}

test('each namespace is emptied alone, durably, and used again; ids are not', async (t) => {
  const { folder, drive, admin, io } = await open(t);
  const ids = await fill(io);
  assert.equal((await format(admin, KV_CACHE_NSID)).status, 0);
  for (const id of ids) assert.equal((await readBack(io, id, 1)).status, statusOf('unknownSequence'));
  assert.equal(drive.kv.list(0n, 10).length, 0);
  assert.equal(drive.ftl.kv.freePageCount, drive.ftl.kv.pageCount, 'every page is free');
  assert.equal(await isZero(io, 5), false, 'the other namespace is as it was');

  const next = await createSequence(io);
  assert.ok(next > ids.at(-1)!, `${next} is new`);
  assert.equal((await append(io, next, 0, 150)).status, 0);
  assert.equal((await format(admin, BLOCK_NSID)).status, 0);
  for (const lba of [0, 5, 95]) assert.equal(await isZero(io, lba), true);
  assert.equal(drive.ftl.snapshot().blockLbasMapped, 0);
  assert.deepEqual(new Uint8Array((await readBack(io, next, 150)).data), bytesOf(rows(0, 150)));
  await writeBlocks(io, 7, Buffer.alloc(LBA, 7));

  // Nothing was flushed since; the process dies.
  admin.socket.destroy();
  io.socket.destroy();
  await drive.abandon();
  const again = await openWholeDrive(folder);
  const { admin: admin2, io: io2 } = await again.connect();
  assert.equal(await isZero(io2, 5), true, 'formatted for good');
  for (const id of ids) assert.equal((await readBack(io2, id, 1)).status, statusOf('unknownSequence'));
  assert.ok((await createSequence(io2)) > next);
  assert.deepEqual(again.fatals, []);
  admin2.socket.destroy();
  io2.socket.destroy();
  await again.close();
});

test('user data erase: no byte of it is left in the media files or the log, and the others are whole', async (t) => {
  const { folder, drive, admin, io } = await open(t);
  await fill(io);
  // Also where garbage collection has been, and in superblocks that were free again.
  const churned = Buffer.concat([SECRET, Buffer.alloc(LBA - SECRET.length)]);
  for (let i = 0; i < 1500; i++) await writeBlocks(io, 100 + ((i * 37) % 900), churned);
  const id = await createSequence(io);
  await append(io, id, 0, 150);
  const filesWith = (): string[] => {
    const segments = drive.ftl.stagingFile.segmentNumber;
    const names = ['media/cells.bin', `staging/${String(segments).padStart(8, '0')}.log`];
    return names.filter((name) => readFileSync(join(folder, name)).includes(SECRET));
  };
  assert.ok(filesWith().includes('media/cells.bin'));
  assert.equal((await format(admin, BLOCK_NSID)).status, 0);
  assert.ok(filesWith().includes('media/cells.bin'), 'without it bytes stay until they are programmed over');
  assert.equal((await format(admin, BLOCK_NSID, { ses: secureErase.userData })).status, 0);
  assert.deepEqual(filesWith(), []);
  assert.deepEqual(new Uint8Array((await readBack(io, id, 150)).data), bytesOf(rows(0, 150)));
  // And the namespace works.
  await writeBlocks(io, 3, churned);
  assert.equal(await isZero(io, 3), false);
  admin.socket.destroy();
  io.socket.destroy();
  await drive.close();
  const again = await openWholeDrive(folder);
  const hosts = await again.connect();
  assert.deepEqual(new Uint8Array((await readBack(hosts.io, id, 150)).data), bytesOf(rows(0, 150)));
  assert.equal(await isZero(hosts.io, 3), false);
  await again.close();
});

test('both namespaces at once', async (t) => {
  const { drive, admin, io } = await open(t);
  const [id] = await fill(io);
  assert.equal((await format(admin, ALL, { ses: secureErase.userData })).status, 0);
  assert.equal(await isZero(io, 5), true);
  assert.equal((await readBack(io, id!, 1)).status, statusOf('unknownSequence'));
  await drive.close();
});

test('what it refuses, and that nothing has changed then', async (t) => {
  const { drive, admin, io } = await open(t);
  await fill(io);
  for (const [nsid, fields, code] of [
    [0, {}, 'invalidNamespace'],
    [3, {}, 'invalidNamespace'],
    [BLOCK_NSID, { lbafl: 1 }, 'invalidFormat'],
    [BLOCK_NSID, { lbafu: 1 }, 'invalidFormat'],
    [BLOCK_NSID, { mset: 1 }, 'invalidFormat'],
    [BLOCK_NSID, { pi: 1 }, 'invalidFormat'],
    [KV_CACHE_NSID, { pil: 1 }, 'invalidFormat'],
    [KV_CACHE_NSID, { ses: 2 }, 'invalidField'],
  ] as const) {
    const { status } = await format(admin, nsid, fields);
    assert.equal(status, statusOf(code), JSON.stringify([nsid, fields]));
  }
  const reserved = await admin.run({ opcode: adminOpcodes.formatNvm.opcode, nsid: 1, cdw10: 1 << 14 });
  assert.equal(reserved.status, statusOf('invalidField'));
  assert.equal(await isZero(io, 5), false);
  assert.equal(drive.kv.list(0n, 10).length, 3);
  await drive.close();
});

test('commands that run end first; those that come meanwhile are told, and the other namespace serves', async (t) => {
  const rig = await createRig(t);
  const { host: admin, cntlid } = await rig.admin();
  const { host: formatter } = await rig.admin();
  const io = await rig.io(cntlid);
  const slow = await rig.io(cntlid, { qid: 2 });
  const flush = (nsid: number) => io.run({ opcode: nvmOpcodes.flush.opcode, nsid });
  rig.blocks.bytes.fill(0x5a);
  rig.blocks.gate.shut();
  const running = writeBlocks(slow, 9, Buffer.alloc(LBA, 9));
  while (rig.blocks.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
  let isDone = false;
  const formatting = format(formatter, BLOCK_NSID).finally(() => (isDone = true));
  while ((await flush(BLOCK_NSID)).status !== statusOf('formatInProgress'));

  const write = await io.run(blockFields(nvmOpcodes.write.opcode, 0, 1), Buffer.alloc(LBA));
  const read = await io.read(blockFields(nvmOpcodes.read.opcode, 0, 1), LBA);
  for (const { status, doNotRetry } of [write, read, await flush(ALL)]) {
    assert.equal(status, statusOf('formatInProgress'));
    assert.equal(doNotRetry, false);
  }
  assert.equal((await format(admin, BLOCK_NSID)).status, statusOf('formatInProgress'), 'a second one');
  assert.equal((await format(admin, ALL)).status, statusOf('formatInProgress'));
  assert.ok((await createSequence(io)) > 0n, 'the other namespace serves');
  assert.equal((await flush(KV_CACHE_NSID)).status, 0);
  assert.equal((await format(admin, KV_CACHE_NSID)).status, 0);
  assert.equal(isDone, false);

  rig.blocks.gate.open();
  assert.equal((await running).status, 0);
  assert.equal((await formatting).status, 0);
  assert.ok(
    rig.blocks.bytes.every((byte) => byte === 0),
    'also what was written meanwhile is gone',
  );
  assert.equal((await writeBlocks(io, 9, Buffer.alloc(LBA, 9))).status, 0);
  assert.equal((await flush(ALL)).status, 0);
  assert.deepEqual(rig.fatals, []);
});

test('Identify and the effects log tell of it, and other hosts that the namespace changed', async (t) => {
  const rig = await createRig(t);
  const { host: admin } = await rig.admin();
  const identify = await admin.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, 4096);
  assert.equal(identify.data.readUInt16LE(256) & 2, 2, 'OACS');
  assert.equal(identify.data[524], 0, 'FNA');
  for (const csi of [0, KV_CACHE_CSI]) {
    const { lid, sizeBytes } = logPages.effects;
    const cdw10 = lid | ((sizeBytes / 4 - 1) << 16);
    const log = await admin.read(
      { opcode: adminOpcodes.getLogPage.opcode, nsid: ALL, cdw10, cdw14: csi * 2 ** 24 },
      sizeBytes,
    );
    const expected = packBits(commandEffectBits, { csupp: 1, lbcc: 1, cse: 1 });
    assert.equal(log.data.readUInt32LE(4 * adminOpcodes.formatNvm.opcode), expected);
    assert.equal(log.data.readUInt32LE(EFFECTS_IO_OFFSET + 4 * adminOpcodes.formatNvm.opcode) & 2, 0);
  }
  const { host: other } = await rig.admin();
  assert.equal((await format(admin, BLOCK_NSID)).status, 0);
  const changed = async (host: RawHost): Promise<number> => {
    const { lid } = logPages.changedNamespaces;
    const cdw10 = lid | ((4096 / 4 - 1) << 16);
    return (await host.read({ opcode: adminOpcodes.getLogPage.opcode, nsid: ALL, cdw10 }, 4096)).data.readUInt32LE(0);
  };
  assert.equal(await changed(other), BLOCK_NSID);
  assert.equal(await changed(admin), 0, 'who formats it knows');
});
