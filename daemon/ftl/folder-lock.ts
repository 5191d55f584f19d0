import { linkSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { DriveError } from '../base/errors.ts';
import { fileError } from '../base/file-errors.ts';

const ATTEMPT_COUNT = 4;

/**
 * One process per drive folder: a file `lock` with the process id, when that process began and in which boot of the
 * machine, so that a lock left by a killed daemon is told from a living one even if the id is in use again. None of that
 * follows the wall clock. The file appears whole, by a link.
 */
export class FolderLock {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** DriveError folderInUse names the process that has the folder; folderAccess or writeFault if it can't be written to. */
  static take(folder: string): FolderLock {
    const path = `${folder}/lock`;
    const own = `${path}.${process.pid}`;
    try {
      writeFileSync(own, `${process.pid} ${startOf(process.pid) ?? 0} ${bootId()}\n`, { mode: 0o600 });
      for (let attempt = 0; attempt < ATTEMPT_COUNT; attempt++) {
        if (ignoring('EEXIST', () => linkSync(own, path))) return new FolderLock(path);
        removeIfStale(path, folder);
      }
    } catch (error) {
      if (error instanceof DriveError) throw error;
      throw fileError('writeFault', error, path);
    } finally {
      rmSync(own, { force: true });
    }
    throw new DriveError('folderInUse', `${folder}: another process is taking it`);
  }

  /** Whether a live process has the folder. Changes nothing. */
  static assertFree(folder: string): void {
    isStale(`${folder}/lock`, folder);
  }

  release(): void {
    ignoring('ENOENT', () => unlinkSync(this.#path));
  }
}

/** Whether it ended without an error; errors but this one go on. */
function ignoring(code: string, action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== code) throw error;
    return false;
  }
}

function removeIfStale(path: string, folder: string): void {
  if (isStale(path, folder)) {
    // Another process may do the same and have a lock of its own by now: so what is moved away is looked at again.
    const aside = `${path}.stale.${process.pid}`;
    if (!ignoring('ENOENT', () => renameSync(path, aside))) return;
    try {
      isStale(aside, folder);
    } catch (error) {
      ignoring('EEXIST', () => linkSync(aside, path));
      throw error;
    } finally {
      unlinkSync(aside);
    }
  }
}

/** False if it is gone. DriveError folderInUse if its process lives. */
function isStale(path: string, folder: string): boolean {
  let text = '';
  if (!ignoring('ENOENT', () => (text = readFileSync(path, 'utf8')))) return false;
  const [pidText, startText, boot] = text.trim().split(' ');
  const pid = Number(pidText);
  const isSameBoot = boot === undefined || boot === bootId();
  const isAlive = Number.isInteger(pid) && pid > 0 && isSameBoot && startOf(pid) === Number(startText);
  if (isAlive) throw new DriveError('folderInUse', `${folder} is served by process ${pid}; stop it first`);
  return true;
}

/** Changes with every boot of the machine; empty where the system doesn't tell. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}

/**
 * Clock ticks from boot to the start of a process; undefined if there is none, or only what is left of one that nobody
 * has waited for. Fields 3 and 22 of /proc/PID/stat.
 */
function startOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19]);
  } catch {
    return undefined;
  }
}
