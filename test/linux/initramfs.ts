/** The guest's whole world: one cpio archive in memory, made of unpacked packages. */
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type KernelSeries, type Manifest, MissingRequirementError } from './debian-packages.ts';

const FILE_MODE = 0o100_000;
const FOLDER_MODE = 0o040_000;
const LINK_MODE = 0o120_000;

/** What the guest needs, besides busybox. */
const programs = ['usr/sbin/nvme', 'usr/bin/fio', 'sbin/mkfs.ext4', 'sbin/e2fsck', 'sbin/blkdiscard'] as const;

/** Modules to load at start; what they depend on comes with them. Those that a kernel has built in are left out. */
const modules = ['virtio_pci', 'virtio_net', 'virtio_console', 'crc32c_intel', 'nvme_fabrics', 'nvme_tcp'] as const;
/** Modules that a test loads when it wants them. */
const optionalModules = ['nvmet', 'nvmet_tcp', 'loop'] as const;

/** A cpio archive in the "newc" form, which the kernel unpacks. */
class CpioArchive {
  readonly #parts: Buffer[] = [];
  readonly #folders = new Set<string>();
  #nextInode = 1;

  file(path: string, bytes: Uint8Array, permissions = 0o644): void {
    this.#foldersOf(path);
    this.#entry(path, FILE_MODE | permissions, bytes);
  }

  link(path: string, target: string): void {
    this.#foldersOf(path);
    this.#entry(path, LINK_MODE | 0o777, Buffer.from(target));
  }

