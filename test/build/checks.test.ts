/** The checks, given faults to find. A check that finds nothing any more would be worse than none. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** A folder laid out like the repository, with these files in it. */
function planted(t: TestContext, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'checks-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  copyFileSync(join(root, '.oxlintrc.json'), join(folder, '.oxlintrc.json'));
  // The type-aware part of the linter is looked for there.
  symlinkSync(realpathSync(join(root, 'node_modules')), join(folder, 'node_modules'));
  const all = { 'tsconfig.json': '{"compilerOptions":{"strict":true,"module":"nodenext","noEmit":true}}', ...files };
  for (const [path, text] of Object.entries(all)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

function lint(folder: string): string[] {
  const options = { cwd: folder, encoding: 'utf8' } as const;
  const { stdout } = spawnSync(
    join(root, 'node_modules/.bin/oxlint'),
    ['--format=unix', 'daemon', 'spec', 'client'],
    options,
  );
  return stdout.split('\n').flatMap((line) => {
    const match = /^([^:]+):\d+:\d+: .*\[\w+\/.*\((.+)\)\]$/.exec(line);
    return match === null ? [] : [`${match[1]} ${match[2]}`];
  });
}

test('lint finds imports upwards, cycles, ambient time and chance, forgotten promises', (t) => {
  const folder = planted(t, {
    'daemon/kv/contract.ts': 'export interface KvStore { id: number }\n',
    'daemon/nand/upwards.ts': "import type { KvStore } from '../kv/contract.ts';\nexport type Store = KvStore;\n",
    'daemon/kernels/reference/upwards.ts':
      "import type { KvStore } from '../../kv/contract.ts';\nexport type Store = KvStore;\n",
    'daemon/nand/clock.ts':
      'export const now = () => Date.now() + Math.random() + performance.now();\n' +
      'export const later = () => setTimeout(() => undefined, 1);\n',
    'daemon/nand/promise.ts': 'async function f(): Promise<void> {}\nexport function g(): void {\n  f();\n}\n',
    'daemon/base/a.ts': "export { b } from './b.ts';\nexport const a = 1;\n",
    'daemon/base/b.ts': "import { a } from './a.ts';\nexport const b = a;\n",
    'spec/node.ts': "import { readFileSync } from 'node:fs';\nexport const read = readFileSync;\n",
    'client/inside.ts': "import type { KvStore } from '../daemon/kv/contract.ts';\nexport type Store = KvStore;\n",
  });
  const found = lint(folder);
  for (const expected of [
    'daemon/nand/upwards.ts no-restricted-imports',
    'daemon/kernels/reference/upwards.ts no-restricted-imports',
    'daemon/nand/clock.ts no-restricted-properties',
    'daemon/nand/clock.ts no-restricted-globals',
    'daemon/nand/promise.ts no-floating-promises',
    'daemon/base/a.ts no-cycle',
    'spec/node.ts no-restricted-imports',
    'client/inside.ts no-restricted-imports',
  ]) {
    assert(found.includes(expected), `${expected} not found among ${found.join('; ')}`);
  }
  assert(!found.some((line) => line.startsWith('daemon/kv/')), found.join('; '));
});

test('tidy finds names, lengths and rooms without a page', async (t) => {
  const folder = planted(t, {
    'daemon/nand/utils.ts': 'export {};\n',
    'daemon/nand/camelCase.ts': 'export {};\n',
    'daemon/nand/long.ts': 'export {};\n'.repeat(501),
    'daemon/nand/wide.ts': `// ${'x'.repeat(130)}\n`,
    'daemon/nand/later.ts': '// FIX' + 'ME\n',
    'daemon/nand/README.md': 'no title\n',
    'daemon/README.md': '# Daemon\n',
    'daemon/kv/fine.ts': 'export {};\n',
  });
  const { tidy } = (await import(new URL('../../../tools/build/tidy.mjs', import.meta.url).href)) as {
    tidy: (root: string) => string[];
  };
  const problems = tidy(folder).sort();
  assert.deepEqual(
    problems.map((line) => line.replace(/: .*/, '')),
    [
      'daemon/kv',
      'daemon/nand/README.md',
      'daemon/nand/camelCase.ts',
      'daemon/nand/later.ts',
      'daemon/nand/long.ts',
      'daemon/nand/utils.ts',
      'daemon/nand/wide.ts',
    ],
    problems.join('\n'),
  );
});

test('the test runner fails where a test fails, where a file cannot run, and where nothing ran', (t) => {
  const folder = planted(t, {
    'test/some.test.ts': '',
    '.build/test/some.test.js':
      "import { test } from 'node:test';\ntest('good', () => {});\ntest('bad', () => { throw new Error('no'); });\n" +
      "test('not here', { skip: 'no compiler' }, () => {});\n",
    'test/broken.test.ts': '',
    '.build/test/broken.test.js': "throw new Error('at load');\n",
    '.build/test/left-over.test.js': "throw new Error('its source is gone');\n",
    'package.json': '{"type":"module"}',
  });
  mkdirSync(join(folder, 'tools/build'), { recursive: true });
  copyFileSync(join(root, 'tools/build/test.mjs'), join(folder, 'tools/build/test.mjs'));
  const run = (...filters: string[]) => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const result = spawnSync(process.execPath, ['tools/build/test.mjs', ...filters], {
      cwd: folder,
      encoding: 'utf8',
      env,
    });
    return { status: result.status, last: result.stdout.trimEnd().split('\n').at(-1), stdout: result.stdout };
  };
  const all = run();
  assert.deepEqual([all.status, all.last], [1, '1 passed, 2 failed'], all.stdout);
  assert.match(all.stdout, /SKIPPED: 1 tests[^]*not here: no compiler/);
  assert.deepEqual([run('broken').status, run('broken').last], [1, '0 passed, 1 failed']);
  assert.deepEqual([run('nothing').status, run('nothing').last], [1, '0 passed, 0 failed']);
});
