import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LineIndex } from '../../daemon/attention/line-index.ts';
import { LINE_BYTES, PageCache } from '../../daemon/attention/page-cache.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { Ppn } from '../../daemon/ftl/contract.ts';
import { createRandom, type Random } from './random.ts';

const PAGE_BYTES = 16_384;
const MIB = 2 ** 20;

interface PendingLoad {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly offset: number;
  readonly done: (error: DriveError | undefined) => void;
}

/** A disk that answers when it is told to, and memory that knows which page of which life was read to it. */
class ToldDisk {
  readonly pending: PendingLoad[] = [];
  readonly content = new Map<number, string>();
  readonly eraseCounts = new Map<number, number>();
  loadCount = 0;
  roomMadeCount = 0;
  pagesLoaded = 0;
  readonly cacheOffset = 4096;
  readonly cache: PageCache;

  constructor(cacheBytes: number, pageCount: number) {
    this.cache = new PageCache({
      media: {
        slab: 0,
        cacheOffset: this.cacheOffset,
        cacheSizeBytes: cacheBytes,
        load: (firstPage, count, offset, done) => {
          this.loadCount++;
          this.pagesLoaded += count;
          this.pending.push({ firstPage, pageCount: count, offset, done });
        },
      },
      pages: { pageSizeBytes: PAGE_BYTES, eraseCount: (page) => this.eraseCounts.get(page) ?? 0 },
      pageCount,
      roomMade: () => this.roomMadeCount++,
    });
  }

  bring(pages: Uint32Array): boolean {
    return this.cache.bring(pages, () => pages.toSorted());
  }

  name(page: number): string {
    return `${page}:${this.eraseCounts.get(page) ?? 0}`;
  }

  answer(load: PendingLoad, error?: DriveError): void {
    for (let i = 0; i < load.pageCount; i++) {
      this.content.set(load.offset + i * PAGE_BYTES, error ? 'nothing' : this.name(load.firstPage + i));
    }
    load.done(error);
  }

  answerAll(): void {
    for (const load of this.pending.splice(0)) this.answer(load);
  }
}

/** Brings pages, uses them and lets go, as a command alone on the drive. Returns how many were there already. */
function walk(disk: ToldDisk, pages: Uint32Array): number {
  const { cache } = disk;
  const before = cache.snapshot().hits;
  const step = 512;
  for (let at = 0; at < pages.length; at += step) {
    const part = pages.subarray(at, at + step);
    assert.ok(disk.bring(part), 'there is room for so many');
    const handles = Array.from(part, (page) => cache.acquire(page as Ppn));
    disk.answerAll();
    for (const [i, handle] of handles.entries()) {
      assert.equal(disk.content.get(cache.offset(handle)), disk.name(part[i]!));
      cache.release(handle, true);
    }
  }
  return cache.snapshot().hits - before;
}

const range = (first: number, count: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => first + i);

/** Hits of the last of many rounds over all layers of all sequences, as shares of their pages. */
function decode(disk: ToldDisk, layers: readonly (readonly Uint32Array[])[], rounds: number): number[] {
  const shares: number[] = [];
  for (let round = 0; round < rounds; round++) {
    shares.length = 0;
    // Tokens of sequences by turns, layer by layer.
    for (const sequence of layers) {
      let hits = 0;
      let count = 0;
      for (const layer of sequence) {
        hits += walk(disk, layer);
        count += layer.length;
      }
      shares.push(hits / count);
    }
  }
  return shares;
}

/** Layers whose pages lie one after another. */
const sequenceAt = (first: number, layerCount: number, layerPages: number): Uint32Array[] =>
  Array.from({ length: layerCount }, (_, layer) => range(first + layer * layerPages, layerPages));

for (const [cacheMib, kvMib] of [
  [256, 512],
  [512, 640],
  [128, 1024],
] as const) {
  test(`decoding over ${kvMib} MiB with a cache of ${cacheMib} MiB hits as often as any cache can`, (t) => {
    const kvPages = (kvMib * MIB) / PAGE_BYTES;
    const disk = new ToldDisk(cacheMib * MIB, kvPages);
    const [share] = decode(disk, [sequenceAt(0, 16, kvPages / 16)], 12) as [number];
    // What passes through takes its part of the cache.
    const passing = Math.min(24, cacheMib / 2);
    const optimum = cacheMib / kvMib;
    t.diagnostic(`hits ${share.toFixed(3)}, optimum ${optimum.toFixed(3)}`);
    assert.ok(share >= (0.97 * (cacheMib - passing)) / kvMib, `${share} of ${optimum}`);
    assert.ok(share <= optimum, 'nobody can do better');
  });
}

