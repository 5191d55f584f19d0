/**
 * Media and staging log of a drive that has worked, damaged anywhere: bits, bytes, lines, a log cut short; with and without
 * checksums that fit again.
 *
 * Whatever comes: the drive opens or says that it can't (`mediaFormat`); every block that can be read is one that was written
 * there, whole, and every token one that was appended at its place; a check of the image ends, and says what it finds.
 */
import assert from 'node:assert/strict';
import { crc32c } from '../../../daemon/base/crc32c.ts';
import { type Arena, createArena, createArenaOver } from '../../../daemon/base/arena.ts';
import { DriveError } from '../../../daemon/base/errors.ts';
import { silentLogger } from '../../../daemon/base/logger.ts';
import { Ftl } from '../../../daemon/ftl/ftl.ts';
import { checkImage } from '../../../daemon/image/check.ts';
import type { Kernels } from '../../../daemon/kernels/contract.ts';
import { loadKernels } from '../../../daemon/kernels/loader.ts';
import { SequenceStore } from '../../../daemon/kv/kv-store.ts';
import { oobEntry, superblockHeader } from '../../../spec/media-format/oob.ts';
import { MemoryDriveStores } from '../../ftl/memory-stores.ts';
import { LBA_BYTES, lbaContent } from '../../ftl/open-drive.ts';
import {
  appendRows,
  createSequence,
  ManualClock,
  type Opened,
  readRows,
  rowsOf,
  tokenRange,
} from '../../kv/fixture.ts';
import type { Prng } from '../../sim/prng.ts';
import type { Session, SessionContext, Target } from '../target.ts';

const MIB = 2 ** 20;
const LBAS_USED = 40;
const WORK_STEPS = 60;
const SEQUENCES_MAX = 5;

const areas = ['cells', 'oob', 'headers', 'staging'] as const;
type Area = (typeof areas)[number];

interface Damage {
  readonly area: Area;
  readonly at: number;
  readonly how: 'flip' | 'byte' | 'line' | 'cut' | 'summed';
  readonly value: number;
}

export interface ImageInput {
  readonly damages: readonly Damage[];
  /** Checks the image first. */
  readonly isChecked: boolean;
}

let shared: { readonly memory: WebAssembly.Memory; readonly kernels: Kernels } | undefined;

function sharedParts(): NonNullable<typeof shared> {
  if (shared === undefined) {
    const { memory } = createArena(8 * MIB);
    shared = { memory, kernels: loadKernels('wasm', { memory }) };
  }
  return shared;
}

interface OpenImage extends Opened {
  readonly arena: Arena;
  readonly ftl: Ftl;
}

async function open(stores: MemoryDriveStores, random: Prng): Promise<OpenImage> {
  const { memory, kernels } = sharedParts();
  const arena = createArenaOver(memory);
  const clock = new ManualClock();
  const store = new SequenceStore({ arena, kernels, clock });
  const modules = { arena, kernels, clock, random, logger: silentLogger, kvRecovery: store };
  const ftl = await Ftl.open(stores.stores(), modules);
  return { arena, store, ftl, readPage: () => Promise.reject(new Error('not here')) };
}

/** What was ever there. Tokens follow from their place alone. */
interface History {
  /** Versions of each LBA, from 1. */
  readonly versions: Uint32Array;
  readonly shapes: Map<bigint, ReturnType<SequenceStore['shape']>>;
}

