/** Garbage collection among everything else that goes on, over media in memory and in files. */
import assert from 'node:assert/strict';
import { mkdtempSync, openSync, closeSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { openFolder, type FtlStores } from '../../daemon/ftl/ftl.ts';
import { cellOffset, oobBytesPerPage } from '../../daemon/nand/geometry.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { LBA_BYTES, lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const MIB = 2 ** 20;
const layout = { pageSizeBytes: 16_384, channelCount: 2, diesPerChannel: 1, overProvisioning: 0.1 };

/** A task's own LBAs and keys: what it wrote last is what must be there. */
class Task {
  readonly versions = new Map<number, number>();
  readonly #drive: OpenDrive;
  readonly #random: Random;
  readonly #index: number;
  readonly #taskCount: number;
  #version = 0;

  constructor(drive: OpenDrive, random: Random, index: number, taskCount: number) {
    this.#drive = drive;
    this.#random = random;
    this.#index = index;
    this.#taskCount = taskCount;
  }

  /** A run of LBAs that is this task's alone. */
  #pickRun(): { lba: number; count: number } {
    const share = Math.floor(this.#drive.ftl.blocks.lbaCount / this.#taskCount);
    const count = 1 + (this.#random.nextUint32() % 8);
    return { lba: this.#index * share + (this.#random.nextUint32() % (share - count + 1)), count };
  }

  /** Writes its share `rounds` times over, and reads, deallocates, flushes and works on pages meanwhile. */
  async run(rounds: number): Promise<void> {
    const { ftl } = this.#drive;
    const goal = (rounds * ftl.blocks.lbaCount) / this.#taskCount;
    for (let written = 0; written < goal; ) {
      const { lba, count } = this.#pickRun();
      const choice = this.#random.nextUint32() % 100;
      if (choice < 60) {
        this.#version++;
        const content = Array.from({ length: count }, (_, i) => lbaContent(lba + i, this.#version));
        await ftl.blocks.write(lba, count, Buffer.concat(content), choice === 0);
        for (let i = 0; i < count; i++) this.versions.set(lba + i, this.#version);
        written += count;
      } else if (choice < 65) {
        await ftl.blocks.deallocate(lba, count);
        for (let i = 0; i < count; i++) this.versions.set(lba + i, 0);
      } else if (choice < 80) assert.equal(await lbaVersion(ftl, lba), this.versions.get(lba) ?? 0, `LBA ${lba}`);
      else if (choice < 81) await ftl.durability.flush();
      else await this.#workOnPage();
    }
  }

  async #workOnPage(): Promise<void> {
    const { ftl, keeper } = this.#drive;
    const share = Math.floor(ftl.kv.pageCount / this.#taskCount);
    const key = this.#index * share + (this.#random.nextUint32() % share);
    this.#version++;
    if (this.#random.nextUint32() % 4 > 0) {
      // A page and its successor are there at once, so a full namespace has no room for that.
      keeper.remove(key, this.#version++);
      await keeper.put(key, this.#version, this.#index);
    }
    await keeper.check(key);
  }

  async check(drive: OpenDrive): Promise<void> {
    for (const [lba, version] of this.versions) assert.equal(await lbaVersion(drive.ftl, lba), version, `LBA ${lba}`);
  }
}

async function overwriteFourTimes(open: () => FtlStores, seed: number): Promise<void> {
  const random = createSeededRandom(seed);
  const drive = await openDrive(open(), random);
  const taskCount = 4;
  const tasks = Array.from({ length: taskCount }, (_, index) => new Task(drive, random, index, taskCount));
  await Promise.all(tasks.map((task) => task.run(4)));
  assert.ok(drive.ftl.snapshot().counters.gcPagesProgrammed > 0, 'garbage collection ran');
  for (const task of tasks) await task.check(drive);
  await drive.ftl.close();
  const again = await openDrive(open(), random);
  for (const task of tasks) await task.check(again);
  for (const key of again.keeper.holdings.keys()) await again.keeper.check(key);
  await again.ftl.close();
}

test('four tasks write namespace 1 four times over, in memory', { timeout: 60_000 }, async () => {
  const stores = new MemoryDriveStores({ blockCapacityBytes: 4 * MIB, kvCapacityBytes: 4 * MIB });
  await overwriteFourTimes(() => stores.stores(), 11);
});

test('four tasks write namespace 1 four times over, in files', { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-gc-'));
  try {
    const request = { ...layout, blockCapacityBytes: 4 * MIB, kvCapacityBytes: 2 * MIB, force: false };
    await formatDrive(folder, request, createSeededRandom(3));
    await overwriteFourTimes(() => openFolder(folder), 12);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** Writes keys of the KV namespace over, in any order, until garbage collection has emptied this many superblocks. */
async function churn({ ftl, keeper }: OpenDrive, keys: number, victims: number, spare: Set<number>): Promise<void> {
  const random = createSeededRandom(victims);
  let version = 10;
  for (const end = ftl.collectors.kv.victimCount + victims; ftl.collectors.kv.victimCount < end; ) {
    const key = random.nextUint32() % keys;
    if (spare.has(key)) continue;
    keeper.remove(key, ++version);
    await keeper.put(key, ++version, key);
  }
}

test('a pinned superblock keeps its bytes, whatever garbage collection does around it', async () => {
  const random = createSeededRandom(21);
  const drive = await openDrive(new MemoryDriveStores().stores(), random);
  const { ftl, keeper } = drive;
  const keys = ftl.kv.pageCount - 8;
  for (let key = 0; key < keys; key++) await keeper.put(key, 1);
  const lpn = keeper.holdings.get(5)!.lpn as Lpn;
  const ppn = ftl.kv.pin(lpn);
  const { geometry } = ftl;
  const readPinned = async (): Promise<Uint8Array> => {
    const bytes = new Uint8Array(geometry.pageSizeBytes);
    await ftl.flash.array.read(ppn * geometry.pageSizeBytes, bytes, 'kv');
    return bytes;
  };
  const before = await readPinned();
  const epoch = ftl.kv.eraseCount(ppn);
  await churn(drive, keys, 40, new Set());
  assert.notEqual(keeper.holdings.get(5)!.lpn, undefined);
  assert.equal(ftl.kv.eraseCount(ppn), epoch, 'not erased while it is read');
  assert.deepEqual(await readPinned(), before);
  ftl.kv.unpin(ppn);
  await churn(drive, keys, 40, new Set());
  assert.notEqual(ftl.kv.eraseCount(ppn), epoch, 'erased after that');
  await ftl.close();
});

test('a shared page stays until its last holder lets go', async () => {
  const drive = await openDrive(new MemoryDriveStores().stores(), createSeededRandom(22));
  const { ftl, keeper } = drive;
  await keeper.put(1, 1);
  const lpn = keeper.holdings.get(1)!.lpn as Lpn;
  const free = ftl.kv.freePageCount;
  ftl.kv.retain(lpn);
  keeper.remove(1, 2);
  assert.equal(ftl.kv.referenceCount(lpn), 1);
  assert.equal(ftl.kv.freePageCount, free);
  ftl.kv.release(lpn);
  assert.equal(ftl.kv.freePageCount, free + 1);
  await ftl.durability.flush();
  await ftl.close();
});

test('a namespace that is full and busy does not hold up the other', { timeout: 60_000 }, async () => {
  const random = createSeededRandom(23);
  const drive = await openDrive(new MemoryDriveStores().stores(), random);
  const { ftl, keeper } = drive;
  for (let key = 0; key < ftl.kv.pageCount; key++) await keeper.put(key, 1);
  // Pages are pinned everywhere, so the KV namespace can't get a superblock back.
  const pins = [...keeper.holdings.values()].map(({ lpn }) => ftl.kv.pin(lpn as Lpn));
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  for (let i = 0; i < 2 * ftl.blocks.lbaCount; i++) {
    const lba = random.nextUint32() % ftl.blocks.lbaCount;
    await ftl.blocks.write(lba, 1, lbaContent(lba, 2), false);
  }
  for (const ppn of pins) ftl.kv.unpin(ppn);
  await ftl.close();
});

// --- Pages that can't be read ---

function flipBit(folder: string, ppn: number, pageSizeBytes: number): void {
  const descriptor = openSync(`${folder}/media/cells.bin`, 'r+');
  const position = cellOffset({ pageSizeBytes }, ppn) + 1234;
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, position);
  byte[0]! ^= 0x10;
  writeSync(descriptor, byte, 0, 1, position);
  closeSync(descriptor);
}

test('a flipped bit is a named page, never wrong bytes; all else is read, collected and written over', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-gc-'));
  try {
    const random = createSeededRandom(31);
    await formatDrive(folder, { ...layout, blockCapacityBytes: MIB, kvCapacityBytes: 16 * MIB, force: false }, random);
    const first = await openDrive(openFolder(folder), random);
    const { pageSizeBytes } = first.ftl.geometry;
    const keys = first.ftl.kv.pageCount - 4;
    for (let key = 0; key < keys; key++) await first.keeper.put(key, 1);
    for (let lba = 0; lba < first.ftl.blocks.lbaCount; lba++)
      await first.ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
    const ppn = first.ftl.kv.pin(first.keeper.holdings.get(7)!.lpn as Lpn);
    first.ftl.kv.unpin(ppn);
    const slot = first.ftl.blocks.map.get(9);
    await first.ftl.close();
    flipBit(folder, ppn, pageSizeBytes);
    flipBit(folder, Math.floor(slot / 4), pageSizeBytes);

    const drive = await openDrive(openFolder(folder), random);
    const { ftl, keeper } = drive;
    const names =
      (page: number) =>
      (error: unknown): boolean => {
        assert.ok(error instanceof DriveError && error.code === 'unrecoveredRead');
        assert.equal(error.result, page);
        const pattern = new RegExp(`physical page ${page} \\(superblock \\d+, page \\d+, .*channel \\d+\\)`);
        return pattern.test(error.message);
      };
    const damaged = Math.floor(slot / 4);
    const flippedLba = [...Array(ftl.blocks.lbaCount).keys()].find((lba) => ftl.blocks.map.get(lba) === damaged * 4);
    await assert.rejects(keeper.check(7), names(ppn));
    await assert.rejects(ftl.blocks.read(flippedLba!, 1, new Uint8Array(LBA_BYTES)), names(damaged));
    for (let key = 0; key < keys; key++) if (key !== 7) await keeper.check(key);

    // Garbage collection comes across both again and again.
    await churn(drive, keys, 30, new Set([7]));
    for (let i = 0; i < 8 * ftl.blocks.lbaCount; i++) {
      const lba = random.nextUint32() % ftl.blocks.lbaCount;
      if (lba !== flippedLba) await ftl.blocks.write(lba, 1, lbaContent(lba, 2 + i), false);
    }
    await assert.rejects(keeper.check(7), names(ppn));
    await assert.rejects(ftl.blocks.read(flippedLba!, 1, new Uint8Array(LBA_BYTES)), names(damaged));
    for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) if (lba !== flippedLba) await lbaVersion(ftl, lba);

    // Written over, it is as good as new, and so is its superblock.
    const epoch = ftl.kv.eraseCount(ppn);
    keeper.remove(7, 1_000_000);
    await keeper.put(7, 1_000_001);
    for (let i = 0; i < 10 && ftl.kv.eraseCount(ppn) === epoch; i++) await churn(drive, keys, 100, new Set());
    assert.ok(ftl.kv.eraseCount(ppn) > epoch, 'the superblock is used again');
    await ftl.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('an out-of-band area that the disk does not give stays where it is; hosts and all else go on', {
  timeout: 60_000,
}, async () => {
  const stores = new MemoryDriveStores();
  const drive = await openDrive(stores.stores(), createSeededRandom(31));
  const { ftl, keeper } = drive;
  const keys = ftl.kv.pageCount - 8;
  for (let key = 0; key < keys; key++) await keeper.put(key, 1);
  await ftl.durability.flush();
  const lost = ftl.kv.map.get(keeper.holdings.get(5)!.lpn as Lpn);
  const { readOob } = stores.media;
  const oobBytes = oobBytesPerPage(ftl.geometry);
  stores.media.readOob = async (ppn, target) => {
    const isTouched = ppn <= lost && lost < ppn + target.length / oobBytes;
    if (isTouched) throw new DriveError('unrecoveredRead', 'oob.bin: input/output error');
    await readOob.call(stores.media, ppn, target);
  };
  await churn(drive, keys, 40, new Set([5]));
  assert.equal(ftl.kv.map.get(keeper.holdings.get(5)!.lpn as Lpn), lost, 'it is where it was');
  for (const key of keeper.holdings.keys()) if (key !== 5) await keeper.check(key);
  await ftl.close();
});
