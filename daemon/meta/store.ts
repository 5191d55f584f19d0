import { open, type RootDatabase } from 'lmdb';
import { DriveError } from '../base/errors.ts';
import type { MetaChange, MetaKey, MetaRecord, MetaStore } from './contract.ts';

/** Largest size of the environment: address space, not disk. 16 GiB is room for the maps of some 10 TiB of media. */
const MAP_BYTES = 16 * 2 ** 30;

/** LMDB in `folder`, one transaction per `commit`. */
export class LmdbStore implements MetaStore {
  readonly #database: RootDatabase;

  private constructor(database: RootDatabase) {
    this.#database = database;
  }

  /** DriveError mediaFormat if the files are there but not LMDB's. */
  static open(folder: string): LmdbStore {
    try {
      const database = open({ path: folder, noSubdir: false, mapSize: MAP_BYTES, encoding: 'msgpack' });
      return new LmdbStore(database);
    } catch (error) {
      throw new DriveError('mediaFormat', `metadata in ${folder}: ${(error as Error).message}`, { cause: error });
    }
  }

  get(namespace: number, key: MetaKey): unknown {
    return this.#database.get([namespace, ...key]);
  }

  *range(namespace: number): Iterable<MetaRecord> {
    const range = this.#database.getRange({ start: [namespace], end: [namespace + 1] });
    for (const { key, value } of range) {
      const [, ...rest] = key as (number | string)[];
      yield { key: rest, value: value as unknown };
    }
  }

  async commit(changes: readonly MetaChange[]): Promise<void> {
    try {
      await this.#database.transaction(() => {
        for (const change of changes) {
          const key = [change.namespace, ...change.key];
          if (change.kind === 'put') void this.#database.put(key, change.value);
          else void this.#database.remove(key);
        }
      });
      await this.#database.flushed;
    } catch (error) {
      throw new DriveError('writeFault', `metadata transaction: ${(error as Error).message}`, { cause: error });
    }
  }

  async close(): Promise<void> {
    await this.#database.close();
  }
}
