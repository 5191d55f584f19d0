import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  backgroundLabel,
  commandLabel,
  deviceTraceHeader,
  deviceTraceRecord,
  labelText,
  traceKinds,
} from '../../spec/device-trace.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { profileOf } from '../../daemon/profiles/profiles.ts';
import { Device } from '../../daemon/timing/device.ts';
import type { ReusableJob } from '../../daemon/timing/device-job.ts';
import { readTraceHeader, type ReplayedJob, TraceReplay } from '../../daemon/timing/replay.ts';
import { TraceFile } from '../../daemon/timing/trace-file.ts';
import { TraceWriter } from '../../daemon/timing/trace-writer.ts';

const shape = { pageSizeBytes: 16_384, pagesPerBlock: 64, channelCount: 4, diesPerChannel: 2, planesPerDie: 2 };
const ATTEND = commandLabel('kv', 0xc1);
const description = (profile: string) => ({ shape, profile, serial: 'AD1234', startedAtMs: 1_700_000_000_000 });

/** Jobs of all kinds, several of them under way at once; returns their latencies in the order of their ends. */
function randomHistory(device: Device, random: Random, jobCount: number): number[] {
  const latencies: number[] = [];
  const open: ReusableJob[] = [];
  const below = (count: number): number => random.nextUint32() % count;
  let nowNs = 0;
  for (let begun = 0; begun < jobCount || open.length > 0; ) {
    const choice = below(10);
    const job = open[below(Math.max(1, open.length))];
    if ((choice === 0 || job === undefined) && begun < jobCount) {
      const next = device.createJob();
      nowNs += below(200_000) + 0.25;
      next.begin(ATTEND, nowNs);
      open.push(next);
      begun++;
    } else if (choice === 1 && job !== undefined) {
      job.end();
      latencies.push(job.latencyNs);
      open.splice(open.indexOf(job), 1);
    } else if (job !== undefined) randomOperation(job, below);
  }
  return latencies;
}

function randomOperation(job: ReusableJob, below: (count: number) => number): void {
  const ppn = below(2 ** 32 - 1);
  const bytes = 1 + below(shape.pageSizeBytes);
  const operations: (() => void)[] = [
    () => job.firmware(['other', 'read', 'write', 'attend'][below(4)] as 'other', bytes),
    () => job.hostToDevice(bytes * 100),
    () => job.deviceToHost(bytes * 100),
    () => job.read(ppn, bytes, 1 + below(3)),
    () => job.readToHost(ppn, bytes),
    () => job.readToCompute(ppn, bytes, below(2 ** 32) * 1000),
    () => job.programPosted(ppn),
    () => job.program(ppn),
    () => job.erase(ppn),
    () => job.flush(),
    () => job.compute(bytes, bytes * 3),
    () => job.finishHeads(below(64)),
    () => job.join(),
  ];
  operations[below(operations.length)]!();
}

function record(profile: string, seed: number, jobCount: number): { trace: Buffer; latencies: number[] } {
  const pieces: Buffer[] = [];
  const writer = new TraceWriter(description(profile), (bytes) => pieces.push(Buffer.from(bytes)));
  const device = new Device({ timing: profileOf(profile).timing!, shape }, { clock: systemClock, observer: writer });
  const latencies = randomHistory(device, createSeededRandom(seed), jobCount);
  writer.close();
  return { trace: Buffer.concat(pieces), latencies };
}

function replay(trace: Uint8Array, pieceBytes: number, profile?: string): { jobs: ReplayedJob[]; replay: TraceReplay } {
  const jobs: ReplayedJob[] = [];
  const header = readTraceHeader(trace);
  const replayed = new TraceReplay(header, profile, (job) => jobs.push(job));
  for (let at = deviceTraceHeader.sizeBytes; at < trace.length; at += pieceBytes) {
    replayed.push(trace.subarray(at, at + pieceBytes));
  }
  return { jobs, replay: replayed };
}

test('a recorded history gives the same latencies again, to the nanosecond, for every profile', () => {
  for (const [seed, profile] of [
    'nvmevirt-970-pro',
    'femu-tlc',
    'instattention',
    'smartssd',
    'micron-9550',
  ].entries()) {
    const { trace, latencies } = record(profile, seed, 3000);
    assert.ok(latencies.some((latency) => latency > 1e6));
    const { jobs, replay: replayed } = replay(trace, 1000 + seed);
    assert.deepEqual(
      jobs.map(({ latencyNs }) => latencyNs),
      latencies,
    );
    assert.deepEqual(
      jobs.map(({ recordedLatencyNs }) => recordedLatencyNs),
      latencies,
    );
    assert.ok(replayed.isComplete && replayed.openCount === 0);
    assert.ok(jobs.every(({ label }) => label === ATTEND));
  }
});

test('another profile gives other latencies for the same jobs', () => {
  const { trace, latencies } = record('femu-tlc', 1, 500);
  const { jobs } = replay(trace, trace.length, 'micron-9550');
  assert.deepEqual(
    jobs.map(({ recordedLatencyNs }) => recordedLatencyNs),
    latencies,
  );
  assert.notDeepEqual(
    jobs.map(({ latencyNs }) => latencyNs),
    latencies,
  );
});

