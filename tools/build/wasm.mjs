// Compiles the AssemblyScript kernels to .build/daemon/kernels/wasm/attndrive.wasm.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { filesOf, fingerprint, readStamp, writeStamp } from './fingerprint.mjs';

// The memory is imported and shared: any arena from two pages to 4 GiB fits these limits. Statics (the CRC table) and
// the scratch slots lie below the arena's reserved bytes, in daemon/base/arena.ts.
const flags = [
  '--optimizeLevel',
  '3',
  '--shrinkLevel',
  '0',
  '--noAssert',
  '--runtime',
  'stub',
  '--use',
  'abort=',
  '--importMemory',
  '--sharedMemory',
  '--initialMemory',
  '1',
  '--maximumMemory',
  '65536',
  '--memoryBase',
  '10240',
  // 201: everything here is wasm32; 112: no export of the module itself has a v128.
  '--disableWarning',
  '201',
  '--disableWarning',
  '112',
  '--enable',
  'simd',
  '--enable',
  'threads',
  '--enable',
  'bulk-memory',
];

/** True if the module is there and current afterwards. */
export function buildWasmKernels(root) {
  const sources = filesOf(join(root, 'daemon/kernels/wasm/assembly'), ['.ts']);
  const folder = join(root, '.build/daemon/kernels/wasm');
  const output = join(folder, 'attndrive.wasm');
  const stamp = join(folder, 'attndrive.wasm.stamp.json');
  const compiler = join(root, 'node_modules/assemblyscript');
  const current = fingerprint(flags, [...sources, join(compiler, 'package.json')]);
  if (existsSync(output) && readStamp(stamp)?.fingerprint === current) return true;
  mkdirSync(folder, { recursive: true });
  const made = `${output}.${process.pid}`;
  const entry = join(root, 'daemon/kernels/wasm/assembly/index.ts');
  const run = spawnSync(process.execPath, [join(compiler, 'bin/asc.js'), entry, '--outFile', made, ...flags], {
    cwd: root,
    stdio: 'inherit',
  });
  if (run.status !== 0) return false;
  renameSync(made, output);
  writeStamp(stamp, { fingerprint: current });
  return true;
}
