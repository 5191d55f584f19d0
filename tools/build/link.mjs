// Puts the executable where npx and npm scripts find it, as npm does for a dependency's but not for the package itself.
import { lstatSync, readlinkSync, symlinkSync } from 'node:fs';

export function linkExecutable(root) {
  const link = `${root}node_modules/.bin/attndrive`;
  const target = '../../tools/cli/attndrive.mjs';
  try {
    if (lstatSync(`${root}node_modules`).isSymbolicLink()) return;
    if (lstatSync(link, { throwIfNoEntry: false }) && readlinkSync(link) === target) return;
    symlinkSync(target, link);
  } catch {
    // A convenience: without it, the file itself can be run.
  }
}
