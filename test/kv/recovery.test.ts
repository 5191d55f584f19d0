/** Opening after a shutdown, a killed process and a power cut: the cases that daemon/kv/README.md argues about. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { encodeReclaim, encodeTruncate } from '../../daemon/kv/staged-records.ts';
import { failsWith } from './assertions.ts';
import {
  appendRows,
  assertTokens,
  createSequence,
  ManualClock,
  openDrive,
  plainShape,
  tokenRange,
  type Opened,
} from './fixture.ts';
import { MemoryDrive, seededRandom, type DriveRemains } from './memory-drive.ts';

const everyPage = (): boolean => true;
const noPage = (): boolean => false;
const fork = ({ store }: Opened, source: bigint, tokenCount: number): Promise<bigint> =>
  store.fork(source, tokenCount, { id: 0n, label: 'fork', leaseSeconds: 0, owner: 8n });

test('a checkpoint keeps everything, whole groups and tails, names and all', async () => {
  const opened = await openDrive();
  const id = createSequence(opened, { elementTypeK: 'f32', headDimV: 20, groupTokens: 5 });
  await appendRows(opened, id, 0, 0, tokenRange(0, 23));
  await appendRows(opened, id, 1, 0, tokenRange(0, 4));
  const child = await fork(opened, id, 12);
  const before = [opened.store.summary(id), opened.store.summary(child)];
  opened.drive.checkpoint();
  const again = await openDrive(opened.drive.powerCut(0, noPage));
  assert.deepEqual([again.store.summary(id), again.store.summary(child)], before);
  await assertTokens(again, id, 0, tokenRange(0, 23));
  await assertTokens(again, id, 1, tokenRange(0, 4));
  await assertTokens(again, child, 0, tokenRange(0, 12));
  await assertTokens(again, child, 1, tokenRange(0, 4));
  const { droppedPageCount, lostTokenCount } = again.store.snapshot().recovery;
  assert.deepEqual([droppedPageCount, lostTokenCount], [0, 0]);
  const counters = (store: SequenceStore): number[] => {
    const { tokenCount, heldPageCount, heldPaddingBytes, tailBytes } = store.snapshot();
    return [tokenCount, heldPageCount, heldPaddingBytes, tailBytes];
  };
  assert.deepEqual(counters(again.store), counters(opened.store));
});

test('only what changed is written at a checkpoint', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 13));
  opened.drive.checkpoint();
  const staged = opened.drive.stagedBytes;
  const records = opened.drive.recordCount;
  opened.drive.checkpoint();
  assert.equal(opened.drive.stagedBytes, staged, 'a tail is staged once');
  await appendRows(opened, id, 0, 13, [13]);
  opened.drive.checkpoint();
  assert.equal(opened.drive.stagedBytes, staged + 32 + 2 * 2 * 64, 'one token more, one token staged');
  assert.equal(opened.drive.recordCount, records);
  await opened.store.reclaim(id);
  opened.drive.checkpoint();
  assert.equal(opened.drive.recordCount, 1, "the room's own record remains");
});

test('a killed process loses only tokens that were in memory alone', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 29));
  const child = await fork(opened, id, 20);
  await appendRows(opened, child, 0, 20, tokenRange(800, 15));
  const again = await openDrive(opened.drive.kill());
  await assertTokens(again, id, 0, tokenRange(0, 24));
  await assertTokens(again, child, 0, [...tokenRange(0, 20), ...tokenRange(800, 12)]);
});

test('FUA: the staging log and the pages alone bring an append back', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 29));
  const child = await fork(opened, id, 21);
  await appendRows(opened, child, 0, 21, tokenRange(800, 2));
  await opened.store.truncate(id, 0, 28);
  opened.drive.syncStaging();
  await appendRows(opened, id, 0, 28, tokenRange(28, 10));
  const again = await openDrive(opened.drive.powerCut(0, noPage));
  await assertTokens(again, id, 0, tokenRange(0, 28));
  await assertTokens(again, child, 0, [...tokenRange(0, 21), 800, 801]);
});

test('a group of which only some pages were kept counts as far as its tokens were staged', async () => {
  for (const lost of [
    { head: 1, part: 1 },
    { head: 0, part: 0 },
  ]) {
    const opened = await openDrive();
    const id = createSequence(opened);
    await appendRows(opened, id, 0, 0, tokenRange(0, 12));
    opened.drive.checkpoint();
    await appendRows(opened, id, 0, 12, tokenRange(12, 14));
    const remains = opened.drive.powerCut(
      0,
      ({ head, part, group }) => group !== 1 || head !== lost.head || part !== lost.part,
    );
    const again = await openDrive(remains);
    await assertTokens(again, id, 0, tokenRange(0, 12));
    assert.equal(again.store.snapshot().recovery.droppedPageCount, 3 + 4);
    // The dropped pages must not come back beside other tokens.
    await appendRows(again, id, 0, 12, tokenRange(300, 5));
    const third = await openDrive(again.drive.powerCut(0, ({ head }) => head === 0));
    await assertTokens(third, id, 0, tokenRange(0, 12));
  }
});

test('staged rows behind a lost group are out of reach, and stay so', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 11));
  opened.drive.checkpoint();
  await appendRows(opened, id, 0, 11, tokenRange(11, 10));
  opened.store.stageBuffered(opened.drive);
  const again = await openDrive(opened.drive.powerCut(1, noPage));
  await assertTokens(again, id, 0, tokenRange(0, 11));
  assert.equal(again.store.snapshot().recovery.droppedTailCount, 1);
  await appendRows(again, id, 0, 11, tokenRange(500, 5));
  const third = await openDrive(again.drive.kill());
  await assertTokens(third, id, 0, [...tokenRange(0, 11), ...tokenRange(500, 5)]);
});

test('pages written after a truncate that was lost are not taken for older tokens', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 18));
  opened.drive.checkpoint();
  await opened.store.truncate(id, 0, 16);
  await appendRows(opened, id, 0, 16, tokenRange(600, 16));
  const lost = await openDrive(opened.drive.powerCut(0, everyPage));
  await assertTokens(lost, id, 0, tokenRange(0, 18));
  const kept = await openDrive(opened.drive.powerCut(1, everyPage));
  await assertTokens(kept, id, 0, [...tokenRange(0, 16), ...tokenRange(600, 16)]);
  const pagesLost = await openDrive(opened.drive.powerCut(1, noPage));
  await assertTokens(pagesLost, id, 0, tokenRange(0, 16));
});

test('a truncate into a page that is replayed finds its rows in the page', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 24));
  opened.drive.checkpoint();
  await opened.store.truncate(id, 0, 21);
  await opened.store.truncate(id, 0, 19);
  for (const count of [0, 1, 2]) {
    const remains = opened.drive.powerCut(count, everyPage);
    const again = await openDrive(remains);
    const length = [24, 21, 19][count] as number;
    await assertTokens(again, id, 0, tokenRange(0, length));
    const third = await openDrive(again.drive.powerCut(0, noPage));
    await assertTokens(third, id, 0, tokenRange(0, length));
  }
  await appendRows(opened, id, 0, 19, tokenRange(700, 2));
  opened.drive.syncStaging();
  await opened.store.truncate(id, 0, 20);
  const staged = await openDrive(opened.drive.kill());
  await assertTokens(staged, id, 0, [...tokenRange(0, 19), 700]);
  await appendRows(opened, id, 0, 20, tokenRange(710, 4));
  const whole = await openDrive(opened.drive.kill());
  await assertTokens(whole, id, 0, [...tokenRange(0, 19), 700, 710, 711, 712, 713]);
});

test('a truncate in the tail keeps what was staged before it', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 14));
  opened.drive.checkpoint();
  await opened.store.truncate(id, 0, 12);
  const replayed = await openDrive(opened.drive.kill());
  await assertTokens(replayed, id, 0, tokenRange(0, 12));
  opened.drive.checkpoint();
  await appendRows(opened, id, 0, 12, tokenRange(900, 1));
  const again = await openDrive(opened.drive.kill());
  await assertTokens(again, id, 0, tokenRange(0, 12));
});

test('a lost create or fork leaves its pages to nobody', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 18));
  opened.drive.checkpoint();
  const child = await fork(opened, id, 17);
  await appendRows(opened, child, 0, 17, tokenRange(17, 10));
  const created = createSequence(opened);
  await appendRows(opened, created, 0, 0, tokenRange(0, 8));
  const again = await openDrive(opened.drive.powerCut(0, everyPage));
  assert.deepEqual(again.store.list(0n, 9), [id]);
  assert.equal(again.drive.heldPageCount, 8);
  assert.ok(createSequence(again) > created, 'an id that a client may have seen is not chosen again');
  const without = await openDrive(opened.drive.powerCut(0, noPage));
  assert.ok(createSequence(without) > created, 'nor where nothing of it is left');
  const forked = await openDrive(opened.drive.powerCut(1, everyPage));
  assert.deepEqual(forked.store.list(0n, 9), [id, child]);
  await assertTokens(forked, child, 0, tokenRange(0, 24));
});

test('a fork is replayed as its parent was then', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 18));
  opened.drive.checkpoint();
  const child = await fork(opened, id, 13);
  await opened.store.truncate(id, 0, 3);
  await appendRows(opened, id, 0, 3, tokenRange(300, 16));
  const grandchild = await fork(opened, id, 11);
  await opened.store.reclaim(id);
  const again = await openDrive(opened.drive.kill());
  assert.deepEqual(again.store.list(0n, 9), [child, grandchild]);
  await assertTokens(again, child, 0, tokenRange(0, 13));
  await assertTokens(again, grandchild, 0, [0, 1, 2, ...tokenRange(300, 8)]);
});

test('nothing reclaimed comes back, and an id used again is another sequence', async () => {
  const opened = await openDrive();
  const id = createSequence(opened, {}, 77n);
  await appendRows(opened, id, 0, 0, tokenRange(0, 18));
  opened.drive.checkpoint();
  await opened.store.reclaim(id);
  const killed = await openDrive(opened.drive.kill());
  assert.deepEqual(killed.store.list(0n, 9), []);
  assert.equal(killed.drive.heldPageCount, 0);
  createSequence(opened, {}, 77n);
  await appendRows(opened, id, 0, 0, tokenRange(400, 17));
  const both = await openDrive(opened.drive.kill());
  await assertTokens(both, id, 0, tokenRange(400, 16));
  // Reclaim and create are lost, the new sequence's pages are not: the old one is as it was.
  const neither = await openDrive(opened.drive.powerCut(0, everyPage));
  await assertTokens(neither, id, 0, tokenRange(0, 18));
  opened.drive.checkpoint();
  const final = await openDrive(opened.drive.powerCut(0, noPage));
  await assertTokens(final, id, 0, tokenRange(400, 17));
});

test('an opening that is interrupted can be repeated', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 24));
  opened.drive.checkpoint();
  await opened.store.truncate(id, 0, 21);
  const remains: DriveRemains = opened.drive.kill();
  for (let attempt = 0; attempt < 2; attempt++) {
    const arena = createArena(8 * 1024 * 1024);
    const kernels = loadKernels('reference', { memory: arena.memory });
    const store = new SequenceStore({ arena, kernels, clock: new ManualClock() });
    store.checkpoint = () => {
      throw new Error('crash before the first checkpoint');
    };
    await assert.rejects(MemoryDrive.open(remains, store, { arena, random: seededRandom(1) }), /crash before/);
    store.close();
  }
  await assertTokens(await openDrive(remains), id, 0, tokenRange(0, 21));
});

test('records of unknown sequences are counted, records of another format stop the opening', async () => {
  const opened = await openDrive();
  opened.drive.append(2, encodeTruncate(5n, 0, 1));
  opened.drive.append(2, encodeReclaim(5n));
  const again = await openDrive(opened.drive.kill());
  assert.equal(again.store.snapshot().recovery.droppedOperationCount, 2);
  for (const payload of [
    [2, 1],
    [1, 9],
    [1, 4, 0],
    [1, 1, 0, 0],
  ]) {
    const broken = await openDrive();
    broken.drive.append(2, Uint8Array.from(payload));
    await assert.rejects(openDrive(broken.drive.kill()), failsWith('internal', /KV record/));
  }
});

test('pages from before the transaction tell nothing new', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  const generation = opened.drive.operation;
  await appendRows(opened, id, 0, 0, tokenRange(0, 10));
  opened.drive.checkpoint();
  const events = [0, 1].flatMap((group) =>
    [0, 1].flatMap((head) =>
      ([0, 1] as const).map((part) => {
        const tag = { sequenceId: id, generation, layer: 0, head, part, group };
        return { operation: generation + 1, kind: 'page', tag, lpn: (4000 + group) as Lpn } as const;
      }),
    ),
  );
  const again = await openDrive(opened.drive.kill(), { moreEvents: events });
  await assertTokens(again, id, 0, tokenRange(0, 10));
});

test('tails too large for one record are staged in several', async () => {
  const opened = await openDrive(undefined, { arenaBytes: 64 * 1024 * 1024 });
  const shape = {
    kvHeadCount: 128,
    headDimK: 256,
    headDimV: 256,
    layerCount: 1,
    elementTypeK: 'f32',
    elementTypeV: 'f32',
  } as const;
  const id = createSequence(opened, { ...shape, groupTokens: 4 });
  await appendRows(opened, id, 0, 0, tokenRange(0, 3));
  opened.drive.checkpoint();
  const again = await openDrive(opened.drive.powerCut(0, noPage), { arenaBytes: 64 * 1024 * 1024 });
  await assertTokens(again, id, 0, tokenRange(0, 3));
});

test('a memory too small for the stored tails is named', async () => {
  const opened = await openDrive();
  for (let i = 0; i < 40; i++) {
    const id = createSequence(opened, { ...plainShape, kvHeadCount: 16 });
    await appendRows(opened, id, 0, 0, tokenRange(0, 3));
  }
  opened.drive.checkpoint();
  await assert.rejects(
    openDrive(opened.drive.kill(), { arenaBytes: 768 * 1024 }),
    failsWith('bufferFull', /asked for/),
  );
});
