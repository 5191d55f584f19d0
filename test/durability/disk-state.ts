/** What a power cut may leave of what was recorded: replays events, knows what is on disk, and builds folders of it. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Random } from '../../daemon/base/random.ts';
import type { DiskEvent, FileId } from './recorded-disk.ts';

/** Disks write sectors whole. */
const SECTOR_BYTES = 512;
const CHUNK_BYTES = 4096;

/**
 * What becomes of one write, resize or name that was not synced. `torn`: some sectors of it. `sized`: the file has grown,
 * and reads as zeros there.
 */
export type Fate = 'kept' | 'lost' | 'torn' | 'sized';
export interface Choice {
  (what: { readonly path: string; readonly isName: boolean }): Fate;
}

export const keepAll: Choice = () => 'kept';
export const loseAll: Choice = () => 'lost';
export const atRandom = (random: Random): Choice => {
  const fates: Fate[] = ['kept', 'kept', 'lost', 'lost', 'torn', 'sized'];
  return ({ isName }) => fates[random.nextUint32() % (isName ? 4 : 6)]!;
};
/** Some files are behind, the others are not. */
export const byFile = (random: Random): Choice => {
  const fates = new Map<string, Fate>();
  return ({ path }) => {
    const fate = fates.get(path) ?? (random.nextUint32() % 2 === 0 ? 'kept' : 'lost');
    fates.set(path, fate);
    return fate;
  };
};

type Change =
  | { readonly kind: 'write'; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: 'resize'; readonly sizeBytes: number }
  | { readonly kind: 'content'; readonly bytes: Uint8Array };

interface Pending<T> {
  /** Index of its event. */
  readonly at: number;
  readonly change: T;
}

class FileNode {
  readonly kind = 'file';
  sizeBytes = 0;
  /** [chunk] -> its bytes. */
  readonly chunks = new Map<number, Uint8Array>();
  pending: Pending<Change>[] = [];

  settle(change: Change): void {
    if (change.kind === 'resize') this.#resize(change.sizeBytes);
    else if (change.kind === 'write') this.#write(change.position, change.bytes);
    else {
      this.#resize(0);
      this.#write(0, change.bytes);
    }
  }

  #resize(sizeBytes: number): void {
    for (const index of this.chunks.keys()) {
      if ((index + 1) * CHUNK_BYTES <= sizeBytes) continue;
      if (index * CHUNK_BYTES >= sizeBytes) this.chunks.delete(index);
      else this.chunks.get(index)!.fill(0, sizeBytes - index * CHUNK_BYTES);
    }
    this.sizeBytes = sizeBytes;
  }

  #write(position: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const index = Math.floor((position + done) / CHUNK_BYTES);
      const at = (position + done) % CHUNK_BYTES;
      const count = Math.min(CHUNK_BYTES - at, bytes.length - done);
      let chunk = this.chunks.get(index);
      if (chunk === undefined) this.chunks.set(index, (chunk = new Uint8Array(CHUNK_BYTES)));
      chunk.set(bytes.subarray(done, done + count), at);
      done += count;
    }
    this.sizeBytes = Math.max(this.sizeBytes, position + bytes.length);
  }
}

type NameChange =
  | { readonly kind: 'link'; readonly name: string; readonly node: Node }
  | { readonly kind: 'unlink'; readonly name: string }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string };

class FolderNode {
  readonly kind = 'folder';
  /** As on disk. */
  readonly entries = new Map<string, Node>();
  /** As the drive sees it. */
  readonly present = new Map<string, Node>();
  pending: Pending<NameChange>[] = [];
}

type Node = FileNode | FolderNode;

function rename(entries: Map<string, Node>, change: NameChange): void {
  if (change.kind === 'link') entries.set(change.name, change.node);
  else if (change.kind === 'unlink') entries.delete(change.name);
  else {
    const node = entries.get(change.from);
    if (node === undefined) return;
    entries.delete(change.from);
    entries.set(change.to, node);
  }
}

export interface DiskStateOptions {
  /** Syncs of these sites do nothing, as if they had been left out of the code. */
  readonly suppressedSites?: ReadonlySet<string>;
}

export class DiskState {
  readonly #root = new FolderNode();
  readonly #files = new Map<FileId, FileNode>();
  readonly #paths = new Map<FileNode, string>();
  readonly #syncs = new Map<number, { node: Node; at: number; isSuppressed: boolean }>();
  readonly #suppressed: ReadonlySet<string>;
  #at = 0;

  constructor(options: DiskStateOptions = {}) {
    this.#suppressed = options.suppressedSites ?? new Set();
  }

