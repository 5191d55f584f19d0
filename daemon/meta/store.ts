import { closeSync, fstatSync, fsyncSync, openSync, readSync } from 'node:fs';
import { open, type RootDatabase } from 'lmdb';
import { DriveError } from '../base/errors.ts';
import type { MetaChange, MetaKey, MetaRecord, MetaStore } from './contract.ts';
import { lmdbMeta, LMDB_MAGIC } from './lmdb-meta.ts';

/** Address space set aside for the store, not disk; it grows beyond it if it must. */
const MAP_BYTES = 16 * 2 ** 30;
/** What LMDB makes of a write that came out short. */
const EIO = 5;

/** LMDB in `folder`, one transaction per `commit`. */
export class LmdbStore implements MetaStore {
  readonly #folder: string;
  readonly #database: RootDatabase;

  private constructor(folder: string, database: RootDatabase) {
    this.#folder = folder;
    this.#database = database;
  }

  /** DriveError mediaFormat if the files are there but not LMDB's, or cut short. */
  static open(folder: string): LmdbStore {
    checkFile(`${folder}/data.mdb`);
    try {
      // Without overlapping syncs a transaction that can be seen is a transaction that is on disk.
      const database = open({
        path: folder,
        noSubdir: false,
        mapSize: MAP_BYTES,
        encoding: 'msgpack',
        overlappingSync: false,
        // Its promises fail unseen if a commit does.
        eventTurnBatching: false,
      });
      syncFolder(folder);
      return new LmdbStore(folder, database);
    } catch (error) {
      throw unreadable(folder, error);
    }
  }

  get(namespace: number, key: MetaKey): unknown {
    try {
      return this.#database.get([namespace, ...key]);
    } catch (error) {
      throw unreadable(this.#folder, error);
    }
  }

  *range(namespace: number): Iterable<MetaRecord> {
    try {
      for (const { key, value } of this.#database.getRange({ start: [namespace], end: [namespace + 1] })) {
        const [, ...rest] = key as (number | string)[];
        yield { key: rest, value: value as unknown };
      }
    } catch (error) {
      throw error instanceof DriveError ? error : unreadable(this.#folder, error);
    }
  }

  async commit(changes: readonly MetaChange[]): Promise<void> {
    try {
      await this.#database.transaction(() => {
        for (const change of changes) {
          const key = [change.namespace, ...change.key];
          const write = change.kind === 'put' ? this.#database.put(key, change.value) : this.#database.remove(key);
          // It fails if the transaction does, and that is told below.
          write.catch(() => undefined);
        }
      });
      await this.#database.flushed;
    } catch (error) {
      const cause = await causeOf(error);
      const hint = (cause as { code?: unknown }).code === EIO ? '; is the disk full?' : '';
      throw new DriveError('writeFault', `metadata transaction: ${cause.message}${hint}`, { cause });
    }
  }

  async close(): Promise<void> {
    await this.#database.close();
  }
}

/** lmdb-js puts the reason of a failed commit into a promise of its own, which is rejected later. */
async function causeOf(error: unknown): Promise<Error> {
  const { commitError } = error as { commitError?: Promise<never> };
  return commitError === undefined ? (error as Error) : commitError.catch((cause: unknown) => cause as Error);
}

const unreadable = (folder: string, error: unknown): DriveError =>
  new DriveError('mediaFormat', `metadata in ${folder}: ${(error as Error).message}`, { cause: error });

/**
 * LMDB maps its file and follows what it finds there: a file that is not its own, or that was cut short, would end the
 * process with a signal. No file, or an empty one, is a new store.
 */
function checkFile(path: string): void {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw new DriveError('mediaFormat', `${path}: ${(error as Error).message}`, { cause: error });
  }
  try {
    const { size } = fstatSync(descriptor);
    if (size === 0) return;
    const first = readMeta(descriptor, path, 0);
    const second = readMeta(descriptor, path, first.pageSizeBytes);
    const { lastPage } = first.transaction > second.transaction ? first : second;
    const neededBytes = (lastPage + 1) * first.pageSizeBytes;
    if (size < neededBytes) {
      throw new DriveError('mediaFormat', `${path}: ${size} bytes long; it was ${neededBytes} at least`);
    }
  } finally {
    closeSync(descriptor);
  }
}

function readMeta(descriptor: number, path: string, position: number) {
  const bytes = new Uint8Array(lmdbMeta.sizeBytes);
  const isWhole = readSync(descriptor, bytes, 0, bytes.length, position) === bytes.length;
  const meta = lmdbMeta.decode(bytes);
  if (!isWhole || meta.magic !== LMDB_MAGIC) throw new DriveError('mediaFormat', `${path} is no LMDB file`);
  return meta;
}

/** A new file's name is durable once its folder is. */
function syncFolder(folder: string): void {
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
