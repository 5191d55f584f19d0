import { oobFlags, SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { channelOf, oobBytesPerPage } from '../nand/geometry.ts';
import type { Allocator } from './allocator.ts';
import type { Flash, OobEntry } from './flash.ts';
import type { PageWriter } from './page-writer.ts';
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
  readonly writer: PageWriter;
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
 *
 * 4 KiB slots are gathered into whole pages. Those left over of one victim wait for the next: a page with padding could
 * use up all that the victim gains. Until they are programmed, the maps name them at their old place.
 */
export class GarbageCollector {
  readonly #modules: CollectorModules;
  readonly #policy: VictimPolicy;
  /** One frame for each page of a step, then one in which blocks gather. */
  readonly #frames: number;
  readonly #oob: Uint8Array;
  readonly #copies: Copy[] = [];
  #running: Promise<boolean> | undefined;
  /** [superblock] -> its epoch: it has a page that can't be read, which keeps it from being erased. */
  readonly #unreadable = new Map<number, number>();
  victimCount = 0;

  constructor(modules: CollectorModules, policy: VictimPolicy = greedy) {
    this.#modules = modules;
    this.#policy = policy;
    const { geometry } = modules.flash;
    this.#frames = modules.arena.allocate((STEP_PAGES + 1) * geometry.pageSizeBytes);
    this.#oob = new Uint8Array(geometry.pagesPerSuperblock * oobBytesPerPage(geometry));
  }

  /** Empties one superblock of the pool; false if that gains nothing, or there is no room to copy to. */
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
    const available = allocator.gcPagesAvailable(pool);
    const copyCount = pool === 'block' ? this.#copies.length : 0;
    const victim = this.#gainsAPage(pool) ? this.#policy(superblocks, pool, this.#isUnreadable) : undefined;
    if (victim === undefined) return copyCount > 0 && available > 0 && this.#programBlocks();
    // With little room left the victim only fills up the page for the one before.
    const isWhole = Math.ceil((copyCount + superblocks.validSlotCount[victim]!) / geometry.slotsPerPage) <= available;
    if (!isWhole && (copyCount === 0 || available === 0)) return false;
    superblocks.setState(victim, 'victim');
    superblocks.pin(victim);
    try {
      const failure = await this.#empty(victim, pool, isWhole);
      if (isWhole) this.victimCount++;
      else this.#putBack(victim);
      if (failure === undefined) return true;
      this.#putBack(victim);
      this.#unreadable.set(victim, superblocks.epoch[victim]!);
      logger.error({ superblock: victim, err: failure }, 'garbage collection leaves a page that cannot be read');
      return true;
    } catch (error) {
      this.#putBack(victim);
      throw error;
    } finally {
      superblocks.unpin(victim);
    }
  }

  /** What was not moved is where it was. */
  #putBack(victim: number): void {
    const { superblocks } = this.#modules.flash;
    if (superblocks.state(victim) === 'victim') superblocks.setState(victim, 'full');
  }

  readonly #isUnreadable = (superblock: number): boolean =>
    this.#unreadable.get(superblock) === this.#modules.flash.superblocks.epoch[superblock];

  /** Whether what full superblocks have lost makes up a page; else collecting would go round in circles. */
  #gainsAPage(pool: Pool): boolean {
    const { superblocks, geometry } = this.#modules.flash;
    let invalidSlots = pool === 'block' && this.#copies.length > 0 ? geometry.slotsPerPage - 1 : 0;
    for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
      if (superblocks.state(superblock) !== 'full' || superblocks.pool(superblock) !== pool) continue;
      const valid = superblocks.validSlotCount[superblock]!;
      if (valid === 0 || this.#isUnreadable(superblock)) continue;
      invalidSlots += superblocks.slotsPerSuperblock - valid;
      if (invalidSlots >= geometry.slotsPerPage) return true;
    }
    return false;
  }

  /**
   * Returns why it could not move all of it: the first page that can't be read. Unless `isWhole` it stops once what is
   * gathered is programmed.
   */
  async #empty(victim: number, pool: Pool, isWhole: boolean): Promise<DriveError | undefined> {
    const { geometry, array } = this.#modules.flash;
    const firstPpn = victim * geometry.pagesPerSuperblock;
    const endPpn = firstPpn + geometry.pagesPerSuperblock;
    await array.media.readOob(firstPpn, this.#oob);
    let failure: DriveError | undefined;
    for (let next = firstPpn; next < endPpn; ) {
      const pages: number[] = [];
      for (; next < endPpn && pages.length < STEP_PAGES; next++) if (this.#hasValid(next)) pages.push(next);
      const errors = await this.#readPages(pages);
      for (const [frame, ppn] of pages.entries()) {
        try {
          if (errors[frame] !== undefined) throw errors[frame];
          const isProgrammed =
            pool === 'kv' ? this.#moveKvPage(ppn, this.#frame(frame)) : this.#moveBlocks(ppn, this.#frame(frame));
          if (isProgrammed && !isWhole) return failure;
        } catch (error) {
          if (!(error instanceof DriveError) || error.code !== 'unrecoveredRead') throw error;
          failure ??= error;
        }
      }
    }
    return failure;
  }

  /** [page] -> why it can't be read. All of them end: nothing may still be on its way into the frames after this. */
  async #readPages(pages: readonly number[]): Promise<(Error | undefined)[]> {
    const { flash } = this.#modules;
    const { pageSizeBytes } = flash.geometry;
    const reads = pages.map((ppn, frame) => flash.readCells(ppn * pageSizeBytes, this.#frame(frame), 'gc', 'a page'));
    const results = await Promise.allSettled(reads);
    return results.map((result) => (result.status === 'rejected' ? (result.reason as Error) : undefined));
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

  #moveKvPage(ppn: number, bytes: Uint8Array): boolean {
    const { flash, writer, owners } = this.#modules;
    const { geometry, superblocks } = flash;
    const from = ppn * geometry.slotsPerPage;
    if (!superblocks.isValid(from)) return false;
    const entry = this.#entry(ppn, 0, owners.kv);
    flash.checkKvPage(ppn, entry, entry.logical, bytes);
    const channel = channelOf(geometry, ppn % geometry.unitCount);
    const copy = { ...entry, flags: entry.flags | oobFlags.copy };
    const to = writer.write({ pool: 'kv', role: 'gc', placement: 0, channel }, bytes, [copy]);
    owners.kv.moved(entry, from, to * geometry.slotsPerPage);
    return true;
  }

  /** Gathers a page's slots; returns whether a page was programmed. The first slot that can't be read is thrown last. */
  #moveBlocks(ppn: number, bytes: Uint8Array): boolean {
    const { flash, owners } = this.#modules;
    const { superblocks, geometry } = flash;
    let isProgrammed = false;
    let failure: DriveError | undefined;
    for (let i = 0; i < geometry.slotsPerPage; i++) {
      const from = ppn * geometry.slotsPerPage + i;
      // One that was gathered before may still wait for others to fill its page.
      if (!superblocks.isValid(from) || this.#copies.some((copy) => copy.from === from)) continue;
      const slotBytes = bytes.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
      try {
        const entry = this.#entry(ppn, i, owners.block);
        flash.checkBlockSlot(from, entry, entry.logical, slotBytes);
        this.#frame(STEP_PAGES).set(slotBytes, this.#copies.length * SLOT_BYTES);
        this.#copies.push({ entry, from });
      } catch (error) {
        if (!(error instanceof DriveError)) throw error;
        failure ??= error;
      }
      if (this.#copies.length === geometry.slotsPerPage) isProgrammed = this.#programBlocks() || isProgrammed;
    }
    if (failure !== undefined) throw failure;
    return isProgrammed;
  }

  /** Programs what has gathered, and padding. False if all of it was overwritten since it was read. */
  #programBlocks(): boolean {
    const { flash, writer, owners } = this.#modules;
    const { superblocks, geometry } = flash;
    const copies = this.#copies.splice(0);
    // A superblock may even have been opened again, and hold the same LBA in the same slot: hence the epoch.
    const isCurrent = copies.map(({ entry, from }) => {
      const isSameLife = entry.epoch === superblocks.epoch[superblocks.superblockOfSlot(from)];
      return isSameLife && owners.block.isCurrent(entry, from);
    });
    if (!isCurrent.includes(true)) return false;
    const entries = copies.map(({ entry }, i) =>
      isCurrent[i] ? { ...entry, flags: entry.flags | oobFlags.copy } : undefined,
    );
    try {
      const target = { pool: 'block', role: 'gc', placement: 0, channel: undefined } as const;
      const ppn = writer.write(target, this.#frame(STEP_PAGES), entries);
      copies.forEach(({ entry, from }, i) => {
        if (isCurrent[i]) owners.block.moved(entry, from, ppn * geometry.slotsPerPage + i);
      });
    } catch (error) {
      for (const { from } of copies) this.#putBack(superblocks.superblockOfSlot(from));
      throw error;
    }
    return true;
  }
}
