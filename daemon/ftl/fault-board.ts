import type { faultKinds, pageFaultStates } from '../../spec/admin-api.ts';
import { DriveError } from '../base/errors.ts';
import { SLOT_BYTES } from '../../spec/media-format/oob.ts';
import { type ArmedBits, flipBits } from '../nand/cell-errors.ts';
import { describePage } from '../nand/geometry.ts';
import type { ArmedFailure, FailingOperation, FailurePlace, InjectedFailures } from '../nand/injected-failures.ts';
import type { Flash } from './flash.ts';

export type FaultKind = (typeof faultKinds)[number];
export type PageFaultState = (typeof pageFaultStates)[number];

/** Which operation of the dies a fault makes fail; undefined: it is in the cells. */
const operationOf: Readonly<Record<FaultKind, FailingOperation | undefined>> = {
  'bit-errors': undefined,
  'read-failure': 'read',
  'program-failure': 'program',
  'erase-failure': 'erase',
};

export interface FaultRequest {
  readonly kind: FaultKind;
  /** undefined: wherever the next operation is; bit errors go into the pages that are programmed next. */
  readonly place: FailurePlace | undefined;
  /** Of a page: bit errors hit this 4 KiB slot of it. */
  readonly slot?: number | undefined;
  /** Operations that fail, or pages that get bit errors. */
  readonly count: number;
  /** Raw bit errors that are added to a codeword of each page. */
  readonly bits: number;
}

export interface FaultSnapshot extends FaultRequest {
  readonly id: number;
  readonly remainingCount: number;
  readonly pages: readonly { readonly ppn: number; readonly state: PageFaultState }[];
}

/** A page with injected bit errors, in the life in which it got them. */
interface FaultyPage {
  readonly ppn: number;
  readonly epoch: number;
  state: PageFaultState;
  /** Positions of bits that were flipped in the cells. */
  flipped: readonly number[];
}

interface Fault {
  readonly id: number;
  readonly request: FaultRequest;
  readonly armed: ArmedFailure | ArmedBits | undefined;
  readonly pages: FaultyPage[];
  /** Its pages have their bit errors. */
  applied: Promise<unknown>;
  isRemoved: boolean;
}

/**
 * Faults on request. Operations that are to fail are armed and strike as they come. Bit errors are put into pages that are
 * in use; since cells change only where nobody reads them, a page that is pinned waits for its last reader. Up to what the
 * error correction can do they are corrected and counted; beyond that bits flip in the cells. A restart forgets faults;
 * bits that have flipped stay, until their page is erased or the fault is removed.
 */
export class FaultBoard {
  readonly #flash: Flash;
  readonly #failures: InjectedFailures;
  readonly #faults = new Map<number, Fault>();
  #nextId = 1;

  constructor(modules: { readonly flash: Flash; readonly failures: InjectedFailures }) {
    this.#flash = modules.flash;
    this.#failures = modules.failures;
  }

