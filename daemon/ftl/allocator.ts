import { SUPERBLOCK_MAGIC, superblockHeader, superblockPools } from '../../spec/media-format/oob.ts';
import { limits } from '../../spec/limits.ts';
import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import type { Random } from '../base/random.ts';
import type { NandArray } from '../nand/array.ts';
import type { OperationCounter } from './contract.ts';
import { type Pool, pools, type Superblocks } from './superblocks.ts';
import { WritePoint } from './write-point.ts';

/**
 * Superblocks of each pool that only garbage collection may open. It opens no others, so that what hosts have reserved
 * stays there; superblocks that become free pay back what it took before hosts get any.
 */
export const GC_RESERVE_SUPERBLOCKS = 4;

/** Where an open superblock belongs: as it stands in the checkpoint, so that a clean start goes on there. */
export interface OpenSuperblock {
  readonly superblock: number;
  readonly pool: Pool;
  readonly role: 'host' | 'gc';
  readonly writePoint: number;
  /** Per unit. */
  readonly nextPages: readonly number[];
}

interface PoolWriters {
  readonly host: readonly WritePoint[];
  readonly gc: WritePoint;
  /** Pages left in the hosts' open superblocks, and in garbage collection's. */
  hostFreePages: number;
  gcFreePages: number;
  /** Superblocks that garbage collection took from its reserve and that were not paid back. */
  gcDebt: number;
}

/** Gives out flash pages to write: by pool, by write point, by channel. Opens superblocks as they are needed. */
export class Allocator {
  readonly #superblocks: Superblocks;
  readonly #array: NandArray;
  readonly #operations: OperationCounter;
  readonly #random: Random;
  readonly #quota: Record<Pool, number>;
  readonly #writers: Record<Pool, PoolWriters>;
  #lastOpened = -1;

  constructor(modules: { superblocks: Superblocks; array: NandArray; operations: OperationCounter; random: Random }) {
    this.#superblocks = modules.superblocks;
    this.#array = modules.array;
    this.#operations = modules.operations;
    this.#random = modules.random;
    const { geometry } = modules.array;
    this.#quota = { block: geometry.blockSuperblockCount, kv: geometry.kvSuperblockCount };
    const writePoint = (): WritePoint => new WritePoint(geometry, modules.array);
    const writers = (hostCount: number): PoolWriters => ({
      host: Array.from({ length: hostCount }, writePoint),
      gc: writePoint(),
      hostFreePages: 0,
      gcFreePages: 0,
      gcDebt: 0,
    });
    this.#writers = { block: writers(1), kv: writers(limits.kvWritePointCount) };
  }

  /** Pages that hosts may still program without any garbage collection. */
  hostPagesAvailable(pool: Pool): number {
    return this.#writers[pool].hostFreePages + this.#openableByHosts(pool) * this.#array.geometry.pagesPerSuperblock;
  }

  gcPagesAvailable(pool: Pool): number {
    return this.#writers[pool].gcFreePages + this.#openableByGc(pool) * this.#array.geometry.pagesPerSuperblock;
  }

  /** Fewer superblocks are left than garbage collection should always have. */
  isShort(pool: Pool): boolean {
    return this.superblocksLeft(pool) < GC_RESERVE_SUPERBLOCKS;
  }

