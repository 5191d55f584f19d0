/** Both capacities hold, to the last block and page, on drives that have as little to spare as format allows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { GeometryRequest } from '../../daemon/nand/geometry.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { LBA_BYTES, lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const MIB = 2 ** 20;
const WRITE_LBAS_MAX = MIB / LBA_BYTES;
const ROUNDS = 1;

const tightDrives: Record<string, Partial<GeometryRequest>> = {
  'erase blocks of 4 pages, one die': { blockCapacityBytes: 4 * MIB, kvCapacityBytes: 4 * MIB, channelCount: 1 },
  'large pages': { blockCapacityBytes: 16 * MIB, kvCapacityBytes: 16 * MIB, pageSizeBytes: 65_536, channelCount: 1 },
  'small pages, eight channels': {
    blockCapacityBytes: 9 * MIB,
    kvCapacityBytes: 8 * MIB,
    pageSizeBytes: 4096,
    channelCount: 8,
  },
  'unequal shares': { blockCapacityBytes: 12 * MIB, kvCapacityBytes: 2 ** 16, channelCount: 2 },
};

async function overwriteBlocks({ ftl }: OpenDrive, versions: Uint32Array, random: Random): Promise<void> {
  const { lbaCount } = ftl.blocks;
  const write = async (lba: number, count: number): Promise<void> => {
    const content = Array.from({ length: count }, (_, i) => lbaContent(lba + i, ++versions[lba + i]!));
    await ftl.blocks.write(lba, count, Buffer.concat(content), false);
  };
  for (let lba = 0; lba < lbaCount; lba += WRITE_LBAS_MAX) await write(lba, Math.min(WRITE_LBAS_MAX, lbaCount - lba));
  for (let written = 0; written < ROUNDS * lbaCount; ) {
    const count = random.nextUint32() % 16 === 0 ? WRITE_LBAS_MAX : 1 + (random.nextUint32() % 12);
    const lba = random.nextUint32() % (lbaCount - count + 1);
    await write(lba, count);
    written += count;
  }
}

async function overwritePages({ ftl, keeper }: OpenDrive, random: Random): Promise<void> {
  const { pageCount } = ftl.kv;
  let version = 1;
  for (let key = 0; key < pageCount; key++) await keeper.put(key, version);
  for (let i = 0; i < ROUNDS * pageCount; i++) {
    const key = random.nextUint32() % pageCount;
    if (i % 64 === 0) {
      const isFull = (error: unknown): boolean => error instanceof DriveError && error.code === 'capacityExceeded';
      await assert.rejects(keeper.put(pageCount, version), isFull, 'one page more than promised');
    }
    keeper.remove(key, ++version);
    await keeper.put(key, ++version, random.nextUint32() % 7);
  }
  assert.equal(ftl.kv.freePageCount, 0);
}

async function checkAll({ ftl, keeper }: OpenDrive, versions: Uint32Array): Promise<void> {
  for (let lba = 0; lba < versions.length; lba++) assert.equal(await lbaVersion(ftl, lba), versions[lba], `LBA ${lba}`);
  for (let key = 0; key < ftl.kv.pageCount; key++) assert.ok((await keeper.check(key)) > 0, `key ${key}`);
}

for (const [name, request] of Object.entries(tightDrives)) {
  test(`both namespaces are filled and written over: ${name}`, { timeout: 60_000 }, async () => {
    const random = createSeededRandom(5);
    const stores = new MemoryDriveStores({ overProvisioning: 0.01, ...request });
    const drive = await openDrive(stores.stores(), random);
    const versions = new Uint32Array(drive.ftl.blocks.lbaCount);
    await Promise.all([overwriteBlocks(drive, versions, random), overwritePages(drive, random)]);
    await checkAll(drive, versions);
    // Nothing is lost by a crash either, once it was flushed, and the full drive goes on.
    await drive.ftl.durability.flush();
    const left = stores.afterPowerCut(random);
    const again = await openDrive(left.stores(), random);
    await checkAll(again, versions);
    await overwriteBlocks(again, versions, random);
    await checkAll(again, versions);
    await again.ftl.close();
  });
}

test('a full drive survives crash after crash: each closes superblocks half full', { timeout: 60_000 }, async () => {
  const random = createSeededRandom(6);
  let stores = new MemoryDriveStores({ ...tightDrives['erase blocks of 4 pages, one die']!, overProvisioning: 0.01 });
  let drive = await openDrive(stores.stores(), random);
  const versions = new Uint32Array(drive.ftl.blocks.lbaCount);
  await Promise.all([overwriteBlocks(drive, versions, random), overwritePages(drive, random)]);
  for (let life = 0; life < 20; life++) {
    for (let i = 0; i < 20; i++) {
      const lba = random.nextUint32() % versions.length;
      await drive.ftl.blocks.write(lba, 1, lbaContent(lba, ++versions[lba]!), false);
      const key = random.nextUint32() % drive.ftl.kv.pageCount;
      const version = 1_000_000 + life * 1000 + 2 * i;
      drive.keeper.remove(key, version);
      await drive.keeper.put(key, version + 1, i);
      if (random.nextUint32() % 4 === 0) await drive.ftl.durability.flush();
    }
    await drive.ftl.durability.flush();
    stores = stores.afterPowerCut(random);
    drive = await openDrive(stores.stores(), random);
  }
  await checkAll(drive, versions);
});
