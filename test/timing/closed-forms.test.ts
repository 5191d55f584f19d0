import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { latencyOf, PAGE_BYTES, pageOf, type SmallDevice, smallModel } from './model.ts';

const TR_NS = 40_000;
const TPROG_NS = 200_000;

/** Bytes per second of so many pages read by one job, round robin over all units. */
function readRate(options: SmallDevice, pageCount: number): number {
  const model = smallModel(options);
  const durationNs = latencyOf(model, 0, (job) => {
    for (let page = 0; page < pageCount; page++) job.read(page, PAGE_BYTES);
  });
  return (pageCount * PAGE_BYTES * 1e9) / durationNs;
}

function writeRate(options: SmallDevice, pageCount: number): number {
  const model = smallModel(options);
  const durationNs = latencyOf(model, 0, (job) => {
    for (let page = 0; page < pageCount; page++) job.programPosted(page);
  });
  return (pageCount * PAGE_BYTES * 1e9) / durationNs;
}

const near = (actual: number, expected: number, tolerance: number, what: string): void =>
  assert.ok(Math.abs(actual / expected - 1) <= tolerance, `${what}: ${actual}, expected ${expected}`);

test('a read of one page takes tR, the command and the transfer; a program the transfer and tPROG', () => {
  const random = createSeededRandom(3);
  for (let i = 0; i < 100; i++) {
    const channelBytesPerSecond = 100e6 + (random.nextUint32() % 2_000_000_000);
    const commandNs = random.nextUint32() % 1000;
    const bytes = 1 + (random.nextUint32() % PAGE_BYTES);
    const arrivalNs = random.nextUint32();
    const options = { channelBytesPerSecond, commandNs };
    const transferNs = (count: number): number => Math.ceil((count / channelBytesPerSecond) * 1e9);
    const readNs = latencyOf(smallModel(options), arrivalNs, (job) => job.read(0, bytes));
    assert.equal(readNs, commandNs + TR_NS + transferNs(bytes));
    const programNs = latencyOf(smallModel(options), arrivalNs, (job) => job.programPosted(0));
    assert.equal(programNs, commandNs + transferNs(PAGE_BYTES) + TPROG_NS);
  }
});

test('times follow the page type, the size of a short read and the number of attempts', () => {
  const flash = {
    readNs: [10_000, 20_000, 30_000],
    shortRead: { bytesMax: 1024, readNs: [1000, 2000, 3000] },
    programNs: [100_000, 200_000, 300_000],
  };
  const model = smallModel({ flash });
  for (let page = 0; page < 7; page++) {
    const type = page % 3;
    const at = page * 10_000_000;
    assert.equal(
      latencyOf(model, at, (job) => job.read(page, 1025)),
      flash.readNs[type],
    );
    assert.equal(
      latencyOf(model, at + 1e6, (job) => job.read(page, 1024)),
      flash.shortRead.readNs[type],
    );
    assert.equal(
      latencyOf(model, at + 2e6, (job) => job.read(page, PAGE_BYTES, 3)),
      3 * flash.readNs[type]!,
    );
    assert.equal(
      latencyOf(model, at + 3e6, (job) => job.programPosted(page)),
      flash.programNs[type],
    );
  }
});

test('n channels with dies enough saturate at n times their rate', () => {
  for (const channelCount of [1, 2, 4, 8, 16]) {
    const options = { channelBytesPerSecond: 800e6, shape: { channelCount, diesPerChannel: 16 } };
    near(readRate(options, 20_000), channelCount * 800e6, 0.01, `${channelCount} channels, reads`);
    const fast = { ...options, flash: { programNs: [50_000] } };
    near(writeRate(fast, 20_000), channelCount * 800e6, 0.01, `${channelCount} channels, programs`);
  }
});

test('one die: its register overlaps tR and transfer with cache reads, and does not without', () => {
  const transferNs = 80_000;
  const channelBytesPerSecond = (PAGE_BYTES / transferNs) * 1e9;
  const rate = (nanoseconds: number): number => (PAGE_BYTES / nanoseconds) * 1e9;
  for (const [readNs, cacheRead, expectedNs] of [
    [40_000, true, 80_000],
    [40_000, false, 120_000],
    [100_000, true, 100_000],
    [100_000, false, 180_000],
  ] as const) {
    const flash = { readNs: [readNs], cacheRead };
    near(readRate({ flash, channelBytesPerSecond }, 1000), rate(expectedNs), 0.01, `tR ${readNs} ${cacheRead}`);
  }
  for (const [cacheProgram, expectedNs] of [
    [true, 200_000],
    [false, 280_000],
  ] as const) {
    const flash = { cacheProgram };
    near(writeRate({ flash, channelBytesPerSecond }, 1000), rate(expectedNs), 0.01, `cache program ${cacheProgram}`);
  }
});