  /** DriveError invalidField if there is no such place, or nothing in use there. */
  add(request: FaultRequest): FaultSnapshot {
    const { kind, place, bits, count } = request;
    this.#checkPlace(place ?? {});
    const operation = operationOf[kind];
    const pages: FaultyPage[] = operation || !place ? [] : this.#choosePages(place, request);
    const struck = (ppn: number, flipped: readonly number[]): void => void pages.push(this.#pageOf(ppn, flipped));
    const armed = operation
      ? { operation, place: place ?? {}, remaining: count }
      : place
        ? undefined
        : { bits, remaining: count, struck };
    const fault: Fault = { id: this.#nextId, request, armed, pages, applied: Promise.resolve(), isRemoved: false };
    this.#nextId++;
    this.#faults.set(fault.id, fault);
    this.#arm(fault);
    if (place) fault.applied = Promise.all(pages.map((page) => this.#disturb(fault, page)));
    return snapshotOf(fault);
  }

  #arm({ armed }: Fault): void {
    if (armed === undefined) return;
    if ('operation' in armed) this.#failures.arm(armed);
    else this.#flash.array.errors.armProgrammed(armed);
  }

  #disarm({ armed }: Fault): void {
    if (armed === undefined) return;
    if ('operation' in armed) this.#failures.disarm(armed);
    else this.#flash.array.errors.disarmProgrammed(armed);
  }

  /** Resolves when no page of the fault waits for its readers any more. */
  async applied(id: number): Promise<void> {
    await this.#faults.get(id)?.applied;
  }

  list(): FaultSnapshot[] {
    for (const { pages } of this.#faults.values()) for (const page of pages) this.#noteErase(page);
    return [...this.#faults.values()].map(snapshotOf);
  }

  /** Disarms it; bit errors are taken back as soon as nobody reads the page. False if there is none. */
  async remove(id: number): Promise<boolean> {
    const fault = this.#faults.get(id);
    if (!fault) return false;
    this.#faults.delete(id);
    fault.isRemoved = true;
    this.#disarm(fault);
    await Promise.all(fault.pages.map((page) => this.#restore(fault, page)));
    return true;
  }

  #checkPlace({ superblock, unit, ppn }: FailurePlace): void {
    const { superblockCount, unitCount, pageCount } = this.#flash.geometry;
    checkBelow('superblock', superblock, superblockCount);
    checkBelow('unit', unit, unitCount);
    checkBelow('page', ppn, pageCount);
  }

  /** Pages in use at the place, lowest first. */
  #choosePages(place: FailurePlace, { slot, count }: FaultRequest): FaultyPage[] {
    const { geometry, superblocks } = this.#flash;
    const { slotsPerPage, pagesPerSuperblock, unitCount } = geometry;
    const found: FaultyPage[] = [];
    const first = place.ppn ?? (place.superblock ?? 0) * pagesPerSuperblock;
    const endOfSuperblock = place.superblock === undefined ? geometry.pageCount : first + pagesPerSuperblock;
    const end = place.ppn === undefined ? endOfSuperblock : place.ppn + 1;
    for (let ppn = first; ppn < end && found.length < count; ppn++) {
      if (place.unit !== undefined && ppn % unitCount !== place.unit) continue;
      const slots = slot === undefined ? Array.from({ length: slotsPerPage }, (_, i) => i) : [slot];
      if (!slots.some((i) => superblocks.isValid(ppn * slotsPerPage + i))) continue;
      found.push({ ppn, epoch: this.#epochOf(ppn), state: 'waiting', flipped: [] });
    }
    if (found.length > 0) return found;
    const where = place.ppn === undefined ? 'the place' : describePage(geometry, place.ppn);
    throw new DriveError('invalidField', `${where} has no page in use; allowed: pages that hold something`);
  }

  #epochOf(ppn: number): number {
    return this.#flash.superblocks.epoch[Math.floor(ppn / this.#flash.geometry.pagesPerSuperblock)]!;
  }

  /** A page that has its bit errors. */
  #pageOf(ppn: number, flipped: readonly number[]): FaultyPage {
    return { ppn, epoch: this.#epochOf(ppn), state: this.#stateOf(ppn), flipped };
  }

  #stateOf(ppn: number): PageFaultState {
    const { isCorrectable, retryCount } = this.#flash.array.errors.errorsOf(ppn);
    return isCorrectable ? (retryCount > 0 ? 'retried' : 'corrected') : 'uncorrectable';
  }

  async #disturb(fault: Fault, page: FaultyPage): Promise<void> {
    await this.#whenUnread(page, (bytes) => {
      if (fault.isRemoved) return undefined;
      const { bits, slot } = fault.request;
      const { errors } = this.#flash.array;
      const before = errors.errorsOf(page.ppn);
      errors.inject(page.ppn, bits);
      page.state = this.#stateOf(page.ppn);
      if (page.state !== 'uncorrectable') return undefined;
      const range = slot === undefined ? [] : ([slot * SLOT_BYTES, SLOT_BYTES] as const);
      const lost = errors.lostBits(page.ppn, before.worstBits + bits, ...range);
      // Those that it had are wrong already.
      page.flipped = before.isCorrectable ? lost : lost.slice(before.worstBits);
      flipBits(bytes, page.flipped);
      return bytes;
    });
  }

  async #restore(fault: Fault, page: FaultyPage): Promise<void> {
    await this.#whenUnread(page, (bytes) => {
      if (page.state === 'waiting') return undefined;
      this.#flash.array.errors.inject(page.ppn, -fault.request.bits);
      flipBits(bytes, page.flipped);
      return page.flipped.length > 0 ? bytes : undefined;
    });
  }

  /**
   * Gives a page's bytes to `change` at a moment when nobody reads it, and writes back what comes of it. Not if the page
   * was erased meanwhile. What was seen right of it counts no more.
   */
  async #whenUnread(page: FaultyPage, change: (bytes: Uint8Array) => Uint8Array | undefined): Promise<void> {
    const { geometry, superblocks, array } = this.#flash;
    const superblock = Math.floor(page.ppn / geometry.pagesPerSuperblock);
    const bytes = new Uint8Array(geometry.pageSizeBytes);
    for (;;) {
      if (this.#noteErase(page)) return;
      superblocks.pin(superblock);
      try {
        await array.media.readCells(page.ppn * bytes.length, bytes);
        // Whoever came meanwhile reads it now.
        if (superblocks.pinCount(superblock) === 1) {
          const changed = change(bytes);
          if (changed) array.media.writeCells(page.ppn * bytes.length, changed);
          for (let i = 0; i < geometry.slotsPerPage; i++)
            superblocks.clearVerified(page.ppn * geometry.slotsPerPage + i);
          return;
        }
      } catch (error) {
        if (!(error instanceof DriveError)) throw error;
        // The disk can't give it: there is nothing to make worse.
        page.state = 'uncorrectable';
        return;
      } finally {
        superblocks.unpin(superblock);
      }
      if (superblocks.pinCount(superblock) > 0) await superblocks.nextUnpin();
    }
  }

  #noteErase(page: FaultyPage): boolean {
    const { geometry, superblocks } = this.#flash;
    const superblock = Math.floor(page.ppn / geometry.pagesPerSuperblock);
    if (superblocks.state(superblock) === 'free' || superblocks.epoch[superblock] !== page.epoch) page.state = 'erased';
    return page.state === 'erased';
  }
}

function checkBelow(what: string, value: number | undefined, end: number): void {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value < end)) return;
  throw new DriveError('invalidField', `${what} ${value}; allowed: 0 to ${end - 1}`);
}

function snapshotOf({ id, request, armed, pages }: Fault): FaultSnapshot {
  const remainingCount = armed ? armed.remaining : pages.filter(({ state }) => state === 'waiting').length;
  return { id, ...request, remainingCount, pages: pages.map(({ ppn, state }) => ({ ppn, state })) };
}
