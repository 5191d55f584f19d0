import type { DeviceJob } from '../timing/device-job.ts';
import { SUPERBLOCK_MAGIC, superblockHeader, superblockPools } from '../../spec/media-format/oob.ts';
import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import type { NandArray } from '../nand/array.ts';
import { ppnOf, superblockOf, superblockQuotas } from '../nand/geometry.ts';
import type { OperationCounter } from './contract.ts';
import { isWornOut, readOnlyError } from './endurance.ts';
import { GC_RESERVE_SUPERBLOCKS, kvWritePointCount, type Placement } from './gc-options.ts';
import { PlacementTable } from './placement-table.ts';
import { type Pool, pools, type Superblocks } from './superblocks.ts';
import { TEMPERATURE_COUNT } from './temperature.ts';
import type { WearLeveller } from './wear-levelling.ts';
import { WritePoint, type WriteRole, writeRoles } from './write-point.ts';

/** What others leave of garbage collection's reserve: hosts whom failed blocks have cost what they had reserved, and wear. */
const GC_RESERVE_MIN_SUPERBLOCKS = 2;

/** Where a page is to go. */
export interface PageTarget {
  readonly pool: Pool;
  readonly role: WriteRole;
  /** Hosts' blocks: the write point. Hosts' KV pages: any number, the same for pages that will be given up together. */
  readonly placement: number;
  /** undefined: any. */
  readonly channel: number | undefined;
  /** For whom, in device time. */
  readonly job: DeviceJob;
}

/** Whose superblocks are opened: hosts', garbage collection's reserve, or what of that others may have for a while. */
type Purse = 'host' | 'gc' | 'wear' | 'loss';

/** The page of an open superblock that is to be programmed next. */
export interface TakenPage {
  readonly ppn: number;
  readonly superblock: number;
  readonly target: PageTarget;
  readonly writePoint: WritePoint;
  /** Of the superblock, this one included. */
  readonly freePages: number;
}

/** Where an open superblock belongs: as it stands in the checkpoint, so that a clean start goes on there. */
export interface OpenSuperblock {
  readonly superblock: number;
  readonly pool: Pool;
  readonly role: WriteRole;
  readonly writePoint: number;
  /** Per unit. */
  readonly nextPages: readonly number[];
}

interface PoolWriters {
  readonly points: Readonly<Record<WriteRole, readonly WritePoint[]>>;
  /** Pages left in open superblocks. */
  readonly freePages: Record<WriteRole, number>;
  /** Superblocks taken from garbage collection's reserve that were not paid back. */
  gcDebt: number;
  /** Pages of hosts' that are spoken for. */
  reservedPages: number;
}

export interface AllocatorModules {
  readonly superblocks: Superblocks;
  readonly array: NandArray;
  readonly leveller: WearLeveller;
  readonly operations: OperationCounter;
  readonly random: Random;
}

/** Gives out flash pages to write: by pool, by write point, by channel. Opens superblocks as they are needed. */
export class Allocator {
  readonly #superblocks: Superblocks;
  readonly #array: NandArray;
  readonly #leveller: WearLeveller;
  readonly #operations: OperationCounter;
  readonly #random: Random;
  readonly #placement: Placement;
  #quota: Record<Pool, number>;
  readonly #writers: Record<Pool, PoolWriters>;
  readonly #kvPlacements: PlacementTable;
  #isReadOnly = false;
  /** Called after a superblock was opened: there may be something to move for the sake of wear. */
  onOpen: () => void = () => undefined;
  /** Called after a superblock was given up: both pools may have to do with fewer. */
  onGiveUp: () => void = () => undefined;
  /** Called before a superblock that hosts have written becomes free. */
  onFree: (superblock: number, pool: Pool, writePoint: number) => void = () => undefined;

