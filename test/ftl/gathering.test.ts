/** Garbage collection lays the pages of a stream side by side again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { KvPageTag, Lpn } from '../../daemon/ftl/contract.ts';
import { channelOf, unitOf } from '../../daemon/nand/geometry.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { openDrive } from './open-drive.ts';
import { programPage } from './program-page.ts';

const PAGE_BYTES = 4096;
const STREAMS = 4;
const GROUPS = 256;

test('a sequence that was written token by token among others is in runs again once it is collected', async () => {
  const arena = createArena(2 ** 21);
  const frame = arena.allocate(PAGE_BYTES);
  const capacities = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 ** 26 };
  const layout = { pageSizeBytes: PAGE_BYTES, channelCount: 4, diesPerChannel: 2 };
  const { ftl } = await openDrive(new MemoryDriveStores({ ...capacities, ...layout }).stores(), createSeededRandom(1), {
    arena,
    kvRecovery: { recover: (_, count) => new Uint16Array(count), settle: () => Promise.resolve() },
  });
  const { geometry } = ftl;
  assert.equal(geometry.pagesPerSuperblock, 128);

  /** [sequence][stream][group] */
  const pages = [0, 1].map(() => Array.from({ length: STREAMS }, (): Lpn[] => []));
  for (let group = 0; group < GROUPS; group++) {
    const reservation = await ftl.kv.reserve(2 * STREAMS);
    for (let stream = 0; stream < STREAMS; stream++) {
      for (const sequence of [0, 1]) {
        arena.view(frame, PAGE_BYTES).fill(content(sequence, stream, group));
        const place = { layer: 0, head: stream >> 1, part: (stream & 1) as 0 | 1, group };
        const tag: KvPageTag = { sequenceId: BigInt(sequence + 1), generation: 1, ...place };
        const target = { channel: (group + stream) % 4, placement: 0 };
        pages[sequence]![stream]!.push(programPage(ftl.kv, reservation, tag, arena.view(frame, PAGE_BYTES), target));
      }
    }
  }
  const ppnOf = (lpn: Lpn): number => ftl.kv.map.get(lpn);
  const meanRun = (): number => {
    let runs = 0;
    for (const stream of pages[0]!) {
      stream.forEach((lpn, group) => {
        if (group === 0 || ppnOf(lpn) !== ppnOf(stream[group - 1]!) + 1) runs++;
      });
    }
    return (STREAMS * GROUPS) / runs;
  };
  assert.ok(meanRun() < 1.5, `scattered at first: ${meanRun()}`);
  for (const stream of pages[1]!) for (const lpn of stream) ftl.kv.release(lpn);
  await ftl.durability.flush();
  // Each superblock is half empty now: it holds 16 groups of each stream.
  const where = new Set(pages[0]!.flat().map((lpn) => Math.floor(ppnOf(lpn) / geometry.pagesPerSuperblock)));
  for (const superblock of where) {
    await ftl.collectors.kv.collect(superblock);
    await ftl.durability.flush();
  }
  // Streams are cut where their channels don't meet, and the superblock that was open is as it was.
  assert.ok(meanRun() > 5, `side by side: ${meanRun()}`);
  for (const [stream, lpns] of pages[0]!.entries()) {
    for (const [group, lpn] of lpns.entries()) {
      assert.equal(channelOf(geometry, unitOf(geometry, ppnOf(lpn))), (group + stream) % 4, 'on its channel still');
      await ftl.kv.read(lpn, frame);
      assert.ok(arena.view(frame, PAGE_BYTES).every((byte) => byte === content(0, stream, group)));
    }
  }
  await ftl.close();
});

const content = (sequence: number, stream: number, group: number): number =>
  (sequence * 97 + stream * 53 + group) % 251;
