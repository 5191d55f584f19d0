import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { Ftl } from '../../daemon/ftl/ftl.ts';
import type { MetaChange } from '../../daemon/meta/contract.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

/** What may be found of each thing (an LBA, a key) after a crash: any version from the last durable one on. */
class Promises {
  /** The newest version that a write was begun with. No two writes look alike. */
  issued: Uint32Array;
  /** The version that the drive has said it holds. */
  latest: Uint32Array;
  durable: Uint32Array;

  constructor(count: number) {
    this.issued = new Uint32Array(count);
    this.latest = new Uint32Array(count);
    this.durable = new Uint32Array(count);
  }

  /** As they stand now, for the world that a power cut leaves. */
  copy(): Promises {
    const copied = new Promises(0);
    copied.issued = this.issued.slice();
    copied.latest = this.latest.slice();
    copied.durable = this.durable.slice();
    return copied;
  }

  /** After a crash: what was found is what there is now; nothing older can come back later. */
  settle(index: number, version: number, what: string): void {
    const { [index]: durable } = this.durable;
    const { [index]: issued } = this.issued;
    assert.ok(version >= durable! && version <= issued!, `${what}: version ${version}, durable ${durable}`);
    this.durable[index] = version;
    this.latest[index] = version;
  }
}

/** A drive between two runs, and what it has promised. */
interface World {
  readonly stores: MemoryDriveStores;
  readonly lbas: Promises;
  readonly keys: Promises;
}

async function someWork({ ftl, keeper }: OpenDrive, { lbas, keys }: World, random: Random): Promise<void> {
  const { lbaCount } = ftl.blocks;
  const keyCount = keys.latest.length;
  const durably = async (flush: () => Promise<void>): Promise<void> => {
    const seen = [lbas.latest.slice(), keys.latest.slice()] as const;
    await flush();
    lbas.durable.set(seen[0]);
    keys.durable.set(seen[1]);
  };
  for (let i = 0; i < 10; i++) {
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

/** A superblock may be opened, which erases it, only if the last transaction names nothing in it. */
function checkErases({ media, meta, geometry }: MemoryDriveStores): void {
  const { slotsPerPage, pagesPerSuperblock } = geometry;
  const isNamed = (namespace: number, slotsPerEntry: number, superblock: number): boolean => {
    for (const { value } of meta.range(namespace)) {
      const entries = new Uint32Array(Uint8Array.from(value as Uint8Array).buffer);
      const slotsPerSuperblock = pagesPerSuperblock * slotsPerPage;
      if (entries.some((entry) => Math.floor((entry * slotsPerEntry) / slotsPerSuperblock) === superblock)) return true;
    }
    return false;
  };
  const erase = media.writeSuperblockHeader.bind(media);
  media.writeSuperblockHeader = (superblock, header) => {
    assert.ok(!isNamed(metaNamespaces.blockMap, 1, superblock), 'blocks that may come back were erased');
    assert.ok(!isNamed(metaNamespaces.kvMap, slotsPerPage, superblock), 'KV pages that may come back were erased');
    erase(superblock, header);
  };
}

/** Writes and syncs, of any store, before the power goes. */
const STEPS_MAX = 1200;

/** Lets the power go at one write or sync, of whatever store, also while the drive recovers. */
class PowerCut {
  readonly #world: World;
  readonly #random: Random;
  #stepsLeft: number;
  /** What is left; the run goes on in a world of its own. */
  left: World | undefined;

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
    this.#stepsLeft = random.nextUint32() % STEPS_MAX;
    const { media, staging, meta } = world.stores;
    for (const store of [media, staging, meta]) store.onStep = () => this.#step();
  }

  #step(): void {
    if (this.left !== undefined || this.#stepsLeft-- > 0) return;
    const { stores, lbas, keys } = this.#world;
    this.left = { stores: stores.afterPowerCut(this.#random), lbas: lbas.copy(), keys: keys.copy() };
  }

  get isNear(): boolean {
    return this.#stepsLeft < STEPS_MAX / 4;
  }
}

/** Opens, checks every promise, works until the power goes, or closes before. Returns what is left. */
async function live(world: World, random: Random, what: string): Promise<{ left: World; collected: number }> {
  const { stores, lbas, keys } = world;
  stores.meta.onCommit = checkCommit;
  checkErases(stores);
  const cut = new PowerCut(world, random);
  const drive = await openDrive(stores.stores(), random);
  const { ftl, keeper } = drive;
  for (let lba = 0; lba < ftl.blocks.lbaCount; lba++) {
    lbas.settle(lba, await lbaVersion(ftl, lba), `${what} LBA ${lba}`);
  }
  for (let key = 0; key < keys.latest.length; key++) {
    keys.settle(key, await keeper.check(key), `${what} key ${key}`);
  }
  const closes = random.nextUint32() % 8 === 0;
  while (cut.left === undefined && !(closes && cut.isNear)) await someWork(drive, world, random);
  const collected = ftl.snapshot().counters.gcPagesProgrammed;
  if (cut.left !== undefined) return { left: cut.left, collected };
  await ftl.close();
  lbas.durable.set(lbas.latest);
  keys.durable.set(keys.latest);
  // The cut may have come while it closed.
  return { left: cut.left ?? world, collected };
}

const MIB = 2 ** 20;

/** Few superblocks more than the capacities need, so that garbage collection is always at work. */
const tight = { blockCapacityBytes: 3 * MIB, kvCapacityBytes: MIB, pageSizeBytes: 8192, channelCount: 1 };

for (const [name, request, lives] of [
  ['roomy', { blockCapacityBytes: MIB, kvCapacityBytes: MIB }, 25],
  ['full', tight, 30],
] as const) {
  test(`after power cuts a ${name} drive holds all that was durable and nothing older`, async () => {
    const random = createSeededRandom(1);
    const stores = new MemoryDriveStores(request);
    const { blockCapacityBytes, kvCapacityBytes, pageSizeBytes } = stores.geometry;
    const lbas = new Promises(blockCapacityBytes / 4096);
    const keys = new Promises(Math.floor((kvCapacityBytes / pageSizeBytes) * 0.95));
    let world: World = { stores, lbas, keys };
    let collected = 0;
    for (let life = 0; life < lives; life++) {
      const ended = await live(world, random, `life ${life}`);
      world = ended.left;
      collected += ended.collected;
    }
    if (name === 'full') assert.ok(collected > 0, 'garbage collection was at work');
  });
}