  constructor(options: { readonly placement: Placement }, modules: AllocatorModules) {
    this.#placement = options.placement;
    this.#superblocks = modules.superblocks;
    this.#array = modules.array;
    this.#leveller = modules.leveller;
    this.#operations = modules.operations;
    this.#random = modules.random;
    const { geometry } = modules.array;
    this.#quota = superblockQuotas(geometry, 0);
    const writePoint = (role: WriteRole): WritePoint => new WritePoint(role, geometry, modules.array);
    const writers = (hostCount: number): PoolWriters => ({
      points: {
        host: Array.from({ length: this.#placement === 'lifetime' ? hostCount : 1 }, () => writePoint('host')),
        gc: [writePoint('gc')],
        wear: [writePoint('wear')],
      },
      freePages: { host: 0, gc: 0, wear: 0 },
      gcDebt: 0,
      reservedPages: 0,
    });
    this.#writers = { block: writers(TEMPERATURE_COUNT), kv: writers(kvWritePointCount(geometry)) };
    this.#kvPlacements = new PlacementTable(this.#writers.kv.points.host.length);
  }

  /** Pages that hosts may still reserve without any garbage collection. Failed blocks may have taken some that were. */
  hostPagesAvailable(pool: Pool): number {
    return this.#pagesAvailable(pool, 'host') - this.#writers[pool].reservedPages;
  }

  reservedPages(pool: Pool): number {
    return this.#writers[pool].reservedPages;
  }

  /** The caller has made sure of `hostPagesAvailable`. A negative count gives back, or is programmed at once. */
  reserve(pool: Pool, pageCount: number): void {
    const writers = this.#writers[pool];
    writers.reservedPages += pageCount;
    assert(writers.reservedPages >= 0, 'what is given back was reserved');
  }

  gcPagesAvailable(pool: Pool): number {
    return this.#pagesAvailable(pool, 'gc');
  }

  #pagesAvailable(pool: Pool, role: WriteRole): number {
    const { pagesPerSuperblock } = this.#array.geometry;
    return this.#writers[pool].freePages[role] + this.#openable(pool, role) * pagesPerSuperblock;
  }

  /**
   * Sees to it that so many pages can be programmed for the sake of wear, whatever others write meanwhile: opens a
   * superblock if it must. False if none can be had now.
   */
  prepareWear(pool: Pool, pageCount: number, job: DeviceJob): boolean {
    const writers = this.#writers[pool];
    if (writers.freePages.wear >= pageCount) return true;
    const target: PageTarget = { pool, role: 'wear', placement: 0, channel: undefined, job };
    this.#openNext(writers.points.wear[0]!, target, 'wear');
    return writers.freePages.wear >= pageCount;
  }

  /**
   * Pages that may be reserved before anything is erased, by hosts or for garbage collection. What is left of hosts' open
   * superblocks counts as one of them at most: others wait for pages of their own kind.
   */
  pagesLeft(pool: Pool): number {
    const { freePages, reservedPages } = this.#writers[pool];
    const { pagesPerSuperblock } = this.#array.geometry;
    const hostPages = Math.min(freePages.host - reservedPages, pagesPerSuperblock);
    return hostPages + freePages.gc + this.superblocksLeft(pool) * pagesPerSuperblock;
  }

  /** Superblocks that the pool may use. Fewer once some have gone bad. */
  quota(pool: Pool): number {
    return this.#quota[pool];
  }

  writePointCount(pool: Pool): number {
    return this.#writers[pool].points.host.length;
  }

  /** Channel on which the next page that is moved for this reason lies best. */
  nextChannel(pool: Pool, role: 'gc' | 'wear'): number {
    return this.#writers[pool].points[role][0]!.nextChannel;
  }

  /** The same of what hosts append with this placement. */
  nextKvChannel(placement: number): number {
    const { host } = this.#writers.kv.points;
    return host[this.#kvPlacements.writePointOf(placement)]!.nextChannel;
  }

  /** Fewer superblocks are left than garbage collection should always have. */
  isShort(pool: Pool): boolean {
    return this.superblocksLeft(pool) < GC_RESERVE_SUPERBLOCKS;
  }

  #openable(pool: Pool, purse: Purse): number {
    // What is good is left as it is.
    if (this.isReadOnly) return 0;
    const left = this.superblocksLeft(pool);
    const reserve = GC_RESERVE_SUPERBLOCKS - this.#writers[pool].gcDebt;
    if (purse === 'host') return Math.max(0, left - reserve);
    if (purse === 'gc') return Math.max(0, Math.min(left, reserve));
    if (purse === 'wear') return Math.max(0, Math.min(left, reserve) - GC_RESERVE_MIN_SUPERBLOCKS);
    return Math.max(0, left - GC_RESERVE_MIN_SUPERBLOCKS);
  }

  /** A superblock that nothing needs any more may be opened again, by anyone. */
  free(superblock: number): void {
    const pool = this.#superblocks.pool(superblock);
    assert(pool !== undefined, `superblock ${superblock} belongs to a pool`);
    const writePoint = this.#superblocks.hostWritePoint(superblock);
    if (writePoint !== undefined) this.onFree(superblock, pool, writePoint);
    this.#superblocks.setState(superblock, 'free');
    const writers = this.#writers[pool];
    writers.gcDebt = Math.max(0, writers.gcDebt - 1);
  }

  /** Superblocks that hosts may open of so many that become free. */
  hostShareOf(pool: Pool, freedCount: number): number {
    return Math.max(0, freedCount - this.#writers[pool].gcDebt);
  }

  /**
   * Superblocks that the pool may still open. One that had more in use when its share became smaller gives them back as
   * garbage collection empties them; until then they are not there for the other.
   */
  superblocksLeft(pool: Pool): number {
    return this.#quotaLeft(pool) + Math.min(0, this.#quotaLeft(pool === 'block' ? 'kv' : 'block'));
  }

  #quotaLeft(pool: Pool): number {
    return this.#quota[pool] - this.#superblocks.usedCount(pool);
  }

  /** So many superblocks were given up that the rest can't hold both capacities and collect garbage. */
  get isReadOnly(): boolean {
    return this.#isReadOnly;
  }

  /**
   * A page to be programmed at once; `settle` follows. The caller has made sure of `hostPagesAvailable` or
   * `gcPagesAvailable`, but blocks may have failed since: DriveError writeFault if that has left no page,
   * namespaceWriteProtected if it has made the drive read-only.
   */
  take(target: PageTarget): TakenPage {
    const page = target.role === 'host' ? this.#findHostPage(target) : this.#findMovedPage(target);
    if (page !== undefined) return page;
    if (this.isReadOnly) throw readOnlyError();
    const detail = `failed blocks have left no page to the ${target.pool} namespace; garbage collection may make room`;
    throw new DriveError('writeFault', detail);
  }

  #findHostPage(target: PageTarget): TakenPage | undefined {
    const { pool, placement, channel } = target;
    const { host } = this.#writers[pool].points;
    const own = host[pool === 'kv' ? this.#kvPlacements.writePointOf(placement) : placement];
    assert(own !== undefined, () => `write point ${placement} of pool ${pool}`);
    const page = this.#next(own, target, channel) ?? this.#openNext(own, target, 'host');
    if (page) return page;
    // The channel or the pool is short: any page of this write point, then of any other.
    for (const writePoint of [own, ...host]) {
      const fallback = this.#next(writePoint, target, undefined);
      if (fallback) return fallback;
    }
    return this.#openNext(own, target, 'loss');
  }

  #findMovedPage(target: PageTarget): TakenPage | undefined {
    const { pool, role, channel } = target;
    // Hosts' pages, as long as they have some that nobody has reserved.
    const borrow = (): TakenPage | undefined =>
      role === 'gc' && this.hostPagesAvailable(pool) > 0 ? this.#findHostPage(target) : undefined;
    if (this.#placement === 'plain') {
      const page = borrow();
      if (page) return page;
    }
    const writePoint = this.#writers[pool].points[role][0]!;
    const page = this.#next(writePoint, target, channel) ?? this.#openNext(writePoint, target, role);
    // Failed blocks may have taken what there was for the rest of the victim: it would stay, and nothing be freed any more.
    return page ?? this.#next(writePoint, target, undefined) ?? borrow();
  }

