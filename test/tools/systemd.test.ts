import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const unit = fileURLToPath(new URL('../../../tools/systemd/attndrive@.service', import.meta.url));
const verify = (path: string) => spawnSync('systemd-analyze', ['verify', '--man=no', path], { encoding: 'utf8' });
const missing = spawnSync('systemd-analyze', ['--version']).error !== undefined;
const skip = missing ? 'SKIPPED: no systemd-analyze (package systemd)' : false;

test('the systemd unit is one that systemd accepts', { skip }, () => {
  const { status, stdout, stderr } = verify(unit);
  assert.equal(stdout + stderr, '');
  assert.equal(status, 0);
});
