import { oobKinds, SLOT_BYTES, SUPERBLOCK_MAGIC, superblockHeader } from '../../spec/media-format/oob.ts';
import { blockDeallocation, blockStagedSlot } from '../../spec/media-format/staging.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import type { MetaReader } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { oobBytesPerPage } from '../nand/geometry.ts';
import type { Allocator } from './allocator.ts';
import type { BlockRecords } from './block-records.ts';
import type { BlockDevice, StagedSlot } from './block-namespace.ts';
import type { StateRecord } from './checkpoint.ts';
import type { RecoveredEvent, Lpn } from './contract.ts';
import { type Flash, wholeEntry } from './flash.ts';
import type { KvPageStore } from './kv-page-store.ts';
import { type FoundPage, scanSuperblock } from './page-scan.ts';
import { UNMAPPED } from './segmented-map.ts';
import type { StagingFile } from './staging-log.ts';
import { type Pool, poolOfCode } from './superblocks.ts';

export interface RecoveryModules {
  readonly meta: MetaReader;
  readonly staging: StagingFile;
  readonly flash: Flash;
  readonly allocator: Pick<Allocator, 'reopen' | 'giveUpRetired'>;
  readonly blockRecords: BlockRecords;
  readonly blocks: Pick<BlockDevice, 'map' | 'lbaCount'>;
  readonly kv: Pick<KvPageStore, 'map' | 'lpnCount'>;
}

export interface Recovered {
  /** The last transaction's record; undefined: the drive was never started. */
  readonly state: StateRecord | undefined;
  /** For the KV room, in operation order. */
  readonly events: readonly RecoveredEvent[];
  /** LBAs whose newest bytes are in no page. */
  readonly staged: ReadonlyMap<number, StagedSlot>;
  /** Highest operation number seen anywhere. */
  readonly operation: number;
  readonly scannedSuperblockCount: number;
}

/**
 * Brings the maps to where the last run durably was: the last transaction, then staged records and pages programmed since,
 * in operation order. Copies that garbage collection made since are ignored: what they were copied from has not been
 * erased, because no transaction covers the copying.
 */
export async function recover(modules: RecoveryModules): Promise<Recovered> {
  const { meta, staging, flash, blockRecords, blocks, kv } = modules;
  const state = meta.get(metaNamespaces.drive, ['state']) as StateRecord | undefined;
  blocks.map.load(meta);
  kv.map.load(meta);
  const checkpointOperation = state?.operation ?? 0;
  let operation = checkpointOperation;
  const blockTable = blockRecords.read(meta);
  const retired = new Set(blockTable?.retired);
  await restoreHeaders(modules, { state, retired }, (seen) => (operation = Math.max(operation, seen)));
  blockRecords.restore(blockTable);
  modules.allocator.giveUpRetired();
  const stagedList = new Map((meta.get(metaNamespaces.stagedBlocks, ['list']) ?? []) as [number, number][]);
  const roll = new RollForward(blocks, checkpointOperation, stagedList);
  const events: RecoveredEvent[] = [];
  for (const record of staging.replay(state?.log)) {
    operation = Math.max(operation, record.operation);
    if (record.kind === 'kv') events.push({ kind: 'staged', operation: record.operation, payload: record.payload });
    else roll.addRecord(record);
  }
  const scanned = state?.isClean ? [] : superblocksToScan(modules, state);
  const filter = { afterOperation: checkpointOperation, blocks: stagedList };
  for (const superblock of scanned) {
    for (const page of await scanSuperblock(flash, superblock, filter)) {
      const [first] = page.entries;
      for (const entry of page.entries) operation = Math.max(operation, entry?.operation ?? 0);
      if (first?.kind !== oobKinds.kv) roll.addPage(page, flash.geometry.slotsPerPage);
      else if (first.operation > checkpointOperation) {
        if (first.logical >= kv.lpnCount) {
          throw new DriveError('mediaFormat', `KV page ${first.logical} on the media is out of range`);
        }
        kv.map.set(first.logical, page.ppn);
        const tag = { ...first, part: first.part as 0 | 1 };
        events.push({ kind: 'page', operation: first.operation, tag, lpn: first.logical as Lpn });
      }
    }
  }
  events.sort((a, b) => a.operation - b.operation);
  const staged = roll.apply();
  return { state, events, staged, operation, scannedSuperblockCount: scanned.length };
}

