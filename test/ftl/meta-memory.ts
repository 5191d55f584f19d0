/** The metadata store in memory. */
import { pack, unpack } from 'msgpackr';
import type { MetaChange, MetaKey, MetaRecord, MetaStore } from '../../daemon/meta/contract.ts';
import type { UnsyncedFates } from './unsynced-fates.ts';

const compareKeys = (a: MetaKey, b: MetaKey): number => {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const x = a[i]!;
    const y = b[i]!;
    if (typeof x !== typeof y) return typeof x === 'number' ? -1 : 1;
    if (x !== y) return x < y ? -1 : 1;
  }
  return a.length - b.length;
};

const textOf = (namespace: number, key: MetaKey): string => JSON.stringify([namespace, ...key]);

interface StoredRecord {
  readonly namespace: number;
  readonly key: MetaKey;
  /** As LMDB stores it. */
  readonly value: Uint8Array;
}

/** A transaction as it is written: nothing that is done to its values afterwards changes it. */
type Transaction = readonly { readonly text: string; readonly record: StoredRecord | undefined }[];

/**
 * LMDB's contract. A transaction counts as a whole or not at all, transactions count in their order, and one that can be
 * seen is on disk. When the power goes, those on their way are there up to some point in that order.
 */
export class MetaMemory implements MetaStore {
  readonly #records: Map<string, StoredRecord>;
  readonly #pending: Transaction[] = [];
  onStep: () => void = () => undefined;
  /** Sees every transaction before it is made. */
  onCommit: (changes: readonly MetaChange[]) => void = () => undefined;

  constructor(from?: MetaMemory) {
    this.#records = new Map(from === undefined ? [] : from.#records);
  }

  protected settle(): Promise<void> {
    return Promise.resolve();
  }

  get(namespace: number, key: MetaKey): unknown {
    const record = this.#records.get(textOf(namespace, key));
    return record && (unpack(record.value) as unknown);
  }

  range(namespace: number): Iterable<MetaRecord> {
    const found = [...this.#records.values()].filter((record) => record.namespace === namespace);
    return found
      .sort((a, b) => compareKeys(a.key, b.key))
      .map(({ key, value }) => ({ key, value: unpack(value) as unknown }));
  }

  async commit(changes: readonly MetaChange[]): Promise<void> {
    this.onStep();
    this.onCommit(changes);
    const transaction: Transaction = changes.map((change) => ({
      text: textOf(change.namespace, change.key),
      record: change.kind === 'put' ? { ...change, value: pack(change.value) } : undefined,
    }));
    this.#pending.push(transaction);
    try {
      await this.settle();
      this.#apply(transaction);
    } finally {
      this.#pending.splice(this.#pending.indexOf(transaction), 1);
    }
  }

  /** Spoils a record: a test of what the drive says to it. */
  set(namespace: number, key: MetaKey, value: unknown): void {
    this.#apply([{ text: textOf(namespace, key), record: { namespace, key, value: pack(value) } }]);
  }

  delete(namespace: number, key: MetaKey): void {
    this.#records.delete(textOf(namespace, key));
  }

  clear(): void {
    this.#records.clear();
  }

  #apply(transaction: Transaction): void {
    for (const { text, record } of transaction) {
      if (record === undefined) this.#records.delete(text);
      else this.#records.set(text, record);
    }
  }

  /** What the next start finds. */
  afterPowerCut(fates: UnsyncedFates): MetaMemory {
    const left = new MetaMemory(this);
    for (const transaction of this.#pending) {
      if (!fates.whole()) break;
      left.#apply(transaction);
    }
    return left;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
