import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ModelError } from './model-error.ts';

const READ_BYTES_MAX = 1 << 28;

/** A regular file, whole, in memory of its own, so that typed arrays can look at it. ModelError says what is wrong. */
export function readWholeFile(path: string, what: string, sizeBytesMax: number): Uint8Array<ArrayBuffer> {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    throw new ModelError(`${what} ${path}: ${reasonOf(error)}`);
  }
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) throw new ModelError(`${what} ${path}: not a regular file`);
    if (status.size > sizeBytesMax) {
      throw new ModelError(`${what} ${path}: ${status.size} bytes, at most ${sizeBytesMax} are read`);
    }
    const bytes = new Uint8Array(status.size);
    let done = 0;
    while (done < bytes.length) {
      const got = readSync(descriptor, bytes, done, Math.min(bytes.length - done, READ_BYTES_MAX), done);
      if (got === 0) throw new ModelError(`${what} ${path}: ends after ${done} of ${bytes.length} bytes`);
      done += got;
    }
    return bytes;
  } finally {
    closeSync(descriptor);
  }
}

function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EACCES') return 'no permission to read it';
  if (code === 'EISDIR') return 'is a folder';
  return error instanceof Error ? error.message : String(error);
}
