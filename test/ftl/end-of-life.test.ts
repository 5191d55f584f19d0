/** Drives whose blocks wear out: from the first write to the last, with power cuts, and what is left then. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { Chip } from '../../daemon/nand/chip.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import { neededSuperblocks } from '../../daemon/nand/geometry.ts';
import { ideal } from '../../daemon/profiles/ideal.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const MIB = 2 ** 20;
const request = { blockCapacityBytes: MIB, kvCapacityBytes: MIB, channelCount: 2, overProvisioning: 0.07 };

/** Dies that live as briefly as a test can wait for. */
function shortLived(seed: number): Chip {
  const endurance = { ratedCycles: 5, factoryBadPerMillion: 10_000, spareBlocksPerMillion: 0 };
  return { profile: { ...ideal, endurance }, seed, spareBlocksPerUnit: 4 };
}

/** So small a spread that data is moved for the sake of wear all the time. */
const LEVELLED = { wearSpreadMax: 1 };

const isWriteProtected = (error: unknown): boolean =>
  error instanceof DriveError && error.code === 'namespaceWriteProtected';

/** Versions of LBAs and keys: those that were flushed, and the last that were written. */
class Host {
  readonly durable: Uint32Array;
  readonly issued: Uint32Array;
  readonly #lbaCount: number;
  #version = 0;

