/** The scrub: that it sees everything, keeps out of the way, and moves what is about to be lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../daemon/base/clock.ts';
import type { Logger } from '../../daemon/base/logger.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { Ftl, FtlModules } from '../../daemon/ftl/ftl.ts';
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import { assertSound } from '../image/sound-drive.ts';
import { openWorkingDrive, work } from '../image/working-drive.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';
import { SteppedClock } from './stepped-clock.ts';

const errors = { ...idealChip.profile.errors, correctableBits: 40, readRetryCount: 2, retryErrorShare: 0.5 };
const chip: Chip = { ...idealChip, seed: 3, profile: { ...idealChip.profile, errors } };

/** Log lines of level error. */
function errorLog(): { logger: Logger; lines: string[] } {
  const lines: string[] = [];
  const quiet = (): void => undefined;
  const logger = {
    trace: quiet,
    debug: quiet,
    info: quiet,
    warn: quiet,
    error: (fields: object) => lines.push(JSON.stringify(fields)),
    child: () => logger,
  } as unknown as Logger;
  return { logger, lines };
}

interface Scrubbed extends OpenDrive {
  readonly drive: MemoryDriveStores;
  readonly clock: SteppedClock;
  readonly lines: readonly string[];
}

async function open(more: Partial<FtlModules> = {}, drive = new MemoryDriveStores({}, chip)): Promise<Scrubbed> {
  const clock = new SteppedClock();
  const { logger, lines } = errorLog();
  const opened = await openDrive(drive.stores(), createSeededRandom(4), { clock, logger, ...more });
  return { ...opened, drive, clock, lines };
}

