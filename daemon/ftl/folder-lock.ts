import { closeSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import { DriveError } from '../base/errors.ts';

/**
 * One process per drive folder: a file `lock` with the process id and when that process began, so that a lock left by a
 * killed daemon is told from a living one even if the id is in use again.
 */
export class FolderLock {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** DriveError folderInUse names the process that has the folder. */
  static take(folder: string): FolderLock {
    const path = `${folder}/lock`;
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        const descriptor = openSync(path, 'wx', 0o600);
        writeSync(descriptor, `${process.pid} ${startOf(process.pid) ?? 0}\n`);
        closeSync(descriptor);
        return new FolderLock(path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
          throw new DriveError('writeFault', `cannot write ${path}: ${(error as Error).message}`, { cause: error });
        }
        removeIfStale(path, folder);
      }
    }
    throw new DriveError('folderInUse', `${folder}: another process is taking it`);
  }

  release(): void {
    unlinkSync(this.#path);
  }
}

function removeIfStale(path: string, folder: string): void {
  const [pid, start] = readFileSync(path, 'utf8').trim().split(' ').map(Number);
  const isAlive = pid !== undefined && Number.isInteger(pid) && pid > 0 && startOf(pid) === start;
  if (isAlive) throw new DriveError('folderInUse', `${folder} is served by process ${pid}; stop it first`);
  unlinkSync(path);
}

/** Clock ticks from boot to the start of a process; undefined if there is none. Field 22 of /proc/PID/stat. */
function startOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  } catch {
    return undefined;
  }
}
