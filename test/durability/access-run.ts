// What a drive says that this process may not have. Argument: a folder, whose parents anybody may enter. It runs as
// another user than the files' owner if it may change who it is.
import { chmodSync, readdirSync, statSync } from 'node:fs';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { smallDrive } from './recorded-run.ts';
import { openWholeFtl } from './whole-ftl.ts';

const NOBODY = 65_534;
const [, , parent = ''] = process.argv;
const folder = `${parent}/drive`;
const random = createSeededRandom(1);
await formatDrive(folder, smallDrive, random);
await (await openWholeFtl(openFolder(folder), random)).close();

/** Modes of all files and folders, for everybody. */
function setModes(fileMode: number, folderMode: number, except: string, exceptMode: number): void {
  const paths = ['', ...readdirSync(folder, { recursive: true }).map(String)];
  for (const path of paths.sort().reverse()) {
    const name = `${folder}/${path}`;
    chmodSync(name, path === except ? exceptMode : statSync(name).isDirectory() ? folderMode : fileMode);
  }
}

async function tell(what: string, action: () => Promise<unknown>): Promise<void> {
  const isRoot = process.getuid?.() === 0;
  if (isRoot) process.seteuid?.(NOBODY);
  try {
    await action();
    console.log(`${what}: done`);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    console.log(`${what}: ${code} ${message}`);
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

const open = async (): Promise<void> => (await openWholeFtl(openFolder(folder), random)).close();
for (const [path, mode] of [
  ['superblock', 0],
  ['', 0o555],
  ['media', 0],
  ['media/cells.bin', 0o444],
  ['meta/data.mdb', 0o444],
  ['staging', 0],
  ['staging', 0o555],
  ['', 0],
] as const) {
  setModes(0o666, 0o777, path, mode);
  await tell(`${path || '.'} ${mode.toString(8)}`, open);
  setModes(0o666, 0o777, '', 0o777);
}
await tell('all', open);
chmodSync(parent, 0o555);
await tell('format', () => formatDrive(`${parent}/other`, smallDrive, random));
chmodSync(parent, 0o777);