async function work({ ftl, store, ...rest }: OpenImage, random: Prng, history: History): Promise<void> {
  const drive = { ftl, store, ...rest };
  for (let step = 0; step < WORK_STEPS; step++) {
    const ids = store.list(0n, 100);
    const kind = random.weighted({
      write: 30,
      zero: 4,
      create: 8,
      append: 40,
      truncate: 6,
      reclaim: 2,
      flush: 5,
      sync: 5,
    });
    if (kind === 'write') {
      const lba = random.below(LBAS_USED);
      const version = ++history.versions[lba]!;
      await ftl.blocks.write(lba, 1, lbaContent(lba, version), random.chance(0.2));
    } else if (kind === 'zero') await ftl.blocks.deallocate(random.below(LBAS_USED), 1 + random.below(3));
    else if (kind === 'flush') await ftl.durability.flush();
    else if (kind === 'sync') await ftl.durability.syncStaging();
    else if (kind === 'create' || ids.length === 0) {
      if (ids.length >= SEQUENCES_MAX) continue;
      const id = createSequence(drive, { layerCount: 1 + random.below(2), groupTokens: 1 + random.below(8) });
      history.shapes.set(id, store.shape(id));
    } else {
      const id = random.pick(ids);
      const layer = random.below(store.shape(id).layerCount);
      const length = store.summary(id).lengths[layer]!;
      if (kind === 'append') await appendRows(drive, id, layer, length, tokenRange(length, 1 + random.below(20)));
      else if (kind === 'truncate') await store.truncate(id, layer, random.below(length + 1));
      else await store.reclaim(id);
    }
  }
}

function bytesOf(
  { media, staging }: MemoryDriveStores,
  area: Area,
  value: number,
): { bytes: Uint8Array; segment: number } {
  if (area !== 'staging') return { bytes: media[area], segment: 0 };
  const segments = staging.list();
  const segment = segments[value % Math.max(1, segments.length)] ?? 0;
  return { bytes: segments.length === 0 ? new Uint8Array(0) : staging.segments.get(segment)!.bytes, segment };
}

/** Of records whose checksum is to fit again. */
const summed: Partial<Record<Area, number>> = { oob: oobEntry.sizeBytes, headers: superblockHeader.sizeBytes };

function damage(stores: MemoryDriveStores, { area, at, how, value }: Damage): void {
  const { bytes, segment } = bytesOf(stores, area, value);
  if (bytes.length === 0) return;
  const place = at % bytes.length;
  switch (how) {
    case 'flip':
      bytes[place]! ^= 1 << (value % 8);
      return;
    case 'byte':
      bytes[place] = value;
      return;
    case 'line':
      bytes.fill(value % 2 === 0 ? 0 : 0xff, place, place + 64);
      return;
    case 'cut':
      if (area === 'staging') stores.staging.segments.get(segment)!.bytes = bytes.slice(0, place);
      else bytes.fill(0, place, place + 4096);
      return;
    case 'summed': {
      const size = summed[area];
      bytes[place]! ^= 1 << (value % 8);
      if (size === undefined) return;
      const start = place - (place % size);
      const view = new DataView(bytes.buffer, bytes.byteOffset + start, size);
      view.setUint32(size - 4, crc32c(bytes.subarray(start, start + size - 4)), true);
    }
  }
}

/** A drive is also not opened if rows that belong into a tail are in a page that can't be read: `spec/durability.md`. */
const endsOpening: ReadonlySet<string> = new Set(['mediaFormat', 'unrecoveredRead']);

class ImageSession implements Session<ImageInput> {
  readonly #context: SessionContext;
  readonly #random: Prng;
  readonly #left: MemoryDriveStores;
  readonly #history: History;

  constructor(context: SessionContext, random: Prng, left: MemoryDriveStores, history: History) {
    this.#context = context;
    this.#random = random;
    this.#left = left;
    this.#history = history;
  }

