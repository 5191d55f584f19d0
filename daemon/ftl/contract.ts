/** What the FTL offers to the rooms above it. */
import type { DeviceJob } from '../timing/device-job.ts';
import type { DriveError } from '../base/errors.ts';
import type { MetaKey, MetaReader } from '../meta/contract.ts';
import type { EnduranceSnapshot } from './endurance.ts';

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

/** Pages that are programmed by one call, at most. */
export const PROGRAM_PAGES_MAX = 64;

/**
 * Pages of one layer in the order in which they are programmed, all groups of one stream before the next: page i of them is
 * group firstGroup + i mod groupCount of stream floor(i / groupCount), and stream s is part s mod 2 of KV head floor(s / 2).
 * A run is `pageCount` of them, from number `firstIndex` on; the rest as in KvPageTag.
 */
export interface KvPageRun {
  readonly sequenceId: bigint;
  readonly generation: number;
  readonly layer: number;
  readonly firstGroup: number;
  readonly groupCount: number;
  readonly firstIndex: number;
  /** At most PROGRAM_PAGES_MAX. */
  readonly pageCount: number;
}

/** A run's pages in the arena, one behind the other. */
export interface KvRunPages {
  readonly offset: number;
  /** [index in the run]: CRC32C of the page. */
  readonly checksums: Uint32Array;
}

/** Where a run's pages are to go. */
export interface KvRunTarget {
  /** Of the first page; each further one goes to the next. */
  readonly channel: number;
  /** The same for pages that will die together (one sequence): they go into the same erase blocks. */
  readonly placement: number;
  readonly job?: DeviceJob;
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
   * DriveError namespaceWriteProtected if so many erase blocks are bad that the drive only reads: for changes that need
   * no page. Letting go of pages is no such change.
   */
  assertWritable(): void;
  /**
   * Waits for garbage collection if it must. DriveError capacityExceeded if fewer than `pageCount` logical pages are
   * free; namespaceWriteProtected.
   */
  reserve(pageCount: number): Promise<PageReservation>;
  /** Channel on which the next page of this placement lies beside the one before; only a hint. */
  nextChannel(placement: number): number;
  /**
   * Programs a run's pages, synchronously: each is whole and padded with zeros. The new logical pages, which have one
   * reference each, are put into `lpns`. DriveError writeFault: none of them is there.
   */
  program(
    reservation: PageReservation,
    run: KvPageRun,
    pages: KvRunPages,
    target: KvRunTarget,
    lpns: Uint32Array,
  ): void;
  /** Another sequence holds the page too. */
  retain(lpn: Lpn): void;
  /** One holder fewer; at none the page is invalid and the number is used again once that is durable. */
  release(lpn: Lpn): void;
  referenceCount(lpn: Lpn): number;
  /** Where the page lies now; its block is not erased before `unpin`. */
  pin(lpn: Lpn): Ppn;
  unpin(ppn: Ppn): void;
  /** Pins many pages in one pass, and says where each lies: `physical[i]` of `logical[i]`. */
  pinAll(logical: Uint32Array, physical: Uint32Array): PagePins;
  /** Reads and checks a page into the arena. DriveError unrecoveredRead names the page. */
  read(lpn: Lpn, targetOffset: number): Promise<void>;
  /**
   * Reads `sizeBytes` bytes from `byteOffset` on of a page into the arena without waiting; false: it has to be waited for,
   * or checked, and what is at `targetOffset` may be anything. DriveError unrecoveredRead.
   */
  readNow(lpn: Lpn, byteOffset: number, sizeBytes: number, targetOffset: number): boolean;
  /** Where the page lies now, for its read in device time. */
  locate(lpn: Lpn): Ppn;
  /** Whether this page's checksum was seen right since it was programmed or the drive started. */
  isVerified(ppn: Ppn): boolean;
  markVerified(ppn: Ppn): void;
  /** Whether other threads may walk physical pages [from, to) of a list as they are: all verified, and no die fails reads. */
  areReadable(pages: Uint32Array, from: number, to: number): boolean;
  /** How often the page's block was erased. With `ppn` it names one content for good: what a cache of pages is keyed by. */
  eraseCount(ppn: Ppn): number;
  /** Whether the die fails a read of the page that is made now, by a thread that reads by itself. */
  readFails(ppn: Ppn): boolean;
  /** A compute worker could not read a page, or found it wrong: counts it. `owner`: whose it is. */
  unrecovered(ppn: Ppn, owner: string, isUnreadable: boolean): DriveError;
  /** Counts NAND reads that were made outside this room (compute workers walking the media). */
  countReads(pageCount: number): void;
}

