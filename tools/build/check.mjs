// Everything about the source that can be checked without running it: lint with types and layer rules, format, tidiness,
// generated tables. Errors fail; warnings are printed. `--fix` formats and rewrites what is generated.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { tidy } from './tidy.mjs';

const OUTPUT_LINES_MAX = 100;
const root = fileURLToPath(new URL('../../', import.meta.url));

/** Runs all checks and prints what they find; returns the names of those that passed and of those that failed. */
export function runChecks({ fix = false } = {}) {
  const results = { passed: [], failed: [] };
  const report = (name, good, output) => {
    console.log(`${good ? 'ok  ' : 'FAIL'} ${name}`);
    if (!good || /\bwarning\b/i.test(output)) console.log(output.split('\n').slice(0, OUTPUT_LINES_MAX).join('\n'));
    results[good ? 'passed' : 'failed'].push(name);
  };
  const step = (name, command, args) => {
    const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
    report(name, status === 0, `${stdout ?? ''}${stderr ?? ''}${error ?? ''}`.trim());
  };
  const bin = (name) => `node_modules/.bin/${name}`;
  step('layers', process.execPath, ['tools/build/lint-config.mjs', ...(fix ? ['--write'] : [])]);
  step('spec tables', process.execPath, ['tools/build/spec-tables.mjs', ...(fix ? ['--write'] : [])]);
  step('lint', bin('oxlint'), ['--format=unix', '--report-unused-disable-directives']);
  step('format', bin('biome'), ['format', ...(fix ? ['--write'] : []), '--colors=off', '--reporter=summary', '.']);
  const problems = tidy(root);
  report('tidy', problems.length === 0, problems.join('\n'));
  return results;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { failed } = runChecks({ fix: process.argv.includes('--fix') });
  process.exitCode = failed.length > 0 ? 1 : 0;
}