  draw(random: Prng): ImageInput {
    const count = random.weighted({ one: 60, some: 30, many: 10 });
    const length = { one: 1, some: 1 + random.below(4), many: 20 }[count];
    return { damages: Array.from({ length }, () => this.#drawDamage(random)), isChecked: random.chance(0.2) };
  }

  #drawDamage(random: Prng): Damage {
    const area = random.pick(areas);
    const value = random.below(256);
    const { bytes } = bytesOf(this.#left, area, value);
    let at = random.below(Math.max(1, bytes.length));
    // Most of a drive is empty: look for something that is there.
    for (let i = 0; i < 50 && bytes[at] === 0; i++) at = random.below(bytes.length);
    const how = random.weighted({ flip: 50, byte: 15, line: 10, cut: 10, summed: 15 });
    return { area, at, how, value };
  }

  async play({ damages, isChecked }: ImageInput): Promise<void> {
    const stores = this.#left.afterKill();
    for (const one of damages) damage(stores, one);
    if (isChecked) await this.#check(stores);
    let drive: OpenImage;
    try {
      drive = await open(stores, this.#random.fork());
    } catch (error) {
      this.#context.tally.count(false);
      const isExpected = error instanceof DriveError && endsOpening.has(error.code);
      assert.ok(isExpected, `opening ends with ${String(error)}`);
      return;
    }
    this.#context.tally.count(true);
    await this.#readAll(
      drive,
      damages.some(({ how }) => how === 'summed'),
    );
    drive.store.close();
    await drive.ftl.abandon();
  }

  async #check(stores: MemoryDriveStores): Promise<void> {
    const { memory, kernels } = sharedParts();
    const arena = createArenaOver(memory);
    await checkImage(stores.stores(), { arena, kernels }, { onFinding: () => undefined });
  }

  /** `isForged`: what lies on the media may claim to be something else, with a checksum that fits. */
  async #readAll(drive: OpenImage, isForged: boolean): Promise<void> {
    const { versions, shapes } = this.#history;
    for (let lba = 0; lba < LBAS_USED; lba++) {
      const bytes = new Uint8Array(LBA_BYTES);
      if (!(await isRead(() => drive.ftl.blocks.read(lba, 1, bytes)))) continue;
      if (this.#context.bug === 'tornBlocks' && lba === 3 && versions[3]! > 1) bytes[LBA_BYTES - 1]! ^= 1;
      const version = new DataView(bytes.buffer).getUint32(4, true);
      const isKnown = version <= versions[lba]! && Buffer.compare(bytes, lbaContent(lba, version)) === 0;
      assert.ok(isKnown || isForged, `LBA ${lba} holds what was never written there`);
    }
    for (const id of drive.store.list(0n, 1000)) {
      const { lengths, shape } = drive.store.inspect(id);
      assert.ok(isForged || shapes.has(id), `sequence ${id} was never there`);
      for (const [layer, length] of lengths.entries()) {
        let rows = new Uint8Array(0);
        if (length === 0) continue;
        if (!(await isRead(async () => (rows = Uint8Array.from(await readRows(drive, id, layer, 0, length))))))
          continue;
        const wanted = rowsOf(shape, layer, tokenRange(0, length));
        assert.ok(isForged || Buffer.compare(rows, wanted) === 0, `layer ${layer} of ${id} has other tokens`);
      }
    }
  }

  close(): void {}
}

/** Or it is said to be unreadable. */
async function isRead(read: () => Promise<unknown>): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    assert.ok(error instanceof DriveError && error.code === 'unrecoveredRead', `reading ends with ${String(error)}`);
    return false;
  }
}

export const imageTarget: Target<ImageInput> = {
  name: 'image',
  what: 'media and staging log of a drive, damaged before it opens',
  framing: 'the drive opens in spite of the damage, and all of it was read',
  share: 0.02,
  casesPerSession: 60,
  smokeCases: 120,
  bugs: { tornBlocks: 'a block whose last byte is another' },
  open: async (context) => {
    const { random } = context;
    const stores = new MemoryDriveStores({
      blockCapacityBytes: MIB,
      kvCapacityBytes: 4 * MIB,
      pageSizeBytes: 4096,
      channelCount: random.pick([1, 2]),
    });
    const history = { versions: new Uint32Array(LBAS_USED), shapes: new Map() };
    const drive = await open(stores, random.fork());
    await work(drive, random, history);
    drive.store.close();
    if (random.chance(0.5)) await drive.ftl.close();
    else await drive.ftl.abandon();
    return new ImageSession(context, random.fork(), stores.afterKill(), history);
  },
};
