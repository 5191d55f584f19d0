import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { KvRecovery } from '../../daemon/ftl/contract.ts';
import { Ftl } from '../../daemon/ftl/ftl.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { MemoryDriveStores } from './memory-stores.ts';

const LBA_BYTES = 4096;
const noSequences: KvRecovery = {
  recover: (_events, lpnCount) => new Uint16Array(lpnCount),
  settle: () => Promise.resolve(),
};

function open(stores: MemoryDriveStores, random: Random): Promise<Ftl> {
  const arena = createArena(4 * 2 ** 20);
  const kernels = loadKernels('wasm', { memory: arena.memory });
  return Ftl.open(stores.stores(), {
    arena,
    kernels,
    clock: systemClock,
    random,
    logger: silentLogger,
    kvRecovery: noSequences,
  });
}

/** An LBA's content for a version: the LBA and the version, over and over. */
function content(lba: number, version: number): Uint8Array {
  if (version === 0) return new Uint8Array(LBA_BYTES);
  const words = new Uint32Array(LBA_BYTES / 4);
  for (let i = 0; i < words.length; i++) words[i] = i % 2 === 0 ? lba : version;
  return new Uint8Array(words.buffer);
}

async function versionAt(ftl: Ftl, lba: number): Promise<number> {
  const bytes = new Uint8Array(LBA_BYTES);
  await ftl.blocks.read(lba, 1, bytes);
  const version = new DataView(bytes.buffer).getUint32(4, true);
  assert.deepEqual(bytes, content(lba, version), `LBA ${lba} is one whole version`);
  return version;
}

test('four times the capacity written over at random, with garbage collection, leaves every byte right', async () => {
  const random = createSeededRandom(1);
  const stores = new MemoryDriveStores();
  const ftl = await open(stores, random);
  const versions = new Uint32Array(ftl.blocks.lbaCount);
  for (let written = 0; written < 4 * ftl.blocks.lbaCount; ) {
    const lbaCount = 1 + (random.nextUint32() % 8);
    const lba = random.nextUint32() % (ftl.blocks.lbaCount - lbaCount);
    const data = new Uint8Array(lbaCount * LBA_BYTES);
    for (let i = 0; i < lbaCount; i++) data.set(content(lba + i, ++versions[lba + i]!), i * LBA_BYTES);
    await ftl.blocks.write(lba, lbaCount, data, false);
    written += lbaCount;
  }
  const { counters } = ftl.snapshot();
  assert.ok(counters.gcPagesProgrammed > 0, 'garbage collection ran');
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) assert.equal(await versionAt(ftl, lba), versions[lba]);
  await ftl.close();
  const again = await open(stores, random);
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) assert.equal(await versionAt(again, lba), versions[lba]);
  await again.close();
});

/** What may be found of an LBA after a crash: anything from the last durable version on. */
class Promises {
  /** The newest version of each LBA that was ever written, so that no two writes look alike. */
  readonly issued: Uint32Array;
  /** The version that the drive holds. */
  readonly latest: Uint32Array;
  readonly durable: Uint32Array;

  constructor(lbaCount: number) {
    this.issued = new Uint32Array(lbaCount);
    this.latest = new Uint32Array(lbaCount);
    this.durable = new Uint32Array(lbaCount);
  }
}

async function someWork(ftl: Ftl, promises: Promises, random: Random): Promise<void> {
  const { lbaCount } = ftl.blocks;
  for (let i = 0; i < 60; i++) {
    const lba = random.nextUint32() % lbaCount;
    const choice = random.nextUint32() % 100;
    if (choice < 80) {
      const version = ++promises.issued[lba]!;
      const fua = choice < 10;
      await ftl.blocks.write(lba, 1, content(lba, version), fua);
      promises.latest[lba] = version;
      if (fua) promises.durable[lba] = Math.max(promises.durable[lba]!, version);
    } else if (choice < 83) {
      const seen = promises.latest.slice();
      await ftl.durability.flush();
      promises.durable.set(seen);
    } else if (choice < 86) {
      // Not awaited: the cut may come in the middle of it.
      void ftl.durability.flush().catch(() => undefined);
    } else await versionAt(ftl, lba);
  }
}

test('after power cuts every LBA is whole and no older than what was durable', async () => {
  for (let seed = 1; seed <= 25; seed++) {
    const random = createSeededRandom(seed);
    let stores = new MemoryDriveStores({ blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 ** 20 });
    const promises = new Promises(2 ** 20 / LBA_BYTES);
    for (let life = 0; life < 6; life++) {
      const ftl = await open(stores, random);
      for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) {
        const version = await versionAt(ftl, lba);
        const { durable, latest } = promises;
        const what = `seed ${seed} life ${life} LBA ${lba}: version ${version}`;
        assert.ok(version >= durable[lba]! && version <= latest[lba]!, `${what}, durable ${durable[lba]}`);
        // What was found is what there is now: an older one can't come back later.
        durable[lba] = version;
        latest[lba] = version;
      }
      for (let round = 0; round < 8; round++) await someWork(ftl, promises, random);
      if (random.nextUint32() % 5 === 0) {
        const seen = promises.latest.slice();
        await ftl.close();
        promises.durable.set(seen);
      } else {
        stores = stores.afterPowerCut(random);
      }
    }
  }
});
