import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { profileOf } from '../../daemon/profiles/profiles.ts';
import { type ReusableJob, TimedJob } from '../../daemon/timing/device-job.ts';
import { DeviceModel } from '../../daemon/timing/device-model.ts';
import { timingOf } from '../../daemon/timing/replay.ts';

const shape = { channelCount: 2, diesPerChannel: 2, planesPerDie: 2, pageSizeBytes: 16_384, pagesPerBlock: 64 };
const JOB_COUNT = 2000;

/** Arrivals and what each job does. */
function randomJobs(random: Random): { arrivalNs: number; book: (job: ReusableJob) => void }[] {
  let arrivalNs = 0;
  const within = (count: number): number => random.nextUint32() % count;
  return Array.from({ length: JOB_COUNT }, () => {
    arrivalNs += within(60_000);
    const [what, ppn, bytes] = [within(4), within(4096), 1 + within(16_384)];
    const book = (job: ReusableJob): void => {
      job.firmware(what === 0 ? 'write' : 'read', bytes);
      if (what === 0) job.programPosted(ppn);
      else if (what === 1) job.readToHost(ppn, bytes);
      else for (let i = 0; i < 8; i++) job.readToCompute(ppn + i, bytes, 100 * bytes);
      job.join();
      job.deviceToHost(bytes);
    };
    return { arrivalNs, book };
  });
}

/** Latencies if up to `aheadCount` jobs have arrived before the oldest of them says what it does. */
function latencies(profile: string, aheadCount: number): number[] {
  const model = new DeviceModel(timingOf(profileOf(profile)), shape);
  const waiting: { job: TimedJob; book: (job: ReusableJob) => void }[] = [];
  const found: number[] = [];
  const bookOldest = (): void => {
    const { job, book } = waiting.shift()!;
    book(job);
    found.push(job.latencyNs);
  };
  for (const { arrivalNs, book } of randomJobs(createSeededRandom(3))) {
    const job = new TimedJob(model);
    job.begin(0, arrivalNs);
    waiting.push({ job, book });
    if (waiting.length > aheadCount) bookOldest();
  }
  while (waiting.length > 0) bookOldest();
  return found;
}

for (const profile of ['nvmevirt-970-pro', 'femu-tlc', 'instattention', 'micron-9550']) {
  test(`${profile}: times follow from the order of what is booked, not from who has arrived meanwhile`, () => {
    const atOnce = latencies(profile, 0);
    assert.ok(new Set(atOnce).size > JOB_COUNT / 10, 'jobs wait for each other');
    for (const aheadCount of [1, 30]) assert.deepEqual(latencies(profile, aheadCount), atOnce);
  });
}
