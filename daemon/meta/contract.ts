/** What the metadata store offers: records under numbered namespaces, changed by atomic transactions. */

/** Within a namespace; sorted element by element, numbers before strings. */
export type MetaKey = readonly (number | string)[];

export interface MetaRecord {
  readonly key: MetaKey;
  readonly value: unknown;
}

/** Reads what the last transaction left. Synchronous: the store is a memory map. */
export interface MetaReader {
  /** undefined if there is none. Binary values (Uint8Array) come back as Uint8Array. */
  get(namespace: number, key: MetaKey): unknown;
  /** Every record of a namespace in key order. */
  range(namespace: number): Iterable<MetaRecord>;
}

export type MetaChange =
  | { readonly kind: 'put'; readonly namespace: number; readonly key: MetaKey; readonly value: unknown }
  | { readonly kind: 'remove'; readonly namespace: number; readonly key: MetaKey };

export interface MetaStore extends MetaReader {
  /**
   * Applies all changes or none. Resolves when they are on disk: neither a killed process nor a power cut undoes them.
   * DriveError writeFault if the store is full or the disk refuses.
   */
  commit(changes: readonly MetaChange[]): Promise<void>;
  close(): Promise<void>;
}
