import type { FtlCounters, FtlSnapshot, SuperblockSnapshot } from './contract.ts';
import type { Flash } from './flash.ts';
import { takeEndurance } from './endurance.ts';
import type { Ftl } from './ftl.ts';
import { superblockStates } from './superblock-state.ts';

/** `lifetime`: what was counted up to the last start. */
export function takeSnapshot(ftl: Ftl, lifetime: Readonly<Record<string, number>>): FtlSnapshot {
  const { flash, blocks, kv, durability } = ftl;
  const { geometry, superblocks } = flash;
  const superblocksByState: Record<string, number> = Object.fromEntries(superblockStates.map((state) => [state, 0]));
  for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
    superblocksByState[superblocks.state(superblock)]!++;
  }
  return {
    counters: takeCounters(ftl, lifetime),
    superblocksByState,
    freeSuperblockCount: superblocksByState['free']!,
    blockLbaCount: blocks.lbaCount,
    blockLbasMapped: blocks.mappedCount,
    kvPageCount: kv.pageCount,
    kvPagesFree: kv.freePageCount,
    endurance: takeEndurance(flash.array.blocks, geometry, ftl.chip),
    operation: ftl.operations.last,
    checkpointOperation: durability.lastOperation,
    stagingLogBytes: ftl.stagingFile.segmentBytes,
  };
}

/** Since format. */
export function takeCounters(ftl: Ftl, lifetime: Readonly<Record<string, number>>): FtlCounters {
  const counters = { ...countSinceStart(ftl) } as Record<string, number>;
  for (const name of Object.keys(counters)) counters[name]! += lifetime[name] ?? 0;
  return counters as unknown as FtlCounters;
}

function countSinceStart(ftl: Ftl): FtlCounters {
  const { programs, reads, superblocksErased } = ftl.flash.array.counters;
  const { stagingFile } = ftl;
  const corrections = ftl.flash.array.errors.counters;
  return {
    hostBlockPagesProgrammed: programs.block,
    hostKvPagesProgrammed: programs.kv,
    gcPagesProgrammed: programs.gc,
    wearPagesProgrammed: programs.wear,
    pagesRead: reads.block + reads.kv + reads.gc + reads.wear + reads.scrub + ftl.flash.readsOutside,
    hostPagesRead: reads.block + reads.kv,
    attendPagesRead: ftl.flash.readsOutside,
    gcPagesRead: reads.gc,
    scrubPagesRead: reads.scrub,
    scrubPagesProgrammed: programs.scrub,
    wearPagesRead: reads.wear,
    superblocksErased,
    gcVictims: ftl.collectors.block.victimCount + ftl.collectors.kv.victimCount,
    gcHostMoves: ftl.spaces.block.counters.hostMoves + ftl.spaces.kv.counters.hostMoves,
    gcIdleMoves: ftl.spaces.block.counters.idleMoves + ftl.spaces.kv.counters.idleMoves,
    eraseWaits: ftl.spaces.block.counters.eraseWaits + ftl.spaces.kv.counters.eraseWaits,
    checkpoints: ftl.durability.checkpointCount,
    stagingRecords: stagingFile.recordCount,
    stagingBytes: stagingFile.byteCount,
    stagingSyncs: stagingFile.syncCount,
    mediaSyncs: ftl.durability.mediaSyncCount,
    hostLbasWritten: ftl.blocks.lbasWritten,
    hostLbasRead: ftl.blocks.lbasRead,
    unrecoveredReads: ftl.flash.unrecoveredReadCount,
    correctedReads: corrections.corrected,
    retriedReads: corrections.retried,
    readRetries: corrections.retryReads,
  };
}

export function takeSuperblocks(flash: Flash): SuperblockSnapshot[] {
  const { geometry, superblocks } = flash;
  const unusual = flash.array.blocks.unusual();
  return Array.from({ length: geometry.superblockCount }, (_, superblock) => ({
    eraseCountMax: superblocks.epoch[superblock]!,
    replacedBlockCount: 0,
    failedBlockCount: 0,
    ...unusual.get(superblock),
    superblock,
    state: superblocks.state(superblock),
    pool: superblocks.pool(superblock) ?? 'none',
    eraseCount: superblocks.epoch[superblock]!,
    validSlotCount: superblocks.validSlotCount[superblock]!,
    slotCount: superblocks.slotsPerSuperblock,
    pinCount: superblocks.pinCount(superblock),
  }));
}
