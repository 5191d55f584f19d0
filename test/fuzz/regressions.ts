/**
 * Inputs that once made the drive fail, in `regressions/`: a file for each failure, its name what went wrong. Its first line
 * is JSON with the target and the seed of the session, and what was found; the others are the inputs.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseInputs } from './inputs.ts';

export interface Regression {
  readonly name: string;
  readonly target: string;
  readonly seed: bigint;
  readonly found: string;
  readonly inputs: readonly unknown[];
}

const FOLDER = fileURLToPath(new URL('../../../test/fuzz/regressions/', import.meta.url));
const ENDING = '.jsonl';

export function regressions(): Regression[] {
  if (!existsSync(FOLDER)) return [];
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith(ENDING))
    .map((file) => {
      const text = readFileSync(`${FOLDER}${file}`, 'utf8');
      const end = text.indexOf('\n');
      const { target, seed, found } = JSON.parse(text.slice(0, end)) as { target: string; seed: string; found: string };
      const inputs = parseInputs(text.slice(end + 1));
      return { name: file.slice(0, -ENDING.length), target, seed: BigInt(seed), found, inputs };
    });
}
