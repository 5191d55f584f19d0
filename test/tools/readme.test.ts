import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { attndrive, launcher } from './command-line.ts';

const readme = readFileSync(fileURLToPath(new URL('../../../README.md', import.meta.url)), 'utf8');

/** Lines of the blocks that are fenced as `sh run`, comments left out. */
const commands = [...readme.matchAll(/^```sh run\n(.*?)^```$/gms)]
  .flatMap(([, block]) => (block ?? '').split('\n'))
  .map((line) =>
    line
      .replace(/\s+#.*$/, '')
      .replace(/^npx /, '')
      .trim(),
  )
  .filter((line) => line !== '' && !line.startsWith('#'));

const [, program] = /^```js run\n([^]*?)^```$/m.exec(readme) ?? [];
const [, printed] = /`node program\.mjs` prints `(.*?)`/.exec(readme) ?? [];

/** `attndrive` on the PATH, as npx finds it: no ports that others may want, no drives that others may run. */
const shim = `#!/bin/sh
case "$*" in
  start*) set -- "$@" --tcp off --http off ;;
  format*|replay*|*--drive*) ;;
  *) set -- "$@" --drive ../drive ;;
esac
exec "${process.execPath}" "${launcher}" "$@"
`;

async function waitFor(path: string, ended: () => boolean): Promise<void> {
  for (let i = 0; !existsSync(path); i++) {
    assert.ok(!ended() && i < 1000, `no ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** In a package beside the clone that has it as a dependency, as npm links one from a folder. */
function runProgram(folder: string, drive: string): string {
  const package_ = join(folder, 'package');
  mkdirSync(join(package_, 'node_modules'), { recursive: true });
  symlinkSync(fileURLToPath(new URL('../../../', import.meta.url)), join(package_, 'node_modules/attndrive'));
  writeFileSync(join(package_, 'program.mjs'), program ?? '');
  const environment = { ...process.env, DRIVE: drive };
  const { stdout, stderr } = spawnSync(process.execPath, ['program.mjs'], {
    cwd: package_,
    env: environment,
    encoding: 'utf8',
  });
  return stdout + stderr;
}

test('the commands and the program of the README run, in order, beside an empty folder', async () => {
  assert.ok(commands.length > 10, `only ${commands.length} commands found`);
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-readme-'));
  const runtime = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'attndrive-readme-'));
  const clone = join(folder, 'clone');
  for (const path of [clone, join(folder, 'bin')]) mkdirSync(path);
  writeFileSync(join(folder, 'bin/attndrive'), shim, { mode: 0o755 });
  const env = {
    ...process.env,
    RUNTIME_DIRECTORY: runtime,
    PATH: `${join(folder, 'bin')}${delimiter}${process.env['PATH']}`,
  };
  const daemons: ReturnType<typeof spawn>[] = [];
  const stopLast = async (): Promise<void> => {
    const daemon = daemons.at(-1);
    assert.ok(daemon !== undefined);
    daemon.kill('SIGTERM');
    const [status] = (await once(daemon, 'exit')) as [number | null];
    assert.equal(status, 0);
    daemons.pop();
  };
  try {
    for (const command of commands) {
      if (command.startsWith('attndrive start ')) {
        const child = spawn('sh', ['-c', `exec ${command}`], { cwd: clone, env, stdio: 'ignore' });
        daemons.push(child);
        const drive = command.split(' ')[2] ?? '';
        await waitFor(join(clone, drive, 'running.json'), () => child.exitCode !== null);
        continue;
      }
      // "Once the drive is stopped"
      if (command.startsWith('attndrive replay ') && daemons.length > 1) await stopLast();
      const { status, stderr } = spawnSync('sh', ['-c', command], { cwd: clone, env, encoding: 'utf8' });
      assert.equal(status, 0, `${command}: ${stderr}`);
    }
    assert.equal(daemons.length, 1);
    assert.equal(runProgram(folder, join(folder, 'drive')), `${printed}\n`);
    await stopLast();
  } finally {
    for (const daemon of daemons) daemon.kill('SIGKILL');
    for (const path of [folder, runtime]) rmSync(path, { recursive: true, force: true });
  }
});

/** What differs from run to run and from machine to machine is made the same. */
const masked = (text: string): string[] =>
  text
    .split('\n')
    .map((line) =>
      line
        .replace(/\d[\d.]* (µs|ms|s)\b/g, 'TIME')
        .replace(/\d+(?= tokens\/s|\b in memory)/g, 'RATE')
        .replace(/daemon \d+/, 'daemon ID')
        .replace(/(kernels {3}).*/, '$1NAMES')
        .replace(/\s+/g, ' ')
        .trim(),
    )
    .filter((line) => line !== '');

test('the demo prints what the README shows, but for times, names and the rest of the texts', () => {
  const [, shown = ''] = /The demo prints:\n\n```text\n([^]*?)^```$/m.exec(readme) ?? [];
  const wanted = masked(shown);
  assert.ok(wanted.length > 15, `only ${wanted.length} lines found`);
  const { status, stdout, stderr } = attndrive(['demo']);
  assert.equal(status, 0, stderr);
  const lines = masked(stderr + stdout);
  let from = 0;
  for (const line of wanted) {
    const start = line.endsWith(' …') ? line.slice(0, -2) : undefined;
    const at = lines.findIndex(
      (found, i) => i >= from && (start === undefined ? found === line : found.startsWith(start)),
    );
    assert.ok(at >= 0, `"${line}" is not among what follows in\n${lines.slice(from).join('\n')}`);
    from = at + 1;
  }
});
