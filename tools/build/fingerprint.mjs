// Skips a build step whose inputs are those of the last run: a hash of them stands beside the output.
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** SHA-256 over strings and the names and bytes of files. */
export function fingerprint(strings, files) {
  const hash = createHash('sha256');
  for (const text of strings) hash.update(`${text}\0`);
  for (const file of files) hash.update(`${file}\0`).update(readFileSync(file)).update('\0');
  return hash.digest('hex');
}

/** Files of a folder that end in one of `endings`, sorted. */
export function filesOf(folder, endings) {
  return readdirSync(folder)
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .sort()
    .map((name) => join(folder, name));
}

/** The record that the last run left: {fingerprint, ...}, or undefined. */
export function readStamp(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

export function writeStamp(path, record) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, JSON.stringify(record));
}

export function removeStamp(path) {
  rmSync(path, { force: true });
}
