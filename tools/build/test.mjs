// Runs the compiled tests (all, or those whose path contains one of the arguments) and ends with one plain line:
// N passed, N failed. With `--checks` the checks of the source run first and count as tests. With `--linux` only the
// tests against Linux kernels run, which otherwise never do: they need packages that not every machine can have.
import { existsSync, readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';

const withLinux = process.argv.includes('--linux');
const FILE_TIMEOUT_MS = withLinux ? 2_700_000 : 300_000;
const root = fileURLToPath(new URL('../../', import.meta.url));
const filters = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));

/** A test whose source is gone has been left over by an earlier build. */
const files = readdirSync(join(root, '.build/test'), { recursive: true })
  .map(String)
  .filter((path) => path.startsWith('linux/') === withLinux)
  .filter((path) => path.endsWith('.test.js') && existsSync(join(root, 'test', path.replace(/\.js$/, '.ts'))))
  .filter((path) => filters.length === 0 || filters.some((filter) => `test/${path}`.includes(filter)))
  .sort()
  .map((path) => join(root, '.build/test', path));

const results = new Map();
const of = (file) => {
  // The file is the compiled one, or its source where source maps are read.
  const path = file === undefined ? 'no file' : relative(root, resolve(root, file));
  const key = path.replace(/^\.build\//, '').replace(/\.(js|ts)$/, '');
  let result = results.get(key);
  if (result === undefined)
    results.set(key, (result = { passed: 0, failed: [], skipped: [], output: [], durationMs: 0 }));
  return result;
};

const isFile = (event) => event.nesting === 0 && files.includes(resolve(root, event.name));
const isTest = (event) => event.details?.type !== 'suite' && !isFile(event);

function failure(event) {
  const error = event.details?.error;
  const cause = error?.cause ?? error;
  return `${event.name}\n${String(cause?.stack ?? cause?.message ?? cause)}`;
}

if (files.length === 0) {
  console.error(`no tests match ${filters.join(' ') || '.build/test/**/*.test.js'}`);
  console.log('0 passed, 0 failed');
  process.exit(1);
}

const checks = { passed: [], failed: [] };
if (process.argv.includes('--checks')) Object.assign(checks, (await import('./check.mjs')).runChecks());

// Stacks of failures then name the lines of the TypeScript sources.
process.env.NODE_OPTIONS ??= '--enable-source-maps';
const stream = run({ files, concurrency: 2, timeout: FILE_TIMEOUT_MS });
stream.on('test:pass', (event) => {
  if (isFile(event) || !isTest(event)) return;
  const result = of(event.file);
  if (event.nesting === 0) result.durationMs += event.details?.duration_ms ?? 0;
  if (event.skip !== undefined) {
    result.skipped.push({ name: event.name, reason: typeof event.skip === 'string' ? event.skip : '' });
  } else if (event.todo === undefined) result.passed++;
});
stream.on('test:fail', (event) => {
  // A file fails because a test in it did, which is counted already, or because it could not run at all.
  if (isFile(event)) {
    const result = of(event.name);
    if (result.failed.length === 0) result.failed.push(failure(event));
  } else if (event.details?.error?.failureType !== 'subtestsFailed') of(event.file).failed.push(failure(event));
});
// What the tests against Linux found out is worth to be seen; the runner's own counts at the end of a file are not.
const diagnostics = [];
stream.on('test:diagnostic', ({ message, nesting }) => {
  if (withLinux && nesting > 0) diagnostics.push(message);
});
for (const kind of ['test:stdout', 'test:stderr'])
  stream.on(kind, (event) => of(event.file).output.push(event.message));
for await (const _ of stream);

for (const message of [...new Set(diagnostics)]) console.log(`     ${message}`);
let passed = checks.passed.length;
let failed = checks.failed.length;
const skipped = [];
for (const [name, result] of [...results].sort(([a], [b]) => (a < b ? -1 : 1))) {
  passed += result.passed;
  failed += result.failed.length;
  skipped.push(...result.skipped.map((skip) => ({ ...skip, file: name })));
  const counts = [`${result.passed} passed`];
  if (result.failed.length > 0) counts.push(`${result.failed.length} failed`);
  if (result.skipped.length > 0) counts.push(`${result.skipped.length} skipped`);
  const seconds = (result.durationMs / 1000).toFixed(1);
  console.log(`${result.failed.length > 0 ? 'FAIL' : 'ok  '} ${name}: ${counts.join(', ')} (${seconds} s)`);
}
for (const [name, result] of results) {
  if (result.failed.length === 0) continue;
  for (const text of result.failed) console.log(`\nFAILED ${name}: ${text}`);
  const output = result.output.join('').trim();
  if (output !== '') console.log(`\noutput of ${name}:\n${output.slice(-8000)}`);
}
for (const name of checks.failed) console.log(`\nFAILED check ${name}: see above, or npm run check`);
if (skipped.length > 0) {
  console.log(`\nSKIPPED: ${skipped.length} tests did not run on this machine:`);
  for (const { file, name, reason } of skipped) console.log(`  ${file}: ${name}${reason === '' ? '' : `: ${reason}`}`);
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
