import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { attndrive } from './command-line.ts';

interface Figures {
  readonly equal: boolean;
  readonly tokens: number;
  readonly pagesProgrammed: number;
  readonly pagesRead: number;
  readonly linkBytes: number;
  readonly readBackBytes: number;
  readonly kernels: string;
}

function inFolder(work: (environment: NodeJS.ProcessEnv, folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-demo-'));
  try {
    work({ TMPDIR: folder }, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test('the demo decodes the same text in memory and in a drive, and leaves nothing behind', () => {
  inFolder((environment, folder) => {
    const { status, stdout, stderr } = attndrive(
      ['demo', '--json', '--tokens', '100', '--kernels', 'wasm'],
      environment,
    );
    assert.equal(status, 0, stderr);
    const figures = JSON.parse(stdout) as Figures;
    assert.equal(figures.equal, true);
    assert.equal(figures.tokens, 100);
    // One whole group of 64 tokens of K and of V, in 4 KV heads of 4 layers.
    assert.equal(figures.pagesProgrammed, 32);
    assert.equal(figures.pagesRead, 32 * 37);
    // 100 * 101 / 2 tokens, 4 layers, 4 KV heads, K and V of 16 f32.
    assert.equal(figures.readBackBytes, 5050 * 4 * 4 * 2 * 64);
    assert.ok(figures.linkBytes > 0 && figures.linkBytes < figures.readBackBytes);
    assert.match(figures.kernels, /^wasm \(/);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test('the demo shows both texts, and keeps its drive if asked to', () => {
  inFolder((environment) => {
    const { status, stdout, stderr } = attndrive(['demo', '--tokens', '20', '--keep'], environment);
    assert.equal(status, 0, stderr);
    const texts = stdout.match(/the drive noshe she fuvi thi ni lunepa zu nai/g);
    assert.equal(texts?.length, 2);
    assert.match(stdout, /✔ equal: all 20 tokens/);
    const folder = /attndrive start (\S+)/.exec(stdout)?.[1] ?? '';
    assert.ok(existsSync(join(folder, 'superblock')), stdout);
  });
});