  apply(event: DiskEvent): void {
    const at = this.#at++;
    switch (event.kind) {
      case 'makeFolder':
        return this.#name(event.path, at, (name) => ({ kind: 'link', name, node: new FolderNode() }));
      case 'create': {
        const node = new FileNode();
        this.#files.set(event.file, node);
        this.#paths.set(node, event.path);
        return this.#name(event.path, at, (name) => ({ kind: 'link', name, node }));
      }
      case 'remove':
        return this.#name(event.path, at, (name) => ({ kind: 'unlink', name }));
      case 'rename':
        return this.#name(event.from, at, (from) => ({ kind: 'rename', from, to: basename(event.to) }));
      case 'write':
        return void this.#file(event.file).pending.push({ at, change: event });
      case 'resize':
        return void this.#file(event.file).pending.push({ at, change: event });
      case 'commitBegin':
        this.#file(event.file).pending.push({ at, change: { kind: 'content', bytes: event.bytes } });
        return this.#beginSync(event.sync, this.#file(event.file), at + 1, event.site);
      case 'syncBegin': {
        const node = typeof event.target === 'number' ? this.#file(event.target) : this.#folder(event.target);
        return this.#beginSync(event.sync, node, at, event.site);
      }
      case 'syncEnd':
      case 'commitEnd':
        return this.#endSync(event.sync);
    }
  }

  #file(file: FileId): FileNode {
    const node = this.#files.get(file);
    assert.ok(node !== undefined, `file ${file} was created`);
    return node;
  }

  #folder(path: string): FolderNode {
    let folder = this.#root;
    for (const name of path.split('/').filter((part) => part !== '' && part !== '.')) {
      const next = folder.present.get(name);
      assert.ok(next?.kind === 'folder', `${path} is a folder`);
      folder = next;
    }
    return folder;
  }

  #name(path: string, at: number, make: (name: string) => NameChange): void {
    const folder = this.#folder(dirname(path));
    const change = make(basename(path));
    rename(folder.present, change);
    folder.pending.push({ at, change });
  }

  #beginSync(sync: number, node: Node, at: number, site: string): void {
    this.#syncs.set(sync, { node, at, isSuppressed: this.#suppressed.has(site) });
  }

  #endSync(sync: number): void {
    const { node, at, isSuppressed } = this.#syncs.get(sync)!;
    this.#syncs.delete(sync);
    if (isSuppressed) return;
    if (node.kind === 'file') {
      for (const { change } of node.pending.filter((pending) => pending.at < at)) node.settle(change);
      node.pending = node.pending.filter((pending) => pending.at >= at);
    } else {
      for (const { change } of node.pending.filter((pending) => pending.at < at)) rename(node.entries, change);
      node.pending = node.pending.filter((pending) => pending.at >= at);
    }
  }

  /** Makes `target` anew as the disk may be if the power went now. */
  build(target: string, choice: Choice, random: Random): void {
    rmSync(target, { recursive: true, force: true });
    this.#buildFolder(this.#root, target, '', choice, random);
  }

  #buildFolder(folder: FolderNode, target: string, path: string, choice: Choice, random: Random): void {
    mkdirSync(target);
    const entries = new Map(folder.entries);
    for (const { change } of folder.pending) {
      const name = change.kind === 'rename' ? change.to : change.name;
      if (choice({ path: `${path}/${name}`, isName: true }) === 'kept') rename(entries, change);
    }
    for (const [name, node] of entries) {
      if (node.kind === 'folder') this.#buildFolder(node, join(target, name), `${path}/${name}`, choice, random);
      else buildFile(node, join(target, name), `${path}/${name}`, choice, random);
    }
  }
}

function buildFile(node: FileNode, target: string, path: string, choice: Choice, random: Random): void {
  const content = node.pending.findLast(
    ({ change }) => change.kind === 'content' && choice({ path, isName: false }) === 'kept',
  );
  if (content?.change.kind === 'content') return writeFileSync(target, content.change.bytes);
  const descriptor = openSync(target, 'w');
  try {
    ftruncateSync(descriptor, node.sizeBytes);
    for (const [index, bytes] of node.chunks) {
      const count = Math.min(CHUNK_BYTES, node.sizeBytes - index * CHUNK_BYTES);
      writeSync(descriptor, bytes, 0, count, index * CHUNK_BYTES);
    }
    let sizeBytes = node.sizeBytes;
    for (const { change } of node.pending) {
      const fate = choice({ path, isName: false });
      if (change.kind === 'content' || fate === 'lost') continue;
      if (change.kind === 'resize') {
        sizeBytes = change.sizeBytes;
        ftruncateSync(descriptor, sizeBytes);
        continue;
      }
      const end = change.position + change.bytes.length;
      if (end > sizeBytes) ftruncateSync(descriptor, (sizeBytes = end));
      if (fate !== 'sized')
        writeSectors(descriptor, change.position, change.bytes, fate === 'torn' ? random : undefined);
    }
  } finally {
    closeSync(descriptor);
  }
}

/** All sectors, or any of them. */
function writeSectors(descriptor: number, position: number, bytes: Uint8Array, random: Random | undefined): void {
  if (random === undefined) return void writeSync(descriptor, bytes, 0, bytes.length, position);
  for (let done = 0; done < bytes.length; ) {
    const count = Math.min(SECTOR_BYTES - ((position + done) % SECTOR_BYTES), bytes.length - done);
    if (random.nextUint32() % 2 === 0) writeSync(descriptor, bytes, done, count, position + done);
    done += count;
  }
}
