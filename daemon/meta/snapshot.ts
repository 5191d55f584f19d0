import type { DriveError } from '../base/errors.ts';
import type { MetaKey, MetaReader, MetaRecord } from './contract.ts';
import { walkLmdbFile } from './lmdb-check.ts';
import { keyOf, ValueCodec, type ValueFormat } from './value-format.ts';

/**
 * The records of a store's last transaction, read from its file without LMDB: no lock file, no mapping, and damage hides no
 * more than what it hit. Nobody may write to the store meanwhile.
 */
export class MetaSnapshot implements MetaReader {
  /** [namespace] -> records in key order. */
  readonly #namespaces = new Map<number, MetaRecord[]>();

  /** `damaged` is told of everything that is wrong with the file. */
  static read(folder: string, format: ValueFormat, damaged: (error: DriveError) => void): MetaSnapshot {
    const snapshot = new MetaSnapshot();
    const path = `${folder}/data.mdb`;
    const codec = new ValueCodec(path, format);
    walkLmdbFile(path, {
      damaged,
      record(keyBytes, bytes) {
        // Both are views of a page.
        const key = keyOf(path, keyBytes);
        snapshot.#add(key, codec.decode(key, Buffer.from(bytes)));
      },
    });
    return snapshot;
  }

  #add([namespace, ...key]: MetaKey, value: unknown): void {
    const records = this.#namespaces.get(namespace as number) ?? [];
    this.#namespaces.set(namespace as number, records);
    records.push({ key, value });
  }

  get(namespace: number, key: MetaKey): unknown {
    return this.#namespaces.get(namespace)?.find((record) => record.key.join() === key.join())?.value;
  }

  range(namespace: number): Iterable<MetaRecord> {
    return this.#namespaces.get(namespace) ?? [];
  }
}