/** Epochs, tags and owners of all superblocks; those of a clean shutdown that were open are open again. */
async function restoreHeaders(
  modules: RecoveryModules,
  { state, retired }: { state: StateRecord | undefined; retired: ReadonlySet<number> },
  seen: (operation: number) => void,
): Promise<void> {
  const { flash, allocator } = modules;
  const { superblocks, array } = flash;
  const open = new Map(state?.isClean ? state.open.map((entry) => [entry.superblock, entry]) : []);
  const headers = await array.media.readSuperblockHeaders();
  for (let superblock = 0; superblock < flash.geometry.superblockCount; superblock++) {
    const at = superblock * superblockHeader.sizeBytes;
    const bytes = headers.subarray(at, at + superblockHeader.sizeBytes);
    const isWritten = bytes.some((byte) => byte !== 0);
    const header = isWritten ? (readSuperblockHeader(bytes) ?? (await rescueHeader(modules, superblock))) : undefined;
    if (header === undefined) continue;
    if (!state) throw new DriveError('mediaFormat', 'metadata: nothing is there, but pages were programmed');
    superblocks.epoch[superblock] = header.epoch;
    superblocks.openTag[superblock] = header.openTag;
    superblocks.openedAt[superblock] = header.operation;
    seen(header.operation);
    if (retired.has(superblock)) continue;
    const reopened = open.get(superblock);
    const isOpen = reopened !== undefined && reopened.pool === header.pool && allocator.reopen(reopened);
    superblocks.restore(superblock, isOpen ? 'open' : 'full', header.pool);
  }
}

/** What a superblock's header says. */
export interface SuperblockHeader {
  readonly epoch: number;
  readonly openTag: number;
  readonly operation: number;
  readonly pool: Pool;
}

/** undefined if it is damaged. */
export function readSuperblockHeader(bytes: Uint8Array): SuperblockHeader | undefined {
  const { magic, pool: poolCode, epoch, openTag, operation, crc32c: sum } = superblockHeader.decode(bytes);
  const pool = poolOfCode(poolCode);
  const isRight = magic === SUPERBLOCK_MAGIC && sum === crc32c(bytes.subarray(0, superblockHeader.sizeBytes - 4));
  return isRight && pool !== undefined ? { epoch, openTag, operation, pool } : undefined;
}

/**
 * A header that is damaged is either of a superblock whose opening was not durable, and then no map names its pages; or
 * the disk has changed it, and then the entries of the pages that the maps name tell what it was.
 */
async function rescueHeader(modules: RecoveryModules, superblock: number): Promise<SuperblockHeader | undefined> {
  const { flash, blocks, kv } = modules;
  const { slotsPerPage, pagesPerSuperblock } = flash.geometry;
  const firstSlot = superblock * pagesPerSuperblock * slotsPerPage;
  const oob = new Uint8Array(pagesPerSuperblock * oobBytesPerPage(flash.geometry));
  await flash.array.media.readOob(superblock * pagesPerSuperblock, oob);
  let epoch = 0;
  for (let i = 0; i < pagesPerSuperblock * slotsPerPage; i++) {
    const entry = wholeEntry(oob, i);
    if (entry === undefined) continue;
    const pool = entry.kind === oobKinds.kv ? 'kv' : 'block';
    const slot = pool === 'kv' ? kv.map.get(entry.logical) * slotsPerPage : blocks.map.get(entry.logical);
    if (slot === firstSlot + i) return { epoch: entry.epoch, openTag: entry.openTag, operation: 0, pool };
    epoch = Math.max(epoch, entry.epoch);
  }
  // Its erase count goes on from the lives that are still to be seen.
  flash.superblocks.epoch[superblock] = epoch;
  return undefined;
}

/** Those opened since the transaction, and those that were open in it. */
function superblocksToScan(modules: RecoveryModules, state: StateRecord | undefined): number[] {
  const { superblocks, geometry } = modules.flash;
  const wasOpen = new Set(state?.open.map(({ superblock }) => superblock));
  const all = Array.from({ length: geometry.superblockCount }, (_, superblock) => superblock);
  return all.filter((superblock) => {
    if (superblocks.state(superblock) === 'free' || superblocks.state(superblock) === 'bad') return false;
    return wasOpen.has(superblock) || superblocks.openedAt[superblock]! > (state?.operation ?? 0);
  });
}

