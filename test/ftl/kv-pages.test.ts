import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { KvPageTag, Lpn, PageReservation } from '../../daemon/ftl/contract.ts';
import { Ftl } from '../../daemon/ftl/ftl.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { channelOf, superblockOf, unitOf } from '../../daemon/nand/geometry.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { openDrive } from './open-drive.ts';
import { programPage } from './program-page.ts';

const PAGE_BYTES = 4096;
const arena = createArena(2 ** 22);
const kernels = loadKernels('reference', { memory: arena.memory });
const frame = arena.allocate(PAGE_BYTES);

/** A drive without sequences: what is released is gone. 4 channels, 256 KV pages. */
function open(stores = new MemoryDriveStores(small)): Promise<Ftl> {
  return Ftl.open(stores.stores(), {
    arena,
    kernels,
    clock: systemClock,
    random: createSeededRandom(1),
    logger: silentLogger,
    kvRecovery: { recover: (_events, lpnCount) => new Uint16Array(lpnCount), settle: () => Promise.resolve() },
  });
}
const small = { blockCapacityBytes: 2 ** 18, kvCapacityBytes: 2 ** 20, pageSizeBytes: PAGE_BYTES, channelCount: 4 };

const tag = (group: number): KvPageTag => ({ sequenceId: 7n, generation: 1, layer: 2, head: 3, part: 1, group });

function program(ftl: Ftl, reservation: PageReservation, group: number, channel: number, placement = 0): Lpn {
  const page = arena.view(frame, PAGE_BYTES).fill(group);
  return programPage(ftl.kv, reservation, tag(group), page, { channel, placement });
}

async function programAll(ftl: Ftl, count: number, placement = 0): Promise<Lpn[]> {
  const reservation = await ftl.kv.reserve(count);
  return Array.from({ length: count }, (_, group) => program(ftl, reservation, group, group % 4, placement));
}

async function contentOf(ftl: Ftl, lpn: Lpn): Promise<number> {
  await ftl.kv.read(lpn, frame);
  const bytes = arena.view(frame, PAGE_BYTES);
  assert.ok(bytes.every((byte) => byte === bytes[0]));
  return bytes[0]!;
}

test('a page goes to the channel asked for, and consecutive groups of a stream lie side by side', async () => {
  const ftl = await open();
  const { geometry } = ftl;
  const streams: number[][] = [];
  for (let stream = 0; stream < 3; stream++) {
    const reservation = await ftl.kv.reserve(12);
    const pages: number[] = [];
    for (let group = 0; group < 12; group++) {
      const channel = (group + stream) % 4;
      const lpn = program(ftl, reservation, group, channel);
      const ppn = ftl.kv.map.get(lpn);
      assert.equal(channelOf(geometry, unitOf(geometry, ppn)), channel);
      pages.push(ppn);
    }
    streams.push(pages);
  }
  assert.ok(
    streams[0]!.every((ppn, i) => ppn === streams[0]![0]! + i),
    `one run: ${streams[0]!.join(' ')}`,
  );
  for (const pages of streams) {
    const breaks = pages.filter((ppn, i) => i > 0 && ppn !== pages[i - 1]! + 1).length;
    assert.ok(breaks <= 6, `${breaks} breaks in ${pages.join(' ')}`);
  }
  await ftl.close();
});

test('pages of different placements are in different superblocks, so that they can die together', async () => {
  const ftl = await open();
  const { geometry } = ftl;
  const owners = new Map<number, Set<number>>();
  for (let round = 0; round < 10; round++) {
    for (let placement = 0; placement < 4; placement++) {
      for (const lpn of await programAll(ftl, 4, placement)) {
        const superblock = superblockOf(geometry, ftl.kv.map.get(lpn));
        owners.set(superblock, (owners.get(superblock) ?? new Set()).add(placement));
      }
    }
  }
  for (const [superblock, placements] of owners) assert.equal(placements.size, 1, `superblock ${superblock}`);
  await ftl.close();
});

test('a page lives as long as it has a holder', async () => {
  const ftl = await open();
  const free = ftl.kv.freePageCount;
  const [lpn] = (await programAll(ftl, 1)) as [Lpn];
  assert.equal(ftl.kv.freePageCount, free - 1);
  ftl.kv.retain(lpn);
  assert.equal(ftl.kv.referenceCount(lpn), 2);
  ftl.kv.release(lpn);
  assert.equal(await contentOf(ftl, lpn), 0);
  assert.equal(ftl.kv.freePageCount, free - 1);
  ftl.kv.release(lpn);
  assert.equal(ftl.kv.referenceCount(lpn), 0);
  assert.equal(ftl.kv.freePageCount, free);
  assert.throws(() => ftl.kv.release(lpn), /has a holder/);
  assert.throws(() => ftl.kv.retain(lpn), /has a holder/);
  await ftl.close();
});

