/** Programs and erases that fail under load: nothing is lost, and the same work goes on elsewhere. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { GC_RESERVE_SUPERBLOCKS } from '../../daemon/ftl/gc-options.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { idealChip } from '../../daemon/nand/chip.ts';
import { type NandFailures, noFailures } from '../../daemon/nand/failures.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';
import { programPage } from './program-page.ts';

const MIB = 2 ** 20;
const request = { blockCapacityBytes: 4 * MIB, kvCapacityBytes: 4 * MIB, channelCount: 2, overProvisioning: 0.05 };

/** Blocks that fail by chance, `count` of them; every failed block fails for good. */
class ChanceFailures implements NandFailures {
  readonly mayFailReads = false;
  readonly #random: Random;
  left: number;
  programFailures = 0;
  eraseFailures = 0;

  constructor(random: Random, count: number) {
    this.#random = random;
    this.left = count;
  }

  #strikes(oneIn: number): boolean {
    if (this.left === 0 || this.#random.nextUint32() % oneIn > 0) return false;
    this.left--;
    return true;
  }

  isFactoryBad(): boolean {
    return false;
  }

  eraseFails(): boolean {
    const fails = this.#strikes(15);
    if (fails) this.eraseFailures++;
    return fails;
  }

  readFails(): boolean {
    return false;
  }

  programFails(): boolean {
    const fails = this.#strikes(60);
    if (fails) this.programFailures++;
    return fails;
  }
}

/** Writes every LBA and key, then some over and over: a full drive that collects garbage all the time. */
class Load {
  readonly versions: Uint32Array;
  readonly #drive: OpenDrive;
  readonly #random: Random;
  #version = 0;

  constructor(drive: OpenDrive, random: Random, versions = new Uint32Array(drive.ftl.blocks.lbaCount)) {
    this.#drive = drive;
    this.#random = random;
    this.versions = versions;
    this.#version = Math.max(0, ...versions);
  }

