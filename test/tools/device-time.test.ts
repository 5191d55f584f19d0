/** Device time on the command line: start, attend, stats, and replay of a recording. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { deviceTraceHeader } from '../../spec/device-trace.ts';
import { metrics } from '../../spec/metrics.ts';
import { AdminClient } from '../../client/index.ts';
import { connectTo, rows, runningDrive, shape } from '../e2e/served-drive.ts';
import { attndrive } from './command-line.ts';
import { DaemonProcess } from './daemon-process.ts';

interface Replayed {
  readonly complete: boolean;
  readonly differing: number;
  readonly profile: string;
  readonly jobs: readonly {
    readonly name: string;
    readonly count: number;
    readonly recorded: { readonly medianNs: number };
    readonly computed: { readonly medianNs: number };
  }[];
}

let daemon: DaemonProcess;
let tracePath: string;

const inFolder = (name: string): string => join(daemon.folder, '..', name);

function refused(args: readonly string[], message: RegExp, expectedStatus = 1): void {
  const { status, stderr } = attndrive(args);
  assert.match(stderr, message);
  assert.equal(status, expectedStatus);
}

before(() => {
  daemon = new DaemonProcess('4MiB', '2MiB', ['--profile', 'instattention', '--channels', '2']);
  tracePath = inFolder('trace.bin');
});
after(() => daemon.remove());

async function append(): Promise<string> {
  const client = await connectTo(daemon);
  try {
    const sequence = await client.kv.create(shape);
    const wallNs: number[] = [];
    const deviceNs: number[] = [];
    const onDeviceLatency = (ns: number): void => void deviceNs.push(ns);
    for (let position = 0; position < 40; position += 8) {
      const startMs = performance.now();
      await sequence.append(0, position, rows(position, 8), rows(position, 8, 1), { onDeviceLatency });
      wallNs.push((performance.now() - startMs) * 1e6);
    }
    assert.equal(deviceNs.length, wallNs.length, 'one for each command');
    assert.ok(
      deviceNs.every((ns) => ns > 1000),
      `firmware takes its time: ${deviceNs.join(', ')}`,
    );
    return String(sequence.id);
  } finally {
    await client.close();
  }
}

test('attend and stats print device time beside wall time, each by its name', async () => {
  await daemon.start(['--timing', 'report', '--record', tracePath]);
  const sequence = await append();
  const drive = ['--drive', daemon.folder];
  const attend = ['attend', '--sequence', sequence, '--repeat', '3', ...drive];
  const text = attndrive(attend).stdout;
  assert.match(text, /^wall time +: .*median of 3.*on this machine/m);
  assert.match(text, /^device time +: .*median of 3.*by the drive's profile/m);
  const { milliseconds, deviceMilliseconds } = JSON.parse(attndrive([...attend, '--json']).stdout) as {
    milliseconds: { median: number };
    deviceMilliseconds: { median: number; smallest: number };
  };
  assert.ok(milliseconds.median > 0);
  // Firmware takes 30 us, tR 30 us; two groups of 16 tokens are in flash, 8 tokens in the tail buffer.
  assert.ok(deviceMilliseconds.smallest > 0.05 && deviceMilliseconds.median < 1, JSON.stringify(deviceMilliseconds));
  const stats = JSON.parse(attndrive(['stats', '--json', ...drive]).stdout) as Record<string, unknown>;
  assert.deepEqual([stats['timingMode'], stats['profile']], ['report', 'instattention']);
  assert.ok(Number(stats['timedCommands']) >= 11);
  assert.ok(Number(stats['dieBusyNs']) >= 4 * 2 * 29_760);
  assert.equal(await daemon.end('SIGTERM'), 0, daemon.said);
});

function replay(path: string, args: readonly string[] = []): Replayed {
  const { status, stdout, stderr } = attndrive(['replay', path, '--json', ...args]);
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as Replayed;
}

test('a replay says what the recording says, and what another profile would have', () => {
  const { complete, differing, profile, jobs } = replay(tracePath);
  assert.deepEqual([complete, differing, profile], [true, 0, 'instattention']);
  const attention = jobs.find(({ name }) => name === 'ATTN')!;
  assert.equal(attention.count, 6);
  assert.deepEqual(attention.computed, attention.recorded);
  const other = replay(tracePath, ['--profile', 'femu-qlc']).jobs.find(({ name }) => name === 'ATTN')!;
  assert.deepEqual(other.recorded, attention.recorded);
  assert.ok(other.computed.medianNs > attention.computed.medianNs, JSON.stringify([other, attention]));
  assert.match(attndrive(['replay', tracePath]).stdout, /^ATTN +6 /m);
});

test('what is no recording is refused, and says why', () => {
  const bytes = readFileSync(tracePath);
  refused(['replay', inFolder('none.bin')], /recording .*none\.bin: ENOENT/);
  const other = inFolder('other.bin');
  const tryReplay = (content: Uint8Array, message: RegExp): void => {
    writeFileSync(other, content);
    refused(['replay', other], message);
  };
  tryReplay(bytes.subarray(0, 100), /device trace: 100 bytes long; the header alone has 256/);
  tryReplay(Buffer.from('hello'.repeat(100)), /device trace: does not begin with ATTNTRAC/);
  const damaged = Buffer.from(bytes);
  damaged[deviceTraceHeader.sizeBytes + 24] = 99;
  tryReplay(damaged, /device trace: record 1 is of kind 99/);
  refused(['replay', tracePath, '--profile', 'ideal'], /Allowed choices are nvmevirt-970-pro,.*micron-9550/, 2);
});

test('a recording is never written over, and needs device time, as that needs a profile with times', async () => {
  const start = (options: readonly string[]): string[] => [
    'start',
    daemon.folder,
    '--tcp',
    'off',
    '--http',
    'off',
    ...options,
  ];
  const before = readFileSync(tracePath);
  refused(start(['--timing', 'report', '--record', tracePath]), /recording .*trace\.bin: there is a file already/);
  assert.deepEqual(readFileSync(tracePath), before);
  refused(start(['--record', inFolder('new.bin')]), /record .*with timing report or enforce only, not off/);
  const ideal = new DaemonProcess('1MiB', '1MiB');
  try {
    const enforce = ['start', ideal.folder, '--tcp', 'off', '--http', 'off', '--timing', 'enforce'];
    refused(enforce, /profile ideal has no times; make a drive with a profile that has them/);
  } finally {
    await ideal.remove();
  }
});

test('a drive that enforces device time says how late it was, and has every metric of it', async () => {
  await daemon.start(['--timing', 'enforce']);
  const admin = new AdminClient(`unix:${runningDrive(daemon).adminSocket}`);
  const client = await connectTo(daemon);
  const startMs = performance.now();
  // 4 MiB over a link of 3 GB/s take longer than 1 ms, but nothing less could be told from this machine's own time.
  for (let i = 0; i < 20; i++) await client.block.read(0, 400);
  assert.ok(performance.now() - startMs > 5, 'no faster than the device');
  const text = await admin.metrics();
  const timed = Object.values(metrics).filter(({ name }) => /^attndrive_(device_|completions_|hold_)/.test(name));
  assert.ok(timed.length >= 7);
  for (const { name } of timed) assert.match(text, new RegExp(`^${name}(_count)?(\\{| )`, 'm'));
  assert.match(text, /^attndrive_timing_info\{mode="enforce",profile="instattention"\} 1$/m);
  const { deviceTime } = await admin.drive();
  assert.deepEqual(deviceTime, { mode: 'enforce', profile: 'instattention' });
  const { completionsHeld, completionsLate, timedCommands } = JSON.parse(
    attndrive(['stats', '--json', '--drive', daemon.folder]).stdout,
  ) as Record<string, number>;
  assert.equal(completionsHeld! + completionsLate!, timedCommands);
  await admin.close();
  await client.close();
  assert.equal(await daemon.end('SIGTERM'), 0, daemon.said);
});

test('a recording that a crash cut short is replayed as far as it goes', async () => {
  const path = inFolder('short.bin');
  await daemon.start(['--timing', 'report', '--record', path, '--scrub-interval', 'off']);
  const client = await connectTo(daemon);
  for (let i = 0; i < 3000; i++) await client.block.read(i % 400, 1);
  await daemon.end('SIGKILL');
  await client.close().catch(() => undefined);
  const { complete, differing, jobs } = replay(path);
  assert.deepEqual([complete, differing], [false, 0]);
  assert.ok(jobs[0]!.count > 1000);
  assert.match(attndrive(['replay', path]).stdout, /short\.bin, whose end is missing/);
});
