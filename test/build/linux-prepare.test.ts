/** The tests against Linux never fail for want of packages: they say what is missing, with a status of its own. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../linux/prepare.js', import.meta.url));

test('where packages can not be had, one line names them, the status is 3, and nothing is left behind', (t) => {
  const cache = mkdtempSync(join(tmpdir(), 'linux-prepare-'));
  t.after(() => rmSync(cache, { recursive: true, force: true }));
  const { status, stdout, stderr } = spawnSync(process.execPath, [program], {
    encoding: 'utf8',
    env: { PATH: '/nonexistent', HOME: cache, XDG_CACHE_HOME: cache },
  });
  assert.equal(status, 3);
  assert.match(stderr, /^attndrive: the tests against Linux need an x86-64 machine with Debian 12[^\n]*\n$/);
  assert.match(
    stderr,
    /qemu-system-x86.*nvme-cli.*linux-image-cloud-amd64.*linux-image-6\.12-cloud-amd64.*without apt-get/,
  );
  assert.equal(stdout, '');
  assert.deepEqual(readdirSync(cache), []);
});
