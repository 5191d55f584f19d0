// Compiles the C++ kernels to .build/daemon/kernels/native/attndrive.node with the system's compiler: no node-gyp, no
// python, no make; the N-API headers come from npm. Where it can't be done, one line says why and WebAssembly is used.
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { filesOf, fingerprint, readStamp, writeStamp } from './fingerprint.mjs';

const execute = promisify(execFile);

const baseFlags = [
  '-O3',
  '-std=c++17',
  '-fPIC',
  '-fvisibility=hidden',
  '-fno-exceptions',
  '-fno-rtti',
  '-fno-strict-aliasing',
  '-fno-math-errno',
  '-ffp-contract=fast',
  '-Wall',
];

const avx512Flags = [
  '-mavx512f',
  '-mavx512bw',
  '-mavx512vl',
  '-mavx512dq',
  '-mavx2',
  '-mfma',
  '-mf16c',
  '-mprefer-vector-width=512',
  '-Wno-maybe-uninitialized',
  '-Wno-uninitialized',
];

// One source, compiled four times; cpuid chooses when the addon is loaded.
const isaFlags = {
  'kernels-avx2.cc': ['-mavx2', '-mfma', '-mf16c'],
  'kernels-avx512.cc': avx512Flags,
  'kernels-avx512dp.cc': [...avx512Flags, '-mavx512vnni'],
};

/** Never fails: without native kernels there are the WebAssembly ones. */
export async function buildNativeKernels(root) {
  const folder = join(root, '.build/daemon/kernels/native');
  const output = join(folder, 'attndrive.node');
  const stamp = join(folder, 'attndrive.node.stamp.json');
  const headers = join(root, 'node_modules/node-api-headers/include');
  const compiler = findCompiler();
  const obstacle = compiler.reason ?? (existsSync(headers) ? undefined : `${relative(root, headers)} is missing`);
  if (obstacle !== undefined) {
    // An addon of an earlier build would be of other sources.
    rmSync(output, { force: true });
    report(obstacle);
    return;
  }
  const sourceFolder = join(root, 'daemon/kernels/native');
  const identity = [compiler.version, process.arch, process.platform, ...baseFlags, JSON.stringify(isaFlags)];
  const current = fingerprint(identity, filesOf(sourceFolder, ['.cc', '.h']));
  const before = readStamp(stamp);
  if (before?.fingerprint === current && (before.reason !== undefined || existsSync(output))) {
    if (before.reason !== undefined) report(before.reason);
    return;
  }
  mkdirSync(folder, { recursive: true });
  const started = performance.now();
  if (process.stderr.isTTY) console.error(`compiling the native kernels with ${compiler.name}, this once …`);
  try {
    await compileAndLink(compiler, sourceFolder, headers, folder, output);
    writeStamp(stamp, { fingerprint: current });
    console.log(
      `native kernels compiled with ${compiler.name} in ${((performance.now() - started) / 1000).toFixed(1)} s`,
    );
  } catch (error) {
    const log = join(folder, 'compile.log');
    writeFileSync(log, `${error.cmd ?? ''}\n${error.stderr ?? error.message}\n`);
    rmSync(output, { force: true });
    const reason = `${compiler.name} failed, see ${relative(root, log)}`;
    writeStamp(stamp, { fingerprint: current, reason });
    report(reason);
  }
}

function report(reason) {
  console.log(`native kernels not built: ${reason}; the WebAssembly kernels are used`);
}

/** {name, command, prefix, version}, or {reason}. */
function findCompiler() {
  if (process.platform === 'win32') return { reason: 'they map files by POSIX mmap, which Windows lacks' };
  const wanted = process.env.CXX?.trim();
  const candidates = wanted ? [wanted] : ['g++', 'c++', 'clang++'];
  for (const name of candidates) {
    const [command, ...prefix] = name.split(/\s+/);
    const run = spawnSync(command, [...prefix, '--version'], { encoding: 'utf8' });
    if (run.status === 0) return { name, command, prefix, version: `${name} ${run.stdout.split('\n')[0]}` };
  }
  return { reason: `no C++ compiler (${wanted ? `CXX=${wanted}` : `${candidates.join(', ')} on PATH`})` };
}

async function compileAndLink(compiler, sourceFolder, headers, folder, output) {
  const isaFiles = process.arch === 'x64' ? Object.keys(isaFlags) : [];
  const sources = filesOf(sourceFolder, ['.cc']).map((path) => basename(path));
  const names = [...sources.filter((name) => !(name in isaFlags)), ...isaFiles];
  const objectOf = (name) => join(folder, `${basename(name, '.cc')}.${process.pid}.o`);
  const made = `${output}.${process.pid}`;
  const call = (args) => execute(compiler.command, [...compiler.prefix, ...args], { maxBuffer: 1 << 26 });
  try {
    await Promise.all(
      names.map((name) =>
        call([
          ...baseFlags,
          ...(isaFlags[name] ?? []),
          '-isystem',
          headers,
          '-c',
          join(sourceFolder, name),
          '-o',
          objectOf(name),
        ]),
      ),
    );
    const undefinedSymbols = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : [];
    await call(['-shared', ...undefinedSymbols, ...names.map(objectOf), '-o', made]);
    // Renamed, not overwritten: a running daemon may have the old one loaded.
    renameSync(made, output);
  } finally {
    for (const name of names) rmSync(objectOf(name), { force: true });
    rmSync(made, { force: true });
  }
}
