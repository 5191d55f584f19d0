/** A discovery service and drives, each in a process of its own: what it tells when they come, go and die. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { DiscoveryClient } from '../../client/index.ts';
import { subsystemNqn } from '../../spec/fabrics.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { DiscoveryProcess } from '../tools/discovery-process.ts';
import { runningDrive } from './served-drive.ts';

const service = new DiscoveryProcess();
const drives: DaemonProcess[] = [];
let folder: string;
let client: DiscoveryClient;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attndrive-discovery-'));
  writeFileSync(join(folder, 'records.json'), '{}');
  await service.start(['--records', join(folder, 'records.json')]);
  client = await DiscoveryClient.connect(service.address);
  drives.push(new DaemonProcess('1MiB'), new DaemonProcess('1MiB'));
});

after(async () => {
  await client?.close();
  for (const drive of drives) await drive.remove();
  await service.end('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const startDrive = (drive: DaemonProcess, more: readonly string[] = []): Promise<void> =>
  drive.start(['--tcp', '127.0.0.1:0', '--discovery', `127.0.0.1:${service.port}`, ...more]);
const nqnOf = (drive: DaemonProcess): string => subsystemNqn(runningDrive(drive).serial);
const told = async (): Promise<string[]> =>
  (await client.log()).entries.map(({ nqn, host, port }) => `${nqn} ${host}:${port}`).sort();

/** Waits for the service's own word that something changed, until the log is as it should be. */
async function untilTold(wanted: readonly string[]): Promise<void> {
  for (;;) {
    const changed = client.changed();
    if (JSON.stringify(await told()) === JSON.stringify([...wanted].sort())) {
      changed.catch(() => undefined);
      return;
    }
    await changed;
  }
}

test('drives register at their start, and are gone when they stop or are killed', async () => {
  const [one, two] = drives as [DaemonProcess, DaemonProcess];
  assert.deepEqual(await told(), []);
  await startDrive(one);
  const first = `${nqnOf(one)} ${runningDrive(one).tcp}`;
  await untilTold([first]);
  await startDrive(two, ['--advertise', '192.0.2.9']);
  const second = `${nqnOf(two)} 192.0.2.9:${runningDrive(two).tcp.split(':')[1]}`;
  await untilTold([first, second]);
  assert.equal(await one.end('SIGTERM'), 0);
  await untilTold([second]);
  await two.end('SIGKILL');
  await untilTold([]);
});

test('a service that starts again knows its drives when they are back', async () => {
  const one = drives[0] as DaemonProcess;
  await startDrive(one);
  const first = `${nqnOf(one)} ${runningDrive(one).tcp}`;
  await untilTold([first]);
  await service.end('SIGKILL');
  await client.disconnected;
  await service.start(['--records', join(folder, 'records.json')]);
  client = await DiscoveryClient.connect(service.address);
  await untilTold([first]);
  assert.match(one.said, /discovery service lost/);
});

test('records of the file are told too; SIGHUP reads it again, and a file that is wrong changes nothing', async () => {
  const [first] = await told();
  const records = {
    subsystems: [{ nqn: 'nqn.2026-11.dev.attndrive:RACK', address: '192.0.2.1:4420' }],
    referrals: [{ address: '192.0.2.2:8009' }],
  };
  writeFileSync(join(folder, 'records.json'), JSON.stringify(records));
  const wanted = [
    first as string,
    'nqn.2026-11.dev.attndrive:RACK 192.0.2.1:4420',
    'nqn.2014-08.org.nvmexpress.discovery 192.0.2.2:8009',
  ];
  service.signal('SIGHUP');
  await untilTold(wanted);
  writeFileSync(join(folder, 'records.json'), '{"subsystems": 1}');
  service.signal('SIGHUP');
  while (!service.said.includes('records not read again')) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(await told(), wanted.sort());
});

test('attndrive discover prints it as nvme-cli does, of a service and of a drive', async () => {
  const { stdout, status } = attndrive(['discover', service.address]);
  assert.equal(status, 0);
  assert.match(
    stdout,
    /^Discovery Log Number of Records 3, Generation counter \d+\n=====Discovery Log Entry 0======\n/,
  );
  assert.match(stdout, /subtype: discovery subsystem referral\n/);
  const drive = drives[0] as DaemonProcess;
  const own = JSON.parse(attndrive(['discover', `unix:${runningDrive(drive).nvmeSocket}`, '--json']).stdout) as {
    records: { subnqn: string; trsvcid: string }[];
  };
  assert.deepEqual(
    own.records.map(({ subnqn, trsvcid }) => [subnqn, trsvcid]),
    [[nqnOf(drive), runningDrive(drive).tcp.split(':')[1]]],
  );
});

test('what keeps a service from starting, and a drive with an option that could not take effect', () => {
  const refused = (args: readonly string[], message: RegExp): void => {
    const { status, stderr } = attndrive(args, {}, 30_000);
    assert.match(stderr, message);
    assert.match(stderr, /^attndrive: [^\n]*\n$/);
    assert.equal(status, 1);
  };
  refused(['discovery', '--tcp', '127.0.0.1:0', '--records', join(folder, 'none')], /records file .*none: ENOENT/);
  refused(['discovery', '--tcp', 'off'], /tcp off; allowed: HOST:PORT/);
  refused(['discovery', '--tcp', `127.0.0.1:${service.port}`], /address in use/);
  const drive = drives[1] as DaemonProcess;
  refused(['start', drive.folder, '--tcp', 'off', '--discovery', '127.0.0.1:8009'], /allowed: none, with tcp off/);
  refused(['start', drive.folder, '--discovery', '127.0.0.1'], /discovery "127.0.0.1"; allowed: HOST:PORT/);
  refused(
    ['start', drive.folder, '--advertise', 'rack'],
    /advertised address "rack"; allowed: an IPv4 or IPv6 address/,
  );
  refused(['discover', 'tcp:127.0.0.1:1'], /nothing listens there/);
});
