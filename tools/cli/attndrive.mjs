#!/usr/bin/env node
// Starts the built command line. Plain JavaScript, so that it can say what to do where nothing is built yet.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../../.build/tools/cli/main.js', import.meta.url);
if (existsSync(main)) {
  const { main: run } = await import(main.href);
  process.exitCode = await run(process.argv);
} else {
  const root = fileURLToPath(new URL('../../', import.meta.url));
  process.stderr.write(`attndrive: not built yet: run "npm ci" (or "npm run build") in ${root}\n`);
  process.exitCode = 1;
}
