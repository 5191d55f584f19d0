import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { Ftl } from '../../daemon/ftl/ftl.ts';
import type { MetaChange } from '../../daemon/meta/contract.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

/** What may be found of each thing (an LBA, a key) after a crash: anything from its last durable version on. */
class Promises {
  /** The newest version ever written, so that no two writes look alike. */
  readonly issued: Uint32Array;
  /** The version that the drive holds. */
  readonly latest: Uint32Array;
  readonly durable: Uint32Array;

  constructor(count: number) {
    this.issued = new Uint32Array(count);
    this.latest = new Uint32Array(count);
    this.durable = new Uint32Array(count);
  }

  /** After a crash: what was found is what there is now; nothing older can come back later. */
  settle(index: number, version: number, what: string): void {
    const { [index]: durable } = this.durable;
    const { [index]: latest } = this.latest;
    assert.ok(version >= durable! && version <= latest!, `${what}: version ${version}, durable ${durable}`);
    this.durable[index] = version;
    this.latest[index] = version;
  }
}

interface Model {
  readonly lbas: Promises;
  readonly keys: Promises;
  /** Pages that garbage collection has copied. */
  collected: number;
}

async function someWork({ ftl, keeper }: OpenDrive, { lbas, keys }: Model, random: Random): Promise<void> {
  const { lbaCount } = ftl.blocks;
  const keyCount = keys.latest.length;
  const durably = async (flush: () => Promise<void>): Promise<void> => {
    const seen = [lbas.latest.slice(), keys.latest.slice()] as const;
    await flush();
    lbas.durable.set(seen[0]);
    keys.durable.set(seen[1]);
  };
  for (let i = 0; i < 60; i++) {
    const lba = random.nextUint32() % lbaCount;
    const key = random.nextUint32() % keyCount;
    const choice = random.nextUint32() % 100;
    if (choice < 50) {
      await write(ftl, lbas, lba, 1 + (random.nextUint32() % Math.min(16, lbaCount - lba)), choice < 8);
    } else if (choice < 80) {
      const version = ++keys.issued[key]!;
      if (choice < 70) await keeper.put(key, version);
      else keeper.remove(key, version);
      keys.latest[key] = version;
    } else if (choice < 83) await durably(() => ftl.durability.flush());
    else if (choice < 86) await durably(() => ftl.durability.syncStaging());
    // Not awaited: the cut may come in the middle of it.
    else if (choice < 88) void ftl.durability.flush().catch(() => undefined);
    else if (choice < 94) await lbaVersion(ftl, lba);
    else await keeper.check(key);
  }
}

async function write(ftl: Ftl, lbas: Promises, lba: number, lbaCount: number, fua: boolean): Promise<void> {
  const versions = Array.from({ length: lbaCount }, (_, i) => ++lbas.issued[lba + i]!);
  const data = versions.map((version, i) => lbaContent(lba + i, version));
  await ftl.blocks.write(lba, lbaCount, Buffer.concat(data), fua);
  lbas.latest.set(versions, lba);
  if (!fua) return;
  for (const [i, version] of versions.entries()) lbas.durable[lba + i] = Math.max(lbas.durable[lba + i]!, version);
}

/** Every transaction is one state: what the FTL and the KV room put in it is of the same operation. */
function checkCommit(changes: readonly MetaChange[]): void {
  const valueOf = (namespace: number): unknown => {
    const change = changes.findLast((candidate) => candidate.namespace === namespace && candidate.kind === 'put');
    return change?.kind === 'put' ? change.value : undefined;
  };
  const state = valueOf(metaNamespaces.drive) as { operation: number };
  assert.equal(valueOf(metaNamespaces.kvState), state.operation, 'a transaction without the KV room');
}

/** Opens, checks every promise, works, and is cut off or closed. Returns what the next life starts from. */
async function live(stores: MemoryDriveStores, model: Model, random: Random, what: string): Promise<MemoryDriveStores> {
  stores.meta.onCommit = checkCommit;
  const drive = await openDrive(stores.stores(), random);
  const { ftl, keeper } = drive;
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) {
    model.lbas.settle(lba, await lbaVersion(ftl, lba), `${what} LBA ${lba}`);
  }
  for (let key = 0; key < model.keys.latest.length; key++) {
    model.keys.settle(key, await keeper.check(key), `${what} key ${key}`);
  }
  for (let round = 0; round < 8; round++) await someWork(drive, model, random);
  model.collected += ftl.snapshot().counters.gcPagesProgrammed;
  if (random.nextUint32() % 5 > 0) return stores.afterPowerCut(random);
  await ftl.close();
  model.lbas.durable.set(model.lbas.latest);
  model.keys.durable.set(model.keys.latest);
  return stores;
}

const MIB = 2 ** 20;

/** Few superblocks more than the capacities need, so that garbage collection is always at work. */
const tight = { blockCapacityBytes: 3 * MIB, kvCapacityBytes: MIB, pageSizeBytes: 8192, channelCount: 1 };

for (const [name, request, seeds] of [
  ['roomy', { blockCapacityBytes: MIB, kvCapacityBytes: MIB }, 4],
  ['full', tight, 3],
] as const) {
  test(`after power cuts a ${name} drive holds all that was durable and nothing older`, async () => {
    for (let seed = 1; seed <= seeds; seed++) {
      const random = createSeededRandom(seed);
      let stores = new MemoryDriveStores(request);
      const { blockCapacityBytes, kvCapacityBytes, pageSizeBytes } = stores.geometry;
      const model = {
        lbas: new Promises(blockCapacityBytes / 4096),
        keys: new Promises(Math.floor((kvCapacityBytes / pageSizeBytes) * 0.95)),
        collected: 0,
      };
      for (let life = 0; life < 6; life++) {
        stores = await live(stores, model, random, `seed ${seed} life ${life}`);
      }
      if (name === 'full') assert.ok(model.collected > 0, 'garbage collection was at work');
    }
  });
}