test('planes: one at a time, together on one row, or independent', () => {
  const shape = { planesPerDie: 4 };
  for (const [planes, reads, programs] of [
    ['single', 8 * TR_NS, 8 * TPROG_NS],
    ['together', 2 * TR_NS, 2 * TPROG_NS],
    ['independent', 2 * TR_NS, 2 * TPROG_NS],
  ] as const) {
    const options = { shape, flash: { planes } };
    const rows = (work: (page: number) => void): void => {
      for (let page = 0; page < 8; page++) work(page);
    };
    assert.equal(
      latencyOf(smallModel(options), 0, (job) => rows((page) => job.read(page, PAGE_BYTES))),
      reads,
      planes,
    );
    assert.equal(
      latencyOf(smallModel(options), 0, (job) => rows((page) => job.program(page))),
      programs,
      planes,
    );
  }
  // Planes of different rows: only independent ones work at once.
  const scattered = [0, 5, 10, 15];
  for (const [planes, expected] of [
    ['together', 4 * TR_NS],
    ['independent', TR_NS],
  ] as const) {
    const model = smallModel({ shape, flash: { planes } });
    const readAll = latencyOf(model, 0, (job) => scattered.forEach((page) => job.read(page, PAGE_BYTES)));
    assert.equal(readAll, expected, planes);
  }
});

test('programs of different jobs share tPROG where they wait for the die together, and not where one has begun', () => {
  const model = smallModel({ shape: { planesPerDie: 2 }, flash: { planes: 'together' } });
  const program = (arrivalNs: number, page: number): number =>
    arrivalNs + latencyOf(model, arrivalNs, (job) => job.program(page));
  assert.equal(program(0, 0), 200_000);
  assert.equal(program(10, 1), 400_000, 'the first has begun');
  assert.equal(program(20, 2), 600_000);
  assert.equal(program(30, 3), 600_000, 'it waits anyway');
  assert.equal(program(40, 4), 800_000);
});

test('the link and the compute units bound what flash could do, and units share the work', () => {
  const options = { shape: { channelCount: 8, diesPerChannel: 8 }, linkBytesPerSecond: 1e9 };
  const model = smallModel(options);
  const bytes = 4096 * PAGE_BYTES;
  const out = latencyOf(model, 0, (job) => {
    for (let page = 0; page < 4096; page++) job.readToHost(page, PAGE_BYTES);
  });
  near((bytes / out) * 1e9, 1e9, 0.02, 'link out');
  for (const unitCount of [1, 2, 4]) {
    for (const [compute, rate] of [
      [{ bytesPerSecond: 1e9 }, 1e9],
      [{ flopsPerSecond: 4e9 }, 1e9],
    ] as const) {
      const device = smallModel({ ...options, compute: { unitCount, ...compute } });
      const attended = latencyOf(device, 0, (job) => {
        for (let page = 0; page < 4096; page++) job.readToCompute(page, PAGE_BYTES, 4 * PAGE_BYTES);
      });
      near((bytes / attended) * 1e9, unitCount * rate, 0.02, `${unitCount} units`);
    }
  }
  const heads = smallModel({ compute: { unitCount: 1, headNs: 700 } });
  assert.equal(
    latencyOf(heads, 0, (job) => job.finishHeads(3)),
    2100,
  );
});

test('a write is over when the write buffer has it, and waits for room there', () => {
  const model = smallModel({ pagesPerPlane: 2 });
  const write = (arrivalNs: number, page: number): number =>
    latencyOf(model, arrivalNs, (job) => job.programPosted(page));
  assert.deepEqual(
    [0, 1, 2, 3].map((page) => write(0, page)),
    [0, 0, TPROG_NS, 2 * TPROG_NS],
  );
  assert.equal(write(5 * TPROG_NS, 4), 0, 'all of it was programmed meanwhile');
  // What is not programmed yet is read from the buffer.
  assert.equal(
    latencyOf(model, 5 * TPROG_NS, (job) => job.read(4, PAGE_BYTES)),
    0,
  );
  assert.equal(
    latencyOf(model, 7 * TPROG_NS, (job) => job.read(4, PAGE_BYTES)),
    TR_NS,
  );
});

test('a flush waits for the write buffer unless that is protected', () => {
  for (const isProtected of [true, false]) {
    const model = smallModel({ pagesPerPlane: 2, isProtected });
    latencyOf(model, 0, (job) => job.programPosted(0));
    const flushNs = latencyOf(model, 1000, (job) => job.flush());
    assert.equal(flushNs, isProtected ? 0 : TPROG_NS - 1000);
  }
});

test('join puts steps after one another; without it they overlap', () => {
  const model = smallModel({ shape: { channelCount: 2 } });
  const copy = latencyOf(model, 0, (job) => {
    job.read(pageOf(model, 0, 0), PAGE_BYTES);
    job.join();
    job.program(pageOf(model, 1, 0));
  });
  assert.equal(copy, TR_NS + TPROG_NS);
  const both = latencyOf(model, 1e9, (job) => {
    job.read(pageOf(model, 0, 0), PAGE_BYTES);
    job.program(pageOf(model, 1, 0));
  });
  assert.equal(both, TPROG_NS);
});

test('busy time is counted once for each resource', () => {
  const model = smallModel({ shape: { channelCount: 2, planesPerDie: 2 }, flash: { planes: 'together' } });
  latencyOf(model, 0, (job) => {
    for (let page = 0; page < 4; page++) job.read(page, PAGE_BYTES);
    for (let page = 4; page < 8; page++) job.program(page);
    for (let page = 4; page < 8; page++) job.erase(page);
  });
  const { dies } = model.usage();
  assert.deepEqual(dies, { count: 2, busyNs: 2 * (TR_NS + TPROG_NS + 2_000_000) });
});
