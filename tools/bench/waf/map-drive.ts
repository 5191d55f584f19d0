/** The drive's own flash translation layer on flash without cells: every decision is real, no byte is stored. */
import { MEDIA_FORMAT_VERSION } from '../../../spec/media-format/drive-superblock.ts';
import { type Arena, createArena } from '../../../daemon/base/arena.ts';
import type { Clock } from '../../../daemon/base/clock.ts';
import { silentLogger } from '../../../daemon/base/logger.ts';
import { createSeededRandom } from '../../../daemon/base/random.ts';
import { Ftl, type FtlStores } from '../../../daemon/ftl/ftl.ts';
import type { GcOptions } from '../../../daemon/ftl/gc-options.ts';
import { loadKernels } from '../../../daemon/kernels/loader.ts';
import { idealChip } from '../../../daemon/nand/chip.ts';
import { completeGeometry, type Geometry, RESERVE_SUPERBLOCKS } from '../../../daemon/nand/geometry.ts';
import { MapMedia } from './map-media.ts';

export interface MapDriveOptions {
  /** Pages of 4 KiB that each namespace promises. */
  readonly blockPages: number;
  readonly kvPages: number;
  readonly pagesPerSuperblock: number;
  readonly channelCount: number;
  /** As `attndrive format --over-provisioning`. */
  readonly overProvisioning: number;
  readonly gc: GcOptions;
  readonly seed: number;
}

export interface MapDrive {
  readonly ftl: Ftl;
  readonly arena: Arena;
  /** Page-sized memory to write from. */
  readonly frame: number;
  close(): Promise<void>;
}

const PAGE_BYTES = 4096;
const ARENA_BYTES = 4 * 2 ** 20;

/** No time passes: hosts are never idle. */
const stillClock: Clock = { nowNs: () => 0, wallMs: () => 0, setTimer: () => ({ cancel: () => undefined }) };

/** As `attndrive format` would plan it, but with superblocks of a given size. */
export function mapGeometry(options: Omit<MapDriveOptions, 'gc' | 'seed'>): Geometry {
  const { blockPages, kvPages, pagesPerSuperblock, channelCount, overProvisioning } = options;
  const share = (pages: number): number => Math.ceil((pages * (1 + overProvisioning)) / pagesPerSuperblock);
  const block = share(blockPages) + RESERVE_SUPERBLOCKS.block;
  const kv = share(kvPages) + RESERVE_SUPERBLOCKS.kv;
  return completeGeometry({
    pageSizeBytes: PAGE_BYTES,
    channelCount,
    diesPerChannel: 1,
    planesPerDie: 1,
    pagesPerBlock: pagesPerSuperblock / channelCount,
    superblockCount: block + kv,
    blockSuperblockCount: block,
    kvSuperblockCount: kv,
    blockCapacityBytes: blockPages * PAGE_BYTES,
    kvCapacityBytes: kvPages * PAGE_BYTES,
  });
}

export async function openMapDrive(options: MapDriveOptions): Promise<MapDrive> {
  const geometry = mapGeometry(options);
  const arena = createArena(ARENA_BYTES);
  const stores: FtlStores = {
    uuid: new Uint8Array(16),
    formatVersion: MEDIA_FORMAT_VERSION,
    geometry,
    chip: idealChip,
    media: new MapMedia(geometry),
    meta: { get: () => undefined, range: () => [], commit: () => Promise.resolve(), close: () => Promise.resolve() },
    staging: {
      list: () => [],
      read: () => new Uint8Array(0),
      create: () => ({ append: () => undefined, sync: () => Promise.resolve(), close: () => undefined }),
      remove: () => undefined,
    },
    release: () => undefined,
  };
  const ftl = await Ftl.open(stores, {
    arena,
    // Nothing was stored, so every page has the same checksum.
    kernels: { ...loadKernels('reference', { memory: arena.memory }), crc32c: () => 0 },
    clock: stillClock,
    random: createSeededRandom(options.seed),
    logger: silentLogger,
    kvRecovery: { recover: (_events, count) => new Uint16Array(count), settle: () => Promise.resolve() },
    gc: options.gc,
  });
  return { ftl, arena, frame: arena.allocate(PAGE_BYTES), close: () => ftl.close() };
}
