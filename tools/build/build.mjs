// Builds everything into .build/: TypeScript, the WebAssembly kernels, and the native kernels if there is a compiler.
// Silent where nothing changed. Fails on TypeScript and AssemblyScript errors; never for want of a C++ compiler.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { linkExecutable } from './link.mjs';
import { buildNativeKernels } from './native.mjs';
import { buildWasmKernels } from './wasm.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));

const compiler = 'node_modules/typescript/bin/tsc';
if (!existsSync(root + compiler)) {
  console.error(`attndrive: what the build needs is not installed: run "npm ci" in ${root}`);
  process.exit(1);
}

// The native compiler works while TypeScript is compiled.
const native = buildNativeKernels(root);
const tsc = spawnSync(process.execPath, [compiler, '-b'], { cwd: root, stdio: 'inherit' });
const wasmBuilt = buildWasmKernels(root);
await native;
linkExecutable(root);
process.exitCode = tsc.status === 0 && wasmBuilt ? 0 : 1;
