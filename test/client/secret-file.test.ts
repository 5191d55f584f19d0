import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inspect } from 'node:util';
import { readDhChapSecret, readDhChapSecrets, readSecretFile, readTrustedFile } from '../../client/secret-file.ts';
import { formatChapSecret } from '../../spec/dh-hmac-chap.ts';

const folder = mkdtempSync(join(tmpdir(), 'secret-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const text = formatChapSecret({ transform: 'sha256', key: new Uint8Array(32).fill(0x5a) });

function file(name: string, content: string, mode: number): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

test('a file that its owner alone may read', () => {
  for (const mode of [0o600, 0o400]) assert.equal(readSecretFile(file(`m${mode}`, 'x', mode), 'secret'), 'x');
  assert.equal(readSecretFile('m384', 'secret', { folder }), 'x');
});

test('modes that let others in are refused, and name the file', () => {
  for (const mode of [0o644, 0o640, 0o660, 0o604, 0o610, 0o601]) {
    const path = file('open', 'x', mode);
    assert.throws(
      () => readSecretFile(path, 'token'),
      new RegExp(`token: ${path}: mode 0${mode.toString(8)} lets others in`),
    );
  }
});

test('what is no file, is not there, or is too long', () => {
  assert.throws(() => readSecretFile(folder, 'secret'), /is no file/);
  assert.throws(() => readSecretFile(join(folder, 'none'), 'secret'), /secret: cannot open .*none: ENOENT/);
  assert.throws(() => readSecretFile(file('long', 'x'.repeat(65_537), 0o600), 'secret'), /65537 bytes, at most 65536/);
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', ['-m', '600', pipe]);
  assert.throws(() => readSecretFile(pipe, 'secret'), /is no file/);
});

test('a link is what it leads to', () => {
  symlinkSync(file('target', 'x', 0o644), join(folder, 'link'));
  assert.throws(() => readSecretFile(join(folder, 'link'), 'secret'), /mode 0644/);
});

test('files of others are refused', {
  skip: process.getuid?.() === 0 ? false : 'only root can give files away',
}, () => {
  const path = file('foreign', 'x', 0o600);
  execFileSync('chown', ['12345', path]);
  assert.throws(() => readSecretFile(path, 'secret'), /belongs to user 12345; allowed: this user \(0\) or root/);
});

test('credentials of systemd', () => {
  const credentials = join(folder, 'credentials');
  mkdirSync(credentials);
  writeFileSync(join(credentials, 'host.key'), text);
  chmodSync(join(credentials, 'host.key'), 0o440);
  const environment = { CREDENTIALS_DIRECTORY: credentials };
  assert.equal(readSecretFile('credential:host.key', 'secret', { environment }), text);
  assert.throws(
    () => readSecretFile('credential:host.key', 'secret', { environment: {} }),
    /LoadCredential=host\.key:PATH/,
  );
  for (const name of ['../host.key', '', '.hidden', 'a/b']) {
    assert.throws(() => readSecretFile(`credential:${name}`, 'secret', { environment }), /credential name/);
  }
});

test('a DH-HMAC-CHAP secret shows itself nowhere', () => {
  const secret = readDhChapSecret(file('host.key', `${text}\n`, 0o600), 'secret');
  assert.equal(secret.transform, 'sha256');
  assert.equal(secret.key.symmetricKeySize, 32);
  const shown = inspect(secret, { depth: 9, showHidden: true }) + JSON.stringify(secret);
  assert.ok(!shown.includes('5a5a') && !shown.includes('WlpaWlpa') && !shown.includes('ZZZZ'), shown);
  const body = text.split(':')[2] as string;
  const spoiled = file('spoiled.key', text.replace(body.slice(0, 4), 'AAAA'), 0o600);
  assert.throws(
    () => readDhChapSecret(spoiled, 'secret'),
    (error: Error) => {
      assert.match(error.message, /secret in .*spoiled\.key: its checksum is wrong/);
      return !error.message.includes(body.slice(8, 16));
    },
  );
});

test('a drive proves itself only to hosts that do', () => {
  const dhChapSecretFile = file('h.key', text, 0o600);
  assert.equal(readDhChapSecrets({}), undefined);
  assert.equal(readDhChapSecrets({ dhChapSecretFile })?.controllerSecret, undefined);
  assert.throws(
    () => readDhChapSecrets({ dhChapControllerSecretFile: dhChapSecretFile }),
    /without a secret of the host/,
  );
});

test('files that say who may do what: others may read them, and not write them', () => {
  assert.equal(readTrustedFile(file('hosts', '{}', 0o644), 'hosts file'), '{}');
  for (const mode of [0o664, 0o646, 0o666]) {
    assert.throws(
      () => readTrustedFile(file('hosts', '{}', mode), 'hosts file'),
      /lets others write it; allowed: 0644 or less/,
    );
  }
});