type BlockEvent =
  | { readonly kind: 'page'; readonly operation: number; readonly lba: number; readonly slot: number }
  | { readonly kind: 'staged'; readonly operation: number; readonly lba: number; readonly data: Uint8Array }
  | { readonly kind: 'deallocate'; readonly operation: number; readonly lba: number; readonly lbaCount: number };

function checkSize(kind: string, payload: Uint8Array, sizeBytes: number): void {
  if (payload.length === sizeBytes) return;
  throw new DriveError('mediaFormat', `${kind} record of ${payload.length} bytes in the staging log, not ${sizeBytes}`);
}

/** The block namespace's events since the transaction; the newest of each LBA wins, and a page wins over its record. */
class RollForward {
  readonly #blocks: RecoveryModules['blocks'];
  readonly #checkpointOperation: number;
  readonly #stagedList: ReadonlyMap<number, number>;
  readonly #events: BlockEvent[] = [];

  constructor(blocks: RecoveryModules['blocks'], checkpointOperation: number, stagedList: ReadonlyMap<number, number>) {
    this.#blocks = blocks;
    this.#checkpointOperation = checkpointOperation;
    this.#stagedList = stagedList;
  }

  addRecord({ kind, operation, payload }: { kind: string; operation: number; payload: Uint8Array }): void {
    if (kind === 'block') {
      checkSize(kind, payload, blockStagedSlot.sizeBytes + SLOT_BYTES);
      const { lba } = blockStagedSlot.decode(payload);
      const data = payload.subarray(blockStagedSlot.sizeBytes);
      if (this.#counts(lba, operation)) this.#events.push({ kind: 'staged', operation, lba, data });
    } else if (operation > this.#checkpointOperation) {
      checkSize(kind, payload, blockDeallocation.sizeBytes);
      const { lba, lbaCount } = blockDeallocation.decode(payload);
      this.#events.push({ kind: 'deallocate', operation, lba, lbaCount });
    }
  }

  addPage({ ppn, entries }: FoundPage, slotsPerPage: number): void {
    entries.forEach((entry, index) => {
      if (entry?.kind !== oobKinds.block || !this.#counts(entry.logical, entry.operation)) return;
      const slot = ppn * slotsPerPage + index;
      this.#events.push({ kind: 'page', operation: entry.operation, lba: entry.logical, slot });
    });
  }

  /** Newer than the transaction, or what the transaction says is only in the log. */
  #counts(lba: number, operation: number): boolean {
    if (lba >= this.#blocks.lbaCount) throw new DriveError('mediaFormat', `LBA ${lba} on the media is out of range`);
    return operation > this.#checkpointOperation || this.#stagedList.get(lba) === operation;
  }

  /** DriveError mediaFormat if a record is missing that the transaction counts on. */
  apply(): Map<number, StagedSlot> {
    this.#checkComplete();
    const rank = { deallocate: 0, staged: 1, page: 2 };
    this.#events.sort((a, b) => a.operation - b.operation || rank[a.kind] - rank[b.kind]);
    const staged = new Map<number, StagedSlot>();
    const { map, lbaCount } = this.#blocks;
    for (const event of this.#events) {
      if (event.kind === 'deallocate') {
        for (let lba = event.lba; lba < Math.min(event.lba + event.lbaCount, lbaCount); lba++) {
          if (map.get(lba) !== UNMAPPED) map.set(lba, UNMAPPED);
          staged.delete(lba);
        }
      } else if (event.kind === 'page') {
        map.set(event.lba, event.slot);
        staged.delete(event.lba);
      } else {
        map.set(event.lba, UNMAPPED);
        staged.set(event.lba, { operation: event.operation, data: event.data });
      }
    }
    return staged;
  }

  #checkComplete(): void {
    const found = new Map(this.#stagedList);
    for (const event of this.#events) {
      if (event.kind === 'staged' && found.get(event.lba) === event.operation) found.delete(event.lba);
    }
    for (const lba of found.keys()) {
      throw new DriveError('mediaFormat', `the staging log has lost the record of LBA ${lba}`);
    }
  }
}
