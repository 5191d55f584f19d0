import type { DeviceJob } from '../timing/device-job.ts';
import { SLOT_BYTES } from '../../spec/media-format/oob.ts';
import type { Arena } from '../base/arena.ts';
import { DriveError } from '../base/errors.ts';
import { CopyBuffer, STEP_PAGES } from './copy-buffer.ts';
import { copyOf, type Flash, type OobEntry } from './flash.ts';
import type { MoveRole, Mover, MoverModules, MoveStep, Relocatable } from './mover.ts';
import type { PageWriter } from './page-writer.ts';

interface Copy {
  readonly entry: OobEntry;
  readonly from: number;
}

/**
 * Moves 4 KiB slots, gathered into whole pages. Those left over of one superblock wait for the next: a page with padding
 * could use up all that is gained. Until they are programmed, the maps name them at their old place.
 */
export class BlockMover implements Mover {
  readonly #flash: Flash;
  readonly #writer: PageWriter;
  readonly #owner: Relocatable;
  readonly #role: MoveRole;
  readonly #arena: Arena;
  readonly #buffer: CopyBuffer;
  /** A page in which slots gather. */
  readonly #frame: number;
  readonly #copies: Copy[] = [];
  #nextPpn = 0;
  #endPpn = 0;
  failure: DriveError | undefined;

  constructor(modules: MoverModules) {
    this.#flash = modules.flash;
    this.#writer = modules.writer;
    this.#owner = modules.owner;
    this.#role = modules.role;
    this.#arena = modules.arena;
    this.#buffer = new CopyBuffer({ ...modules, cause: modules.role });
    this.#frame = modules.arena.allocate(modules.flash.geometry.pageSizeBytes);
  }

  get gatheredSlotCount(): number {
    return this.#copies.length;
  }

  begin(superblock: number): void {
    const { pagesPerSuperblock } = this.#flash.geometry;
    this.#nextPpn = superblock * pagesPerSuperblock;
    this.#endPpn = this.#nextPpn + pagesPerSuperblock;
    this.failure = undefined;
  }

  async step(movesMax: number, isFillingOnly: boolean, job: DeviceJob): Promise<MoveStep> {
    const ppns: number[] = [];
    for (; this.#nextPpn < this.#endPpn && ppns.length < Math.min(movesMax, STEP_PAGES); this.#nextPpn++) {
      if (this.#flash.superblocks.hasValid(this.#nextPpn)) ppns.push(this.#nextPpn);
    }
    const errors = await this.#buffer.read(ppns, job);
    let isProgrammed = false;
    for (const [index, ppn] of ppns.entries()) {
      const error = errors[index];
      if (error === undefined) isProgrammed = this.#gather(ppn, index, job) || isProgrammed;
      else this.failure ??= error;
      if (isProgrammed && isFillingOnly) break;
    }
    return { moves: ppns.length, isProgrammed, isDone: this.#nextPpn >= this.#endPpn };
  }

  /** Of the page in which slots gather. */
  #slotBytes(slot: number): Uint8Array {
    return this.#arena.view(this.#frame + slot * SLOT_BYTES, SLOT_BYTES);
  }

  /** Takes the valid slots of a page that was read; true if a page was programmed. */
  #gather(ppn: number, index: number, job: DeviceJob): boolean {
    const { superblocks, geometry } = this.#flash;
    const cells = this.#buffer.cells(index);
    let isProgrammed = false;
    for (let i = 0; i < geometry.slotsPerPage; i++) {
      const from = ppn * geometry.slotsPerPage + i;
      // One that was gathered before may still wait for others to fill its page.
      if (!superblocks.isValid(from) || this.#copies.some((copy) => copy.from === from)) continue;
      const bytes = cells.subarray(i * SLOT_BYTES, (i + 1) * SLOT_BYTES);
      const entry = this.#checkedEntry(ppn, index, i, bytes);
      if (entry === undefined) continue;
      this.#slotBytes(this.#copies.length).set(bytes);
      this.#copies.push({ entry, from });
      if (this.#copies.length === geometry.slotsPerPage) isProgrammed = this.programGathered(job) || isProgrammed;
    }
    return isProgrammed;
  }

  /** The entry of a valid slot, or undefined if slot or entry are damaged. */
  #checkedEntry(ppn: number, index: number, slot: number, bytes: Uint8Array): OobEntry | undefined {
    const from = ppn * this.#flash.geometry.slotsPerPage + slot;
    try {
      const entry = this.#flash.checkedEntry(ppn, this.#buffer.oob(index), slot);
      if (entry === undefined || !this.#owner.isCurrent(entry, from)) {
        throw this.#flash.unrecovered(ppn, `slot ${slot}; its out-of-band entry is damaged`);
      }
      this.#flash.checkBlockSlot(from, entry, entry.logical, bytes);
      return entry;
    } catch (error) {
      if (!(error instanceof DriveError) || error.code !== 'unrecoveredRead') throw error;
      this.failure ??= error;
      return undefined;
    }
  }

  programGathered(job: DeviceJob): boolean {
    const { superblocks, geometry } = this.#flash;
    const copies = this.#copies.splice(0);
    // A superblock may even have been opened again, and hold the same LBA in the same slot: hence the epoch.
    const isCurrent = copies.map(({ entry, from }) => {
      const isSameLife = entry.epoch === superblocks.epoch[superblocks.superblockOfSlot(from)];
      return isSameLife && this.#owner.isCurrent(entry, from);
    });
    if (!isCurrent.includes(true)) return false;
    // What was superseded since must not be programmed again: it may be about to be overwritten for good.
    for (let i = 0; i < geometry.slotsPerPage; i++) if (!isCurrent[i]) this.#slotBytes(i).fill(0);
    const entries = copies.map(({ entry }, i) => (isCurrent[i] ? copyOf(entry) : undefined));
    const target = { pool: 'block', role: this.#role, placement: 0, channel: undefined, job } as const;
    const ppn = this.#writer.write(target, this.#arena.view(this.#frame, geometry.pageSizeBytes), entries);
    copies.forEach(({ entry, from }, i) => {
      if (isCurrent[i]) this.#owner.moved(entry, from, ppn * geometry.slotsPerPage + i);
    });
    return true;
  }
}
