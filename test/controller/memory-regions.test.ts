import assert from 'node:assert/strict';
import {
  existsSync,
  ftruncateSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { standardQuotas } from '../../spec/host-quotas.ts';
import { BLOCK_NSID, regionDescriptor } from '../../spec/kv-commands.ts';
import { adminOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { createFrontCounters } from '../../daemon/commands/contract.ts';
import { RegionFolder } from '../../daemon/controller/memory-regions.ts';
import { createRig } from './rig.ts';
import type { RawHost } from './raw-host.ts';

const LBA = 4096;
const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const createFields = (sizeBytes: number) => ({
  opcode: adminOpcodes.regionCreate.opcode,
  cdw10: sizeBytes % 2 ** 32,
  cdw11: Math.floor(sizeBytes / 2 ** 32),
});

export async function createRegion(host: RawHost, sizeBytes: number): Promise<{ key: number; path: string }> {
  const completion = await host.read(createFields(sizeBytes), 512);
  assert.equal(completion.status, 0);
  const { key, path, sizeBytes: size, version } = regionDescriptor.decode(completion.data);
  assert.deepEqual([size, version], [sizeBytes, 1]);
  return { key, path };
}

const keyed = (key: number, offset: number, length: number) => ({ kind: 'keyed', key, offset, length }) as const;
const read = { opcode: nvmOpcodes.read.opcode, nsid: BLOCK_NSID };
const write = { opcode: nvmOpcodes.write.opcode, nsid: BLOCK_NSID };
const pattern = (length: number, seed: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 13 + seed) & 0xff));

