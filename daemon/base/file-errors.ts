import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DriveError } from './errors.ts';

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** Says nothing against what the file holds: it is there, but not for this process, or not to be written. */
const accessCodes: readonly (string | undefined)[] = ['EACCES', 'EPERM', 'EROFS'];

/**
 * What a call of the file system failed with, as a condition the drive can name: folderAccess if this process may not have
 * the file; else `code`.
 */
export function fileError(code: 'mediaFormat' | 'writeFault', error: unknown, path: string): DriveError {
  const named = accessCodes.includes(codeOf(error)) ? 'folderAccess' : code;
  return new DriveError(named, `${path}: ${fileErrorReason(error, path)}`, { cause: error });
}

/** Why the system refused a call, in words that say what to do about it. */
export function fileErrorReason(error: unknown, path: string): string {
  switch (codeOf(error)) {
    case 'ENOSPC':
      return 'the disk is full';
    case 'EDQUOT':
      return 'the disk quota is used up';
    case 'EROFS':
      return 'its file system is read-only, and a drive writes even where it is only read';
    case 'EACCES':
    case 'EPERM':
      return `permission denied${ownerText(path)}`;
    case 'EIO':
      return 'the disk reports an input/output error';
    default:
      return (error as Error).message;
  }
}

/** Of the file, or of the nearest folder above it that may be looked at. */
function ownerText(path: string): string {
  for (let at = path; ; at = dirname(at)) {
    try {
      const { uid, mode } = statSync(at);
      const owner = `${at} belongs to user ${uid}, mode ${(mode & 0o7777).toString(8).padStart(4, '0')}`;
      return `: ${owner}; this process runs as user ${process.geteuid?.() ?? 'unknown'}`;
    } catch {
      if (at === dirname(at)) return '';
    }
  }
}
