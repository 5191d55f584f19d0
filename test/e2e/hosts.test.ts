/** A daemon with a hosts file, the SDK and the command line: who gets in, who does not, and what is said of it. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import {
  type ConnectOptions,
  type DriveCommandError,
  DriveAuthenticationError,
  DriveClient,
  DriveDisconnectedError,
} from '../../client/index.ts';
import { subsystemNqn } from '../../spec/fabrics.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { runningDrive, Witness } from './served-drive.ts';

const host = 'nqn.2026-11.dev.attndrive.test:host';
const open = 'nqn.2026-11.dev.attndrive.test:open';
const folder = mkdtempSync(join(tmpdir(), 'hosts-'));
const pathOf = (name: string): string => join(folder, name);
const hostsPath = pathOf('hosts.json');
const daemon = new DaemonProcess('16MiB');
let everSaid = '';
let address = '';
let subsystem = '';

function makeSecret(name: string, hmac: number): void {
  const { status, stderr } = attndrive(['gen-dhchap-key', '--hmac', String(hmac), '--output', pathOf(name)]);
  assert.equal(status, 0, stderr);
}

const writeHosts = (value: unknown): void => writeFileSync(hostsPath, JSON.stringify(value), { mode: 0o644 });
const listed = { nqn: host, secret: 'host.key', controllerSecret: 'drive.key' };

before(async () => {
  makeSecret('host.key', 1);
  makeSecret('drive.key', 3);
  makeSecret('other.key', 0);
  writeHosts({ hosts: [listed, { nqn: open }] });
  await daemon.start(['--tcp', '127.0.0.1:0', '--hosts', hostsPath, '--log-level', 'trace']);
  const { tcp, serial } = runningDrive(daemon);
  address = `tcp:${tcp}`;
  subsystem = subsystemNqn(serial);
});

after(async () => {
  await daemon.remove();
  rmSync(folder, { recursive: true, force: true });
});

const connect = (options: ConnectOptions = {}): Promise<DriveClient> =>
  DriveClient.connect(address, { hostNqn: host, subsystemNqn: subsystem, ioQueueCount: 2, ...options });
const secret = { dhChapSecretFile: pathOf('host.key') };
const both = { ...secret, dhChapControllerSecretFile: pathOf('drive.key') };
const has = (code: string) => (error: DriveCommandError) => error.code === code;

test('a host that proves itself works, and so does one whose word is believed', async () => {
  for (const options of [secret, both, { hostNqn: open }, { hostNqn: open, ...secret }]) {
    const client = await connect(options);
    await (await Witness.write(client)).check();
    await client.close();
  }
});

test('by whatever name the drive is called', async () => {
  const client = await DriveClient.connect(address, { hostNqn: host, ...both });
  await client.close();
});

test('no secret, a wrong one, a drive that is not the one, a host that is not listed', async () => {
  await assert.rejects(connect(), (error: DriveAuthenticationError) => {
    assert.equal(error.message, `the drive wants ${host} to authenticate, and this client has no secret`);
    return error instanceof DriveAuthenticationError;
  });
  const refused = /the drive refused the authentication: the secret is wrong/;
  await assert.rejects(connect({ dhChapSecretFile: pathOf('other.key') }), refused);
  const unproved = connect({ ...secret, dhChapControllerSecretFile: pathOf('other.key') });
  await assert.rejects(unproved, /the drive does not prove that it knows the controller secret/);
  // A drive that asks for nothing proves nothing, either.
  const unasked = connect({ hostNqn: open, ...both });
  await assert.rejects(unasked, /it has no secret for this host/);
  await assert.rejects(connect({ hostNqn: `${host}2`, ...secret }), has('connectInvalidHost'));
  assert.ok((await connect(secret)).isConnected);
});

test('secret files that others may read', async () => {
  chmodSync(pathOf('other.key'), 0o644);
  await assert.rejects(connect({ dhChapSecretFile: pathOf('other.key') }), /other\.key: mode 0644 lets others in/);
  chmodSync(pathOf('other.key'), 0o600);
});

test('the command line', () => {
  const run = (more: readonly string[]) => attndrive(['id-ctrl', '--drive', address, '--hostnqn', host, ...more]);
  const files = ['--dhchap-secret-file', pathOf('host.key'), '--dhchap-ctrl-secret-file', pathOf('drive.key')];
  const found = run(files);
  assert.equal(found.status, 0, found.stderr);
  assert.match(found.stdout, new RegExp(`subnqn +: ${subsystem}`));
  const refused = run([]);
  assert.deepEqual([refused.status, refused.stdout], [1, '']);
  assert.match(refused.stderr, /^attndrive: the drive wants .* to authenticate, and this client has no secret\n$/);
});

test('SIGHUP: a file that is wrong changes nothing; one that is right ends who may no longer connect', async () => {
  const staying = await connect(secret);
  const leaving = await connect({ hostNqn: open });
  const reload = async (said: RegExp): Promise<void> => {
    everSaid += daemon.said;
    daemon.said = '';
    process.kill(runningDrive(daemon).processId, 'SIGHUP');
    while (!said.test(daemon.said)) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  writeHosts({ hosts: [{ nqn: 'nonsense' }] });
  await reload(/hosts not read again/);
  assert.match(daemon.said, /hosts\[0\]: NQN \\"nonsense\\"/);
  assert.ok(leaving.isConnected);
  writeHosts({ hosts: [listed] });
  await reload(/hosts read again/);
  assert.ok((await leaving.disconnected) instanceof DriveDisconnectedError);
  await assert.rejects(connect({ hostNqn: open }), has('connectInvalidHost'));
  await staying.flush();
  await staying.close();
});

test('no part of a secret is ever said, at any log level', async () => {
  const { stdout, stderr } = attndrive(['gen-dhchap-key', '--output', pathOf('host.key')]);
  assert.match(stdout + stderr, /host\.key: EEXIST/, 'a secret that is there is not overwritten');
  const logged = everSaid + daemon.said;
  assert.match(logged, /authentication failed/);
  for (const name of ['host.key', 'drive.key', 'other.key']) {
    const [, , body = ''] = readFileSync(pathOf(name), 'utf8').split(':');
    assert.ok(
      !logged.includes(body.slice(0, 10)) && !logged.includes(Buffer.from(body, 'base64').toString('hex', 0, 8)),
    );
  }
});

test('what keeps a daemon from starting', async () => {
  await daemon.end('SIGTERM');
  const start = (more: readonly string[]) =>
    attndrive(['start', daemon.folder, '--tcp', '127.0.0.1:0', '--http', 'off', ...more], {}, 30_000);
  const refuses = (more: readonly string[], message: RegExp): void => {
    const { status, stdout, stderr } = start(['--runtime-dir', daemon.runtimeFolder, ...more]);
    assert.match(stderr, message);
    assert.deepEqual([status, stdout], [1, '']);
  };
  refuses(['--hosts', pathOf('none.json')], /hosts file: cannot open .*none\.json: ENOENT/);
  chmodSync(hostsPath, 0o666);
  refuses(['--hosts', hostsPath], /hosts file: .*hosts\.json: mode 0666 lets others write it/);
  chmodSync(hostsPath, 0o644);
  chmodSync(pathOf('host.key'), 0o640);
  refuses(['--hosts', hostsPath], /hosts\[0\]: secret: .*host\.key: mode 0640 lets others in/);
});
