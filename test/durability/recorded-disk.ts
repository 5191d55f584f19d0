/** Everything that a drive does to the files of one folder, in order: writes, names, syncs. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { DirectFile } from '../../daemon/base/direct-file.ts';
import { type FileSystem, type OpenHow, systemFileSystem } from '../../daemon/base/file-system.ts';
import type { MetaChange, MetaKey, MetaRecord, MetaStore } from '../../daemon/meta/contract.ts';
import { createRandom } from '../attention/random.ts';
import { LateFile } from '../nand/direct-file.ts';

/** A file, whatever its name is. */
export type FileId = number;

/** Paths are relative to the recorded folder; '' is the folder itself. */
export type DiskEvent =
  | { readonly kind: 'makeFolder'; readonly path: string }
  | { readonly kind: 'create'; readonly path: string; readonly file: FileId }
  | { readonly kind: 'write'; readonly file: FileId; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: 'resize'; readonly file: FileId; readonly sizeBytes: number }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'remove'; readonly path: string }
  /** What was done before it is on disk at the `syncEnd` of the same number. */
  | { readonly kind: 'syncBegin'; readonly sync: number; readonly site: string; readonly target: FileId | string }
  | { readonly kind: 'syncEnd'; readonly sync: number }
  /** A file that is not written through the seam (LMDB's): all of it, at once. `bytes` is filled in at its end. */
  | {
      readonly kind: 'commitBegin';
      readonly sync: number;
      readonly site: string;
      readonly file: FileId;
      bytes: Uint8Array;
    }
  | { readonly kind: 'commitEnd'; readonly sync: number };

const STORE = 'meta/data.mdb';
const COMMIT_TURNS = 8;

export class RecordedDisk implements FileSystem {
  readonly root: string;
  readonly events: DiskEvent[] = [];
  /** Part of the names of sync sites. */
  phase = 'run';
  readonly #ids = new Map<string, FileId>();
  readonly #open = new Map<number, FileId>();
  readonly #paths = new Map<FileId, string>();
  readonly #siteCounts = new Map<string, number>();
  #fileCount = 0;
  #syncCount = 0;

  /** `root` is a folder that exists. What it holds counts as being on disk. */
  constructor(root: string) {
    this.root = root;
    this.#adopt('', true);
    for (const event of this.events) if (event.kind === 'create') this.#take(event.file, event.path);
    this.#syncAll();
  }