for (const mapsRegions of [true, false]) {
  describe(`a memory region, ${mapsRegions ? 'mapped' : 'read and written'}`, () => {
    for (const lbaCount of [1, 16, 17, 512]) {
      test(`moves ${lbaCount} blocks to the drive and back past the socket`, async (t) => {
        const rig = await createRig(t, { mapsRegions });
        const { host, cntlid } = await rig.admin();
        const io = await rig.io(cntlid);
        const length = lbaCount * LBA;
        const { key, path } = await createRegion(host, 2 * length + 100);
        const data = pattern(length, lbaCount);
        const file = Buffer.alloc(2 * length + 100);
        data.copy(file, 100);
        writeFileSync(path, file, { flag: 'r+' });
        const linkBytes = () => rig.subsystem.snapshot().counters.linkReceivedBytes;
        const before = linkBytes();
        assert.equal((await io.run({ ...write, cdw12: lbaCount - 1, sgl: keyed(key, 100, length) })).status, 0);
        assert.equal(linkBytes() - before, 72, 'only the capsule crossed the socket');
        assert.deepEqual(Buffer.from(rig.blocks.bytes.subarray(0, length)), data);
        const answer = await io.run({ ...read, cdw12: lbaCount - 1, sgl: keyed(key, length + 100, length) });
        assert.equal(answer.status, 0);
        assert.equal(answer.data.length, 0);
        assert.deepEqual(readFileSync(path).subarray(length + 100), data);
        const { counters } = rig.subsystem.snapshot();
        assert.deepEqual([counters.regionReadBytes, counters.regionWrittenBytes], [length, length]);
      });
    }

    test('is a file that only its owner may open, in a folder likewise, and goes when it is deleted', async (t) => {
      const rig = await createRig(t, { mapsRegions });
      const { host, cntlid } = await rig.admin();
      const io = await rig.io(cntlid);
      const { key, path } = await createRegion(host, LBA);
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.equal(statSync(join(rig.folder, 'regions')).mode & 0o777, 0o700);
      assert.equal(statSync(path).size, LBA);
      const remove = { opcode: adminOpcodes.regionDelete.opcode, cdw10: key };
      assert.equal((await host.run(remove)).status, 0);
      assert.equal(existsSync(path), false);
      assert.equal((await host.run(remove)).status, statusOf('sglDataBlock'));
      assert.equal((await io.run({ ...read, sgl: keyed(key, 0, LBA) })).status, statusOf('sglDataBlock'));
    });

    test('wrong key, range, and the region of another association', async (t) => {
      const rig = await createRig(t, { mapsRegions });
      const { host, cntlid } = await rig.admin();
      const other = await rig.admin();
      const io = await rig.io(cntlid);
      const foreign = await createRegion(other.host, LBA);
      const { key } = await createRegion(host, LBA);
      const status = async (sgl: ReturnType<typeof keyed>) => (await io.run({ ...read, sgl })).status;
      assert.equal(await status(keyed(key, 0, LBA)), 0);
      const denied = statusOf('sglDataBlock');
      assert.equal(await status(keyed((key + 1) >>> 0, 0, LBA)), denied);
      assert.equal(await status(keyed(foreign.key, 0, LBA)), denied);
      assert.equal(await status(keyed(key, 1, LBA)), denied);
      assert.equal(await status(keyed(key, LBA, LBA)), denied);
      assert.equal(await status(keyed(key, Number.MAX_SAFE_INTEGER, LBA)), denied);
      const raw = new Uint8Array(16).fill(0xff);
      raw[15] = 0x40;
      assert.equal((await io.run({ ...read, sglBytes: raw })).status, denied);
      assert.equal((await other.host.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: key })).status, denied);
    });

    for (const length of [LBA, 64 * LBA]) {
      test(`shortened by its client: a status for transfers of ${length} bytes, and the drive goes on`, async (t) => {
        const rig = await createRig(t, { mapsRegions });
        const { host, cntlid } = await rig.admin();
        const io = await rig.io(cntlid);
        const { key, path } = await createRegion(host, 2 * length);
        const fd = openSync(path, 'r+');
        ftruncateSync(fd, length / 2);
        closeSync(fd);
        const lbas = length / LBA - 1;
        const completion = await io.run({ ...write, cdw12: lbas, sgl: keyed(key, 0, length) });
        assert.equal(completion.status, statusOf('sglDataBlock'));
        truncateSync(path, 0);
        assert.equal(
          (await io.run({ ...write, cdw12: lbas, sgl: keyed(key, length, length) })).status,
          statusOf('sglDataBlock'),
        );
        assert.ok(rig.blocks.bytes.every((byte) => byte === 0));
        for (const sizeBytes of [0, 2 * length - 1]) {
          truncateSync(path, sizeBytes);
          const answer = await io.run({ ...read, cdw12: lbas, sgl: keyed(key, length, length) });
          assert.equal(answer.status, statusOf('sglDataBlock'));
          assert.equal(statSync(path).size, sizeBytes, 'the drive never makes the file longer');
        }
        truncateSync(path, 2 * length);
        assert.equal((await io.run({ ...read, cdw12: lbas, sgl: keyed(key, length, length) })).status, 0);
        assert.deepEqual(rig.fatals, []);
        assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes);
      });
    }

    test('removed by its client: transfers work on, and deleting it is fine', async (t) => {
      const rig = await createRig(t, { mapsRegions });
      const { host, cntlid } = await rig.admin();
      const io = await rig.io(cntlid);
      const { key, path } = await createRegion(host, LBA);
      unlinkSync(path);
      assert.equal((await io.run({ ...read, sgl: keyed(key, 0, LBA) })).status, 0);
      assert.equal((await host.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: key })).status, 0);
    });

    for (const lbaCount of [1, 64]) {
      test(`deleted before ${lbaCount} blocks are put into it: a status, and no buffer is lost`, async (t) => {
        const rig = await createRig(t, { mapsRegions });
        const { host, cntlid } = await rig.admin();
        const io = await rig.io(cntlid);
        const { key } = await createRegion(host, lbaCount * LBA);
        rig.blocks.gate.shut();
        io.send({ ...read, cdw12: lbaCount - 1, sgl: keyed(key, 0, lbaCount * LBA) });
        while (rig.blocks.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
        await host.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: key });
        rig.blocks.gate.open();
        assert.equal((await io.completion()).status, statusOf('sglDataBlock'));
        assert.equal(rig.arena.sizeBytes - rig.arena.freeBytes, rig.arenaUsedBytes);
      });
    }

    test('deleted under a running transfer: the transfer ends, the descriptor is closed after it', async (t) => {
      const rig = await createRig(t, { mapsRegions });
      const { host, cntlid } = await rig.admin();
      const io = await rig.io(cntlid);
      const openFiles = (): number => readdirSync('/proc/self/fd').length;
      const { key } = await createRegion(host, 512 * LBA);
      const before = openFiles();
      for (let i = 0; i < 8; i++) io.send({ ...write, cdw12: 511, sgl: keyed(key, 0, 512 * LBA) });
      const removed = await host.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: key });
      assert.equal(removed.status, 0);
      for (let i = 0; i < 8; i++) {
        const { status } = await io.completion();
        assert.ok(status === 0 || status === statusOf('sglDataBlock'), `status ${status.toString(16)}`);
      }
      assert.equal(openFiles(), before - 1);
    });
  });
}

