/** A run that is cut, or refused by the disk, at each of its steps: every program, header, record, sync and commit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '../../spec/limits.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { stagingOwners } from '../../daemon/ftl/contract.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const SMALL = { blockCapacityBytes: 2 ** 19, kvCapacityBytes: 2 ** 19, channelCount: 1 };
const LBA_COUNT = 2 ** 19 / 4096;
const KEY_COUNT = 24;
/** Cuts tried; more with ATTNDRIVE_CUTS. */
const CUTS = Number(process.env['ATTNDRIVE_CUTS'] ?? 100);
/** Runs on a disk that refuses; more with ATTNDRIVE_SEEDS. */
const SEEDS = Number(process.env['ATTNDRIVE_SEEDS'] ?? 4);

/** Things that have versions: LBAs, then keys. */
class Model {
  issued = new Uint32Array(LBA_COUNT + KEY_COUNT);
  durable = new Uint32Array(LBA_COUNT + KEY_COUNT);
  completed = new Uint32Array(LBA_COUNT + KEY_COUNT);
  /** [LBA] -> the version that stands for zeros; those below it must not come back once it is durable. */
  zeros = new Map<number, number>();

  copy(): Model {
    const copied = new Model();
    copied.issued = this.issued.slice();
    copied.durable = this.durable.slice();
    copied.completed = this.completed.slice();
    copied.zeros = new Map(this.zeros);
    return copied;
  }

  async durably(sync: () => Promise<void>): Promise<void> {
    const seen = this.completed.slice();
    await sync();
    seen.forEach((version, i) => (this.durable[i] = Math.max(this.durable[i]!, version)));
  }
}

async function script({ ftl, keeper }: OpenDrive, model: Model, random: Random, rounds: number): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    const choice = random.nextUint32() % 100;
    const lba = random.nextUint32() % (LBA_COUNT - 6);
    const key = random.nextUint32() % KEY_COUNT;
    if (choice < 45) {
      const count = 1 + (random.nextUint32() % 6);
      const versions = Array.from({ length: count }, (_, j) => ++model.issued[lba + j]!);
      const content = versions.map((version, j) => lbaContent(lba + j, version));
      await ftl.blocks.write(lba, count, Buffer.concat(content), choice < 8);
      versions.forEach((version, j) => (model.completed[lba + j] = version));
      if (choice < 8)
        versions.forEach((version, j) => (model.durable[lba + j] = Math.max(model.durable[lba + j]!, version)));
    } else if (choice < 52) {
      const version = ++model.issued[lba]!;
      model.zeros.set(lba, version);
      await ftl.blocks.deallocate(lba, 1);
      model.completed[lba] = version;
    } else if (choice === 52) {
      for (let all = 0; all < LBA_COUNT; all++) model.zeros.set(all, ++model.issued[all]!);
      ftl.blocks.clear();
      model.completed.set(model.issued.subarray(0, LBA_COUNT));
      if (random.nextUint32() % 2 === 0) continue;
      await model.durably(() => ftl.durability.flush());
      await ftl.userData.erase(['block']);
    } else if (choice < 80) {
      const version = ++model.issued[LBA_COUNT + key]!;
      if (choice < 75) await keeper.put(key, version);
      else keeper.remove(key, version);
      model.completed[LBA_COUNT + key] = version;
    } else if (choice < 92) await model.durably(() => ftl.durability.flush());
    else await model.durably(() => ftl.durability.syncStaging());
  }
}

async function check({ ftl, keeper }: OpenDrive, model: Model, what: string): Promise<void> {
  for (let lba = 0; lba < LBA_COUNT; lba++) {
    const found = await lbaVersion(ftl, lba);
    const durable = model.durable[lba]!;
    // Zeros are version 0, or any deallocation since what was durable.
    const isZeros = found === 0 && (durable === 0 || (model.zeros.get(lba) ?? -1) >= durable);
    assert.ok(
      isZeros || (found >= durable && found <= model.issued[lba]!),
      `${what}: LBA ${lba} version ${found}, durable ${durable}`,
    );
  }
  for (let key = 0; key < KEY_COUNT; key++) {
    const version = await keeper.check(key);
    const durable = model.durable[LBA_COUNT + key]!;
    assert.ok(
      version >= durable && version <= model.issued[LBA_COUNT + key]!,
      `${what}: key ${key} version ${version}, durable ${durable}`,
    );
  }
}