test('a trace whose end is missing is replayed up to there, and known to be incomplete', () => {
  const { trace } = record('femu-slc', 2, 200);
  const { jobs, replay: replayed } = replay(trace.subarray(0, trace.length - 1000 - 7), 64);
  assert.ok(jobs.length > 0 && jobs.every((job) => job.latencyNs === job.recordedLatencyNs));
  assert.equal(replayed.isComplete, false);
});

const refuses = (work: () => unknown, pattern: RegExp): void =>
  assert.throws(work, (error: unknown) => error instanceof DriveError && pattern.test(error.message));

test('what is no trace is refused with what is wrong', () => {
  const { trace } = record('femu-slc', 3, 20);
  const changed = (work: (bytes: Buffer) => void): Buffer => {
    const copy = Buffer.from(trace);
    work(copy);
    return copy;
  };
  const at = deviceTraceHeader.sizeBytes;
  const inRecord = deviceTraceRecord.offsetOf;
  refuses(() => replay(trace.subarray(0, 100), 100), /100 bytes long; the header alone has 256/);
  refuses(
    () =>
      replay(
        changed((bytes) => bytes.write('NOTATRAC')),
        100,
      ),
    /does not begin with ATTNTRAC/,
  );
  refuses(
    () =>
      replay(
        changed((bytes) => bytes.writeUInt16LE(9, 8)),
        100,
      ),
    /version 9; this program reads 1/,
  );
  refuses(
    () =>
      replay(
        changed((bytes) => bytes.writeUInt16LE(0, 10)),
        100,
      ),
    /0 x 2 x 2 planes/,
  );
  refuses(
    () =>
      replay(
        changed((bytes) => bytes.fill(0, 32, 64).write('hdd', 32)),
        100,
      ),
    /profile hdd; allowed: /,
  );
  refuses(() => replay(trace, 100, 'ideal'), /profile ideal has no times/);
  refuses(
    () =>
      replay(
        changed((bytes) => (bytes[at] = 99)),
        100,
      ),
    /record 0 is of job \d+, which has not begun/,
  );
  const second = at + deviceTraceRecord.sizeBytes;
  refuses(
    () =>
      replay(
        changed((bytes) => bytes.copy(bytes, second, at, second)),
        100,
      ),
    /record 1 begins job 1 again/,
  );
  const read = changed((bytes) => {
    bytes.copy(bytes, second, at, second);
    bytes[second + inRecord.kind] = traceKinds.read;
    bytes.writeUInt32LE(1 << 20, second + inRecord.bytes);
  });
  refuses(() => replay(read, 100), /record 1 reads 1048576 bytes of a page/);
  refuses(() => replay(Buffer.concat([trace, trace.subarray(at)]), 100), /follows the last one/);
});

test('random damage is refused or replayed, never more than that', () => {
  const { trace } = record('smartssd', 4, 100);
  const random = createSeededRandom(5);
  for (let i = 0; i < 300; i++) {
    const copy = Buffer.from(trace);
    for (let j = 0; j <= random.nextUint32() % 4; j++) {
      copy[deviceTraceHeader.sizeBytes + (random.nextUint32() % (copy.length - 256))] = random.nextUint32() & 0xff;
    }
    try {
      replay(copy, 4096);
    } catch (error) {
      assert.ok(error instanceof DriveError && error.code === 'mediaFormat', String(error));
    }
  }
});

test('a recording in a file: a new one only; a disk that refuses ends it and nothing else', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'trace-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'a.trace');
  const file = new TraceFile(path, description('femu-slc'), { logger: silentLogger });
  const device = new Device(
    { timing: profileOf('femu-slc').timing!, shape },
    { clock: systemClock, observer: file.writer },
  );
  const latencies = randomHistory(device, createSeededRandom(6), 2000);
  file.close();
  const { jobs, replay: replayed } = replay(readFileSync(path), 65_536);
  assert.deepEqual(
    jobs.map(({ latencyNs }) => latencyNs),
    latencies,
  );
  assert.ok(replayed.isComplete);
  refuses(() => new TraceFile(path, description('femu-slc'), { logger: silentLogger }), /there is a file already/);
  refuses(() => new TraceFile(join(folder, 'no', 'a'), description('ideal'), { logger: silentLogger }), /ENOENT/);
  const errors: unknown[] = [];
  const write = (): never => {
    throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  };
  let isRefusing = false;
  const refusing = new TraceFile(join(folder, 'b.trace'), description('femu-slc'), {
    logger: { ...silentLogger, error: (fields) => errors.push(fields) },
    write: ((...parameters: Parameters<typeof writeSync>) =>
      isRefusing ? write() : writeSync(...parameters)) as typeof writeSync,
  });
  isRefusing = true;
  const timing = profileOf('femu-slc').timing!;
  const others = randomHistory(
    new Device({ timing, shape }, { clock: systemClock, observer: refusing.writer }),
    createSeededRandom(6),
    2000,
  );
  refusing.close();
  assert.deepEqual(others, latencies);
  assert.equal(errors.length, 1);
});

test('labels have names', () => {
  assert.equal(labelText(ATTEND), 'ATTN');
  assert.equal(labelText(commandLabel('nvm', 2)), 'Read');
  assert.equal(labelText(backgroundLabel('garbageCollection')), 'garbage collection');
  assert.equal(labelText(0xffff), 'job of label 65535');
});
