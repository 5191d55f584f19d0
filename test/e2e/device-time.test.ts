/**
 * Device time does not depend on the machine: a daemon with workers and the fastest kernels that there are says the same
 * times, to the nanosecond, as a drive in this process with the slowest ones, if both get the same commands at the same
 * device times; and so does a replay of the daemon's recording.
 */
import assert from 'node:assert/strict';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { DriveClient, type PreparedAttend, type Sequence } from '../../client/index.ts';
import { deviceTraceHeader, deviceTraceRecord, labelText, traceKinds, traceSources } from '../../spec/device-trace.ts';
import type { Clock } from '../../daemon/base/clock.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { defaultGcOptions } from '../../daemon/ftl/gc-options.ts';
import { Device } from '../../daemon/timing/device.ts';
import type { CellReads, DeviceTime, ReusableJob } from '../../daemon/timing/device-job.ts';
import { TraceWriter } from '../../daemon/timing/trace-writer.ts';
import { openWholeDrive } from '../controller/whole-drive.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { blocks, connectTo, rows, shape } from './served-drive.ts';

const PROFILE = 'smartssd';
const dies = ['--channels', '2', '--dies-per-channel', '1', '--planes-per-die', '2'];
const formatOptions = ['--profile', PROFILE, '--page-size', '16KiB', ...dies];
const BLOCK_COUNT = 1000;
const WRITE_COUNT = 1300;
/**
 * Early, while there is still room that was never written: when room can be used again depends on when a checkpoint is
 * durable, and so on the machine, and how long hot blocks live is learnt then. Nothing more while the drive is idle: when
 * that is depends on the machine too.
 */
const gc = { ...defaultGcOptions, placement: 'copies', startSuperblocks: 16, stopSuperblocks: 16 } as const;

interface RecordedJob {
  readonly label: number;
  readonly arrivalNs: number;
  latencyNs: number;
  readonly erasedPpns: number[];
}

function jobsOf(trace: Uint8Array): RecordedJob[] {
  const jobs: RecordedJob[] = [];
  const open = new Map<number, RecordedJob>();
  for (let at = deviceTraceHeader.sizeBytes; at < trace.length; at += deviceTraceRecord.sizeBytes) {
    const { kind, job, label, ppn, value } = deviceTraceRecord.decode(trace, at);
    if (kind === traceKinds.end) open.get(job)!.latencyNs = value;
    if (kind === traceKinds.erase) open.get(job)!.erasedPpns.push(ppn);
    if (kind !== traceKinds.begin) continue;
    const begun = { label, arrivalNs: value, latencyNs: -1, erasedPpns: [] };
    open.set(job, begun);
    jobs.push(begun);
  }
  return jobs;
}

const isBackground = ({ label }: { readonly label: number }): boolean => label >> 8 === traceSources.background;

/** Nothing depended on the machine: no idle time was used, and no superblock that a checkpoint had made free. */
function assertIndependent(jobs: readonly RecordedJob[]): void {
  const erased = jobs.flatMap((job) => job.erasedPpns);
  assert.equal(new Set(erased).size, erased.length, 'no block is erased twice');
  let latestNs = 0;
  for (const job of jobs) {
    assert.ok(!isBackground(job) || job.arrivalNs === latestNs, 'garbage is collected for hosts');
    latestNs = job.arrivalNs;
  }
}

/** Appends, attention, blocks, flushes; one at a time, then many of a kind at once. */
async function workload(client: DriveClient): Promise<void> {
  const random = createSeededRandom(11);
  const sequence = await client.kv.create(shape);
  await sequence.append(0, 0, rows(0, 100), rows(0, 100, 1));
  await decode(client, sequence);
  for (let i = 0; i < WRITE_COUNT; i++) {
    const count = 1 + (random.nextUint32() % 8);
    const lba = random.nextUint32() % (BLOCK_COUNT - count);
    await client.block.write(lba, blocks(lba, count, i));
    if (i % 20 === 0) await client.block.read(random.nextUint32() % (BLOCK_COUNT - 8), 8);
    if (i % 200 === 0) await client.kv.flush();
  }
  await Promise.all(Array.from({ length: 32 }, (_, i) => client.block.read((i * 37) % BLOCK_COUNT, 1)));
  const requests = await Promise.all(Array.from({ length: 16 }, () => prepare(client, sequence, 0)));
  for (let round = 0; round < 5; round++) await Promise.all(requests.map((request) => request.post()));
  for (const request of requests) request.release();
  await sequence.readBack({ layer: 0 });
  const fork = await sequence.fork({ tokenCount: 70 });
  await fork.truncate(33, { layer: 0 });
  await sequence.reclaim();
}

function prepare(client: DriveClient, sequence: Sequence, appendTokenCount: number): Promise<PreparedAttend> {
  return client.prepareAttend([{ sequence, layer: 0, queryHeadsPerKvHead: 2, appendTokenCount, appendPosition: 0 }], {
    deviceTime: true,
  });
}