  folder(path: string): void {
    this.#foldersOf(path);
    if (this.#folders.has(path)) return;
    this.#folders.add(path);
    this.#entry(path, FOLDER_MODE | 0o755, new Uint8Array(0));
  }

  bytes(): Buffer {
    this.#entry('TRAILER!!!', 0, new Uint8Array(0));
    return Buffer.concat(this.#parts);
  }

  #foldersOf(path: string): void {
    const names = path.split('/').slice(0, -1);
    names.forEach((_, index) => {
      const folder = names.slice(0, index + 1).join('/');
      if (folder !== '' && !this.#folders.has(folder)) this.folder(folder);
    });
  }

  #entry(path: string, mode: number, bytes: Uint8Array): void {
    const name = Buffer.from(`${path}\0`);
    const fields = [this.#nextInode++, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
    this.#parts.push(Buffer.from(header), name, padding(header.length + name.length));
    this.#parts.push(Buffer.from(bytes), padding(bytes.length));
  }
}

const padding = (sizeBytes: number): Buffer => Buffer.alloc((4 - (sizeBytes % 4)) % 4);

export interface GuestImage {
  readonly kernelPath: string;
  readonly release: string;
  readonly initramfs: Buffer;
}

/** `init` runs as process 1. */
export function buildImage(manifest: Manifest, series: KernelSeries, init: string): GuestImage {
  const { tools } = manifest;
  const { root, release } = manifest.kernels[series];
  const archive = new CpioArchive();
  for (const folder of ['proc', 'sys', 'dev', 'tmp', 'run', 'mnt', 'etc', 'root']) archive.folder(folder);
  archive.file('init', Buffer.from(init), 0o755);
  archive.file('bin/busybox', readFileSync(join(tools, 'bin/busybox')), 0o755);
  archive.link('bin/sh', 'busybox');
  addPrograms(archive, tools);
  const library = new ModuleLibrary(root, release, join(tools, 'bin/busybox'));
  archive.file('etc/modules', Buffer.from(addModules(archive, library, modules).join('\n')));
  for (const name of optionalModules) {
    archive.file(`etc/modules-${name}`, Buffer.from(addModules(archive, library, [name]).join('\n')));
  }
  return { kernelPath: join(root, 'boot', `vmlinuz-${release}`), release, initramfs: archive.bytes() };
}

export const libraryFolders = (tools: string): string[] =>
  ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu/ceph'].map((name) =>
    join(tools, name),
  );

/** Programs with the shared libraries that they load here, those of the machine itself included. */
function addPrograms(archive: CpioArchive, tools: string): void {
  const libraries = new Map<string, string>();
  for (const program of programs) {
    const path = join(tools, program);
    archive.file(`bin/${basename(program)}`, readFileSync(path), 0o755);
    const { status, stdout, stderr } = spawnSync('ldd', [path], {
      encoding: 'utf8',
      env: { ...process.env, LD_LIBRARY_PATH: libraryFolders(tools).join(':') },
    });
    const missing = /^\s*(\S+) => not found$/m.exec(stdout);
    if (status !== 0 || missing) throw new MissingRequirementError(`${program} lacks ${missing?.[1] ?? stderr}`);
    for (const [, name, file] of stdout.matchAll(/^\s*(\S+) => (\S+) \(/gm))
      libraries.set(name as string, file as string);
    const loader = /^\s*(\/lib64\/\S+) \(/m.exec(stdout)?.[1];
    if (loader !== undefined) libraries.set(loader, loader);
  }
  for (const [name, file] of libraries) {
    archive.file(name.startsWith('/') ? name.slice(1) : `lib/${name}`, readFileSync(realpathSync(file)), 0o755);
  }
}

/** Puts modules and all that they depend on into the archive; returns their paths in the order of loading. */
function addModules(archive: CpioArchive, library: ModuleLibrary, names: readonly string[]): string[] {
  return library.inOrder(names).map((name) => {
    const path = `lib/modules/${name}.ko`;
    if (!library.added.has(name)) archive.file(path, library.bytes(name));
    library.added.add(name);
    return `/${path}`;
  });
}

/** The modules of one kernel. Packages come without `modules.dep`; each module names what it needs. */
class ModuleLibrary {
  readonly added = new Set<string>();
  readonly #paths = new Map<string, string>();
  readonly #bytes = new Map<string, Buffer>();
  readonly #busybox: string;

  constructor(root: string, release: string, busybox: string) {
    this.#busybox = busybox;
    const folder = join(root, 'lib/modules', release, 'kernel');
    for (const entry of readdirSync(folder, { recursive: true }).map(String)) {
      const name = /([^/]+)\.ko(\.xz)?$/.exec(entry)?.[1];
      if (name !== undefined && lstatSync(join(folder, entry)).isFile()) {
        this.#paths.set(name.replaceAll('-', '_'), join(folder, entry));
      }
    }
  }

  bytes(name: string): Buffer {
    const known = this.#bytes.get(name);
    if (known !== undefined) return known;
    const path = this.#paths.get(name) as string;
    const bytes = path.endsWith('.xz') ? this.#decompress(path) : readFileSync(path);
    this.#bytes.set(name, bytes);
    return bytes;
  }

  /** Dependencies first. Modules that are not there are built in. */
  inOrder(names: readonly string[]): string[] {
    const order: string[] = [];
    const visit = (name: string): void => {
      if (order.includes(name) || !this.#paths.has(name)) return;
      for (const dependency of this.#dependencies(name)) visit(dependency);
      order.push(name);
    };
    for (const name of names) visit(name);
    return order;
  }

  #dependencies(name: string): string[] {
    const bytes = this.bytes(name);
    const at = bytes.indexOf('\0depends=');
    if (at < 0) return [];
    const start = at + '\0depends='.length;
    const text = bytes.toString('latin1', start, bytes.indexOf(0, start));
    return text
      .split(',')
      .filter((dependency) => dependency !== '')
      .map((dependency) => dependency.replaceAll('-', '_'));
  }

  #decompress(path: string): Buffer {
    const { status, stdout, stderr } = spawnSync(this.#busybox, ['xzcat', path], { maxBuffer: 64 * 2 ** 20 });
    if (status !== 0) throw new MissingRequirementError(`${path} can not be decompressed: ${stderr.toString()}`);
    return stdout;
  }
}

export const firmwareFolders = (tools: string): string[] =>
  ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'].map((name) => join(tools, name)).filter(existsSync);
