import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameCache } from '../../daemon/attention/frame-cache.ts';
import { createArena } from '../../daemon/base/arena.ts';
import type { Ppn } from '../../daemon/ftl/contract.ts';
import { createRandom } from './random.ts';

const FRAME_BYTES = 64;
const page = (n: number): Ppn => n as Ppn;

function openCache(sizeBytes = 0) {
  const eraseCounts = new Map<number, number>();
  const arena = createArena(1 << 20);
  const { freeBytes } = arena;
  const cache = new FrameCache(
    { sizeBytes, frameSizeBytes: FRAME_BYTES, pageCount: 100_000 },
    { arena, pages: { eraseCount: (ppn) => eraseCounts.get(ppn) ?? 0 } },
  );
  return { cache, arena, eraseCounts, freeBytes };
}

test('a loaded page stays until its frame is wanted, least recently used first', () => {
  const { cache } = openCache();
  for (let n = 0; n < cache.frameCount; n++) cache.release(cache.acquire(page(n)), true);
  cache.release(cache.acquire(page(0)), true);
  cache.release(cache.acquire(page(1000)), true);
  assert.equal(cache.isReady(page(0)), true, 'just used');
  assert.equal(cache.isReady(page(1)), false, 'the oldest went');
  assert.equal(cache.isReady(page(1000)), true);
  assert.equal(cache.snapshot().evictions, 1);
  assert.equal(cache.snapshot().hits, 1);
});

test('a cycle larger than the cache has its share of hits, and a scan takes nothing from it', (t) => {
  const { cache } = openCache(4096 * FRAME_BYTES);
  const walk = (first: number, count: number): number => {
    const { hits } = cache.snapshot();
    for (let at = first; at < first + count; at += 128) {
      const handles = Array.from({ length: 128 }, (_, i) => cache.acquire(page(at + i)));
      for (const handle of handles) cache.release(handle, true);
    }
    return (cache.snapshot().hits - hits) / count;
  };
  let share = 0;
  for (let round = 0; round < 12; round++) share = walk(0, 8192);
  t.diagnostic(`hits ${share.toFixed(3)} of ${4096 / 8192}`);
  assert.ok(share > 0.38 && share <= 0.5, `${share}`);
  walk(20_000, 20_480);
  assert.ok(walk(0, 8192) > 0.38, 'after a scan');
  // What comes round sooner takes the place of what does not come any more.
  for (let round = 0; round < 12; round++) share = walk(50_000, 3072);
  assert.ok(share > 0.95, `${share}`);
});

test('frames in use are never given away', () => {
  const { cache } = openCache();
  const handles = Array.from({ length: cache.frameCount }, (_, n) => cache.acquire(page(n)));
  assert.equal(new Set(handles.map((handle) => cache.offset(handle))).size, handles.length, 'all different');
  assert.equal(cache.available, 0);
  assert.throws(() => cache.acquire(page(5000)), /no more frames are taken/);
  cache.release(handles[7]!, true);
  assert.equal(cache.available, 1);
  assert.equal(cache.acquire(page(5000)), handles[7], 'the only idle frame');
  assert.equal(cache.isReady(page(7)), false);
});

test('a page that is being loaded is loaded again into another frame, which is not kept', () => {
  const { cache } = openCache();
  const first = cache.acquire(page(3));
  const second = cache.acquire(page(3));
  assert.notEqual(first, second);
  assert.equal(cache.isLoaded(second), false);
  cache.release(second, true);
  assert.equal(cache.isReady(page(3)), false, 'the first one is still loading');
  cache.release(first, true);
  assert.equal(cache.isReady(page(3)), true);
  const third = cache.acquire(page(3));
  assert.equal(third, first);
  assert.equal(cache.isLoaded(third), true);
});

test('what could not be loaded is not kept', () => {
  const { cache } = openCache();
  cache.release(cache.acquire(page(3)), false);
  assert.equal(cache.isReady(page(3)), false);
  assert.equal(cache.snapshot().framesInUse, 0);
});

test('a frame from before an erase is not taken for what was programmed since', () => {
  const { cache, eraseCounts } = openCache();
  cache.release(cache.acquire(page(3)), true);
  eraseCounts.set(3, 1);
  assert.equal(cache.isReady(page(3)), false);
  assert.equal(cache.isLoaded(cache.acquire(page(3))), false);
});

for (const frameCount of [200, 1500]) {
  test(`random use of ${frameCount} frames keeps users, contents and counts straight`, () => useAtRandom(frameCount));
}

function useAtRandom(frameCount: number): void {
  const { cache, arena, eraseCounts, freeBytes } = openCache(frameCount * FRAME_BYTES);
  const pageCount = 2 * frameCount;
  const random = createRandom(77);
  const held: { page: number; handle: number; loaded: boolean }[] = [];
  const content = new Map<number, string>();
  for (let step = 0; step < 8000; step++) {
    if (random.below(2) === 0 && held.length < 150) {
      const n = random.below(pageCount);
      const handle = cache.acquire(page(n));
      const key = `${n}:${eraseCounts.get(n) ?? 0}`;
      if (cache.isLoaded(handle)) assert.equal(content.get(handle), key, 'the frame holds the page');
      else {
        assert.ok(!held.some((other) => other.handle === handle), "a frame to load into is nobody else's");
        content.set(handle, key);
      }
      held.push({ page: n, handle, loaded: random.below(10) > 0 });
    } else if (held.length > 0) {
      const [{ handle, loaded }] = held.splice(random.below(held.length), 1) as [(typeof held)[number]];
      cache.release(handle, loaded);
    }
    const erased = random.below(pageCount);
    if (!held.some((other) => other.page === erased)) eraseCounts.set(erased, step);
    assert.equal(cache.snapshot().framesInUse, new Set(held.map((h) => h.handle)).size);
  }
  for (const { handle } of held) cache.release(handle, true);
  cache.close();
  assert.equal(arena.freeBytes, freeBytes);
}
