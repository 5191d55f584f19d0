/** Room for hosts while others collect, erase and read: what happens during a step is seen by whoever waited for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { Allocator } from '../../daemon/ftl/allocator.ts';
import type { GarbageCollector } from '../../daemon/ftl/garbage-collector.ts';
import { defaultGcOptions } from '../../daemon/ftl/gc-options.ts';
import { Space, type SpaceModules } from '../../daemon/ftl/space.ts';
import { Superblocks } from '../../daemon/ftl/superblocks.ts';
import { MemoryDriveStores } from './memory-stores.ts';

const { geometry } = new MemoryDriveStores();
const EMPTIED_AT = 5;

interface Pool {
  /** Whether somebody reads the empty superblocks. */
  readonly isRead: boolean;
  readonly erasedPages: number;
  checkpointCount: number;
}
const readAndFull: Pool = { isRead: true, erasedPages: 0, checkpointCount: 0 };

/** A pool of which two superblocks are empty. `whileStepping`: happens during a step that gains nothing. */
function spaceOf(whileStepping: (superblocks: Superblocks) => void, pool = readAndFull): Space {
  const superblocks = new Superblocks(geometry, new Uint32Array(geometry.superblockCount));
  for (const superblock of [0, 1]) {
    superblocks.setState(superblock, 'open');
    superblocks.assign(superblock, 'block');
    superblocks.setState(superblock, 'full');
    superblocks.emptySince[superblock] = EMPTIED_AT;
    if (pool.isRead) superblocks.pin(superblock);
  }
  let reservedPages = 0;
  let freeCount = 0;
  const pages = (): number => pool.erasedPages + freeCount * geometry.pagesPerSuperblock - reservedPages;
  const allocator = {
    isReadOnly: false,
    hostPagesAvailable: pages,
    pagesLeft: pages,
    gcPagesAvailable: () => 0,
    hostShareOf: (_pool: string, count: number) => count,
    quota: () => geometry.blockSuperblockCount,
    writePointCount: () => 1,
    reservedPages: () => 0,
    reserve: (_pool: string, count: number) => void (reservedPages += count),
    free(superblock: number) {
      superblocks.setState(superblock, 'free');
      freeCount++;
    },
  } as unknown as Allocator;
  const checkpoint = async (): Promise<void> => {
    pool.checkpointCount++;
    await new Promise((resolve) => setImmediate(resolve));
    space.checkpointed(EMPTIED_AT);
  };
  // The first is what the reservation pays, the second is because there is no room.
  let stepCount = 0;
  const step = async (): Promise<number> => {
    await Promise.resolve();
    if (++stepCount === 2) whileStepping(superblocks);
    return 0;
  };
  const collector = { passedPages: 0, step } as unknown as GarbageCollector;
  const clock = { nowNs: () => 0, wallMs: () => 0, setTimer: () => ({ cancel: () => undefined }) };
  const working = { assertWorking: () => undefined, clock, logger: silentLogger };
  const options = { ...defaultGcOptions, startSuperblocks: 0, stopSuperblocks: 0 };
  const space = new Space('block', options, {
    superblocks,
    allocator,
    collector,
    checkpoint,
    ...working,
  } as unknown as SpaceModules);
  return space;
}

const withinASecond = (reservation: Promise<unknown>): Promise<unknown> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, 1000, 'late')));
  return Promise.race([reservation, late]).finally(() => clearTimeout(timer));
};

test('what loses its last reader during a step is erased: the host does not wait for another reader', async () => {
  const space = spaceOf((superblocks) => {
    superblocks.unpin(0);
    superblocks.unpin(1);
  });
  assert.notEqual(await withinASecond(space.reserve(1)), 'late');
});

test('what somebody else makes free during a step is room, although all that is left to gain is read', async () => {
  const space = spaceOf((superblocks) => {
    superblocks.unpin(0);
    space.checkpointed(EMPTIED_AT);
  });
  assert.notEqual(await withinASecond(space.reserve(1)), 'late');
});

test('what somebody else makes free during a step is no reason to say that there is none', async () => {
  const space = spaceOf((superblocks) => {
    superblocks.unpin(0);
    superblocks.unpin(1);
    space.checkpointed(EMPTIED_AT);
  });
  await space.reserve(1);
});

test('a host that waits for an erase waits for the checkpoint that is on its way, and for no other', async () => {
  const pool = { isRead: false, erasedPages: 1, checkpointCount: 0 };
  const space = spaceOf(() => undefined, pool);
  // The first takes the last page, which begins a checkpoint in advance.
  await Promise.all([space.reserve(1), space.reserve(1)]);
  assert.equal(pool.checkpointCount, 1);
  assert.equal(space.counters.eraseWaits, 1);
});
