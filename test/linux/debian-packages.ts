/**
 * QEMU, kernels and the guest's programs: packages of Debian 12, downloaded by name and unpacked beside each other under
 * the user's cache folder. Nothing is installed, and nobody needs to be root.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Kernels by the name of the package that always depends on the newest build of one. */
export const kernelPackages = { '6.1': 'linux-image-cloud-amd64', '6.12': 'linux-image-6.12-cloud-amd64' } as const;
export type KernelSeries = keyof typeof kernelPackages;

/** `ipxe-qemu` and `seabios` are what QEMU's machine boots with. */
export const toolPackages = [
  'qemu-system-x86',
  'qemu-system-common',
  'qemu-system-data',
  'seabios',
  'ipxe-qemu',
  'busybox-static',
  'nvme-cli',
  'fio',
  'e2fsprogs',
  'util-linux',
] as const;

const commands = ['apt-get', 'apt-cache', 'dpkg-deb'] as const;
const COMMAND_TIMEOUT_MS = 600_000;
/** Raised when what the folders hold changes its form. */
const CACHE_VERSION = 1;

export const cacheFolder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'attndrive', 'linux');
const manifestPath = join(cacheFolder, 'manifest.json');

/** Where everything lies. */
export interface Manifest {
  readonly version: number;
  /** Root of the tools' files: `usr/bin/qemu-system-x86_64` and so on. */
  readonly tools: string;
  readonly kernels: Readonly<Record<KernelSeries, { readonly root: string; readonly release: string }>>;
}

/** Something that this machine lacks; the message says what, and how to get it. */
export class MissingRequirementError extends Error {
  override readonly name = 'MissingRequirementError';
}

/** What an earlier `preparePackages` left, if it is whole. */
export function readManifest(): Manifest | undefined {
  try {
    const manifest = JSON.parse(readFileSync(manifestPath, 'utf8')) as Manifest;
    const folders = [manifest.tools, ...Object.values(manifest.kernels).map(({ root }) => root)];
    return manifest.version === CACHE_VERSION && folders.every((folder) => existsSync(folder)) ? manifest : undefined;
  } catch {
    return undefined;
  }
}

/** Downloads and unpacks what is not there yet. `update`: looks for newer packages too. MissingRequirementError. */
export function preparePackages({ update = false, say = (_: string): void => undefined } = {}): Manifest {
  const known = readManifest();
  if (known !== undefined && !update) return known;
  checkMachine();
  mkdirSync(cacheFolder, { recursive: true });
  say('reading the lists of Debian packages');
  updateLists();
  const tools = unpackTools(say);
  const kernels = Object.fromEntries(
    Object.entries(kernelPackages).map(([series, name]) => [series, unpackKernel(name, say)]),
  ) as Manifest['kernels'];
  const manifest = { version: CACHE_VERSION, tools, kernels };
  writeWhole(manifestPath, JSON.stringify(manifest, null, 2));
  removeOthers([tools, ...Object.values(kernels).map(({ root }) => root)]);
  return manifest;
}

function checkMachine(): void {
  const missing = commands.filter((command) => spawnSync(command, ['--version']).error !== undefined);
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  if (process.arch === 'x64' && missing.length === 0 && /^VERSION_CODENAME=bookworm$/m.test(release)) return;
  const names = [...toolPackages, ...Object.values(kernelPackages)].join(', ');
  const without = missing.length > 0 ? ` without ${missing.join(', ')}` : '';
  throw new MissingRequirementError(
    `the tests against Linux need an x86-64 machine with Debian 12, whose packages ${names} are downloaded to ` +
      `${cacheFolder}, not installed; this is ${process.platform} ${process.arch}${without}`,
  );
}

// --- apt, with lists and archives of its own, so that it needs no rights ---

const aptFolder = join(cacheFolder, 'apt');
const aptOptions = [
  `Dir::State::lists=${aptFolder}/lists`,
  `Dir::Cache=${aptFolder}/cache`,
  'APT::Sandbox::User=root',
  'Debug::NoLocking=true',
].flatMap((option) => ['-o', option]);