async function decode(client: DriveClient, sequence: Sequence): Promise<void> {
  const request = await prepare(client, sequence, 1);
  const entry = request.entries[0]!;
  let sum = 0;
  for (let position = 100; position < 180; position++) {
    entry.appendPosition = position;
    entry.keys.set(rows(position, 1));
    entry.values.set(rows(position, 1, 1));
    const { deviceLatencyNs } = await request.post();
    sum += deviceLatencyNs!;
  }
  assert.ok(sum > 80 * 20_000, 'an ATTN takes more than its firmware');
  request.release();
}

/** Gives the hosts' commands the arrivals of a recording, one after another. */
class FedDeviceTime implements DeviceTime {
  readonly #device: Device;
  readonly #arrivalsNs: number[];
  idleCount = 0;

  constructor(device: Device, arrivalsNs: readonly number[]) {
    this.#device = device;
    this.#arrivalsNs = [...arrivalsNs];
  }

  createJob(): ReusableJob {
    const job = this.#device.createJob();
    const begin = job.begin.bind(job);
    job.begin = (label, arrivalNs) => begin(label, isBackground({ label }) ? arrivalNs : this.#arrivalsNs.shift()!);
    return job;
  }

  readFrom(cells: CellReads): void {
    this.#device.readFrom(cells);
  }

  backgroundArrivalNs(isForHost: boolean): number {
    if (!isForHost) this.idleCount++;
    return this.#device.backgroundArrivalNs(isForHost);
  }
}

/** Time stands still, so nothing here is ever idle for long. */
const stillClock: Clock = { nowNs: () => 0, wallMs: () => 0, setTimer: () => ({ cancel: () => undefined }) };

/** Formats a drive, keeps a copy of it, and records the workload. */
async function recordDaemon(t: TestContext): Promise<{ folder: string; tracePath: string }> {
  const daemon = new DaemonProcess('4MiB', '4MiB', formatOptions);
  t.after(() => daemon.remove());
  const folder = join(daemon.folder, '..', 'copy');
  cpSync(daemon.folder, folder, { recursive: true });
  const tracePath = join(daemon.folder, '..', 'trace.bin');
  const { placement, startSuperblocks, stopSuperblocks } = gc;
  const thresholds = ['--gc-start', `${startSuperblocks}`, '--gc-stop', `${stopSuperblocks}`];
  const collecting = ['--placement', placement, ...thresholds];
  await daemon.start([
    '--timing',
    'report',
    '--record',
    tracePath,
    '--workers',
    '2',
    ...collecting,
    '--scrub-interval',
    'off',
  ]);
  const client = await connectTo(daemon);
  await workload(client);
  await client.close();
  assert.equal(await daemon.end('SIGTERM'), 0, daemon.said);
  return { folder, tracePath };
}

test('a daemon, a drive in this process and a replay agree on every device time', async (t) => {
  const { folder, tracePath } = await recordDaemon(t);
  const jobs = jobsOf(readFileSync(tracePath));
  assertIndependent(jobs);
  const commands = jobs.filter((job) => !isBackground(job));
  assert.ok(commands.length > WRITE_COUNT + 200);
  assert.ok(jobs.length - commands.length > 50, 'garbage was collected');

  const pieces: Buffer[] = [];
  let closeTrace = (): void => undefined;
  let fed: FedDeviceTime | undefined;
  const drive = await openWholeDrive(folder, {
    clock: stillClock,
    gc,
    deviceTime: ({ chip, geometry }) => {
      const { timing, name: profile } = chip.profile;
      const description = { shape: geometry, profile, serial: 'copy', startedAtMs: 0 };
      const observer = new TraceWriter(description, (bytes) => pieces.push(Buffer.from(bytes)));
      const device = new Device({ timing: timing!, shape: geometry }, { clock: stillClock, observer });
      closeTrace = () => observer.close();
      fed = new FedDeviceTime(
        device,
        commands.map(({ arrivalNs }) => arrivalNs),
      );
      return fed;
    },
  });
  try {
    const client = await DriveClient.connect(drive.address);
    await workload(client);
    await client.close();
  } finally {
    await drive.close();
  }
  closeTrace();
  assert.equal(fed?.idleCount, 0);
  const again = jobsOf(Buffer.concat(pieces)).filter((job) => !isBackground(job));
  const named = (job: RecordedJob): string => `${labelText(job.label)} at ${job.arrivalNs}: ${job.latencyNs} ns`;
  assert.deepEqual(again.map(named), commands.map(named));

  const { status, stdout, stderr } = attndrive(['replay', tracePath, '--json']);
  assert.equal(status, 0, stderr);
  const { differing, complete, profile } = JSON.parse(stdout) as Record<string, unknown>;
  assert.deepEqual([differing, complete, profile], [0, true, PROFILE]);
  const other = attndrive(['replay', tracePath, '--profile', 'micron-9550']);
  assert.match(other.stdout, /computed with\s*: micron-9550/);
});
