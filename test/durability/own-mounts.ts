/** Scripts that may mount what they like: in a mount namespace of their own, which ends with them. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const isolated = ['--mount', '--propagation', 'private'];
/** An ordinary user needs a user namespace too. */
const asRoot = process.geteuid?.() === 0 ? [] : ['--user', '--map-root-user'];

/** Why mounts of one's own are not to be had here; undefined: they are. */
export function whyNoMounts(): string | undefined {
  const script = 'mount -t tmpfs -o size=64k none /mnt';
  const { error, status, stderr } = spawnSync('unshare', [...isolated, ...asRoot, 'sh', '-c', script], {
    encoding: 'utf8',
  });
  return status === 0 ? undefined : `no mounts of one's own: ${error?.message ?? stderr.trim()}`;
}

/** Runs a script of this folder; returns its exit status, what it printed, and that with its errors. */
export function runWithMounts(script: string, args: readonly string[]) {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const command = [...isolated, ...asRoot, process.execPath, '--enable-source-maps', path, ...args];
  const { status, stdout, stderr } = spawnSync('unshare', command, { encoding: 'utf8', timeout: 240_000 });
  return { status, stdout, output: `${stdout}${stderr}` };
}

/** For such a script. */
export function run(command: string, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
}