function runApt(command: 'apt-get' | 'apt-cache', args: readonly string[], folder = aptFolder): string {
  const result = spawnSync(command, [...aptOptions, ...args], {
    cwd: folder,
    encoding: 'utf8',
    timeout: COMMAND_TIMEOUT_MS,
    env: { ...process.env, LC_ALL: 'C' },
  });
  if (result.status === 0) return result.stdout;
  const said = `${result.stderr}${result.error?.message ?? ''}`.trim().split('\n').slice(-3).join(' ');
  throw new MissingRequirementError(
    `packages of Debian 12 can not be had: ${command} ${args.join(' ')}: ${said}. Needed by name: ` +
      `${[...toolPackages, ...Object.values(kernelPackages)].join(', ')}; the sources must have main and security`,
  );
}

function updateLists(): void {
  for (const folder of ['lists/partial', 'cache/archives/partial'])
    mkdirSync(join(aptFolder, folder), { recursive: true });
  runApt('apt-get', ['update', '-qq']);
}

/** `name=version` of the packages that would have to be installed for `names` and are not. */
function resolve(names: readonly string[]): string[] {
  const plan = runApt('apt-get', ['install', '--simulate', '--no-install-recommends', '--reinstall', ...names]);
  return [...plan.matchAll(/^Inst (\S+) (?:\[\S+\] )?\((\S+) /gm)].map(([, name, version]) => `${name}=${version}`);
}

/** Downloads and unpacks into `root`, which appears whole or not at all. */
function unpack(packages: readonly string[], root: string): void {
  const downloads = `${root}.deb`;
  const partial = `${root}.part`;
  for (const folder of [downloads, partial]) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
  }
  runApt('apt-get', ['download', '-qq', ...packages], downloads);
  for (const file of readdirSync(downloads)) {
    const { status, stderr } = spawnSync('dpkg-deb', ['-x', join(downloads, file), partial], { encoding: 'utf8' });
    if (status !== 0) throw new MissingRequirementError(`${file} can not be unpacked: ${stderr}`);
  }
  rmSync(downloads, { recursive: true, force: true });
  renameSync(partial, root);
}

function unpackTools(say: (text: string) => void): string {
  const packages = resolve(toolPackages);
  const qemu = packages.find((name) => name.startsWith('qemu-system-x86=')) ?? 'qemu-system-x86';
  const root = join(cacheFolder, `tools-${hashOf(packages)}`);
  if (existsSync(root)) return root;
  say(`downloading ${packages.length} packages: ${qemu} and what it needs, nvme-cli, fio, …`);
  unpack(packages, root);
  return root;
}

function unpackKernel(metaPackage: string, say: (text: string) => void): { root: string; release: string } {
  const dependencies = runApt('apt-cache', ['depends', '--important', metaPackage]);
  const image = /Depends: (linux-image-(\S+))/.exec(dependencies);
  if (image === null) throw new MissingRequirementError(`${metaPackage} depends on no kernel: ${dependencies}`);
  const [, name, release] = image as unknown as [string, string, string];
  const root = join(cacheFolder, `kernel-${release}`);
  if (!existsSync(root)) {
    say(`downloading ${name}`);
    unpack([name], root);
  }
  return { root, release };
}

function writeWhole(path: string, text: string): void {
  writeFileSync(`${path}.part`, text);
  renameSync(`${path}.part`, path);
}

/** Older versions of what is in use now. */
function removeOthers(keep: readonly string[]): void {
  for (const name of readdirSync(cacheFolder)) {
    const path = join(cacheFolder, name);
    if (/^(tools|kernel)-/.test(name) && !keep.includes(path)) rmSync(path, { recursive: true, force: true });
  }
}

/** FNV-1a: names a folder after what is in it. */
function hashOf(texts: readonly string[]): string {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(texts.join('\n'))) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, '0');
}