  constructor({ ftl }: OpenDrive) {
    this.#lbaCount = ftl.blocks.lbaCount;
    // A few short of the capacity: a page and its successor are there at once.
    this.issued = new Uint32Array(this.#lbaCount + ftl.kv.pageCount - 2);
    this.durable = this.issued.slice();
  }

  /** Writes at random until the drive is read-only, or `count` times. Nothing else may stop it. */
  async write({ ftl, keeper }: OpenDrive, random: Random, count: number): Promise<void> {
    for (let i = 0; i < count && !ftl.isReadOnly; i++) {
      const version = ++this.#version;
      const what = random.nextUint32() % this.issued.length;
      try {
        if (what < this.#lbaCount) await ftl.blocks.write(what, 1, lbaContent(what, version), false);
        else await keeper.put(what - this.#lbaCount, version, what);
        this.issued[what] = version;
      } catch (error) {
        if (!isWriteProtected(error)) throw error;
      }
    }
  }

  async flush({ ftl }: OpenDrive): Promise<void> {
    await ftl.durability.flush();
    this.durable.set(this.issued);
  }

  /** Takes what it finds for flushed: it survived, so a cut that follows may not undo it once it is flushed again. */
  async check({ ftl, keeper }: OpenDrive): Promise<void> {
    for (let what = 0; what < this.issued.length; what++) {
      const found = what < this.#lbaCount ? await lbaVersion(ftl, what) : await keeper.check(what - this.#lbaCount);
      const isRight = found >= this.durable[what]! && found <= this.#version;
      assert.ok(isRight, `${what}: version ${found}, flushed ${this.durable[what]}`);
      this.issued[what] = found;
    }
  }
}

function assertTableFits({ ftl }: OpenDrive, stores: MemoryDriveStores): void {
  const { blocks } = ftl.flash.array;
  const { superblockCount, unitCount } = stores.geometry;
  const states = ftl.snapshot().superblocksByState;
  assert.equal(states['bad'], blocks.retired.size);
  for (let unit = 0; unit < unitCount; unit++) {
    const serving = new Set<number>();
    for (let superblock = 0; superblock < superblockCount; superblock++) {
      if (!blocks.retired.has(superblock)) serving.add(blocks.blockAt(superblock, unit));
    }
    assert.equal(serving.size, superblockCount - blocks.retired.size, 'no block serves twice');
  }
}

test('a drive serves until too many blocks are bad, then it is read-only for good and loses nothing', {
  timeout: 120_000,
}, async () => {
  for (let seed = 1; seed <= 2; seed++) {
    const random = createSeededRandom(seed);
    const stores = new MemoryDriveStores(request, shortLived(seed));
    const drive = await openDrive(stores.stores(), random, LEVELLED);
    const host = new Host(drive);
    await host.write(drive, random, Number.POSITIVE_INFINITY);
    await host.flush(drive);
    assertTableFits(drive, stores);
    const needed = neededSuperblocks(stores.geometry);
    const lost = stores.geometry.superblockCount - needed.block - needed.kv + 1;
    const bad = drive.ftl.snapshot().superblocksByState['bad']!;
    assert.ok(bad >= lost, `${bad} superblocks given up; the drive can do without ${lost - 1}`);
    assert.ok(drive.ftl.snapshot().endurance.eraseCountMean > 5, 'longer than it is rated for');
    await assertReadOnly(drive, host);

    // A crash and a clean restart: still read-only, still all there.
    await assertReadOnly(await openDrive(stores.afterPowerCut(random).stores(), random, LEVELLED), host);
    await drive.ftl.close();
    const again = await openDrive(stores.stores(), random, LEVELLED);
    await assertReadOnly(again, host);
    assertTableFits(again, stores);
    const free = again.ftl.kv.freePageCount;
    again.keeper.remove(1, 1e9);
    assert.equal(again.ftl.kv.freePageCount, free + 1, 'what is stored may be let go of');
    await again.ftl.close();
    assert.equal(await (await openDrive(stores.stores(), random, LEVELLED)).keeper.check(1), 1e9);
  }
});

async function assertReadOnly(drive: OpenDrive, host: Host): Promise<void> {
  const { ftl, keeper } = drive;
  assert.equal(ftl.isReadOnly, true);
  const programsBefore = { ...ftl.flash.array.counters.programs };
  await assert.rejects(ftl.blocks.write(0, 1, lbaContent(0, 1), false), isWriteProtected);
  await assert.rejects(ftl.blocks.deallocate(0, 1), isWriteProtected);
  await assert.rejects(keeper.put(0, 1), isWriteProtected);
  assert.throws(() => ftl.kv.assertWritable(), isWriteProtected);
  await host.check(drive);
  await host.flush(drive);
  assert.deepEqual(ftl.flash.array.counters.programs, programsBefore);
}

test('power cuts all through its life: nothing flushed is lost, and a failure that was forgotten comes again', {
  timeout: 120_000,
}, async () => {
  const random = createSeededRandom(7);
  let stores = new MemoryDriveStores(request, shortLived(7));
  let drive = await openDrive(stores.stores(), random, LEVELLED);
  const host = new Host(drive);
  let forgotten = 0;
  while (!drive.ftl.isReadOnly) {
    await host.write(drive, random, 60);
    await host.flush(drive);
    const { blocks } = drive.ftl.flash.array;
    const flushed = new Set([...blocks.badBlocks()].map(nameOf));
    // The power goes at some step of what follows; what comes after it happens in a world of its own.
    let left: MemoryDriveStores | undefined;
    let failedBefore = 0;
    let due = 1 + (random.nextUint32() % 40);
    const step = (): void => {
      if (--due !== 0) return;
      failedBefore = [...blocks.badBlocks()].length;
      left = stores.afterPowerCut(random);
    };
    for (const store of [stores.media, stores.staging, stores.meta]) store.onStep = step;
    while (left === undefined && !drive.ftl.isReadOnly) await host.write(drive, random, 1);
    stores = left ?? stores.afterPowerCut(random);
    drive = await openDrive(stores.stores(), random, LEVELLED);
    await host.check(drive);
    assertTableFits(drive, stores);
    const found = new Set([...drive.ftl.flash.array.blocks.badBlocks()].map(nameOf));
    for (const bad of flushed) assert.ok(found.has(bad), `${bad} is known still`);
    forgotten += Math.max(0, failedBefore - found.size);
  }
  assert.ok(forgotten > 0, 'cuts came before a failure was durable, too');
  await host.check(drive);
});

test('a drive whose dies take no page while it opens is open all the same, to be read', async () => {
  const random = createSeededRandom(8);
  const tight = {
    ...request,
    blockCapacityBytes: 3 * MIB,
    pageSizeBytes: 8192,
    channelCount: 1,
    overProvisioning: 0.01,
  };
  const stores = new MemoryDriveStores(tight);
  const drive = await openDrive(stores.stores(), random);
  const host = new Host(drive);
  // Until a crash, which closes what is half full, leaves garbage collection short of room.
  let left: MemoryDriveStores;
  let programs = 0;
  for (;;) {
    await host.write(drive, random, 100);
    await host.flush(drive);
    left = stores.afterPowerCut(random);
    const counted = await openDrive(left.afterKill().stores(), random);
    ({ gc: programs } = counted.ftl.flash.array.counters.programs);
    await counted.ftl.abandon();
    if (programs > 0) break;
  }
  const broken = { ...noFailures, programFails: () => true };
  const again = await openDrive(left.stores(), random, { failures: broken });
  await host.check(again);
  await host.write(again, random, 100);
  assert.ok(again.ftl.isReadOnly, 'each program that fails costs a spare');
  await host.check(again);
});

const nameOf = ({ unit, block, reason }: { unit: number; block: number; reason: string }): string =>
  `${unit} ${block} ${reason}`;