/** 40 LBAs and 30 KV pages. */
async function fill({ ftl, keeper }: OpenDrive): Promise<void> {
  for (let lba = 0; lba < 40; lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  for (let key = 0; key < 30; key++) await keeper.put(key, 1);
}

/** A whole pass, as fast as it goes. */
async function scrub({ ftl }: OpenDrive, clock: SteppedClock): Promise<void> {
  const { passCount } = ftl.scrubber.snapshot();
  ftl.scrubber.passNow();
  for (let i = 0; ftl.scrubber.snapshot().passCount === passCount; i++) {
    assert.ok(i < 10_000, 'a pass ends');
    await clock.next();
  }
}

const ppnOf = ({ ftl, keeper }: OpenDrive, key: number): number => ftl.kv.map.get(keeper.holdings.get(key)!.lpn!);
const rot = ({ drive }: Scrubbed, at: number): void => void (drive.media.cells[at]! ^= 2);

test('a pass looks at every page in use, once, and at nothing else', async () => {
  const opened = await open();
  await fill(opened);
  for (let key = 0; key < 5; key++) opened.keeper.remove(key, 2);
  await scrub(opened, opened.clock);
  const { lastPass, badPages, passCount, isRunning } = opened.ftl.scrubber.snapshot();
  assert.deepEqual([lastPass!.pagesChecked, lastPass!.pagesBad, lastPass!.pagesRefreshed], [10 + 25, 0, 0]);
  assert.deepEqual([badPages, passCount, isRunning], [[], 1, false]);
  for (let key = 5; key < 30; key++) assert.ok(opened.ftl.kv.isVerified(ppnOf(opened, key) as never), `key ${key}`);
  assert.equal(opened.clock.timerCount, 0, 'without an interval it rests');
  await opened.ftl.close();
});

test('pages that rot are found, each is logged once with its owner, and forgotten when they are gone', async () => {
  const opened = await open();
  const { ftl, keeper, drive, clock, lines } = opened;
  await fill(opened);
  await scrub(opened, clock);
  rot(opened, ftl.blocks.map.get(7) * 4096 + 11);
  rot(opened, ppnOf(opened, 20) * 16_384);
  drive.media.oob[ppnOf(opened, 21) * 256 + 20]! ^= 1;
  for (let pass = 0; pass < 3; pass++) {
    await scrub(opened, clock);
    const { lastPass, badPages } = ftl.scrubber.snapshot();
    assert.deepEqual([lastPass!.pagesChecked, lastPass!.pagesBad], [40, 3]);
    const details = badPages.map(({ detail }) => detail).join('\n');
    assert.match(details, /fails its checksum; it held LBA 7$/m);
    assert.match(details, /it held group 20 of K, head 0, layer 0, sequence 1$/m);
    assert.match(details, new RegExp(`physical page ${ppnOf(opened, 21)} .*its out-of-band entry is damaged`));
    assert.equal(lines.length, 3, lines.join('\n'));
  }
  await ftl.blocks.write(4, 8, new Uint8Array(8 * 4096), false);
  keeper.remove(20, 9);
  keeper.remove(21, 9);
  assert.deepEqual(ftl.scrubber.snapshot().badPages, []);
  await scrub(opened, clock);
  assert.equal(ftl.scrubber.snapshot().lastPass!.pagesBad, 0);
  await ftl.close();
});

test('a pass takes its interval, a few pages at a time, and the next one follows', async () => {
  const opened = await open({ scrub: { intervalSeconds: 900 } });
  await fill(opened);
  const { ftl, clock } = opened;
  const begins: number[] = [];
  let before = ftl.scrubber.snapshot();
  while (before.passCount < 3) {
    const reads = ftl.flash.array.counters.reads.scrub;
    await clock.next();
    assert.ok(ftl.flash.array.counters.reads.scrub - reads <= 8, 'a step is eight pages');
    const now = ftl.scrubber.snapshot();
    if (now.isRunning && !before.isRunning) begins.push(clock.nowNs() / 1e9);
    if (now.passCount > before.passCount) assert.equal(now.lastPass!.pagesChecked, 40);
    before = now;
  }
  const [second, third] = begins;
  assert.ok(Math.abs(third! - second! - 900) < 1, `passes begin at ${begins.join(' s, ')} s`);
  assert.ok(before.lastPass!.durationSeconds > 200, `a pass took ${before.lastPass!.durationSeconds} s`);
  await ftl.close();
  assert.equal(clock.timerCount, 0);
});

test('steps make way for hosts, up to a second', async () => {
  const opened = await open({ scrub: { intervalSeconds: 60 } });
  await fill(opened);
  const { ftl, clock } = opened;
  while (!ftl.scrubber.snapshot().isRunning) await clock.next();
  let waits = 0;
  const begin = ftl.flash.array.counters.reads.scrub;
  await lbaVersion(ftl, 3);
  while (ftl.flash.array.counters.reads.scrub === begin) {
    const elapsedMs = await clock.next();
    await lbaVersion(ftl, 3);
    if (elapsedMs === 20) waits++;
  }
  assert.ok(waits >= 49 && waits <= 50, `${waits} waits of 20 ms`);
  const idle = ftl.flash.array.counters.reads.scrub;
  await clock.next();
  await clock.next();
  assert.ok(ftl.flash.array.counters.reads.scrub > idle, 'without hosts it goes on');
  await ftl.close();
});

test('a pass that is asked for while a step is under way begins after it, and looks at everything', async () => {
  const opened = await open({ scrub: { intervalSeconds: 60 } });
  await fill(opened);
  const { ftl, clock, drive } = opened;
  const { media } = drive;
  const readCells = media.readCells.bind(media);
  let goOn = (): void => undefined;
  const gate = new Promise<void>((resolve) => (goOn = resolve));
  media.readCells = async (...args) => {
    await gate;
    return readCells(...args);
  };
  const { reads } = ftl.flash.array.counters;
  while (reads.scrub === 0) await clock.next();
  ftl.scrubber.passNow();
  assert.equal(ftl.scrubber.snapshot().isPaced, false);
  await clock.next();
  assert.equal(ftl.scrubber.snapshot().pass.pagesChecked, 0, 'the step of the other pass is still under way');
  goOn();
  media.readCells = readCells;
  await new Promise((resolve) => setImmediate(resolve));
  const { passCount } = ftl.scrubber.snapshot();
  for (let i = 0; ftl.scrubber.snapshot().passCount === passCount; i++) {
    assert.ok(i < 100, 'it ends');
    assert.ok((await clock.next()) < 1000, 'it goes at once');
  }
  const { lastPass, totals } = ftl.scrubber.snapshot();
  assert.equal(lastPass!.pagesChecked, 40);
  assert.ok(totals.pagesChecked > 40, 'the other step counts for the other pass');
  await ftl.close();
});

test('pages near the end of the error budget are programmed anew, no more than a few of a pass', async () => {
  const opened = await open();
  const { ftl, keeper, clock } = opened;
  await fill(opened);
  const weak = [ppnOf(opened, 11), ppnOf(opened, 12), Math.floor(ftl.blocks.map.get(13) / 4)];
  for (const ppn of weak) ftl.flash.array.errors.inject(ppn, ppn === weak[0] ? 37 : 60);
  ftl.flash.array.errors.inject(ppnOf(opened, 14), 36);
  await ftl.blocks.write(12, 1, lbaContent(12, 2), false);
  await scrub(opened, clock);
  assert.equal(ftl.scrubber.snapshot().lastPass!.pagesRefreshed, 3);
  assert.ok(!weak.includes(ppnOf(opened, 11)) && !weak.includes(ppnOf(opened, 12)), 'they lie elsewhere');
  assert.notEqual(Math.floor(ftl.blocks.map.get(13) / 4), weak[2]);
  assert.equal(ftl.flash.array.errors.errorsOf(ppnOf(opened, 11)).worstBits, 0);
  for (let lba = 0; lba < 40; lba++) assert.equal(await lbaVersion(ftl, lba), lba === 12 ? 2 : 1, `LBA ${lba}`);
  for (let key = 0; key < 30; key++) assert.equal(await keeper.check(key), 1);
  const { scrubPagesProgrammed, hostKvPagesProgrammed } = ftl.snapshot().counters;
  assert.deepEqual([scrubPagesProgrammed, hostKvPagesProgrammed], [3, 30], "not counted as hosts'");
  for (let key = 0; key < 30; key++) ftl.flash.array.errors.inject(ppnOf(opened, key), 50);
  await scrub(opened, clock);
  assert.equal(ftl.scrubber.snapshot().lastPass!.pagesRefreshed, 9, '8, and 1 of 64 pages');
  await ftl.close();
});

test("what was erased and has become the other namespace's while it waited for room is left alone", async () => {
  const opened = await open();
  const { ftl, keeper, clock, lines } = opened;
  await fill(opened);
  const { superblocks } = ftl.flash;
  const ppn = ppnOf(opened, 11);
  const superblock = Math.floor(ppn / ftl.geometry.pagesPerSuperblock);
  for (let key = 30; superblocks.state(superblock) !== 'full'; key++) await keeper.put(key, 1);
  ftl.flash.array.errors.inject(ppn, 37);
  const space = ftl.spaces.kv;
  const reserve = space.reserve.bind(space);
  space.reserve = async (pageCount) => {
    space.reserve = reserve;
    for (const key of keeper.holdings.keys()) keeper.remove(key, 2);
    const isTaken = () => superblocks.pool(superblock) === 'block' && superblocks.hasValid(ppn);
    for (let version = 2; !isTaken(); version++) {
      for (let lba = 0; lba < 200 && !isTaken(); lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, version), false);
      await ftl.durability.flush();
    }
    return reserve(pageCount);
  };
  await scrub(opened, clock);
  assert.equal(space.reserve, reserve, 'the page was to be renewed');
  assert.deepEqual([ftl.scrubber.snapshot().totals.pagesRefreshed, lines], [0, []]);
  await ftl.close();
});