test('KV that fits is read once', () => {
  const disk = new ToldDisk(256 * MIB, 20_000);
  const [share] = decode(disk, [sequenceAt(0, 16, 800)], 3) as [number];
  assert.equal(share, 1);
  assert.equal(disk.pagesLoaded, 16 * 800);
});

test('sequences that are decoded by turns have like shares of the cache', (t) => {
  const disk = new ToldDisk(256 * MIB, 100_000);
  const pages = (160 * MIB) / PAGE_BYTES;
  const sequences = [0, 1, 2, 3].map((i) => sequenceAt(i * 20_000, 8, pages / 8));
  // The first has the cache for itself for a while.
  decode(disk, sequences.slice(0, 1), 4);
  const shares = decode(disk, sequences, 16);
  t.diagnostic(shares.map((share) => share.toFixed(3)).join(' '));
  const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  for (const share of shares) assert.ok(Math.abs(share - mean) < 0.25 * mean, `${share} of about ${mean}`);
  assert.ok(mean >= (0.9 * (256 - 24)) / 640);
});

test('a scan that comes once takes nothing from what is decoded, and what is decoded no more gives way', () => {
  const disk = new ToldDisk(128 * MIB, 100_000);
  const old = [sequenceAt(0, 8, 800)];
  const [before] = decode(disk, old, 4) as [number];
  assert.equal(before, 1);
  walk(disk, range(20_000, 30_000));
  assert.equal(decode(disk, old, 1)[0], 1, 'after a scan of 470 MiB');
  const [after] = decode(disk, [sequenceAt(60_000, 8, 800)], 12) as [number];
  assert.ok(after > 0.95, `another sequence of the same size: ${after}`);
});

test('the sequence that comes round more often has the cache', () => {
  const disk = new ToldDisk(128 * MIB, 100_000);
  const often = [sequenceAt(0, 8, 700)];
  const seldom = [sequenceAt(20_000, 8, 2000)];
  let share = 0;
  for (let round = 0; round < 6; round++) {
    decode(disk, seldom, 1);
    [share] = decode(disk, often, 6) as [number];
  }
  assert.equal(share, 1);
  decode(disk, seldom, 1);
  assert.ok(decode(disk, often, 1)[0]! > 0.95);
});

test('pages that lie side by side come by requests of up to a MiB', () => {
  const disk = new ToldDisk(64 * MIB, 10_000);
  const pages = range(LINE_BYTES / PAGE_BYTES, (4 * MIB) / PAGE_BYTES);
  walk(disk, pages.toReversed());
  assert.equal(disk.loadCount, 4);
  walk(disk, pages);
  assert.equal(disk.loadCount, 4);
});

test('what is read ahead takes no room from anybody, and counts as missed when it is wanted', () => {
  const disk = new ToldDisk(64 * MIB, 40_000);
  const { cache } = disk;
  const stays = range(0, 2500);
  walk(disk, stays);
  walk(disk, stays);
  const ahead = range(10_000, 3000);
  const read = cache.readAhead(ahead);
  assert.ok(read > 0 && read < ahead.length, `${read} pages`);
  assert.equal(
    disk.pending.reduce((sum, { pageCount }) => sum + pageCount, 0),
    read,
  );
  assert.equal(cache.readAhead(ahead.subarray(read)), 0, 'that was all there is room for');
  disk.answerAll();
  const before = cache.snapshot();
  assert.equal(walk(disk, ahead.subarray(0, read)), 0, 'no hits');
  assert.equal(cache.snapshot().misses - before.misses, read);
  assert.equal(cache.snapshot().loads, before.loads, 'but no loads either');
  assert.equal(walk(disk, stays), stays.length);
});

test('what an erase has put an end to is read anew', () => {
  const disk = new ToldDisk(64 * MIB, 1000);
  walk(disk, range(0, 100));
  disk.eraseCounts.set(7, 1);
  assert.equal(disk.cache.isReady(7 as Ppn), false);
  assert.equal(disk.cache.isReady(8 as Ppn), true);
  assert.equal(walk(disk, range(0, 100)), 99);
});

