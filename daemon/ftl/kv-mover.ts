import type { DeviceJob } from '../timing/device-job.ts';
import { oobKinds } from '../../spec/media-format/oob.ts';
import { DriveError } from '../base/errors.ts';
import { channelOf, oobBytesPerPage } from '../nand/geometry.ts';
import type { Allocator } from './allocator.ts';
import { CopyBuffer, STEP_PAGES } from './copy-buffer.ts';
import { copyOf, type Flash, type OobEntry } from './flash.ts';
import type { MoveRole, Mover, MoverModules, MoveStep, Relocatable } from './mover.ts';
import type { PageWriter } from './page-writer.ts';
import { planCopies, type PlannedCopy, type StreamPage } from './stream-order.ts';

/** Pages whose entries are read in one step. */
const SCAN_PAGES = 1024;
/** Pages that are put in order together: bounds memory, and the time that ordering takes. */
const ORDERED_PAGES = 4096;

/**
 * Moves KV pages, each whole. Those of a stream are programmed in order of their groups, so that copying a superblock
 * that was written token by token lays each stream side by side.
 */
export class KvMover implements Mover {
  readonly gatheredSlotCount = 0;
  readonly #flash: Flash;
  readonly #allocator: Allocator;
  readonly #writer: PageWriter;
  readonly #owner: Relocatable;
  readonly #role: MoveRole;
  readonly #buffer: CopyBuffer;
  readonly #oob: Uint8Array;
  /** Where the scan for valid pages goes on. */
  #nextPpn = 0;
  #endPpn = 0;
  #found: StreamPage[] = [];
  #streams = new Map<string, number>();
  #planned: readonly PlannedCopy[] = [];
  #nextPlanned = 0;
  failure: DriveError | undefined;

  constructor(modules: MoverModules & { readonly allocator: Allocator }) {
    this.#flash = modules.flash;
    this.#allocator = modules.allocator;
    this.#writer = modules.writer;
    this.#owner = modules.owner;
    this.#role = modules.role;
    this.#buffer = new CopyBuffer({ ...modules, cause: modules.role });
    const { geometry } = modules.flash;
    this.#oob = new Uint8Array(Math.min(SCAN_PAGES, geometry.pagesPerSuperblock) * oobBytesPerPage(geometry));
  }

  begin(superblock: number): void {
    const { pagesPerSuperblock } = this.#flash.geometry;
    this.#nextPpn = superblock * pagesPerSuperblock;
    this.#endPpn = this.#nextPpn + pagesPerSuperblock;
    this.#found = [];
    this.#planned = [];
    this.#nextPlanned = 0;
    this.failure = undefined;
  }

  async step(movesMax: number, isFillingOnly: boolean, job: DeviceJob): Promise<MoveStep> {
    if (this.#nextPlanned === this.#planned.length && !this.#isScanned) {
      await this.#scan();
      return { moves: STEP_PAGES, isProgrammed: false, isDone: this.#isDone };
    }
    const copies: PlannedCopy[] = [];
    while (this.#nextPlanned < this.#planned.length && copies.length < Math.min(movesMax, STEP_PAGES)) {
      const copy = this.#planned[this.#nextPlanned++]!;
      if (this.#isValid(copy.ppn)) copies.push(copy);
    }
    const errors = await this.#buffer.read(
      copies.map(({ ppn }) => ppn),
      job,
    );
    let isProgrammed = false;
    for (const [index, copy] of copies.entries()) {
      const error = errors[index];
      if (error === undefined) isProgrammed = this.#move(copy, index, job) || isProgrammed;
      else this.failure ??= error;
      if (isProgrammed && isFillingOnly) break;
    }
    return { moves: copies.length, isProgrammed, isDone: this.#isDone };
  }

  get #isScanned(): boolean {
    return this.#nextPpn >= this.#endPpn;
  }

  get #isDone(): boolean {
    return this.#isScanned && this.#nextPlanned === this.#planned.length;
  }

