/**
 * What must hold inside an open drive whenever nothing is in flight.
 *
 * - A mapped slot or page has one owner, is valid, lies in a superblock of its pool that is not free, and nothing else is
 *   valid. Counts of valid slots are what the maps say.
 * - The out-of-band entry of what is mapped is whole, of the superblock's present life, and names its owner; its operation
 *   number was given out.
 * - A KV page has as many holders as sequences name it, each at the layer, head, part and group of its tag.
 * - Nothing is pinned (but a victim that is emptied little by little) or reserved, no memory is held but for tails, and no
 *   more superblocks are used than a pool may have.
 * - Counters only grow.
 */
import assert from 'node:assert/strict';
import { oobKinds } from '../../spec/media-format/oob.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import { type OobEntry, wholeEntry } from '../../daemon/ftl/flash.ts';
import type { Ftl } from '../../daemon/ftl/ftl.ts';
import { UNMAPPED } from '../../daemon/ftl/segmented-map.ts';
import type { Pool } from '../../daemon/ftl/superblocks.ts';
import { oobBytesPerPage } from '../../daemon/nand/geometry.ts';
import type { MediaMemory } from '../../daemon/nand/media-memory.ts';
import type { World } from './world.ts';

export class Invariants {
  readonly #world: World;
  readonly #media: MediaMemory;
  readonly #ftl: Ftl;
  /** Arena bytes in use that are no tails, when nothing was in flight for the first time. */
  #baselineBytes: number | undefined;
  #counters: Readonly<Record<string, number>> = {};

  constructor(world: World, media: MediaMemory) {
    this.#world = world;
    this.#media = media;
    this.#ftl = world.drive.ftl;
  }

  /** Nothing may be in flight, garbage collection neither. */
  check(): void {
    const { kv, drive, machine, nowNs } = this.#world;
    // A disk that takes no records keeps leases from ending.
    if (machine.refusalCount === 0 && !this.#ftl.isReadOnly) kv.checkLeases(drive.kv.list(0n, 10_000), nowNs);
    this.#checkMaps();
    this.#checkHolders();
    this.#checkIdle();
    this.#checkCounters();
  }

  #checkMaps(): void {
    const { blocks, kv, flash } = this.#ftl;
    const { slotsPerPage, superblockCount } = flash.geometry;
    const owners = new Map<number, string>();
    const validSlots = new Uint32Array(superblockCount);
    const claim = (slot: number, weight: number, pool: Pool, owner: string): void => {
      const { superblocks } = flash;
      assert.equal(owners.get(slot), undefined, `slot ${slot} belongs to ${owner} too`);
      owners.set(slot, owner);
      assert.ok(superblocks.isValid(slot), `slot ${slot} of ${owner} is valid`);
      const superblock = superblocks.superblockOfSlot(slot);
      assert.equal(superblocks.pool(superblock), pool, `pool of superblock ${superblock}, which holds ${owner}`);
      assert.notEqual(superblocks.state(superblock), 'free', `superblock ${superblock} holds ${owner}`);
      validSlots[superblock]! += weight;
    };
    blocks.map.entries.forEach((slot, lba) => {
      if (slot === UNMAPPED) return;
      claim(slot, 1, 'block', `LBA ${lba}`);
      const entry = this.#entry(Math.floor(slot / slotsPerPage), slot % slotsPerPage, `LBA ${lba}`);
      assert.ok(entry.kind === oobKinds.block && entry.logical === lba, `slot ${slot} is tagged as LBA ${lba}`);
    });
    kv.map.entries.forEach((ppn, lpn) => {
      const holders = kv.referenceCount(lpn as Lpn);
      assert.equal(ppn === UNMAPPED, holders === 0, `KV page ${lpn} has ${holders} holders and lies at ${ppn}`);
      if (ppn === UNMAPPED) return;
      claim(ppn * slotsPerPage, slotsPerPage, 'kv', `KV page ${lpn}`);
      const entry = this.#entry(ppn, 0, `KV page ${lpn}`);
      assert.ok(entry.kind === oobKinds.kv && entry.logical === lpn, `page ${ppn} is tagged as KV page ${lpn}`);
    });
    for (let superblock = 0; superblock < superblockCount; superblock++) {
      const counted = flash.superblocks.validSlotCount[superblock];
      assert.equal(counted, validSlots[superblock], `valid slots of superblock ${superblock}`);
    }
    this.#checkNothingElseIsValid(owners);
  }

