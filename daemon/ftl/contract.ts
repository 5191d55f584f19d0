/** What the FTL offers to the rooms above it. */

/** Logical page of the KV namespace: what sequences hold. It keeps its number when garbage collection moves the bytes. */
export type Lpn = number & { readonly lpn: unique symbol };
/** Physical flash page, superpage-major: (superblock * pagesPerBlock + page) * unitCount + unit. */
export type Ppn = number & { readonly ppn: unique symbol };

/** Stands in the out-of-band area of a KV page, so that recovery knows whose it is without any other record. */
export interface KvPageTag {
  readonly sequenceId: bigint;
  /** Changes with every truncate, so that a page written after a truncate that was lost is not taken for older data. */
  readonly generation: number;
  readonly layer: number;
  readonly head: number;
  /** 0: K, 1: V. */
  readonly part: 0 | 1;
  /** Group number within the stream. */
  readonly group: number;
}

/** Room for programs, set aside so that the programs themselves cannot fail for want of space. */
export interface PageReservation {
  readonly remaining: number;
  /** Gives back what was not used. */
  release(): void;
}

/** The KV namespace as logical pages. */
export interface KvPages {
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  /** Pages the namespace promises to hold. */
  readonly pageCount: number;
  readonly freePageCount: number;
  /**
   * Waits for garbage collection if it must. DriveError capacityExceeded if fewer than `pageCount` logical pages are
   * free.
   */
  reserve(pageCount: number): Promise<PageReservation>;
  /**
   * Programs one page, synchronously: `pageOffset` is a whole page in the arena, padded with zeros. `channel` is where
   * it should go; `placement` groups pages that will die together (one sequence) into the same erase blocks.
   * The new logical page has one reference.
   */
  program(reservation: PageReservation, tag: KvPageTag, pageOffset: number, channel: number, placement: number): Lpn;
  /** Another sequence holds the page too. */
  retain(lpn: Lpn): void;
  /** One holder fewer; at none the page is invalid and the number is used again once that is durable. */
  release(lpn: Lpn): void;
  referenceCount(lpn: Lpn): number;
  /** Where the page lies now; its block is not erased before `unpin`. */
  pin(lpn: Lpn): Ppn;
  unpin(ppn: Ppn): void;
  /** Reads and checks a page into the arena. DriveError unrecoveredRead names the page. */
  read(lpn: Lpn, targetOffset: number): Promise<void>;
  /** Whether this page's checksum was seen right since it was programmed or the drive started. */
  isVerified(ppn: Ppn): boolean;
  markVerified(ppn: Ppn): void;
  /** How often the page's block was erased. With `ppn` it names one content for good: what a cache of pages is keyed by. */
  eraseCount(ppn: Ppn): number;
  /** Counts NAND reads that were made outside this room (compute workers walking the media). */
  countReads(pageCount: number): void;
}

/** The block namespace. LBAs are 4 KiB. */
export interface BlockNamespace {
  readonly lbaCount: number;
  /** DriveError lbaRange outside the namespace; unrecoveredRead. Never-written and deallocated LBAs read as zeros. */
  read(lba: number, lbaCount: number, target: Uint8Array): Promise<void>;
  /** Resolves once in the write cache, or durable if `fua`. */
  write(lba: number, lbaCount: number, source: Uint8Array, fua: boolean): Promise<void>;
  deallocate(lba: number, lbaCount: number): Promise<void>;
}

/** Next number of the one order of everything that changes the drive. */
export interface OperationCounter {
  next(): number;
  readonly last: number;
}

/** Owner of records in the staging log. */
export const stagingOwners = { block: 1, kv: 2 } as const;
export type StagingOwner = (typeof stagingOwners)[keyof typeof stagingOwners];

/**
 * The staging log: it stands for a drive's power-protected buffer. Appending writes but does not sync; a record is
 * durable after the next checkpoint or `syncStaging`.
 */
export interface StagingLog {
  /** `payload` is copied out before it returns. Returns the record's operation number. */
  append(owner: StagingOwner, payload: Uint8Array): number;
}

/** What a checkpoint gathers from a room; everything is synchronous, so it is one consistent state. */
export interface CheckpointSink {
  /** The operation number that the checkpoint stands for. */
  readonly operation: number;
  /** The staging log starts a new segment: everything buffered must be staged again, not only what is new. */
  readonly restage: boolean;
  stage(owner: StagingOwner, payload: Uint8Array): void;
  /** Into the metadata transaction. Namespaces are numbers of meta/namespaces.ts. */
  put(namespace: number, key: readonly (number | string)[], value: unknown): void;
  remove(namespace: number, key: readonly (number | string)[]): void;
}

export interface CheckpointParticipant {
  checkpoint(sink: CheckpointSink): void;
}

/** What recovery found after the last metadata transaction, in operation order. */
export type RecoveredEvent =
  | { readonly operation: number; readonly kind: 'page'; readonly tag: KvPageTag; readonly lpn: Lpn }
  | { readonly operation: number; readonly kind: 'staged'; readonly payload: Uint8Array };

/** The KV room's side of opening a drive. */
export interface KvRecovery {
  /**
   * Called once while the drive opens: loads its records from the metadata store, applies the events in order, and
   * returns how many holders each logical page has ([lpn] -> references). Pages nobody holds are freed.
   */
  recover(events: readonly RecoveredEvent[], lpnCount: number): Uint16Array;
}

export interface Durability {
  /**
   * Everything that completed before the call is durable when it resolves: staging and media synced, metadata
   * transaction on disk. Calls that overlap share one checkpoint (group commit).
   */
  flush(): Promise<void>;
  /** Durable by the staging log and media alone, without a metadata transaction: for FUA. */
  syncStaging(): Promise<void>;
}