describe('limits of regions', () => {
  test('size, number, and all together', async (t) => {
    const limits = { regionCountMax: 2, regionBytesMax: 8192, regionBytesTotalMax: 10_000 };
    const rig = await createRig(t, { limits });
    const { host } = await rig.admin();
    const refused = statusOf('regionLimit');
    assert.equal((await host.read(createFields(0), 512)).status, refused);
    assert.equal((await host.read(createFields(8193), 512)).status, refused);
    assert.equal((await host.read(createFields(2 ** 63), 512)).status, refused);
    const { key } = await createRegion(host, 8192);
    assert.equal((await host.read(createFields(1809), 512)).status, refused);
    await createRegion(host, 1808);
    assert.equal((await host.read(createFields(1), 512)).status, refused);
    await host.run({ opcode: adminOpcodes.regionDelete.opcode, cdw10: key });
    await createRegion(host, 8192);
    const [association] = rig.subsystem.snapshot().associations;
    assert.deepEqual([association?.regionCount, association?.regionBytes], [2, 10_000]);
  });

  test('a descriptor that the host has no room for makes no region', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    assert.equal((await host.read(createFields(4096), 256)).status, statusOf('sglDataLength'));
    assert.equal(rig.subsystem.snapshot().associations[0]?.regionCount, 0);
  });

  test('a file system without room', async (t) => {
    const quotas = { ...standardQuotas, regionBytes: Number.POSITIVE_INFINITY };
    const hosts = { rulesOf: () => ({ authentication: undefined, quotas, isConfined: false }) };
    const limits = { regionBytesMax: 2 ** 52, regionBytesTotalMax: 2 ** 52 };
    const rig = await createRig(t, { limits, modules: { hosts } });
    const { host } = await rig.admin();
    assert.equal((await host.read(createFields(2 ** 51), 512)).status, statusOf('regionLimit'));
    assert.deepEqual(readdirSync(join(rig.folder, 'regions')), []);
  });
});

test('region files of a daemon that was killed are removed at the start, other files stay', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'regions-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'kept'));
  writeFileSync(join(folder, 'region-0123'), 'old');
  const fill = (target: Uint8Array): void => void target.fill(9);
  const random = { fill, nextUint32: () => 9, bytes: (count: number) => new Uint8Array(count).fill(9) };
  const regions = new RegionFolder({ folder, fileMode: 0o660, isMapped: true }, { random });
  assert.deepEqual(readdirSync(folder), ['kept']);
  const region = await regions.create(1, 100, createFrontCounters());
  assert.equal(statSync(region.path).mode & 0o777, 0o660);
  // The same random name again is an error, never somebody else's file.
  await assert.rejects(regions.create(2, 100, createFrontCounters()), { code: 'regionLimit' });
  region.close();
});