  #isValid(ppn: number): boolean {
    return this.#flash.superblocks.isValid(ppn * this.#flash.geometry.slotsPerPage);
  }

  /** Reads the next entries; once there are enough, puts the pages in order. */
  async #scan(): Promise<void> {
    const { geometry } = this.#flash;
    while (!this.#isScanned && !this.#isValid(this.#nextPpn)) this.#nextPpn++;
    const firstPpn = this.#nextPpn;
    const count = Math.min(SCAN_PAGES, this.#endPpn - firstPpn);
    await this.#readEntries(firstPpn, count);
    this.#nextPpn = firstPpn + count;
    if (!this.#isScanned && this.#found.length < ORDERED_PAGES) return;
    const firstChannel = this.#allocator.nextChannel('kv', this.#role);
    this.#planned = planCopies(this.#found, geometry.channelCount, firstChannel);
    this.#nextPlanned = 0;
    this.#found = [];
    this.#streams.clear();
  }

  /** Notes the valid ones of pages that lie side by side. One that the disk does not give must not spoil the others. */
  async #readEntries(firstPpn: number, count: number): Promise<void> {
    if (count === 0 || (count === 1 && !this.#isValid(firstPpn))) return;
    const { geometry, array } = this.#flash;
    const oobBytes = oobBytesPerPage(geometry);
    try {
      await array.media.readOob(firstPpn, this.#oob.subarray(0, count * oobBytes));
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      if (count > 1) for (let i = 0; i < count; i++) await this.#readEntries(firstPpn + i, 1);
      else this.failure ??= this.#flash.unrecovered(firstPpn, 'a KV page', error);
      return;
    }
    for (let i = 0; i < count; i++) this.#note(firstPpn + i, this.#oob.subarray(i * oobBytes, (i + 1) * oobBytes));
  }

  #note(ppn: number, oob: Uint8Array): void {
    if (!this.#isValid(ppn)) return;
    const { geometry } = this.#flash;
    const entry = this.#currentEntry(ppn, oob);
    if (entry === undefined) return;
    const name = `${entry.sequenceId}/${entry.layer}/${entry.head}/${entry.part}`;
    let stream = this.#streams.get(name);
    if (stream === undefined) this.#streams.set(name, (stream = this.#streams.size));
    this.#found.push({ ppn, stream, group: entry.group, channel: channelOf(geometry, ppn % geometry.unitCount) });
  }

  /** The entry of a valid page, or undefined if it is damaged. */
  #currentEntry(ppn: number, oob: Uint8Array): OobEntry | undefined {
    const entry = this.#flash.checkedEntry(ppn, oob, 0);
    if (entry?.kind === oobKinds.kv && this.#owner.isCurrent(entry, ppn * this.#flash.geometry.slotsPerPage)) {
      return entry;
    }
    this.failure ??= this.#flash.unrecovered(ppn, 'a KV page; its out-of-band entry is damaged');
    return undefined;
  }

  #move({ ppn, channel }: PlannedCopy, index: number, job: DeviceJob): boolean {
    const { geometry } = this.#flash;
    // Let go of while it was read.
    if (!this.#isValid(ppn)) return false;
    const cells = this.#buffer.cells(index);
    const entry = this.#currentEntry(ppn, this.#buffer.oob(index));
    if (entry === undefined) return false;
    try {
      this.#flash.checkKvPage(ppn, entry, entry.logical, cells);
    } catch (error) {
      if (!(error instanceof DriveError) || error.code !== 'unrecoveredRead') throw error;
      this.failure ??= error;
      return false;
    }
    const target = { pool: 'kv', role: this.#role, placement: 0, channel, job } as const;
    const to = this.#writer.write(target, cells, [copyOf(entry)]);
    this.#owner.moved(entry, ppn * geometry.slotsPerPage, to * geometry.slotsPerPage);
    return true;
  }

  programGathered(): boolean {
    return false;
  }
}