test('where a pass was is kept over a restart', async () => {
  const drive = new MemoryDriveStores({}, chip);
  const first = await open({}, drive);
  await fill(first);
  first.ftl.scrubber.passNow();
  for (let i = 0; i < 3; i++) await first.clock.next();
  const { superblock } = first.ftl.scrubber.position;
  const checked = first.ftl.scrubber.snapshot().pass.pagesChecked;
  assert.ok(superblock > 0 && checked > 0 && checked < 40);
  await first.ftl.close();
  const second = await open({}, drive);
  assert.equal(second.ftl.scrubber.position.superblock, superblock);
  await scrub(second, second.clock);
  assert.equal(second.ftl.scrubber.snapshot().lastPass!.pagesChecked, 40, 'and it goes all the way round');
  await second.ftl.close();
});

/** Passes over and over while a drive works. */
function scrubAllTheTime(ftl: Ftl): { stop(): void } {
  let isStopped = false;
  const again = (): void => {
    if (isStopped) return;
    if (!ftl.scrubber.snapshot().isRunning) ftl.scrubber.passNow();
    setTimeout(again, 1);
  };
  again();
  return { stop: () => void (isStopped = true) };
}

test('it races with writes, forks, reclaims, garbage collection and power cuts, and nothing comes to harm', async () => {
  const request = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 * 2 ** 20, pageSizeBytes: 8192, channelCount: 2 };
  // Two pages of three are weak from the start: it moves as many as it may.
  const weakErrors = { ...errors, rawBitErrorRateFresh: 3e-3, rawBitErrorRateRated: 3e-3 };
  const weakChip = { ...chip, profile: { ...chip.profile, errors: weakErrors } };
  let refreshed = 0;
  for (let seed = 1; seed <= 3; seed++) {
    const random = createSeededRandom(seed);
    let drive = new MemoryDriveStores(request, weakChip);
    for (let life = 0; life < 4; life++) {
      const opened = await openWorkingDrive(drive.stores(), random, { clock: systemClock });
      const { stop } = scrubAllTheTime(opened.ftl);
      for (let round = 0; round < 12; round++) {
        await work(opened, random, 12);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      stop();
      const { totals, badPages } = opened.ftl.scrubber.snapshot();
      assert.ok(totals.pagesChecked > 50, `${totals.pagesChecked} pages`);
      assert.deepEqual([totals.pagesBad, badPages], [0, []]);
      refreshed += totals.pagesRefreshed;
      const left = life === 2 ? drive : drive.afterPowerCut(random);
      await opened.end(life === 2 ? 'clean' : 'killed');
      await assertSound(left.stores(), `seed ${seed}, life ${life}`);
      drive = left;
    }
  }
  assert.ok(refreshed > 20, `${refreshed} pages were programmed anew`);
});