  #openableByHosts(pool: Pool): number {
    const reserve = GC_RESERVE_SUPERBLOCKS - this.#writers[pool].gcDebt;
    return Math.max(0, this.superblocksLeft(pool) - reserve);
  }

  #openableByGc(pool: Pool): number {
    const reserve = GC_RESERVE_SUPERBLOCKS - this.#writers[pool].gcDebt;
    return Math.max(0, Math.min(this.superblocksLeft(pool), reserve));
  }

  /** A superblock that nothing needs any more may be opened again, by anyone. */
  free(superblock: number): void {
    const pool = this.#superblocks.pool(superblock);
    assert(pool !== undefined, `superblock ${superblock} belongs to a pool`);
    this.#superblocks.setState(superblock, 'free');
    const writers = this.#writers[pool];
    writers.gcDebt = Math.max(0, writers.gcDebt - 1);
  }

  /** Superblocks that the pool may still open. */
  superblocksLeft(pool: Pool): number {
    return this.#quota[pool] - this.#superblocks.usedCount(pool);
  }

  /** The caller has made sure of `hostPagesAvailable`. */
  takeHostPage(pool: Pool, placement: number, channel: number | undefined): number {
    const writers = this.#writers[pool];
    const own = writers.host[placement % writers.host.length];
    assert(own !== undefined, 'a pool has write points');
    let found = own.next(channel);
    if (!found && !own.isWindowFull && this.#openableByHosts(pool) > 0) {
      this.#open(pool, own, 'host');
      found = own.next(channel);
    }
    if (found) return this.#take(pool, own, 'host', found);
    // The channel or the pool is short: any page of this write point, then of any other.
    for (const writePoint of [own, ...writers.host]) {
      const fallback = writePoint.next(undefined);
      if (fallback) return this.#take(pool, writePoint, 'host', fallback);
    }
    assert(false, `a host page of pool ${pool} was reserved and is there`);
  }

  /** The caller has made sure of `gcPagesAvailable`. */
  takeGcPage(pool: Pool, channel: number | undefined): number {
    const { gc } = this.#writers[pool];
    let found = gc.next(channel);
    if (!found && !gc.isWindowFull && this.#openableByGc(pool) > 0) {
      this.#open(pool, gc, 'gc');
      found = gc.next(channel);
    }
    found ??= gc.next(undefined);
    assert(found !== undefined, `a page for garbage collection of pool ${pool} is there`);
    return this.#take(pool, gc, 'gc', found);
  }

  #open(pool: Pool, writePoint: WritePoint, role: 'host' | 'gc'): void {
    const superblocks = this.#superblocks;
    const superblock = superblocks.findFree(this.#lastOpened);
    assert(superblock !== undefined, 'quotas add up to all superblocks, so one is free');
    const epoch = superblocks.epoch[superblock]! + 1;
    const openTag = this.#random.nextUint32();
    const operation = this.#operations.next();
    // First of all, since the disk may refuse it.
    this.#array.erase(superblock, encodeHeader({ pool: superblockPools[pool], epoch, openTag, operation }));
    this.#lastOpened = superblock;
    superblocks.setState(superblock, 'open');
    superblocks.assign(superblock, pool);
    superblocks.epoch[superblock] = epoch;
    superblocks.openTag[superblock] = openTag;
    superblocks.openedAt[superblock] = operation;
    writePoint.add(superblock);
    const writers = this.#writers[pool];
    const pageCount = this.#array.geometry.pagesPerSuperblock;
    if (role === 'host') writers.hostFreePages += pageCount;
    else {
      writers.gcFreePages += pageCount;
      writers.gcDebt++;
    }
  }

  #take(
    pool: Pool,
    writePoint: WritePoint,
    role: 'host' | 'gc',
    found: { readonly superblock: number; readonly ppn: number },
  ): number {
    const writers = this.#writers[pool];
    if (role === 'host') writers.hostFreePages--;
    else writers.gcFreePages--;
    // The page taken is not programmed yet, so one is left if it is the last.
    if (this.#array.freePages(found.superblock) === 1) {
      writePoint.remove(found.superblock);
      this.#superblocks.setState(found.superblock, 'full');
      if (this.#superblocks.validSlotCount[found.superblock] === 0) {
        this.#superblocks.emptySince[found.superblock] = this.#operations.last;
      }
    }
    return found.ppn;
  }

  openSuperblocks(): OpenSuperblock[] {
    const { unitCount } = this.#array.geometry;
    return pools.flatMap((pool) => {
      const describe = (role: 'host' | 'gc') => (writePoint: WritePoint, index: number) =>
        writePoint.open.map((superblock) => ({
          superblock,
          pool,
          role,
          writePoint: index,
          nextPages: Array.from({ length: unitCount }, (_, unit) => this.#array.nextPage(superblock, unit)),
        }));
      const { host, gc } = this.#writers[pool];
      return [...host.flatMap(describe('host')), ...[gc].flatMap(describe('gc'))];
    });
  }

  /** After a clean shutdown. False if there is no such write point any more: the superblock stays closed. */
  reopen(open: OpenSuperblock): boolean {
    const writers = this.#writers[open.pool];
    const writePoint = open.role === 'gc' ? writers.gc : writers.host[open.writePoint];
    if (!writePoint || writePoint.isWindowFull) return false;
    open.nextPages.forEach((page, unit) => this.#array.restoreNextPage(open.superblock, unit, page));
    writePoint.add(open.superblock);
    const freePages = this.#array.freePages(open.superblock);
    if (open.role === 'host') writers.hostFreePages += freePages;
    else writers.gcFreePages += freePages;
    return true;
  }
}

function encodeHeader(fields: { pool: number; epoch: number; openTag: number; operation: number }): Uint8Array {
  const header = superblockHeader.encode({ magic: SUPERBLOCK_MAGIC, ...fields });
  const checked = header.length - 4;
  new DataView(header.buffer).setUint32(checked, crc32c(header.subarray(0, checked)), true);
  return header;
}
