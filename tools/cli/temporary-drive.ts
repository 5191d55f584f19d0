/** A drive in a temporary folder with a daemon process of its own, for the demo and the benchmarks. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DriveUnreachableError, locateDrive } from '../../client/index.ts';
import { CliError } from './cli-error.ts';
import type { FormatRequest } from './format-drive.ts';

const READY_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 15_000;
const STDERR_CHARACTERS_MAX = 4000;
/** As shells report an end by SIGINT. */
const INTERRUPTED_STATUS = 130;

/** The launcher that people run; commands shown to them name it too. */
export const launcher = fileURLToPath(new URL('../../../tools/cli/attndrive.mjs', import.meta.url));

export interface TemporaryDrive {
  /** Holds the drive's folder and nothing else. */
  readonly folder: string;
  /** For --drive and the SDK. */
  readonly address: string;
  readonly processId: number;
  readonly runtimeFolder: string;
  /** Stops the daemon cleanly and removes both folders, or keeps the drive's. */
  stop(keepDrive?: boolean): Promise<void>;
}

export interface TemporaryDriveOptions {
  readonly format: FormatRequest;
  /** More arguments for `start`: ["--kernels", "wasm"]. */
  readonly start?: readonly string[];
}

/** Formats a drive in a folder of its own and starts a daemon for it. */
export async function startTemporaryDrive(options: TemporaryDriveOptions): Promise<TemporaryDrive> {
  const { formatFolder } = await import('./format-drive.ts');
  const parent = mkdtempSync(join(tmpdir(), 'attndrive-'));
  return serve(join(parent, 'drive'), parent, options.start ?? [], (folder) => formatFolder(folder, options.format));
}

/** Starts a daemon for a drive that is there, and stays. */
export function startDriveOver(folder: string, start: readonly string[] = []): Promise<TemporaryDrive> {
  return serve(folder, undefined, start, () => Promise.resolve());
}

/** `temporary`: what goes with the drive when it stops. */
async function serve(
  folder: string,
  temporary: string | undefined,
  start: readonly string[],
  prepare: (folder: string) => Promise<unknown>,
): Promise<TemporaryDrive> {
  const runtimeFolder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'attndrive-run-'));
  const remove = (keepDrive: boolean): void => {
    rmSync(runtimeFolder, { recursive: true, force: true });
    if (temporary !== undefined && !keepDrive) rmSync(temporary, { recursive: true, force: true });
  };
  const removeAll = (): void => remove(false);
  // However this process ends, nothing stays behind: not the daemon (which startDaemon sees to), nor its folders.
  const interrupted = (): never => process.exit(INTERRUPTED_STATUS);
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  process.once('exit', removeAll);
  const finish = (): void => {
    process.off('SIGINT', interrupted);
    process.off('SIGTERM', interrupted);
    process.off('exit', removeAll);
  };
  try {
    await prepare(folder);
    const daemon = await startDaemon(folder, runtimeFolder, start);
    return {
      folder,
      address: daemon.address,
      processId: daemon.process.pid ?? 0,
      runtimeFolder,
      async stop(keepDrive = false) {
        await stopDaemon(daemon.process);
        finish();
        remove(keepDrive);
      },
    };
  } catch (error) {
    finish();
    removeAll();
    throw error;
  }
}

interface Daemon {
  readonly process: ChildProcess;
  readonly address: string;
}

async function startDaemon(folder: string, runtimeFolder: string, more: readonly string[]): Promise<Daemon> {
  const listen = ['--tcp', 'off', '--http', 'off', '--runtime-dir', runtimeFolder, '--log-level', 'warn'];
  const child = spawn(process.execPath, [launcher, 'start', folder, ...listen, ...more], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-STDERR_CHARACTERS_MAX);
  });
  // A daemon must not outlive the process that wanted it.
  const kill = (): void => void child.kill('SIGKILL');
  process.prependOnceListener('exit', kill);
  child.once('exit', () => process.off('exit', kill));
  const deadlineMs = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const address = readyAddress(folder);
    if (address !== undefined) return { process: child, address };
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new CliError(
        `the daemon ended before it was ready: ${said.trim().split('\n').at(-1) ?? 'it said nothing'}`,
      );
    }
    if (performance.now() > deadlineMs) {
      child.kill('SIGKILL');
      throw new CliError(`the daemon was not ready after ${READY_TIMEOUT_MS / 1000} s: ${said.trim()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Where the drive listens, once its daemon has said so: it does when it is ready. */
function readyAddress(folder: string): string | undefined {
  try {
    return locateDrive(folder).address;
  } catch (error) {
    if (error instanceof DriveUnreachableError) return undefined;
    throw error;
  }
}

async function stopDaemon(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
  await ended;
  clearTimeout(timer);
}
