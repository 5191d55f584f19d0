/** The same histories on the real FTL, over media, log and metadata in memory that lose what was not synced. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom, type Random as Random32 } from '../../daemon/base/random.ts';
import type {
  CheckpointParticipant,
  KvPages,
  KvRecovery,
  Lpn,
  RecoveredEvent,
  StagingLog,
} from '../../daemon/ftl/contract.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { Ftl, openFolder, type FtlStores } from '../../daemon/ftl/ftl.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { decodeState, stateKey } from '../../daemon/kv/metadata-records.ts';
import type { MetaReader } from '../../daemon/meta/contract.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { MemoryDriveStores } from '../ftl/memory-stores.ts';
import { assertSound } from '../image/sound-drive.ts';
import { appendRows, assertTokens, createSequence, ManualClock, tokenRange, type Opened } from './fixture.ts';
import { seededRandom, type Random } from './memory-drive.ts';
import { PAGE_SIZE_BYTES, playHistory, type Crash, type World } from './sequence-history.ts';

/** A sequence store that tells which of its records survived and which it wrote last. */
class WatchedStore implements KvRecovery, CheckpointParticipant {
  readonly store: SequenceStore;
  survivedOperation = 0;
  recordOperation = 0;

  constructor(store: SequenceStore) {
    this.store = store;
  }

  recover(events: readonly RecoveredEvent[], lpnCount: number, records: MetaReader): Uint16Array {
    const state = records.get(metaNamespaces.kvState, stateKey);
    if (state !== undefined) this.survivedOperation = decodeState(state).operation;
    for (const { kind, operation } of events) {
      if (kind === 'staged') this.survivedOperation = Math.max(this.survivedOperation, operation);
    }
    return this.store.recover(events, lpnCount, records);
  }

  settle(pages: KvPages, log: StagingLog): Promise<void> {
    return this.store.settle(pages, {
      append: (owner, payload) => (this.recordOperation = log.append(owner, payload)),
    });
  }

  checkpoint(...[sink]: Parameters<CheckpointParticipant['checkpoint']>): void {
    this.store.checkpoint(sink);
  }

  stageBuffered(log: StagingLog): void {
    this.store.stageBuffered(log);
  }
}

interface OpenedFtl extends Opened {
  readonly ftl: Ftl;
  readonly watched: WatchedStore;
}

async function openFtl(stores: FtlStores, random32: Random32): Promise<OpenedFtl> {
  const arena = createArena(4 * 2 ** 20);
  const kernels = loadKernels('wasm', { memory: arena.memory });
  const clock = new ManualClock();
  const store = new SequenceStore({ arena, kernels, clock });
  const watched = new WatchedStore(store);
  const modules = { arena, kernels, clock, random: random32, logger: silentLogger, kvRecovery: watched };
  const ftl = await Ftl.open(stores, modules);
  const readPage = async (lpn: Lpn): Promise<Uint8Array> => {
    const frame = arena.allocate(ftl.kv.pageSizeBytes);
    await ftl.kv.read(lpn, frame);
    const bytes = arena.view(frame, ftl.kv.pageSizeBytes).slice();
    arena.free(frame);
    return bytes;
  };
  return { arena, store, readPage, ftl, watched };
}

class FtlWorld implements World {
  readonly #random: Random;
  readonly #random32: Random32;
  #stores: MemoryDriveStores;
  opened: OpenedFtl;

  private constructor(stores: MemoryDriveStores, opened: OpenedFtl, random: Random, random32: Random32) {
    this.#stores = stores;
    this.opened = opened;
    this.#random = random;
    this.#random32 = random32;
  }

  static async open(seed: number, random: Random): Promise<FtlWorld> {
    const random32 = createSeededRandom(seed);
    const stores = new MemoryDriveStores({
      blockCapacityBytes: 2 ** 18,
      kvCapacityBytes: 3 * 2 ** 20,
      pageSizeBytes: PAGE_SIZE_BYTES,
      channelCount: 2,
    });
    return new FtlWorld(stores, await openFtl(stores.stores(), random32), random, random32);
  }

  get recordOperation(): number {
    return this.opened.watched.recordOperation;
  }

