import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { kernelPrecisions } from '../../daemon/kernels/contract.ts';
import { loadKernels, resolveKernels } from '../../daemon/kernels/loader.ts';
import { nativeUnavailable, supportedIsas } from '../../daemon/kernels/native/native-kernels.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'attndrive-kernels-'));
after(() => rmSync(folder, { recursive: true }));

const reason = nativeUnavailable();
const skip = reason === undefined ? false : `NOT TESTED: native kernels: ${reason}`;

function withEnvironment<T>(values: Record<string, string>, work: () => T): T {
  const before = Object.fromEntries(Object.keys(values).map((key) => [key, process.env[key]]));
  Object.assign(process.env, values);
  try {
    return work();
  } finally {
    for (const [key, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[key];
      else process.env[key] = value;
    }
  }
}

test('auto follows ATTNDRIVE_KERNELS, a name does not', () => {
  const arena = createArena(1 << 20);
  withEnvironment({ ATTNDRIVE_KERNELS: 'reference' }, () => {
    assert.equal(loadKernels('auto', { memory: arena.memory }).name, 'reference');
    assert.equal(loadKernels('wasm', { memory: arena.memory }).name, 'wasm');
  });
  withEnvironment({ ATTNDRIVE_KERNELS: 'wasm' }, () => {
    assert.equal(loadKernels('auto', { memory: arena.memory }).isa, 'simd128');
  });
  withEnvironment({ ATTNDRIVE_KERNELS: 'auto' }, () => {
    assert.equal(resolveKernels('auto'), reason === undefined ? 'native' : 'wasm');
  });
});

test('an unknown kernel set is refused by name', () => {
  withEnvironment({ ATTNDRIVE_KERNELS: 'cuda' }, () => {
    assert.throws(
      () => resolveKernels('auto'),
      (error: unknown) =>
        error instanceof DriveError &&
        error.code === 'invalidField' &&
        error.message.includes('ATTNDRIVE_KERNELS=cuda; allowed: auto, native, wasm, reference'),
    );
  });
});

test('ATTNDRIVE_ISA holds the native kernels to an instruction set', { skip }, () => {
  const arena = createArena(1 << 20);
  withEnvironment({ ATTNDRIVE_ISA: 'portable' }, () => {
    assert.equal(loadKernels('native', { memory: arena.memory }).isa, 'portable');
  });
  withEnvironment({ ATTNDRIVE_ISA: 'avx9' }, () => {
    assert.throws(() => loadKernels('native', { memory: arena.memory }), /ATTNDRIVE_ISA=avx9; known: portable/);
  });
});

test('a precision leaves the instruction sets that keep it, close is the default, ATTNDRIVE_ISA goes first', {
  skip,
}, () => {
  const { memory } = createArena(1 << 20);
  const less = { exact: ['avx512dp', 'avx512fast'], close: ['avx512fast'], fast: [] } as const;
  withEnvironment({ ATTNDRIVE_ISA: '' }, () => {
    for (const precision of kernelPrecisions) {
      const isas = supportedIsas(precision);
      const best = supportedIsas('fast').filter((isa) => !(less[precision] as readonly string[]).includes(isa));
      assert.deepEqual(isas, best);
      assert.equal(loadKernels('native', { memory, precision }).isa, isas.at(-1));
    }
    assert.equal(loadKernels('native', { memory }).isa, supportedIsas('close').at(-1));
  });
  withEnvironment({ ATTNDRIVE_ISA: 'portable' }, () => {
    assert.equal(loadKernels('native', { memory, precision: 'fast' }).isa, 'portable');
  });
});

test('without the addon auto is wasm, and asking for native says why not', () => {
  for (const part of ['daemon/base', 'daemon/kernels', 'spec']) {
    cpSync(join(root, '.build', part), join(folder, part), { recursive: true });
  }
  rmSync(join(folder, 'daemon/kernels/native/attndrive.node'), { force: true });
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  const script = `
    import { loadKernels } from ${JSON.stringify(pathToFileURL(join(folder, 'daemon/kernels/loader.js')).href)};
    const memory = new WebAssembly.Memory({ initial: 8, maximum: 8, shared: true });
    console.log(loadKernels('auto', { memory }).name);
    try { loadKernels('native', { memory }); } catch (error) { console.log(error.code, error.message); }`;
  const environment = { ...process.env, ATTNDRIVE_KERNELS: '' };
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: environment,
  });
  const [first, second] = output.trim().split('\n');
  assert.equal(first, 'wasm');
  assert.match(second!, /^invalidField .*'native' are not built .*attndrive\.node/);
});

/** Runs the native build step on a copy of the sources. */
function buildIn(base: string, environment: Record<string, string>): { status: number | null; lines: string[] } {
  const step = pathToFileURL(join(root, 'tools/build/native.mjs')).href;
  const script = `const { buildNativeKernels } = await import(${JSON.stringify(step)});
    await buildNativeKernels(${JSON.stringify(base)});`;
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: environment,
  });
  return {
    status: run.status,
    lines: (run.stdout + run.stderr)
      .trim()
      .split('\n')
      .filter((line) => line !== ''),
  };
}

test('a build without a compiler, or with one that fails, says so in one line and goes on', () => {
  const base = join(folder, 'build');
  mkdirSync(join(base, 'daemon/kernels'), { recursive: true });
  cpSync(join(root, 'daemon/kernels/native'), join(base, 'daemon/kernels/native'), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(base, 'node_modules'));
  const none = buildIn(base, { PATH: '/nonexistent' });
  assert.equal(none.status, 0);
  assert.deepEqual(none.lines, [
    'native kernels not built: no C++ compiler (g++, c++, clang++ on PATH);' + ' the WebAssembly kernels are used',
  ]);
  const compiler = join(folder, 'broken-compiler');
  writeFileSync(
    compiler,
    '#!/bin/sh\ncase "$1" in --version) echo broken 1.0;; *) echo "no such thing" >&2; exit 1;; esac\n',
  );
  chmodSync(compiler, 0o755);
  for (let run = 0; run < 2; run++) {
    const broken = buildIn(base, { PATH: process.env['PATH'] ?? '', CXX: compiler });
    assert.equal(broken.status, 0);
    assert.equal(broken.lines.length, 1);
    assert.match(broken.lines[0]!, /broken-compiler failed, see .*compile\.log; the WebAssembly kernels are used/);
  }
});
