import { oobFlags, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { channelOf, oobBytesPerPage } from '../nand/geometry.ts';
import type { Allocator } from './allocator.ts';
import type { Flash, OobEntry } from './flash.ts';
import type { Pool } from './superblocks.ts';
import { greedy, type VictimPolicy } from './victim-policy.ts';

/** The maps, as garbage collection needs them: who holds a slot, and that it has moved. */
export interface Relocatable {
  /** Whether the entry's owner still has its bytes at `slot`. */
  isCurrent(entry: OobEntry, slot: number): boolean;
  moved(entry: OobEntry, from: number, to: number): void;
}

export interface CollectorModules {
  readonly flash: Flash;
  readonly allocator: Allocator;
  readonly arena: Arena;
  readonly owners: Readonly<Record<Pool, Relocatable>>;
  readonly logger: Logger;
}

interface Copy {
  readonly entry: OobEntry;
  readonly from: number;
}

/**
 * Empties superblocks: picks a victim and programs what is still valid elsewhere. It yields at every page, and looks at
 * the map again after each read, so host writes, forks, truncates and reclaims may race with it. It erases nothing:
 * an empty superblock is freed once a checkpoint covers it (space.ts).
 */
export class GarbageCollector {
  readonly #modules: CollectorModules;
  readonly #policy: VictimPolicy;
  readonly #frame: number;
  readonly #oob: Uint8Array;
  readonly #busy = new Map<Pool, Promise<boolean>>();
  /** Superblocks with a page that can't be read: they keep what they hold. */
  readonly #unreadable = new Set<number>();
  victimCount = 0;

  constructor(modules: CollectorModules, policy: VictimPolicy = greedy) {
    this.#modules = modules;
    this.#policy = policy;
    const { geometry } = modules.flash;
    this.#frame = modules.arena.allocate(2 * geometry.pageSizeBytes);
    this.#oob = new Uint8Array(geometry.pagesPerSuperblock * oobBytesPerPage(geometry));
  }

  /** Empties one superblock of the pool; false if there is none worth it, or no room to copy to. */
  async collect(pool: Pool): Promise<boolean> {
    // One victim at a time over both pools: they share the frames.
    while (this.#busy.size > 0) await Promise.allSettled(this.#busy.values());
    const run = this.#collect(pool);
    this.#busy.set(pool, run);
    try {
      return await run;
    } finally {
      this.#busy.delete(pool);
    }
  }

  async #collect(pool: Pool): Promise<boolean> {
    const { flash, allocator, logger } = this.#modules;
    const { superblocks } = flash;
    const victim = this.#policy(superblocks, pool, this.#unreadable);
    if (victim === undefined) return false;
    const pagesNeeded = Math.ceil(superblocks.validSlotCount[victim]! / flash.geometry.slotsPerPage) + 1;
    if (allocator.gcPagesAvailable(pool) < Math.min(pagesNeeded, flash.geometry.pagesPerSuperblock)) return false;
    superblocks.setState(victim, 'victim');
    superblocks.pin(victim);
    try {
      await (pool === 'kv' ? this.#emptyKv(victim) : this.#emptyBlocks(victim));
      this.victimCount++;
    } catch (error) {
      if (!(error instanceof DriveError) || error.code !== 'unrecoveredRead') throw error;
      this.#unreadable.add(victim);
      superblocks.setState(victim, 'full');
      logger.error(
        { superblock: victim, err: error },
        'garbage collection leaves a superblock with an unreadable page',
      );
    } finally {
      superblocks.unpin(victim);
    }
    return true;
  }

  async #emptyKv(victim: number): Promise<void> {
    const { flash, allocator, arena, owners } = this.#modules;
    const { geometry, superblocks, array } = flash;
    const firstPpn = victim * geometry.pagesPerSuperblock;
    await array.media.readOob(firstPpn, this.#oob);
    const page = arena.view(this.#frame, geometry.pageSizeBytes);
    const oobBytes = oobBytesPerPage(geometry);
    for (let i = 0; i < geometry.pagesPerSuperblock; i++) {
      const ppn = firstPpn + i;
      const slot = ppn * geometry.slotsPerPage;
      if (!superblocks.isValid(slot)) continue;
      const entry = flash.checkedEntry(ppn, this.#oob.subarray(i * oobBytes, (i + 1) * oobBytes), 0);
      if (entry === undefined) throw flash.unrecovered(ppn, 'a KV page; its out-of-band entry is damaged');
      await flash.readKvPage(ppn, entry.logical, page, 'gc');
      if (!owners.kv.isCurrent(entry, slot)) continue;
      const target = allocator.takeGcPage('kv', channelOf(geometry, ppn % geometry.unitCount));
      flash.program(target, page, [{ ...entry, flags: entry.flags | oobFlags.copy }], 'gc');
      owners.kv.moved(entry, slot, target * geometry.slotsPerPage);
    }
  }

  async #emptyBlocks(victim: number): Promise<void> {
    const { flash, arena, owners } = this.#modules;
    const { geometry, superblocks, array } = flash;
    const firstPpn = victim * geometry.pagesPerSuperblock;
    await array.media.readOob(firstPpn, this.#oob);
    const read = arena.view(this.#frame, SLOT_BYTES);
    const gathered = arena.view(this.#frame + geometry.pageSizeBytes, geometry.pageSizeBytes);
    const copies: Copy[] = [];
    const oobBytes = oobBytesPerPage(geometry);
    for (let i = 0; i < geometry.pagesPerSuperblock * geometry.slotsPerPage; i++) {
      const slot = firstPpn * geometry.slotsPerPage + i;
      if (!superblocks.isValid(slot)) continue;
      const page = Math.floor(i / geometry.slotsPerPage);
      const ppn = firstPpn + page;
      const oob = this.#oob.subarray(page * oobBytes, (page + 1) * oobBytes);
      const entry = flash.checkedEntry(ppn, oob, i % geometry.slotsPerPage);
      if (entry === undefined) throw flash.unrecovered(ppn, 'a block; its out-of-band entry is damaged');
      await flash.readBlockSlots(slot, [entry.logical], read, 'gc');
      if (!owners.block.isCurrent(entry, slot)) continue;
      gathered.set(read, copies.length * SLOT_BYTES);
      copies.push({ entry, from: slot });
      if (copies.length === geometry.slotsPerPage) this.#programBlocks(gathered, copies.splice(0));
    }
    if (copies.length > 0) this.#programBlocks(gathered, copies);
  }

  #programBlocks(page: Uint8Array, copies: readonly Copy[]): void {
    const { flash, allocator, owners } = this.#modules;
    // Some may have been overwritten while others were read.
    const isCurrent = copies.map(({ entry, from }) => owners.block.isCurrent(entry, from));
    if (!isCurrent.includes(true)) return;
    const ppn = allocator.takeGcPage('block', undefined);
    const entries = copies.map(({ entry }, slot) =>
      isCurrent[slot] ? { ...entry, flags: entry.flags | oobFlags.copy } : {},
    );
    flash.program(ppn, page, entries, 'gc');
    copies.forEach(({ entry, from }, slot) => {
      if (isCurrent[slot]) owners.block.moved(entry, from, ppn * flash.geometry.slotsPerPage + slot);
    });
  }
}