  #checkNothingElseIsValid(owners: ReadonlyMap<number, string>): void {
    const { superblocks, geometry } = this.#ftl.flash;
    for (let slot = 0; slot < geometry.pageCount * geometry.slotsPerPage; slot++) {
      if (superblocks.isValid(slot)) assert.ok(owners.has(slot), `slot ${slot} is valid and nobody's`);
    }
  }

  /** As it lies on the media. */
  #entry(ppn: number, slot: number, owner: string): OobEntry {
    const { geometry, superblocks } = this.#ftl.flash;
    const sizeBytes = oobBytesPerPage(geometry);
    const entry = wholeEntry(this.#media.oob.subarray(ppn * sizeBytes, (ppn + 1) * sizeBytes), slot);
    assert.ok(entry, `the entry of ${owner} at page ${ppn} is whole`);
    const superblock = Math.floor(ppn / geometry.pagesPerSuperblock);
    const isCurrent =
      entry.epoch === superblocks.epoch[superblock] && entry.openTag === superblocks.openTag[superblock];
    assert.ok(isCurrent, `the entry of ${owner} at page ${ppn} is of the present life of superblock ${superblock}`);
    assert.ok(entry.operation <= this.#ftl.operations.last, `operation ${entry.operation} of ${owner} was given out`);
    return entry;
  }

  #checkHolders(): void {
    const { drive } = this.#world;
    const { kv } = this.#ftl;
    const holders = new Uint32Array(kv.lpnCount);
    for (const id of drive.kv.list(0n, 10_000)) {
      const { parentId, shape } = drive.kv.inspect(id);
      for (let layer = 0; layer < shape.layerCount; layer++) {
        const view = drive.kv.view(id, layer);
        for (let group = 0; group * shape.groupTokens < view.flashTokenCount; group++) {
          for (let stream = 0; stream < 2 * shape.kvHeadCount; stream++) {
            const [head, part] = [stream >> 1, (stream & 1) as 0 | 1];
            const lpn = view.page(group, head, part);
            holders[lpn]!++;
            const tag = this.#entry(kv.map.get(lpn), 0, `KV page ${lpn}`);
            const isHere = tag.layer === layer && tag.head === head && tag.part === part && tag.group === group;
            assert.ok(isHere, `page ${lpn} of sequence ${id} is tagged for where it stands`);
            const isOwn = parentId !== 0n || tag.sequenceId === id;
            assert.ok(isOwn, `page ${lpn} of sequence ${id} was programmed for ${tag.sequenceId}`);
          }
        }
        view.release();
      }
      // A view names the sequence: its lease has begun anew.
      const named = this.#world.kv.live.find((sequence) => sequence.id === id);
      if (named) named.namedAtNs = named.touchedAtNs = this.#world.nowNs;
    }
    for (let lpn = 0; lpn < kv.lpnCount; lpn++) {
      assert.equal(kv.referenceCount(lpn as Lpn), holders[lpn], `holders of KV page ${lpn}`);
    }
  }

  #checkIdle(): void {
    const { kv, flash } = this.#ftl;
    const { drive } = this.#world;
    const { superblocks, geometry } = flash;
    for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
      const isVictim = superblocks.state(superblock) === 'victim';
      const isHeld = superblocks.pinCount(superblock) > Number(isVictim);
      assert.ok(!isHeld, `superblock ${superblock} is pinned while nothing is in flight`);
    }
    assert.ok(superblocks.usedCount('block') <= geometry.blockSuperblockCount, 'superblocks of the block namespace');
    assert.ok(superblocks.usedCount('kv') <= geometry.kvSuperblockCount, 'superblocks of the KV namespace');
    const held = kv.map.entries.reduce((count, ppn) => count + (ppn === UNMAPPED ? 0 : 1), 0);
    assert.equal(kv.freePageCount, Math.max(0, kv.pageCount - held), 'free KV pages, none of them reserved');
    this.#checkHoldings();
    const { arena } = this.#world;
    const usedBytes = arena.sizeBytes - arena.freeBytes - drive.kv.snapshot().tailBytes;
    this.#baselineBytes ??= usedBytes;
    // Two page frames are taken when they are first needed.
    const grownBytes = usedBytes - this.#baselineBytes;
    assert.ok(grownBytes <= 2 * geometry.pageSizeBytes, `${grownBytes} bytes of memory are held by nobody`);
  }

  /** What owners have together is what there is. */
  #checkHoldings(): void {
    const { kv } = this.#world.drive;
    const { heldPageCount, tailBytes, sequenceCount } = kv.snapshot();
    const owners = new Set(kv.list(0n, 10_000).map((id) => kv.inspect(id).owner));
    const held = [...owners].map((owner) => kv.holding(owner));
    const heldBytes = held.reduce((sum, { bytes }) => sum + bytes, 0);
    assert.equal(heldBytes, heldPageCount * this.#ftl.flash.geometry.pageSizeBytes + tailBytes, 'bytes of all owners');
    assert.equal(
      held.reduce((sum, { sequenceCount: count }) => sum + count, 0),
      sequenceCount,
      'sequences of all owners',
    );
  }

  #checkCounters(): void {
    const { counters, operation } = this.#ftl.snapshot();
    const now: Record<string, number> = { ...counters, operation };
    for (const [name, before] of Object.entries(this.#counters)) {
      assert.ok(now[name]! >= before, `${name} was ${before} and is ${now[name]}`);
    }
    this.#counters = now;
  }
}