/** Calls `action` at every step of whatever is done on the stores. */
function atEachStep(stores: MemoryDriveStores, action: (what: string) => void): void {
  stores.media.onStep = action;
  stores.staging.onStep = action;
  stores.meta.onStep = () => action('commit');
}

test('a power cut at any step, and another at any step of the recovery', { timeout: 120_000 }, async () => {
  const random = createSeededRandom(41);
  const stores = new MemoryDriveStores(SMALL);
  const drive = await openDrive(stores.stores(), random);
  const model = new Model();
  const cuts: { left: MemoryDriveStores; model: Model }[] = [];
  let cutCount = 0;
  let due = 0;
  atEachStep(stores, () => {
    if (due-- > 0) return;
    due = random.nextUint32() % 10;
    cuts.push({ left: stores.afterPowerCut(random), model: model.copy() });
  });
  while (cutCount < CUTS) {
    await script(drive, model, random, 20);
    for (const cut of cuts.splice(0)) await recoverTwice(cut.left, cut.model, random, `cut ${++cutCount}`);
  }
  await drive.ftl.close();
});

async function recoverTwice(left: MemoryDriveStores, model: Model, random: Random, what: string): Promise<void> {
  let again: MemoryDriveStores | undefined;
  let due = random.nextUint32() % 12;
  atEachStep(left, () => {
    if (due-- === 0) again = left.afterPowerCut(random);
  });
  const recovered = await openDrive(left.stores(), random);
  await check(recovered, model, what);
  if (again === undefined) return;
  const twice = await openDrive(again.stores(), random);
  await check(twice, model, `${what}, cut again while it recovered`);
  await script(twice, model.copy(), random, 5);
}

test('a disk that refuses now and then loses nothing, and all works once it has room again', {
  timeout: 120_000,
}, async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = createSeededRandom(seed);
    const stores = new MemoryDriveStores(SMALL);
    const drive = await openDrive(stores.stores(), random);
    const model = new Model();
    await script(drive, model, random, 100);
    let refusals = 0;
    atEachStep(stores, (what) => {
      // A failed sync is another matter: after it nothing is promised any more.
      if (what === 'sync' || random.nextUint32() % 3 > 0) return;
      refusals++;
      throw new DriveError('writeFault', 'the disk is full');
    });
    for (let i = 0; i < 300; i++) {
      await script(drive, model, random, 1).catch((error: unknown) => {
        assert.ok(error instanceof DriveError && error.code === 'writeFault', String(error));
      });
    }
    assert.ok(refusals > 30, `${refusals} refusals`);
    atEachStep(stores, () => undefined);
    await script(drive, model, random, 100);
    await model.durably(() => drive.ftl.durability.flush());
    await check(drive, model, `seed ${seed}`);
    const again = await openDrive(stores.afterPowerCut(random).stores(), random);
    await check(again, model, `seed ${seed}, after a power cut`);
    await drive.ftl.close();
    await check(await openDrive(stores.stores(), random), model, `seed ${seed}, after a shutdown`);
  }
});

test('a log that is only appended to asks for checkpoints by itself', async () => {
  const stores = new MemoryDriveStores(SMALL);
  const { ftl } = await openDrive(stores.stores(), createSeededRandom(51));
  const { checkpoints } = ftl.snapshot().counters;
  const record = new Uint8Array(limits.stagingSegmentBytesMax / 4);
  for (let i = 0; i < 12; i++) {
    ftl.staging.append(stagingOwners.kv, record);
    await new Promise((resolve) => setImmediate(resolve));
    const segmentBytes = [...stores.staging.segments.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
    assert.ok(segmentBytes <= 1.5 * limits.stagingSegmentBytesMax, `${segmentBytes} bytes after ${i + 1} records`);
  }
  assert.ok(ftl.snapshot().counters.checkpoints >= checkpoints + 2);
  await ftl.close();
});
