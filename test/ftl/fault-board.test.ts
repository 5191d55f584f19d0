/** Faults on request: what becomes of pages and operations, and of who reads them meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import type { FaultRequest, FaultSnapshot } from '../../daemon/ftl/fault-board.ts';
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import { MemoryDriveStores } from './memory-stores.ts';
import { lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const errors = { ...idealChip.profile.errors, correctableBits: 40, readRetryCount: 2, retryErrorShare: 0.5 };
const chip: Chip = { ...idealChip, seed: 9, spareBlocksPerUnit: 8, profile: { ...idealChip.profile, errors } };
const unrecovered = { code: 'unrecoveredRead' };

interface Faulty extends OpenDrive {
  readonly drive: MemoryDriveStores;
  /** Of key 5. */
  readonly ppn: number;
}

/** LBAs 0 to 7 and key 5, all read once. */
async function openFaulty(): Promise<Faulty> {
  const drive = new MemoryDriveStores({}, chip);
  const { ftl, keeper } = await openDrive(drive.stores(), createSeededRandom(2));
  for (let lba = 0; lba < 8; lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  await keeper.put(5, 1);
  for (let lba = 0; lba < 8; lba++) assert.equal(await lbaVersion(ftl, lba), 1);
  assert.equal(await keeper.check(5), 1);
  return { drive, ftl, keeper, ppn: ftl.kv.map.get(keeper.holdings.get(5)!.lpn!) };
}

const bitErrors = (ppn: number | undefined, bits: number, more: Partial<FaultRequest> = {}): FaultRequest => ({
  kind: 'bit-errors',
  place: ppn === undefined ? undefined : { ppn },
  count: 1,
  bits,
  ...more,
});
/** Lets what the board does in the background happen. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

async function inject({ ftl }: Faulty, request: FaultRequest): Promise<FaultSnapshot> {
  const { id } = ftl.faults.add(request);
  await settled();
  return ftl.faults.list().find((fault) => fault.id === id)!;
}

test('bit errors within the budget are corrected, after retries too, and counted; data is right', async () => {
  const opened = await openFaulty();
  const { ftl, keeper, ppn } = opened;
  for (const [bits, state, counters] of [
    [40, 'corrected', { corrected: 1, retried: 0, retryReads: 0, uncorrectable: 0 }],
    [50, 'retried', { corrected: 2, retried: 1, retryReads: 1, uncorrectable: 0 }],
  ] as const) {
    const fault = await inject(opened, bitErrors(ppn, bits));
    assert.deepEqual(fault.pages, [{ ppn, state }]);
    assert.equal(fault.remainingCount, 0);
    assert.ok(!ftl.kv.isVerified(ppn as never), 'it is looked at again');
    assert.equal(await keeper.check(5), 1);
    assert.deepEqual(ftl.flash.array.errors.counters, counters);
    await ftl.faults.remove(fault.id);
  }
  assert.equal(ftl.snapshot().counters.unrecoveredReads, 0);
  await ftl.close();
});

test('bit errors beyond it are in the cells: the error names page, owner and why, until the fault is removed', async () => {
  const opened = await openFaulty();
  const { ftl, keeper, ppn, drive } = opened;
  const whole = drive.media.cells.slice();
  const fault = await inject(opened, bitErrors(ppn, 200));
  assert.deepEqual(fault.pages, [{ ppn, state: 'uncorrectable' }]);
  const wrong = drive.media.cells.reduce((count, byte, i) => count + (byte === whole[i] ? 0 : 1), 0);
  assert.ok(wrong > 100 && wrong <= 200, `${wrong} bytes`);
  const why =
    /fails its checksum \(200 raw bit errors in a codeword, of which 40 can be corrected after 2 read retries\)/;
  const owner = /; it held group 5 of K, head 0, layer 0, sequence 1$/;
  for (const message of [why, owner]) await assert.rejects(keeper.check(5), { ...unrecovered, result: ppn, message });
  assert.equal(ftl.snapshot().counters.unrecoveredReads, 2);
  assert.equal(ftl.flash.array.errors.counters.uncorrectable, 2);
  assert.equal(await ftl.faults.remove(fault.id), true);
  assert.equal(await ftl.faults.remove(fault.id), false);
  assert.equal(await keeper.check(5), 1);
  assert.equal(Buffer.compare(drive.media.cells, whole), 0);
  await ftl.close();
});

test('bit errors of an LBA hit its slot and no other of the page', async () => {
  const opened = await openFaulty();
  const { ftl } = opened;
  const slot = ftl.blocks.map.get(2);
  await inject(opened, bitErrors(Math.floor(slot / 4), 300, { slot: slot % 4 }));
  for (const lba of [0, 1, 3]) assert.equal(await lbaVersion(ftl, lba), 1);
  await assert.rejects(lbaVersion(ftl, 2), { ...unrecovered, message: /LBA 2$/ });
  await ftl.close();
});

test('cells change only when nobody reads the page any more', async () => {
  const opened = await openFaulty();
  const { ftl, keeper, ppn, drive } = opened;
  const { lpn } = keeper.holdings.get(5)!;
  const whole = drive.media.cells.slice();
  const pinned = ftl.kv.pin(lpn as Lpn);
  const fault = await inject(opened, bitErrors(ppn, 200));
  assert.deepEqual([fault.remainingCount, fault.pages[0]!.state], [1, 'waiting']);
  assert.equal(Buffer.compare(drive.media.cells, whole), 0);
  assert.ok(ftl.kv.isVerified(pinned), 'who reads it may go on trusting it');
  ftl.kv.unpin(pinned);
  await settled();
  assert.equal(ftl.faults.list()[0]!.pages[0]!.state, 'uncorrectable');
  await assert.rejects(keeper.check(5), unrecovered);
  // Removed while it waits: it never strikes.
  await ftl.faults.remove(fault.id);
  const again = ftl.kv.pin(lpn as Lpn);
  const waiting = ftl.faults.add(bitErrors(ppn, 200));
  await settled();
  const removed = ftl.faults.remove(waiting.id);
  ftl.kv.unpin(again);
  await removed;
  await settled();
  assert.equal(await keeper.check(5), 1);
  assert.equal(Buffer.compare(drive.media.cells, whole), 0);
  await ftl.close();
});

test('pages of a superblock or a unit, as many as asked for; what is programmed next; an erase ends them', async () => {
  const opened = await openFaulty();
  const { ftl, keeper } = opened;
  for (let key = 10; key < 30; key++) await keeper.put(key, 1, 0);
  const superblock = Math.floor(ftl.kv.map.get(keeper.holdings.get(10)!.lpn!) / ftl.geometry.pagesPerSuperblock);
  const some = await inject(opened, bitErrors(undefined, 1, { place: { superblock, unit: 1 }, count: 2 }));
  assert.equal(some.pages.length, 2);
  for (const { ppn, state } of some.pages) {
    assert.deepEqual([ppn % ftl.geometry.unitCount, state], [1, 'corrected']);
  }
  const next = ftl.faults.add(bitErrors(undefined, 500, { count: 2 }));
  assert.equal(next.remainingCount, 2);
  for (let key = 40; key < 44; key++) await keeper.put(key, 1);
  const results = await Promise.allSettled([40, 41, 42, 43].map((key) => keeper.check(key)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected', 'fulfilled', 'fulfilled'],
  );
  assert.equal(ftl.faults.list()[1]!.remainingCount, 0);
  // Two of them can't be read, so their superblock stays; the others come and go.
  for (let round = 0; round < 12; round++) for (let key = 10; key < 200; key++) await keeper.put(key, 2 + round);
  assert.ok(ftl.faults.list()[0]!.pages.every(({ state }) => state === 'erased'));
  await ftl.close();
});

test('operations that are armed to fail do, and the drive goes on', async () => {
  const { ftl, keeper } = await openFaulty();
  const operation = (kind: FaultRequest['kind'], place: FaultRequest['place'], count: number): FaultSnapshot =>
    ftl.faults.add({ kind, place, count, bits: 0 });
  operation('program-failure', undefined, 3);
  for (let key = 50; key < 60; key++) await keeper.put(key, 1);
  for (let key = 50; key < 60; key++) assert.equal(await keeper.check(key), 1);
  assert.equal([...ftl.flash.array.blocks.badBlocks()].length, 3);
  operation('erase-failure', { unit: 0 }, 1);
  for (let round = 2; round < 6; round++) for (let key = 50; key < 250; key++) await keeper.put(key, round);
  const reasons = [...ftl.flash.array.blocks.badBlocks()].map(({ reason }) => reason);
  assert.deepEqual(reasons.sort(), ['erase', 'program', 'program', 'program']);
  const silent = operation('read-failure', { ppn: ftl.kv.map.get(keeper.holdings.get(60)!.lpn!) }, 2);
  await assert.rejects(keeper.check(60), { ...unrecovered, message: /cannot be read \(.*the die does not answer\)/ });
  await ftl.faults.remove(silent.id);
  assert.equal(await keeper.check(60), 5);
  assert.equal(
    ftl.faults.list().every(({ remainingCount }) => remainingCount === 0),
    true,
  );
  await ftl.close();
});

test('a place that is not there, or holds nothing, is refused', async () => {
  const { ftl } = await openFaulty();
  for (const [place, message] of [
    [{ ppn: 1e6 }, /page 1000000; allowed: 0 to \d+/],
    [{ superblock: 9999 }, /superblock 9999; allowed/],
    [{ unit: 77 }, /unit 77; allowed: 0 to 1/],
    [{ ppn: ftl.geometry.pageCount - 1 }, /physical page \d+ \(.*\) has no page in use; allowed/],
  ] as const) {
    assert.throws(() => ftl.faults.add(bitErrors(undefined, 1, { place })), { code: 'invalidField', message });
  }
  assert.deepEqual(ftl.faults.list(), []);
  await ftl.close();
});
