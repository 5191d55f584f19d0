/** A daemon whose HTTP listener has a token and a certificate: what it says, what it refuses, what SIGHUP changes. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AdminClient, type AdminClientOptions } from '../../client/index.ts';
import { makeCertificate } from '../admin/certificate.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { runningDrive } from './served-drive.ts';

const folder = mkdtempSync(join(tmpdir(), 'http-'));
const daemon = new DaemonProcess('16MiB');
const TOKEN = 'first-token-of-thirty-eight-characters';
const SECOND = 'other-token-of-thirty-eight-characters';

function file(name: string, text: string, mode = 0o600): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

const certificate = makeCertificate(7);
const tokenPath = file('token', `${TOKEN}\n`);
const certPath = file('cert.pem', certificate.cert, 0o644);
const keyPath = file('key.pem', certificate.key);
const files = ['--http-token-file', tokenPath, '--http-cert', certPath, '--http-key', keyPath];
let address = '';

before(async () => {
  await daemon.start(['--http', '127.0.0.1:0', ...files, '--log-level', 'info']);
  address = `https://${runningDrive(daemon).http}`;
});

after(async () => {
  await daemon.remove();
  rmSync(folder, { recursive: true, force: true });
});

async function flush(options: AdminClientOptions): Promise<void> {
  const admin = new AdminClient(address, { caFile: certPath, ...options });
  try {
    assert.ok((await admin.flush()).durationSeconds >= 0);
  } finally {
    await admin.close();
  }
}

test('the token changes the drive, and its absence does not', async () => {
  await flush({ tokenFile: tokenPath });
  await assert.rejects(flush({}), { code: 'tokenRequired', httpStatus: 401 });
});

test('SIGHUP: the token of now goes; a file that is wrong changes nothing', async () => {
  const reload = async (said: RegExp): Promise<void> => {
    daemon.said = '';
    process.kill(runningDrive(daemon).processId, 'SIGHUP');
    while (!said.test(daemon.said)) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  const old = file('old', TOKEN);
  file('token', 'short');
  await reload(/secrets of HTTP not read again/);
  assert.match(daemon.said, /HTTP token in .*token: 5 characters, allowed: 32 to 1024/);
  await flush({ tokenFile: old });
  file('token', SECOND);
  await reload(/secrets of HTTP read again/);
  await assert.rejects(flush({ tokenFile: old }), { code: 'tokenRequired' });
  await flush({ tokenFile: tokenPath });
  assert.ok(!daemon.said.includes('thirty'));
});

test('what keeps a daemon from starting', async () => {
  await daemon.end('SIGTERM');
  const refuses = (more: readonly string[], message: RegExp): void => {
    const args = ['--tcp', 'off', '--http', '127.0.0.1:0', '--runtime-dir', daemon.runtimeFolder, ...more];
    const { status, stdout, stderr } = attndrive(['start', daemon.folder, ...args], {}, 30_000);
    assert.match(stderr, message);
    assert.match(stderr, /^attndrive: [^\n]*\n$/);
    assert.deepEqual([status, stdout], [1, '']);
  };
  refuses(['--http-cert', certPath], /certificate and key .*; allowed: both or none/);
  refuses(
    ['--http-cert', certPath, '--http-key', file('open.pem', certificate.key, 0o644)],
    /mode 0644 lets others in/,
  );
  const other = file('other.pem', makeCertificate(8).key);
  refuses(['--http-cert', certPath, '--http-key', other], /certificate .*cert\.pem with key .*other\.pem: .*mismatch/);
  refuses(['--http-token-file', file('short', 'short')], /5 characters, allowed: 32 to 1024/);
  refuses(['--http-token-file', 'credential:token'], /\$CREDENTIALS_DIRECTORY is not set/);
  refuses(['--http-open-metrics'], /open metrics true; allowed: with a token file/);
});
