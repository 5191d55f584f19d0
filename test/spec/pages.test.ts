import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type PageBlock, pageBlocks } from './page-blocks.ts';
import { workedExamples } from './worked-examples.ts';

const root = new URL('../../../', import.meta.url);
const folder = new URL('spec/', root);
const pages = readdirSync(folder).filter((name) => name.endsWith('.md'));
const textOf = (page: string): string => readFileSync(new URL(page, folder), 'utf8');

const blocks = pages.flatMap((page) => pageBlocks(page, textOf(page)));

const dump = (bytes: Uint8Array): string[] => {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 8) {
    const run = bytes.subarray(at, at + 8);
    if (run.some((byte) => byte !== 0)) lines.push(`${at}: ${Buffer.from(run).toString('hex')}`);
  }
  return lines;
};

for (const { page, name, bytes } of blocks) {
  test(`${page}: the bytes of ${name} are what the encoders make`, () => {
    const make = workedExamples[name];
    assert(make, `no example ${name} in worked-examples.ts`);
    const made = make();
    assert.equal(bytes.length, made.length, 'length');
    assert.deepEqual(dump(bytes), dump(made));
  });
}

test('every worked example stands in a page, once', () => {
  const names = blocks.map((block: PageBlock) => block.name).sort();
  assert.deepEqual(names, Object.keys(workedExamples).sort());
});

test('tables in the pages are those of the TypeScript tables', () => {
  const result = spawnSync(process.execPath, ['tools/build/spec-tables.mjs'], {
    cwd: fileURLToPath(root),
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, result.stderr);
});

test('links between the pages lead somewhere', () => {
  for (const page of pages) {
    for (const [, target] of textOf(page).matchAll(/\]\(([^)#]+)[^)]*\)/g)) {
      if (target === undefined || /^https?:/.test(target)) continue;
      assert(existsSync(new URL(target, folder)), `${page} links to ${target}`);
    }
  }
});

test('tests that the pages name are there', () => {
  for (const page of pages) {
    for (const [path] of textOf(page).matchAll(/test\/[\w/.-]+\.ts/g)) {
      assert(existsSync(new URL(path, root)), `${page} names ${path}`);
    }
  }
});

test('the README of the contract names every page', () => {
  const readme = textOf('README.md');
  for (const page of pages)
    if (page !== 'README.md') assert(readme.includes(`(${page})`), `README.md leaves out ${page}`);
});