/** Pages that were pinned together. */
export interface PagePins {
  /** Once. Nothing may walk them any more. */
  release(): void;
}

/** The block namespace. LBAs are 4 KiB. */
export interface BlockNamespace {
  readonly lbaCount: number;
  /** DriveError lbaRange outside the namespace; unrecoveredRead. Never-written and deallocated LBAs read as zeros. */
  read(lba: number, lbaCount: number, target: Uint8Array): Promise<void>;
  /** `read` without waiting; false: something has to be waited for, and `target` may hold anything. DriveError as `read`. */
  readNow(lba: number, lbaCount: number, target: Uint8Array): boolean;
  /** Whether any of them lies in a flash page. DriveError lbaRange. */
  isInFlash(lba: number, lbaCount: number): boolean;
  /** A read of what is there now in device time: into the controller, or on to the host. */
  bookRead(lba: number, lbaCount: number, job: DeviceJob, destination: 'controller' | 'host'): void;
  /** Resolves once in the write cache, or durable if `fua`. DriveError namespaceWriteProtected, as `deallocate`. */
  write(lba: number, lbaCount: number, source: Uint8Array, fua: boolean, job?: DeviceJob): Promise<void>;
  /**
   * Whether `writeNow` can do it, if it follows at once. DriveError namespaceWriteProtected, writeFault once nothing can be
   * made durable any more.
   */
  canWriteNow(lbaCount: number): boolean;
  /** `write` without waiting, into the write cache. `source` is copied. DriveError lbaRange. */
  writeNow(lba: number, lbaCount: number, source: Uint8Array, job?: DeviceJob): void;
  deallocate(lba: number, lbaCount: number): Promise<void>;
  /** Deallocates every LBA at once; after a crash all of them are as they were, or none. Durable with the next flush. */
  clear(): void;
}

/** What a namespace is to this room. */
export type PoolName = 'block' | 'kv';

/** Makes sure that what namespaces no longer hold is gone from the media, too. */
export interface UserDataEraser {
  /**
   * `pools`: those that are empty, durably, and stay so meanwhile. Overwrites every page that was ever theirs, and begins
   * a new staging log; both are durable when it resolves. Others work on meanwhile. DriveError writeFault.
   */
  erase(pools: readonly PoolName[]): Promise<void>;
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
  /** The drive shuts down in order: nothing comes after this checkpoint. */
  readonly isClosing: boolean;
  stage(owner: StagingOwner, payload: Uint8Array): void;
  /**
   * Into the metadata transaction. Namespaces are numbers of meta/namespaces.ts. `value` is encoded later, when the
   * transaction is made: give a copy of what may change.
   */
  put(namespace: number, key: MetaKey, value: unknown): void;
  remove(namespace: number, key: MetaKey): void;
}

export interface CheckpointParticipant {
  checkpoint(sink: CheckpointSink): void;
  /**
   * Appends to the log whatever is only in memory and not staged yet. `Durability.syncStaging` calls it before it syncs.
   */
  stageBuffered(log: StagingLog): void;
}

/**
 * What the KV room must apply to the records of the last metadata transaction, in operation order.
 *
 * - `page`: a page programmed after that transaction (garbage collection's copies are not events). Its bytes are intact.
 * - `staged`: a KV record of the staging log. All records since the last restage are given, those from before the
 *   transaction too, since what they hold may be in no page and no record; the KV room tells by its own generation and
 *   position whether one is out of date. Its operation number tells whether it is from before the transaction.
 *
 * After a clean shutdown only `staged` events come.
 */
export type RecoveredEvent =
  | { readonly operation: number; readonly kind: 'page'; readonly tag: KvPageTag; readonly lpn: Lpn }
  | { readonly operation: number; readonly kind: 'staged'; readonly payload: Uint8Array };