test('what could not be read is told of, and read anew the next time', () => {
  const disk = new ToldDisk(64 * MIB, 1000);
  const { cache } = disk;
  assert.ok(disk.bring(range(0, 4)));
  const handles = [0, 1, 2, 3].map((page) => cache.acquire(page as Ppn));
  let told = 0;
  assert.equal(
    cache.whenLoaded(handles, () => told++),
    false,
  );
  const bad = new DriveError('unrecoveredRead', 'bad sector');
  disk.answer(disk.pending.pop()!, bad);
  assert.equal(told, 0, 'it finds out which page it is');
  for (const load of disk.pending.splice(0)) disk.answer(load, load.firstPage === 2 ? bad : undefined);
  assert.equal(told, 1);
  assert.deepEqual(
    handles.map((handle) => cache.failedPage(handle)),
    [undefined, undefined, 2, undefined],
  );
  for (const handle of handles) cache.release(handle, false);
  assert.equal(walk(disk, range(0, 4)), 0);
});

/** What a job holds. */
interface Held {
  readonly pages: Uint32Array;
  readonly names: readonly string[];
  readonly handles: readonly number[];
  isLoaded: boolean;
}

function hold(disk: ToldDisk, random: Random): Held | undefined {
  const { cache } = disk;
  const pages = new Uint32Array(1 + random.below(200));
  const first = random.below(19_000);
  for (let i = 0; i < pages.length; i++) pages[i] = random.below(3) === 0 ? random.below(19_000) : first + i;
  if (!disk.bring(pages)) return undefined;
  const handles = Array.from(pages, (page) => cache.acquire(page as Ppn));
  const held: Held = { pages, names: Array.from(pages, (page) => disk.name(page)), handles, isLoaded: false };
  held.isLoaded = cache.whenLoaded(handles, () => {
    held.isLoaded = true;
  });
  return held;
}

test('random use: who is told that pages are there finds them there until it lets go', () => {
  const random = createRandom(5);
  const disk = new ToldDisk(64 * MIB, 20_000);
  const { cache } = disk;
  const held: Held[] = [];
  let refusals = 0;
  for (let step = 0; step < 10_000; step++) {
    const what = random.below(10);
    if (what < 3) {
      const job = hold(disk, random);
      if (job) held.push(job);
      else {
        assert.ok(held.length > 0 || disk.pending.length > 0, 'it is refused only while others hold pages');
        refusals++;
      }
    } else if (what < 7 && disk.pending.length > 0) {
      disk.answer(disk.pending.splice(random.below(disk.pending.length), 1)[0]!);
    } else if (held.length > 0) {
      const at = random.below(held.length);
      const job = held[at]!;
      if (!job.isLoaded) continue;
      held.splice(at, 1);
      for (const [i, handle] of job.handles.entries()) {
        assert.equal(disk.content.get(cache.offset(handle)), job.names[i]);
        cache.release(handle, random.below(20) > 0);
      }
    }
    const erased = random.below(20_000);
    const isPinned =
      held.some(({ pages }) => pages.includes(erased)) || disk.pending.some((load) => touches(load, erased));
    if (!isPinned) disk.eraseCounts.set(erased, step);
  }
  assert.ok(refusals > 0, 'it was full at times');
  const { frameCount, framesResident, evictions } = cache.snapshot();
  assert.ok(framesResident <= frameCount && evictions > 0);
});

const touches = ({ firstPage, pageCount }: PendingLoad, page: number): boolean =>
  page >= firstPage && page < firstPage + pageCount;

test('the index is a map', () => {
  const random = createRandom(6);
  const index = new LineIndex(300);
  const model = new Map<number, number>();
  for (let step = 0; step < 50_000; step++) {
    const page = random.below(4) === 0 ? 2 ** 32 - 2 - random.below(100) : random.below(400);
    if (random.below(2) === 0 && model.size < 300) {
      index.set(page, step);
      model.set(page, step);
    } else {
      index.delete(page);
      model.delete(page);
    }
    const other = random.below(400);
    assert.equal(index.get(other), model.get(other) ?? -1);
    assert.equal(index.size, model.size);
  }
});