  #next(writePoint: WritePoint, target: PageTarget, channel: number | undefined): TakenPage | undefined {
    const ppn = writePoint.next(channel);
    if (ppn === undefined) return undefined;
    const superblock = superblockOf(this.#array.geometry, ppn);
    return { ppn, superblock, target, writePoint, freePages: this.#array.freePages(superblock) };
  }

  /** The first page of a superblock that it opens; undefined if the window is full or none can be opened. */
  #openNext(writePoint: WritePoint, target: PageTarget, purse: Purse): TakenPage | undefined {
    if (writePoint.isWindowFull) return undefined;
    while (this.#openable(target.pool, purse) > 0) {
      const superblock = this.#leveller.chooseFree(target.role);
      assert(superblock !== undefined, 'quotas add up to all good superblocks, so one is free');
      if (!this.#open(superblock, target)) continue;
      const writers = this.#writers[target.pool];
      this.#attach(superblock, writePoint, writers);
      if (purse !== 'host') writers.gcDebt++;
      return this.#next(writePoint, target, target.channel);
    }
    return undefined;
  }

  /** The superblock is open for the write point. */
  #attach(superblock: number, writePoint: WritePoint, writers: PoolWriters): void {
    writePoint.add(superblock);
    const { role } = writePoint;
    writers.freePages[role] += this.#array.freePages(superblock);
    this.#superblocks.setHostWritePoint(
      superblock,
      role === 'host' ? writers.points.host.indexOf(writePoint) : undefined,
    );
  }

  /** False if it has turned out bad. */
  #open(superblock: number, { pool, job }: PageTarget): boolean {
    const superblocks = this.#superblocks;
    assert(superblocks.pinCount(superblock) === 0, `nobody reads superblock ${superblock} when it is erased`);
    const epoch = superblocks.epoch[superblock]! + 1;
    const openTag = this.#random.nextUint32();
    const operation = this.#operations.next();
    // First of all, since the disk may refuse it.
    if (!this.#array.erase(superblock, encodeHeader({ pool: superblockPools[pool], epoch, openTag, operation }))) {
      this.#giveUp(superblock);
      return false;
    }
    const { geometry } = this.#array;
    for (let unit = 0; unit < geometry.unitCount; unit++) job.erase(ppnOf(geometry, superblock, 0, unit));
    superblocks.setState(superblock, 'open');
    superblocks.assign(superblock, pool);
    superblocks.openTag[superblock] = openTag;
    superblocks.openedAt[superblock] = operation;
    this.#leveller.opened(superblock);
    this.onOpen();
    return true;
  }

  #giveUp(superblock: number): void {
    this.#superblocks.setState(superblock, 'bad');
    const { geometry, blocks } = this.#array;
    this.#quota = superblockQuotas(geometry, blocks.retired.size);
    this.#isReadOnly = isWornOut(blocks, geometry);
    this.onGiveUp();
  }

  /** While a drive opens: what its last runs gave up. */
  giveUpRetired(): void {
    for (const superblock of this.#array.blocks.retired) this.#giveUp(superblock);
  }

  /** After the page was tried: it is used now, or the rest of its block is lost. A superblock without pages is full. */
  settle({ superblock, target, writePoint, freePages }: TakenPage): void {
    const writers = this.#writers[target.pool];
    const left = this.#array.freePages(superblock);
    writers.freePages[writePoint.role] -= freePages - left;
    if (left > 0) return;
    writePoint.remove(superblock);
    this.#superblocks.setState(superblock, 'full');
    this.#superblocks.closedAt[superblock] = this.#operations.last;
    if (this.#superblocks.validSlotCount[superblock] === 0) {
      this.#superblocks.emptySince[superblock] = this.#operations.last;
    }
  }

  openSuperblocks(): OpenSuperblock[] {
    const { unitCount } = this.#array.geometry;
    return pools.flatMap((pool) => {
      const describe = (role: WriteRole) => (writePoint: WritePoint, index: number) =>
        writePoint.open.map((superblock) => ({
          superblock,
          pool,
          role,
          writePoint: index,
          nextPages: Array.from({ length: unitCount }, (_, unit) => this.#array.nextPage(superblock, unit)),
        }));
      const { points } = this.#writers[pool];
      return writeRoles.flatMap((role) => points[role].flatMap(describe(role)));
    });
  }

  /** After a clean shutdown. False if there is no such write point any more: the superblock stays closed. */
  reopen(open: OpenSuperblock): boolean {
    const writers = this.#writers[open.pool];
    const writePoint = writers.points[open.role]?.[open.writePoint];
    if (!writePoint || writePoint.isWindowFull) return false;
    open.nextPages.forEach((page, unit) => this.#array.restoreNextPage(open.superblock, unit, page));
    this.#attach(open.superblock, writePoint, writers);
    return true;
  }
}

function encodeHeader(fields: { pool: number; epoch: number; openTag: number; operation: number }): Uint8Array {
  const header = superblockHeader.encode({ magic: SUPERBLOCK_MAGIC, ...fields });
  const checked = header.length - 4;
  new DataView(header.buffer).setUint32(checked, crc32c(header.subarray(0, checked)), true);
  return header;
}