/** The KV room's side of opening a drive. */
export interface KvRecovery {
  /**
   * Called once while the drive opens: loads its records from the last metadata transaction (`records`), applies the
   * events in order, and returns how many holders each logical page has ([lpn] -> references). Pages nobody holds are
   * freed. What it drops or shortens must be dropped again if the drive crashes before the next checkpoint, which
   * follows at once: `checkpoint` is called with `restage` set right after `settle`, before anything else happens.
   */
  recover(events: readonly RecoveredEvent[], lpnCount: number, records: MetaReader): Uint16Array;
  /**
   * Called once after `recover`, as soon as `pages` and `log` work, and for a new drive too: the KV room has them from
   * here on. It fetches rows that a replayed truncate left in pages (in the middle of a group), which `recover`, being
   * synchronous, can't.
   */
  settle(pages: KvPages, log: StagingLog): Promise<void>;
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

/** Who the drive is; fixed by format. */
export interface DriveIdentity {
  /** 32 lower-case hexadecimal digits. */
  readonly uuid: string;
  /** Up to 20 characters, from the uuid. */
  readonly serial: string;
  readonly formatVersion: number;
  readonly blockCapacityBytes: number;
  readonly kvCapacityBytes: number;
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly diesPerChannel: number;
  readonly planesPerDie: number;
  readonly pagesPerBlock: number;
  readonly superblockCount: number;
  /** Name of a profile of `daemon/profiles`. */
  readonly profile: string;
}

/** Totals since the drive was formatted, as of the last checkpoint before a crash. Pages unless said otherwise. */
export interface FtlCounters {
  readonly hostBlockPagesProgrammed: number;
  readonly hostKvPagesProgrammed: number;
  readonly gcPagesProgrammed: number;
  /** Moved for the sake of wear: to level it, or since a block has failed. */
  readonly wearPagesProgrammed: number;
  /** All of the five below. */
  readonly pagesRead: number;
  readonly hostPagesRead: number;
  /** Walked by attention. */
  readonly attendPagesRead: number;
  readonly gcPagesRead: number;
  /** Looked at by the scrub, and programmed anew by it. */
  readonly scrubPagesRead: number;
  readonly scrubPagesProgrammed: number;
  readonly wearPagesRead: number;
  readonly superblocksErased: number;
  readonly gcVictims: number;
  /** Pages that garbage collection read while a host waited for room, and while none did. */
  readonly gcHostMoves: number;
  readonly gcIdleMoves: number;
  /** Times that a host waited for a checkpoint, because nothing was erased any more. */
  readonly eraseWaits: number;
  readonly checkpoints: number;
  readonly stagingRecords: number;
  readonly stagingBytes: number;
  readonly stagingSyncs: number;
  readonly mediaSyncs: number;
  /** LBAs that the host wrote. */
  readonly hostLbasWritten: number;
  readonly hostLbasRead: number;
  readonly unrecoveredReads: number;
  /** Page reads whose bit errors were corrected, and of these, after read retries. Not those of checked pages by attention. */
  readonly correctedReads: number;
  readonly retriedReads: number;
  /** Further reads that this took, also in vain. */
  readonly readRetries: number;
}

export interface SuperblockSnapshot {
  readonly superblock: number;
  readonly state: string;
  /** 'block', 'kv' or 'none'. */
  readonly pool: string;
  readonly eraseCount: number;
  /** Erases of the most worn of its blocks. */
  readonly eraseCountMax: number;
  /** Blocks that serve in it instead of its own. */
  readonly replacedBlockCount: number;
  /** Bad blocks in it, which are replaced at its next erase if there are spares. */
  readonly failedBlockCount: number;
  readonly validSlotCount: number;
  readonly slotCount: number;
  readonly pinCount: number;
}

export interface FtlSnapshot {
  readonly counters: FtlCounters;
  readonly superblocksByState: Readonly<Record<string, number>>;
  readonly freeSuperblockCount: number;
  readonly blockLbaCount: number;
  readonly blockLbasMapped: number;
  readonly kvPageCount: number;
  readonly kvPagesFree: number;
  readonly endurance: EnduranceSnapshot;
  readonly operation: number;
  readonly checkpointOperation: number;
  readonly stagingLogBytes: number;
}

/** An open drive's flash translation layer: what `FTL.open` gives. */
export interface FtlDrive {
  readonly identity: DriveIdentity;
  /** So many erase blocks are bad that nothing more is written; it stays so. */
  readonly isReadOnly: boolean;
  readonly blocks: BlockNamespace;
  readonly kv: KvPages;
  readonly durability: Durability;
  readonly staging: StagingLog;
  readonly operations: OperationCounter;
  /** Rooms whose state belongs to every checkpoint. Before the first flush. */
  registerParticipant(participant: CheckpointParticipant): void;
  snapshot(): FtlSnapshot;
  /** One entry per superblock. */
  superblocks(): SuperblockSnapshot[];
  /** Clean shutdown: flushes, marks the drive clean, lets go of the folder. Nothing may be in flight. */
  close(): Promise<void>;
}