  failAfterPrograms(count: number): void {
    let left = count;
    this.#stores.media.onStep = (what) => {
      if (what === 'program' && left-- <= 0) throw new DriveError('writeFault', 'planted');
    };
  }

  async makeDurable(how: 'flush' | 'fua'): Promise<void> {
    const { durability } = this.opened.ftl;
    if (how === 'fua') await durability.syncStaging();
    else await durability.flush();
  }

  async crash(): Promise<Crash> {
    const { ftl, store } = this.opened;
    const roll = this.#random();
    let isWhole = false;
    const stores = this.#stores;
    if (roll < 0.2) {
      await ftl.close();
      isWhole = true;
    } else if (roll < 0.5) {
      this.#stores = stores.afterKill();
      isWhole = true;
    } else {
      // A flush that is under way is cut short somewhere.
      if (this.#random() < 0.3) void ftl.durability.flush().catch(() => undefined);
      this.#stores = stores.afterPowerCut(this.#random32);
    }
    store.close();
    if (roll >= 0.2) await ftl.abandon();
    await assertSound(this.#stores.stores(), 'what a crash leaves is sound');
    this.opened = await openFtl(this.#stores.stores(), this.#random32);
    const what = roll < 0.2 ? 'shutdown' : roll < 0.5 ? 'kill' : 'power cut';
    return { what, survivedOperation: this.opened.watched.survivedOperation, isWhole };
  }

  holderCount(): number {
    const { kv } = this.opened.ftl;
    let count = 0;
    for (let lpn = 0; lpn < kv.lpnCount; lpn++) count += kv.referenceCount(lpn as Lpn);
    return count;
  }

  async close(): Promise<void> {
    this.opened.store.close();
    await this.opened.ftl.close();
  }
}

test('histories on the FTL agree with the model, across shutdowns, kills and power cuts', async () => {
  const runs = Number(process.env['ATTNDRIVE_TEST_RUNS'] ?? 12);
  for (let seed = 1; seed <= runs; seed++) {
    const random = seededRandom(seed);
    await playHistory(await FtlWorld.open(seed, random), random, 120, `seed ${seed}`);
  }
});

test('sequences that come and go do not wear a small drive down: garbage is collected, bytes stay right', async () => {
  const random32 = createSeededRandom(5);
  const stores = new MemoryDriveStores({
    blockCapacityBytes: 2 ** 18,
    kvCapacityBytes: 2 ** 20,
    pageSizeBytes: PAGE_SIZE_BYTES,
  });
  const opened = await openFtl(stores.stores(), random32);
  const kept = createSequence(opened, { layerCount: 1, groupTokens: 4 });
  for (let round = 0; round < 60; round++) {
    const id = createSequence(opened, { layerCount: 1, groupTokens: 4 });
    await appendRows(opened, kept, 0, round, [round]);
    await appendRows(opened, id, 0, 0, tokenRange(1000 * round, 120));
    await assertTokens(opened, id, 0, tokenRange(1000 * round, 120));
    await opened.store.reclaim(id);
  }
  assert.ok(opened.ftl.snapshot().counters.superblocksErased > 0, 'blocks were erased');
  await assertTokens(opened, kept, 0, tokenRange(0, 60));
  opened.store.close();
  await opened.ftl.close();
});

test('sequences outlive shutdowns and crashes of a drive in files', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-kv-'));
  try {
    const random32 = createSeededRandom(9);
    const capacities = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 ** 21 };
    const layout = { pageSizeBytes: PAGE_SIZE_BYTES, channelCount: 2, diesPerChannel: 1, overProvisioning: 0.1 };
    await formatDrive(folder, { ...capacities, ...layout, force: false }, random32);
    const first = await openFtl(openFolder(folder), random32);
    const id = createSequence(first, { groupTokens: 0 });
    await appendRows(first, id, 0, 0, tokenRange(0, 150));
    const child = await first.store.fork(id, 140, { id: 0n, label: 'child', leaseSeconds: 0, owner: 3n });
    first.store.close();
    await first.ftl.close();
    const second = await openFtl(openFolder(folder), random32);
    await assertTokens(second, id, 0, tokenRange(0, 150));
    await appendRows(second, id, 0, 150, tokenRange(150, 100));
    await second.store.truncate(child, 0, 70);
    await appendRows(second, child, 0, 70, tokenRange(900, 5));
    await second.ftl.durability.syncStaging();
    await appendRows(second, child, 0, 75, tokenRange(905, 5));
    second.store.close();
    await second.ftl.abandon();
    const third = await openFtl(openFolder(folder), random32);
    await assertTokens(third, id, 0, tokenRange(0, 250));
    await assertTokens(third, child, 0, [...tokenRange(0, 70), ...tokenRange(900, 5)]);
    assert.equal(third.store.summary(child).label, 'child');
    third.store.close();
    await third.ftl.close();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
