import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** As shells report an end by SIGINT. */
const INTERRUPTED_STATUS = 130;

export interface TemporaryFolder {
  readonly path: string;
  remove(): void;
}

/** A folder that is gone when the process ends, however it ends but by SIGKILL. */
export function createTemporaryFolder(prefix: string): TemporaryFolder {
  const path = mkdtempSync(join(tmpdir(), prefix));
  const removeAll = (): void => rmSync(path, { recursive: true, force: true });
  const interrupted = (): never => process.exit(INTERRUPTED_STATUS);
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  process.once('exit', removeAll);
  return {
    path,
    remove() {
      process.off('SIGINT', interrupted);
      process.off('SIGTERM', interrupted);
      process.off('exit', removeAll);
      removeAll();
    },
  };
}
