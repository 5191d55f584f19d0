/** Runs the command line as people do, through its launcher. */
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const launcher = fileURLToPath(new URL('../../../tools/cli/attndrive.mjs', import.meta.url));

export interface CommandResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Nothing of this user's running drives is seen unless `environment` says so. */
function environmentOf(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { RUNTIME_DIRECTORY, XDG_RUNTIME_DIR, FORCE_COLOR, ...rest } = process.env;
  return { ...rest, ...environment };
}

const TIMEOUT_MS = 300_000;

/** Runs it to its end; killed, without a status, if it has none. */
export function attndrive(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  timeout = TIMEOUT_MS,
): CommandResult {
  const { status, stdout, stderr } = spawnSync(process.execPath, [launcher, ...args], {
    encoding: 'utf8',
    env: environmentOf(environment),
    maxBuffer: 64 * 2 ** 20,
    timeout,
    killSignal: 'SIGKILL',
  });
  return { status, stdout, stderr };
}

export function startAttndrive(args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
  return spawn(process.execPath, [launcher, ...args], {
    env: environmentOf(environment),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}