  #path(path: string): string {
    const inside = relative(this.root, path);
    assert.ok(!inside.startsWith('..'), `${path} is in ${this.root}`);
    return inside;
  }

  // --- What is there already

  /** Files under a folder that no event tells of. */
  #adopt(folder: string, deep: boolean): void {
    for (const name of readdirSync(join(this.root, folder))) {
      const path = join(folder, name);
      if (name.startsWith('lock') || this.#ids.has(path)) continue;
      const isFolder = statSync(join(this.root, path)).isDirectory();
      if (isFolder && deep) {
        this.events.push({ kind: 'makeFolder', path });
        this.#adopt(path, true);
      } else if (!isFolder) this.#create(path);
    }
  }

  #take(file: FileId, path: string): void {
    const bytes = readFileSync(join(this.root, path));
    this.events.push({ kind: 'resize', file, sizeBytes: bytes.length });
    if (path.endsWith(STORE)) this.#commit(file, `${this.phase} ${path}`, bytes);
    else if (bytes.length > 0) this.events.push({ kind: 'write', file, position: 0, bytes });
  }

  #syncAll(): void {
    const folders = ['', ...this.events.flatMap((event) => (event.kind === 'makeFolder' ? [event.path] : []))];
    for (const target of [...this.#ids.values(), ...folders]) {
      const sync = ++this.#syncCount;
      this.events.push({ kind: 'syncBegin', sync, site: 'before', target }, { kind: 'syncEnd', sync });
    }
  }

  #create(path: string): FileId {
    const file = ++this.#fileCount;
    this.#ids.set(path, file);
    this.#paths.set(file, path);
    this.events.push({ kind: 'create', path, file });
    return file;
  }

  // --- The seam

  open(path: string, how: OpenHow): number {
    const descriptor = systemFileSystem.open(path, how);
    const name = this.#path(path);
    const file = how === 'new' ? this.#create(name) : this.#ids.get(name);
    assert.ok(file !== undefined, `${name} is known`);
    this.#open.set(descriptor, file);
    return descriptor;
  }

  close(descriptor: number): void {
    this.#open.delete(descriptor);
    systemFileSystem.close(descriptor);
  }

  write(descriptor: number, bytes: Uint8Array, position: number): number {
    const file = this.#open.get(descriptor)!;
    this.events.push({ kind: 'write', file, position, bytes: bytes.slice() });
    return systemFileSystem.write(descriptor, bytes, position);
  }

  /**
   * A direct write is on its way to the disk for a while: half of them count as done from the first, half at the end, since
   * a power cut in between finds the one or the other.
   */
  watchDirect(descriptor: number, inner: DirectFile): DirectFile {
    const file = this.#open.get(descriptor)!;
    const random = createRandom(1);
    const late = new LateFile(inner, random);
    return {
      memory: late.memory,
      transfer: (kind, range, done) => {
        const { position, offset, sizeBytes } = range;
        const write = (): void => {
          const bytes = late.memory.slice(offset, offset + sizeBytes);
          this.events.push({ kind: 'write', file, position, bytes });
        };
        const isEarly = random.below(2) === 0;
        if (kind === 'write' && isEarly) write();
        late.transfer(kind, range, (error) => {
          if (kind === 'write' && !isEarly) write();
          done(error);
        });
      },
      drain: () => late.drain(),
      close: () => late.close(),
    };
  }

  resize(descriptor: number, sizeBytes: number): void {
    this.events.push({ kind: 'resize', file: this.#open.get(descriptor)!, sizeBytes });
    systemFileSystem.resize(descriptor, sizeBytes);
  }

  makeFolder(path: string): void {
    systemFileSystem.makeFolder(path);
    this.events.push({ kind: 'makeFolder', path: this.#path(path) });
  }

  rename(from: string, to: string): void {
    systemFileSystem.rename(from, to);
    const [before, after] = [this.#path(from), this.#path(to)];
    this.events.push({ kind: 'rename', from: before, to: after });
    const file = this.#ids.get(before)!;
    this.#ids.delete(before);
    this.#ids.set(after, file);
    this.#paths.set(file, after);
  }

  /** As one name after another: a crash may find a folder half empty. */
  remove(path: string): void {
    const name = this.#path(path);
    const isThere =
      this.#ids.has(name) || this.events.some((event) => event.kind === 'makeFolder' && event.path === name);
    for (const inside of [...this.#ids.keys()].filter((other) => other.startsWith(`${name}/`))) this.#forget(inside);
    if (isThere) this.#forget(name);
    systemFileSystem.remove(path);
  }

  #forget(name: string): void {
    this.#ids.delete(name);
    this.events.push({ kind: 'remove', path: name });
  }

  async sync(descriptor: number): Promise<void> {
    const file = this.#open.get(descriptor)!;
    const path = this.#paths.get(file)!.replace(/\d{8}\.log$/, '*.log');
    await this.#sync(file, path, () => systemFileSystem.sync(descriptor));
  }

  async syncFolder(path: string): Promise<void> {
    const name = this.#path(path);
    // LMDB makes its file by itself.
    const before = this.events.length;
    this.#adopt(name, false);
    for (const event of this.events.slice(before)) if (event.kind === 'create') this.#take(event.file, event.path);
    await this.#sync(name, `${name}/`, () => systemFileSystem.syncFolder(path));
  }

  async #sync(target: FileId | string, what: string, action: () => Promise<void>): Promise<void> {
    const sync = ++this.#syncCount;
    this.events.push({ kind: 'syncBegin', sync, site: this.#site(what), target });
    await action();
    this.events.push({ kind: 'syncEnd', sync });
  }

  /** Format syncs some folders more than once, each time for a reason of its own. */
  #site(what: string): string {
    const name = `${this.phase} ${what}`;
    if (this.phase === 'run') return name;
    const count = (this.#siteCounts.get(name) ?? 0) + 1;
    this.#siteCounts.set(name, count);
    return count === 1 ? name : `${name} #${count}`;
  }

  beginPhase(phase: string): void {
    this.phase = phase;
    this.#siteCounts.clear();
  }

  // --- LMDB

  #commit(file: FileId, site: string, bytes: Uint8Array): void {
    const sync = ++this.#syncCount;
    this.events.push({ kind: 'commitBegin', sync, site, file, bytes }, { kind: 'commitEnd', sync });
  }

  /** The store of this folder; its commits become events. */
  recordStore(folder: string, store: MetaStore): MetaStore {
    const path = this.#path(`${folder}/${STORE}`);
    const file = this.#ids.get(path);
    assert.ok(file !== undefined, `${path} is known`);
    const commit = async (changes: readonly MetaChange[]): Promise<void> => {
      const sync = ++this.#syncCount;
      // One that the process does not live to see the end of has changed nothing.
      const before = readFileSync(join(this.root, path));
      const site = `${this.phase} ${path}`;
      const event: DiskEvent & { kind: 'commitBegin' } = { kind: 'commitBegin', sync, site, file, bytes: before };
      this.events.push(event);
      // Disks take their time, in which others may be told that their data is safe.
      for (let turn = 0; turn < COMMIT_TURNS; turn++) await new Promise((resolve) => setImmediate(resolve));
      await store.commit(changes);
      event.bytes = readFileSync(join(this.root, path));
      this.events.push({ kind: 'commitEnd', sync });
    };
    return {
      get: (namespace: number, key: MetaKey): unknown => store.get(namespace, key),
      range: (namespace: number): Iterable<MetaRecord> => store.range(namespace),
      commit,
      close: () => store.close(),
    };
  }
}
