// Everything about the source that can be checked without running it: lint with types and layer rules, format, tidiness,
// generated tables. Errors fail; warnings are printed. `--fix` formats and rewrites what is generated.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { tidy } from './tidy.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const fix = process.argv.includes('--fix');
const OUTPUT_LINES_MAX = 100;
let failed = false;

function step(name, command, args) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  const good = result.status === 0;
  console.log(`${good ? 'ok  ' : 'FAIL'} ${name}`);
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim();
  if (!good || /\bwarning\b/i.test(output)) console.log(output.split('\n').slice(0, OUTPUT_LINES_MAX).join('\n'));
  if (result.error) console.log(String(result.error));
  failed ||= !good;
}

const bin = (name) => `node_modules/.bin/${name}`;

step('layers', process.execPath, ['tools/build/lint-config.mjs', ...(fix ? ['--write'] : [])]);
step('spec tables', process.execPath, ['tools/build/spec-tables.mjs', ...(fix ? ['--write'] : [])]);
step('lint', bin('oxlint'), ['--format=unix', '--report-unused-disable-directives']);
step('format', bin('biome'), ['format', ...(fix ? ['--write'] : []), '--colors=off', '--reporter=summary', '.']);

const problems = tidy(root);
console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} tidy`);
for (const problem of problems) console.log(problem);
process.exit(failed || problems.length > 0 ? 1 : 0);
