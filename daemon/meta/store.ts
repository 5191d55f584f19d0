import { existsSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { open, type RootDatabase } from 'lmdb';
import { DriveError } from '../base/errors.ts';
import { fileError } from '../base/file-errors.ts';
import type { MetaChange, MetaKey, MetaRecord, MetaStore } from './contract.ts';
import { walkLmdbFile } from './lmdb-check.ts';
import { keyOf, unreadable, ValueCodec, type ValueFormat } from './value-format.ts';

/** Address space set aside for the store, not disk; it grows beyond it if it must. */
const MAP_BYTES = 16 * 2 ** 30;
const { EIO, ENOSPC, EDQUOT } = constants.errno;

type Database = RootDatabase<Buffer, (number | string)[]>;

/** LMDB in a folder, one transaction per `commit`. */
export class LmdbStore implements MetaStore {
  readonly #path: string;
  readonly #database: Database;
  readonly #codec: ValueCodec;

  private constructor(path: string, database: Database, codec: ValueCodec) {
    this.#path = path;
    this.#database = database;
    this.#codec = codec;
  }

  /** A new store in an empty folder. What is committed is on disk; that it is there at all, once the folder is synced. */
  static create(folder: string): LmdbStore {
    return LmdbStore.#open(folder, new ValueCodec(dataPath(folder), 'summed'));
  }

  /** DriveError mediaFormat if its file is missing, not LMDB's, cut short or damaged. */
  static open(folder: string, format: ValueFormat = 'summed'): LmdbStore {
    const path = dataPath(folder);
    const codec = new ValueCodec(path, format);
    // Drives of the plain format had no store before their first start.
    const isNew = format === 'plain' && (!existsSync(path) || statSync(path).size === 0);
    if (!isNew) checkRecords(path, codec);
    return LmdbStore.#open(folder, codec);
  }

  static #open(folder: string, codec: ValueCodec): LmdbStore {
    const path = dataPath(folder);
    try {
      // Without overlapping syncs a transaction that is done, or can be seen, is on disk.
      const database = open<Buffer, (number | string)[]>({
        path: folder,
        noSubdir: false,
        mapSize: MAP_BYTES,
        encoding: 'binary',
        overlappingSync: false,
        // Its promises fail unseen if a commit does.
        eventTurnBatching: false,
        // Labels and shapes are in it: as private as the other files of a drive. Missing in the library's types.
        ...{ permissionsMode: 0o600 },
      });
      return new LmdbStore(path, database, codec);
    } catch (error) {
      throw deniedBy(error, folder) ?? unreadable(path, error);
    }
  }

  get(namespace: number, key: MetaKey): unknown {
    const path = [namespace, ...key];
    let bytes: Buffer | undefined;
    try {
      bytes = this.#database.get(path);
    } catch (error) {
      throw unreadable(this.#path, error);
    }
    return bytes === undefined ? undefined : this.#codec.unpack(bytes);
  }

  *range(namespace: number): Iterable<MetaRecord> {
    try {
      for (const { key, value } of this.#database.getRange({ start: [namespace], end: [namespace + 1] })) {
        yield { key: key.slice(1), value: this.#codec.unpack(value) };
      }
    } catch (error) {
      throw error instanceof DriveError ? error : unreadable(this.#path, error);
    }
  }

  async commit(changes: readonly MetaChange[]): Promise<void> {
    try {
      await this.#database.transaction(() => {
        for (const change of changes) {
          const key = [change.namespace, ...change.key];
          const write =
            change.kind === 'put'
              ? this.#database.put(key, this.#codec.encode(key, change.value))
              : this.#database.remove(key);
          // It fails if the transaction does, and that is told below.
          write.catch(() => undefined);
        }
      });
    } catch (error) {
      const cause = await causeOf(error);
      throw new DriveError('writeFault', `${this.#path}: ${commitFailure(cause)}`, { cause });
    }
  }

  async close(): Promise<void> {
    await this.#database.close();
  }
}

const dataPath = (folder: string): string => `${folder}/data.mdb`;

/** All of them at once: a record whose key has changed would be missed by whoever asks for it, and told by nobody. */
function checkRecords(path: string, codec: ValueCodec): void {
  walkLmdbFile(path, {
    damaged: (error) => {
      throw error;
    },
    record: (key, value) => codec.check(keyOf(path, key), value),
  });
}

/** lmdb-js puts the reason of a failed commit into a promise of its own, which is rejected later. */
async function causeOf(error: unknown): Promise<Error> {
  const { commitError } = error as { commitError?: Promise<never> };
  return commitError === undefined ? (error as Error) : commitError.catch((cause: unknown) => cause as Error);
}

/** LMDB opens its files for writing, and makes one. Its errors carry the system's number. */
function deniedBy(error: unknown, folder: string): DriveError | undefined {
  const denials = ['EACCES', 'EPERM', 'EROFS'] as const;
  const code = denials.find((name) => constants.errno[name] === (error as { code?: unknown }).code);
  if (code === undefined) return undefined;
  const path = existsSync(`${folder}/lock.mdb`) ? dataPath(folder) : folder;
  return fileError('mediaFormat', Object.assign(new Error((error as Error).message), { code }), path);
}

function commitFailure(cause: Error): string {
  const { code } = cause as { code?: unknown };
  if (code === ENOSPC) return 'the disk is full';
  if (code === EDQUOT) return 'the disk quota is used up';
  // A write that came out short, too.
  return code === EIO ? `${cause.message}; is the disk full?` : cause.message;
}
