import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { announcedDrives, DriveUnreachableError, locateDrive, runningDrives } from '../../client/index.ts';

let root: string;
let environment: Record<string, string>;
/** No process has it: pid_max is below. */
const DEAD = 0x3fff_ffff;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'attndrive-locate-'));
  environment = { RUNTIME_DIRECTORY: join(root, 'runtime') };
});
afterEach(() => rmSync(root, { recursive: true }));

function announce(path: string, serial: string, pid = process.pid): void {
  mkdirSync(join(path, '..'), { recursive: true });
  const value = {
    pid,
    folder: `/srv/${serial}`,
    serial,
    nvmeSocket: `/run/${serial}/nvme.sock`,
    adminSocket: `/run/${serial}/admin.sock`,
    tcp: '127.0.0.1:4420',
    http: '',
  };
  writeFileSync(path, JSON.stringify(value));
}

const running = (serial: string, pid?: number): void =>
  announce(join(root, 'runtime', serial, 'drive.json'), serial, pid);

const found = (): string[] => runningDrives({ environment }).map(({ serial }) => serial);

test('addresses are taken as they are', () => {
  for (const address of ['unix:/run/x.sock', 'tcp:127.0.0.1:4421', 'tcp:[::1]:4420']) {
    assert.deepEqual(locateDrive(address), { address, adminAddress: undefined, drive: undefined });
  }
  assert.equal(locateDrive('tcp:drive.example').address, 'tcp:drive.example:4420');
  for (const wrong of ['tcp:', 'tcp:host:0', 'tcp:host:70000', 'unix:', 'tcp:::1:4420']) {
    assert.throws(
      () => locateDrive(wrong),
      { name: 'RangeError', message: /allowed: unix:PATH, tcp:HOST:PORT/ },
      wrong,
    );
  }
});

test('a folder leads to the daemon that serves it', () => {
  const folder = join(root, 'drive');
  announce(join(folder, 'running.json'), 'test-A');
  const { address, adminAddress, drive } = locateDrive(folder);
  assert.deepEqual([address, adminAddress], ['unix:/run/test-A/nvme.sock', 'unix:/run/test-A/admin.sock']);
  assert.deepEqual([drive?.serial, drive?.processId, drive?.tcp], ['test-A', process.pid, '127.0.0.1:4420']);
});

test('a folder without a daemon, with a dead one, and what is no folder say what to do', () => {
  const folder = join(root, 'drive');
  mkdirSync(folder);
  const refusal = (target: string): string => {
    try {
      locateDrive(target);
    } catch (error) {
      assert.ok(error instanceof DriveUnreachableError);
      return error.message;
    }
    return 'located';
  };
  assert.equal(refusal(folder), `no daemon serves ${folder}; start it with "attndrive start ${folder}"`);
  announce(join(folder, 'running.json'), 'test-A', DEAD);
  assert.match(refusal(folder), /process 1073741823\) is gone; start it again with "attndrive start/);
  assert.match(refusal(join(root, 'missing')), /is no folder; allowed/);
  writeFileSync(join(folder, 'running.json'), '{"pid":');
  assert.match(refusal(folder), /no daemon serves/);
});

test('running drives are found; dead and broken entries are passed over', () => {
  running('test-B');
  running('test-A');
  running('test-C', DEAD);
  writeFileSync(join(root, 'runtime', 'stray'), '');
  mkdirSync(join(root, 'runtime', 'half'));
  writeFileSync(join(root, 'runtime', 'half', 'drive.json'), '{"pid":1,"folder":7}');
  assert.deepEqual(found(), ['test-A', 'test-B']);
  assert.deepEqual(
    announcedDrives({ environment }).gone.map(({ serial }) => serial),
    ['test-C'],
  );
});

test('a daemon that ended and that nobody waited for is gone', { skip: !existsSync('/proc/self/stat') }, async () => {
  // The shell starts a child, becomes another program, and so never asks how the child ended.
  const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 61'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    const [chunk] = (await once(parent.stdout, 'data')) as [Buffer];
    const processId = Number(chunk.toString());
    const until = async (path: string, holds: (text: string) => boolean): Promise<void> => {
      while (!holds(readFileSync(path, 'latin1'))) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await until(`/proc/${parent.pid}/cmdline`, (text) => text.startsWith('sleep'));
    process.kill(processId, 'SIGKILL');
    await until(`/proc/${processId}/stat`, (text) => text.split(' ')[2] === 'Z');
    running('test-A', processId);
    assert.doesNotThrow(() => process.kill(processId, 0));
    assert.deepEqual(found(), []);
  } finally {
    parent.kill('SIGKILL');
  }
});

test('without RUNTIME_DIRECTORY the session is searched, among others', () => {
  announce(join(root, 'session', 'attndrive', 'test-A', 'drive.json'), 'test-A');
  environment = { XDG_RUNTIME_DIR: join(root, 'session') };
  assert.ok(found().includes('test-A'));
});

test('of several running drives one must be chosen; the error lists them', () => {
  running('test-A');
  running('test-B');
  assert.throws(() => locateDrive(undefined, { environment }), {
    name: 'DriveUnreachableError',
    message: /drives are running; choose one with --drive: .*\/srv\/test-A \(test-A\), \/srv\/test-B \(test-B\)/,
  });
});

test('the one running drive needs no name', () => {
  running('test-A');
  assert.equal(locateDrive('', { environment }).drive?.serial, 'test-A');
  rmSync(join(root, 'runtime'), { recursive: true });
  assert.throws(() => locateDrive(undefined, { environment }), /no drive of this user is running; start one with/);
});
