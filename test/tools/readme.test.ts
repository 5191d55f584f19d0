import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launcher } from './command-line.ts';

const readme = readFileSync(fileURLToPath(new URL('../../../README.md', import.meta.url)), 'utf8');

/** Lines of the blocks that are fenced as `sh run`, comments left out. */
const commands = [...readme.matchAll(/^```sh run\n(.*?)^```$/gms)]
  .flatMap(([, block]) => (block ?? '').split('\n'))
  .map((line) => line.replace(/\s+#.*$/, '').trim())
  .filter((line) => line !== '' && !line.startsWith('#'));

/** `attndrive` on the PATH, as after npm link: no ports that others may want, no drives that others may run. */
const shim = `#!/bin/sh
case "$1" in
  start) set -- "$@" --tcp off --http off ;;
  format) ;;
  *) set -- "$@" --drive ./drive ;;
esac
exec "${process.execPath}" "${launcher}" "$@"
`;

async function waitFor(path: string, ended: () => boolean): Promise<void> {
  for (let i = 0; !existsSync(path); i++) {
    assert.ok(!ended() && i < 1000, `no ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('the commands of the README run, in order, in an empty folder', async () => {
  assert.ok(commands.length > 10, `only ${commands.length} commands found`);
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-readme-'));
  const runtime = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'attndrive-readme-'));
  mkdirSync(join(folder, 'bin'));
  writeFileSync(join(folder, 'bin/attndrive'), shim, { mode: 0o755 });
  const { RUNTIME_DIRECTORY, ...rest } = process.env;
  const env = { ...rest, XDG_RUNTIME_DIR: runtime, PATH: `${join(folder, 'bin')}${delimiter}${process.env['PATH']}` };
  let daemon: ReturnType<typeof spawn> | undefined;
  try {
    for (const command of commands) {
      if (command.startsWith('attndrive start ')) {
        const child = spawn('sh', ['-c', `exec ${command}`], { cwd: folder, env, stdio: 'ignore' });
        daemon = child;
        const drive = command.split(' ')[2] ?? '';
        await waitFor(join(folder, drive, 'running.json'), () => child.exitCode !== null);
        continue;
      }
      const { status, stderr } = spawnSync('sh', ['-c', command], { cwd: folder, env, encoding: 'utf8' });
      assert.equal(status, 0, `${command}: ${stderr}`);
    }
    assert.ok(daemon !== undefined);
    daemon.kill('SIGTERM');
    const [status] = (await once(daemon, 'exit')) as [number | null];
    assert.equal(status, 0);
    daemon = undefined;
  } finally {
    daemon?.kill('SIGKILL');
    for (const path of [folder, runtime]) rmSync(path, { recursive: true, force: true });
  }
});
