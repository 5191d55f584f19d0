import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after } from 'node:test';

/** A folder that is removed after the tests of the file. In memory where that can be: images are many. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(`${existsSync('/dev/shm') ? '/dev/shm' : tmpdir()}/attndrive-cuts-`);
  after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** An empty folder inside. */
export function emptyFolder(parent: string, name: string): string {
  const folder = `${parent}/${name}`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  return folder;
}
