import { linkSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { DriveError } from '../base/errors.ts';

const ATTEMPT_COUNT = 4;

/**
 * One process per drive folder: a file `lock` with the process id and when that process began, so that a lock left by a
 * killed daemon is told from a living one even if the id is in use again. The file appears whole, by a link.
 */
export class FolderLock {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** DriveError folderInUse names the process that has the folder; writeFault if the folder can't be written. */
  static take(folder: string): FolderLock {
    const path = `${folder}/lock`;
    const own = `${path}.${process.pid}`;
    try {
      writeFileSync(own, `${process.pid} ${startOf(process.pid) ?? 0}\n`, { mode: 0o600 });
      for (let attempt = 0; attempt < ATTEMPT_COUNT; attempt++) {
        if (ignoring('EEXIST', () => linkSync(own, path))) return new FolderLock(path);
        removeIfStale(path, folder);
      }
    } catch (error) {
      if (error instanceof DriveError) throw error;
      throw new DriveError('writeFault', `cannot write ${path}: ${(error as Error).message}`, { cause: error });
    } finally {
      ignoring('ENOENT', () => unlinkSync(own));
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
  const [pid, start] = text.trim().split(' ').map(Number);
  const isAlive = pid !== undefined && Number.isInteger(pid) && pid > 0 && startOf(pid) === start;
  if (isAlive) throw new DriveError('folderInUse', `${folder} is served by process ${pid}; stop it first`);
  return true;
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
