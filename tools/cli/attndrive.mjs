#!/usr/bin/env node
// Starts the built command line. Plain JavaScript, so that it can say what to do where nothing is built yet.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../../.build/tools/cli/main.js', import.meta.url);
const root = fileURLToPath(new URL('../../', import.meta.url));

function fail(text) {
  process.stderr.write(`attndrive: ${text}\n`);
  process.exitCode = 1;
}

if (!existsSync(main)) {
  fail(`not built yet: run "npm ci" (or "npm run build") in ${root}`);
} else if (!existsSync(new URL('../../node_modules', import.meta.url))) {
  fail(`node_modules is missing: run "npm ci" in ${root}`);
} else {
  try {
    const { main: run } = await import(main.href);
    process.exitCode = await run(process.argv);
  } catch (error) {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    fail(`a package is missing: run "npm ci" in ${root} (${error.message.split('\n')[0]})`);
  }
}
