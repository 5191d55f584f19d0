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

/** Pages read at once: what garbage collection does between two chances for everybody else. */
const STEP_PAGES = 8;

/**
 * Empties superblocks: picks a victim and programs what is still valid elsewhere. It yields at every step, and looks at
 * the map again after each read, so host writes, forks, truncates and reclaims may race with it. It erases nothing:
 * an empty superblock is freed once a checkpoint covers it (space.ts).
 */
export class GarbageCollector {
  readonly #modules: CollectorModules;
  readonly #policy: VictimPolicy;
  /** One frame for each page of a step, then one in which blocks gather. */
  readonly #frames: number;
  readonly #oob: Uint8Array;
  readonly #copies: Copy[] = [];
  #running: Promise<boolean> | undefined;
  /** Superblocks with a page that can't be read: they keep what they hold. */
  readonly #unreadable = new Set<number>();
  victimCount = 0;

  constructor(modules: CollectorModules, policy: VictimPolicy = greedy) {
    this.#modules = modules;
    this.#policy = policy;
    const { geometry } = modules.flash;
    this.#frames = modules.arena.allocate((STEP_PAGES + 1) * geometry.pageSizeBytes);
    this.#oob = new Uint8Array(geometry.pagesPerSuperblock * oobBytesPerPage(geometry));
  }

  /** Empties one superblock of the pool; false if there is none worth it, or no room to copy to. */
  async collect(pool: Pool): Promise<boolean> {
    // One victim at a time over both pools: they share the frames.
    while (this.#running) await this.#running.catch(() => undefined);
    const run = this.#collect(pool);
    this.#running = run;
    try {
      return await run;
    } finally {
      this.#running = undefined;
    }
  }

  async #collect(pool: Pool): Promise<boolean> {
    const { flash, allocator, logger } = this.#modules;
    const { superblocks, geometry } = flash;
    const victim = this.#policy(superblocks, pool, this.#unreadable);
    if (victim === undefined) return false;
    const pagesNeeded = Math.ceil(superblocks.validSlotCount[victim]! / geometry.slotsPerPage);
    if (allocator.gcPagesAvailable(pool) < pagesNeeded) return false;
    superblocks.setState(victim, 'victim');
    superblocks.pin(victim);
    try {
      await this.#empty(victim, pool);
      this.victimCount++;
    } catch (error) {
      superblocks.setState(victim, 'full');
      if (!(error instanceof DriveError) || error.code !== 'unrecoveredRead') throw error;
      this.#unreadable.add(victim);
      logger.error(
        { superblock: victim, err: error },
        'garbage collection leaves a superblock with an unreadable page',
      );
    } finally {
      this.#copies.length = 0;
      superblocks.unpin(victim);
    }
    return true;
  }

  async #empty(victim: number, pool: Pool): Promise<void> {
    const { geometry, array } = this.#modules.flash;
    const firstPpn = victim * geometry.pagesPerSuperblock;
    const endPpn = firstPpn + geometry.pagesPerSuperblock;
    await array.media.readOob(firstPpn, this.#oob);
    for (let next = firstPpn; next < endPpn; ) {
      const pages: number[] = [];
      for (; next < endPpn && pages.length < STEP_PAGES; next++) if (this.#hasValid(next)) pages.push(next);
      await this.#readPages(pages);
      pages.forEach((ppn, frame) => {
        if (pool === 'kv') this.#moveKvPage(ppn, this.#frame(frame));
        else this.#moveBlocks(ppn, this.#frame(frame));
      });
    }
    if (this.#copies.length > 0) this.#programBlocks();
  }

  /** All of them, also if one fails: nothing may still be on its way into the frames when this returns. */
  async #readPages(pages: readonly number[]): Promise<void> {
    const { array, geometry } = this.#modules.flash;
    const reads = pages.map((ppn, frame) => array.read(ppn * geometry.pageSizeBytes, this.#frame(frame), 'gc'));
    for (const result of await Promise.allSettled(reads)) if (result.status === 'rejected') throw result.reason;
  }

  #frame(index: number): Uint8Array {
    const { pageSizeBytes } = this.#modules.flash.geometry;
    return this.#modules.arena.view(this.#frames + index * pageSizeBytes, pageSizeBytes);
  }

  #hasValid(ppn: number): boolean {
    const { superblocks, geometry } = this.#modules.flash;
    for (let slot = 0; slot < geometry.slotsPerPage; slot++) {
      if (superblocks.isValid(ppn * geometry.slotsPerPage + slot)) return true;
    }
    return false;
  }

  /** The entry of a valid slot: of its owner, or it is damaged. */
  #entry(ppn: number, slot: number, owner: Relocatable): OobEntry {
    const { flash } = this.#modules;
    const { geometry } = flash;
    const oobBytes = oobBytesPerPage(geometry);
    const at = (ppn % geometry.pagesPerSuperblock) * oobBytes;
    const entry = flash.checkedEntry(ppn, this.#oob.subarray(at, at + oobBytes), slot);
    if (entry && owner.isCurrent(entry, ppn * geometry.slotsPerPage + slot)) return entry;
    throw flash.unrecovered(ppn, `slot ${slot}; its out-of-band entry is damaged`);
  }

  #moveKvPage(ppn: number, bytes: Uint8Array): void {
    const { flash, allocator, owners } = this.#modules;
    const { geometry, superblocks } = flash;
    const from = ppn * geometry.slotsPerPage;
    if (!superblocks.isValid(from)) return;
    const entry = this.#entry(ppn, 0, owners.kv);
    flash.checkKvPage(ppn, entry, entry.logical, bytes);
    const target = allocator.takeGcPage('kv', channelOf(geometry, ppn % geometry.unitCount));
    flash.program(target, bytes, [{ ...entry, flags: entry.flags | oobFlags.copy }], 'gc');
    owners.kv.moved(entry, from, target * geometry.slotsPerPage);
  }

  #moveBlocks(ppn: number, bytes: Uint8Array): void {
    const { flash, owners } = this.#modules;
    const { superblocks, geometry } = flash;
    for (let i = 0; i < geometry.slotsPerPage; i++) {
      const from = ppn * geometry.slotsPerPage + i;
      if (!superblocks.isValid(from)) continue;
      const entry = this.#entry(ppn, i, owners.block);
      const slotBytes = bytes.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
      flash.checkBlockSlot(from, entry, entry.logical, slotBytes);
      this.#frame(STEP_PAGES).set(slotBytes, this.#copies.length * SLOT_BYTES);
      this.#copies.push({ entry, from });
      if (this.#copies.length === geometry.slotsPerPage) this.#programBlocks();
    }
  }

  /** Programs what has gathered. Some of it may have been overwritten since it was read. */
  #programBlocks(): void {
    const { flash, allocator, owners } = this.#modules;
    const copies = this.#copies.splice(0);
    const isCurrent = copies.map(({ entry, from }) => owners.block.isCurrent(entry, from));
    if (!isCurrent.includes(true)) return;
    const ppn = allocator.takeGcPage('block', undefined);
    const entries = copies.map(({ entry }, slot) =>
      isCurrent[slot] ? { ...entry, flags: entry.flags | oobFlags.copy } : undefined,
    );
    flash.program(ppn, this.#frame(STEP_PAGES), entries, 'gc');
    copies.forEach(({ entry, from }, slot) => {
      if (isCurrent[slot]) owners.block.moved(entry, from, ppn * flash.geometry.slotsPerPage + slot);
    });
  }
}