test('more pages than the namespace has are refused, and refused room is given back', async () => {
  const ftl = await open();
  assert.equal(ftl.kv.pageCount, 256);
  await assert.rejects(ftl.kv.reserve(257), {
    code: 'capacityExceeded',
    message: /257 KV pages needed, 256 of 256 free/,
  });
  const reservation = await ftl.kv.reserve(200);
  await assert.rejects(ftl.kv.reserve(57), { code: 'capacityExceeded' });
  program(ftl, reservation, 0, 0);
  assert.equal(reservation.remaining, 199);
  reservation.release();
  assert.equal(ftl.kv.freePageCount, 255);
  await programAll(ftl, 255);
  assert.equal(ftl.kv.freePageCount, 0);
  await assert.rejects(ftl.kv.reserve(1), { code: 'capacityExceeded' });
  await ftl.close();
});

test('the whole namespace can be reclaimed and filled again, many times, without a flush', async () => {
  const ftl = await open();
  for (let round = 0; round < 12; round++) {
    const pages = await programAll(ftl, 256, round);
    assert.equal(await contentOf(ftl, pages[200]!), 200);
    for (const lpn of pages) ftl.kv.release(lpn);
  }
  assert.ok(ftl.snapshot().counters.superblocksErased > 256 / 16);
  await ftl.close();
});

test('a number is not given again before the release is durable', async () => {
  const ftl = await open();
  const [lpn] = (await programAll(ftl, 1)) as [Lpn];
  ftl.kv.release(lpn);
  const seen = new Set<Lpn>();
  for (let i = 0; i < 100; i++) for (const other of await programAll(ftl, 1)) seen.add(other);
  assert.ok(!seen.has(lpn));
  await ftl.durability.flush();
  assert.ok((await programAll(ftl, 150)).includes(lpn));
  await ftl.close();
});

test('a pinned page is not erased however much is written, reclaimed, collected and flushed around it', async () => {
  const stores = new MemoryDriveStores(small);
  const ftl = await open(stores);
  const pages = await programAll(ftl, 16);
  const ppn = ftl.kv.pin(pages[5]!);
  for (const lpn of pages) ftl.kv.release(lpn);
  const epoch = ftl.kv.eraseCount(ppn);
  for (let round = 0; round < 10; round++) {
    const others = await programAll(ftl, 200, round);
    for (const lpn of others) ftl.kv.release(lpn);
    await ftl.durability.flush();
  }
  const bytes = stores.media.cells.subarray(ppn * PAGE_BYTES, (ppn + 1) * PAGE_BYTES);
  assert.ok(
    bytes.every((byte) => byte === 5),
    'the bytes are still there',
  );
  assert.equal(ftl.kv.eraseCount(ppn), epoch);
  ftl.kv.unpin(ppn);
  for (let round = 0; round < 20; round++) {
    const others = await programAll(ftl, 200, round);
    for (const lpn of others) ftl.kv.release(lpn);
    await ftl.durability.flush();
  }
  assert.ok(ftl.kv.eraseCount(ppn) > epoch, 'and then it is erased');
  await ftl.close();
});

test('a page counts as verified from its first right read until it is programmed again', async () => {
  const ftl = await open();
  const [lpn] = (await programAll(ftl, 1)) as [Lpn];
  const ppn = ftl.kv.pin(lpn);
  assert.ok(!ftl.kv.isVerified(ppn));
  await ftl.kv.read(lpn, frame);
  assert.ok(ftl.kv.isVerified(ppn));
  ftl.kv.unpin(ppn);
  await ftl.close();
});

test('a full namespace whose pages were given up and written anew opens after any power cut', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = createSeededRandom(seed);
    const drive = new MemoryDriveStores({ blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 ** 20 });
    const { ftl, keeper } = await openDrive(drive.stores(), random);
    const { pageCount } = ftl.kv;
    for (let key = 0; key < pageCount; key++) await keeper.put(key, 1);
    await ftl.durability.flush();
    for (let i = 0; i < 20; i++) {
      keeper.remove(i, 2 + i);
      await keeper.put(pageCount + i, 100 + i);
    }
    const left = drive.afterPowerCut(random);
    await ftl.abandon();
    const again = await openDrive(left.stores(), random);
    assert.ok(again.ftl.kv.freePageCount >= 0);
    await again.ftl.close();
  }
});