  async run(rounds: number): Promise<void> {
    await Promise.all([this.#runBlocks(rounds), this.#runPages(rounds)]);
  }

  async #runBlocks(rounds: number): Promise<void> {
    const { ftl } = this.#drive;
    for (let written = 0; written < rounds * ftl.blocks.lbaCount; ) {
      const count = 1 + (this.#random.nextUint32() % 12);
      const lba = this.#random.nextUint32() % (ftl.blocks.lbaCount - count + 1);
      const version = ++this.#version;
      const content = Array.from({ length: count }, (_, i) => lbaContent(lba + i, version));
      await ftl.blocks.write(lba, count, Buffer.concat(content), false);
      this.versions.fill(version, lba, lba + count);
      written += count;
    }
  }

  async #runPages(rounds: number): Promise<void> {
    const { ftl, keeper } = this.#drive;
    for (let i = 0; i < rounds * ftl.kv.pageCount; i++) {
      const key = this.#random.nextUint32() % ftl.kv.pageCount;
      keeper.remove(key, ++this.#version);
      await keeper.put(key, ++this.#version, i);
    }
  }

  async check(drive = this.#drive): Promise<void> {
    for (const [lba, version] of this.versions.entries()) assert.equal(await lbaVersion(drive.ftl, lba), version);
    for (const key of drive.keeper.holdings.keys()) await drive.keeper.check(key);
  }
}

test('a full drive on failing blocks loses nothing and refuses nothing', { timeout: 60_000 }, async () => {
  for (let seed = 1; seed <= 3; seed++) {
    const random = createSeededRandom(seed);
    const stores = new MemoryDriveStores(request, { ...idealChip, spareBlocksPerUnit: 40 });
    const failures = new ChanceFailures(random, 60);
    const drive = await openDrive(stores.stores(), random, { failures });
    const load = new Load(drive, random);
    await load.run(3);
    assert.ok(failures.programFailures > 5 && failures.eraseFailures > 5, 'both kinds struck');
    await load.check();
    assert.equal([...drive.ftl.flash.array.blocks.badBlocks()].length, 60 - failures.left);
    await drive.ftl.durability.flush();
    const again = await openDrive(stores.afterPowerCut(random).stores(), random);
    await load.check(again);
    await drive.ftl.close();
    await load.check(await openDrive(stores.stores(), random));
  }
});

test('without spares superblocks are given up one by one, and nothing that was accepted is lost', {
  timeout: 60_000,
}, async () => {
  for (let seed = 1; seed <= 3; seed++) {
    const random = createSeededRandom(seed);
    const stores = new MemoryDriveStores({ ...request, overProvisioning: 0.3 });
    const failures = new ChanceFailures(random, 25);
    const drive = await openDrive(stores.stores(), random, { failures });
    const load = new Load(drive, random);
    await load.run(3);
    assert.equal(failures.left, 0);
    assert.ok(drive.ftl.snapshot().superblocksByState['bad']! > 5, 'superblocks were given up');
    await load.check();
    await drive.ftl.close();
  }
});

test('where every program fails a host is told so, and all is well once they succeed again', async () => {
  const random = createSeededRandom(9);
  let isBroken = false;
  const failures = { ...noFailures, programFails: () => isBroken };
  const stores = new MemoryDriveStores(request, { ...idealChip, spareBlocksPerUnit: 400 });
  const drive = await openDrive(stores.stores(), random, { failures });
  const load = new Load(drive, random);
  await load.run(0.5);
  isBroken = true;
  const isWriteFault = (error: unknown): boolean => error instanceof DriveError && error.code === 'writeFault';
  const version = 1_000_000;
  const content = Buffer.concat(Array.from({ length: 64 }, (_, i) => lbaContent(i, version)));
  await assert.rejects(drive.ftl.blocks.write(0, 64, content, false), isWriteFault);
  for (let lba = 0; lba < 64; lba++) {
    const found = await lbaVersion(drive.ftl, lba);
    assert.ok(found === version || found === load.versions[lba], `LBA ${lba} is old or new: ${found}`);
  }
  await assert.rejects(drive.keeper.put(1, version), isWriteFault);
  isBroken = false;
  await drive.ftl.durability.flush();
  await drive.ftl.blocks.write(0, 64, content, false);
  load.versions.fill(version, 0, 64);
  await load.run(2);
  await load.check();
  await drive.ftl.close();
});

test('what failed blocks take from a reservation comes out of the reserve of garbage collection', async () => {
  const stores = new MemoryDriveStores({ ...request, kvCapacityBytes: MIB, channelCount: 1 });
  const { pagesPerSuperblock, kvSuperblockCount, pageSizeBytes } = stores.geometry;
  const pageCount = MIB / pageSizeBytes;
  const spareSuperblocks = kvSuperblockCount - GC_RESERVE_SUPERBLOCKS - pageCount / pagesPerSuperblock;
  /** Programs all pages that are reserved, while so many superblocks fail at their first page. */
  const programAll = async (failureCount: number): Promise<void> => {
    let left = failureCount;
    const programFails = (ppn: number): boolean => ppn % pagesPerSuperblock === 0 && left-- > 0;
    const chip = { ...idealChip, spareBlocksPerUnit: 100 };
    const arena = createArena(4 * MIB);
    const fresh = new MemoryDriveStores(stores.request, chip);
    const random = createSeededRandom(1);
    const { ftl } = await openDrive(fresh.stores(), random, { failures: { ...noFailures, programFails }, arena });
    const frame = arena.allocate(pageSizeBytes);
    const reservation = await ftl.kv.reserve(pageCount);
    const tag = { sequenceId: 1n, generation: 1, layer: 0, head: 0, part: 0, group: 0 } as const;
    const target = { channel: 0, placement: 0 };
    try {
      for (let i = 0; i < pageCount; i++)
        programPage(ftl.kv, reservation, tag, arena.view(frame, pageSizeBytes), target);
    } finally {
      reservation.release();
      await ftl.abandon();
    }
  };
  await programAll(spareSuperblocks + 2);
  await assert.rejects(programAll(spareSuperblocks + 3), /write fault: failed blocks have left no page to the kv/);
});

test('a table of bad blocks that cannot be is refused, with what is wrong', async () => {
  const stores = new MemoryDriveStores(request, { ...idealChip, spareBlocksPerUnit: 2 });
  const random = createSeededRandom(4);
  await (await openDrive(stores.stores(), random)).ftl.close();
  const { superblockCount, unitCount } = stores.geometry;
  const blocksPerUnit = superblockCount + 2;
  const cases: [key: (number | string)[], value: object, error: RegExp][] = [
    [['table'], { unitCount: 3, blocksPerUnit }, /table of 3 units of \d+ erase blocks; the drive has 2 of \d+/],
    [['bad', unitCount, 0], { reason: 'erase', eraseCount: 1 }, /bad blocks: unit 2; allowed: 0 to 1/],
    [['bad', 0, blocksPerUnit], { reason: 'erase', eraseCount: 1 }, /erase block \d+; allowed/],
    [['bad', 0, 1], { reason: 'age', eraseCount: 1 }, /a bad block for the reason age/],
    [['bad', 0, 1], { reason: 'erase', eraseCount: -1 }, /erase count -1; allowed/],
    [['replaced', superblockCount, 0], { block: 1, eraseCountOffset: 0 }, /superblock \d+; allowed/],
    [['replaced', 0, 0], { block: 'x', eraseCountOffset: 0 }, /erase block x; allowed/],
    [['replaced', 0, 0], { block: 1, eraseCountOffset: 0 }, /block 1 of unit 0 serves superblocks 1 and 0/],
    [['retired', -1], {}, /superblock -1; allowed/],
    [['spare', 1], {}, /record spare 1/],
  ];
  for (const [key, value, error] of cases) {
    const namespace = metaNamespaces.flashBlocks;
    const before = stores.meta.get(namespace, key);
    await stores.meta.commit([{ kind: 'put', namespace, key, value }]);
    await assert.rejects(openDrive(stores.stores(), random), error);
    await stores.meta.commit([
      before === undefined ? { kind: 'remove', namespace, key } : { kind: 'put', namespace, key, value: before },
    ]);
  }
  await (await openDrive(stores.stores(), random)).ftl.close();
});
