/** The stores of a drive in memory, which a power cut can rob of what was not synced. */
import { MEDIA_FORMAT_VERSION } from '../../spec/media-format/drive-superblock.ts';
import type { Random } from '../../daemon/base/random.ts';
import type { FtlStores } from '../../daemon/ftl/ftl.ts';
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import { type Geometry, type GeometryRequest, planGeometry } from '../../daemon/nand/geometry.ts';
import { MediaMemory } from '../../daemon/nand/media-memory.ts';
import { MetaMemory } from './meta-memory.ts';
import { StagingMemory } from './staging-memory.ts';
import { UnsyncedFates } from './unsynced-fates.ts';

/** A drive's stores that outlive the FTL that is open on them. */
export class MemoryDriveStores {
  readonly geometry: Geometry;
  readonly media: MediaMemory;
  readonly meta: MetaMemory;
  readonly staging = new StagingMemory();
  readonly request: Partial<GeometryRequest>;
  readonly chip: Chip;

  constructor(request: Partial<GeometryRequest> = {}, chip: Chip = idealChip, meta = new MetaMemory()) {
    this.request = request;
    this.chip = chip;
    this.geometry = planGeometry({
      blockCapacityBytes: 4 * 2 ** 20,
      kvCapacityBytes: 4 * 2 ** 20,
      pageSizeBytes: 16_384,
      channelCount: 2,
      diesPerChannel: 1,
      overProvisioning: 0.1,
      ...request,
    });
    this.media = new MediaMemory(this.geometry);
    this.meta = meta;
  }

  stores(): FtlStores {
    const { geometry, chip, media, meta, staging } = this;
    return {
      uuid: new Uint8Array(16).fill(7),
      geometry,
      chip,
      formatVersion: MEDIA_FORMAT_VERSION,
      media,
      meta,
      staging,
      release: () => undefined,
    };
  }

  /** What the next start finds. The run before the cut goes on in its own world, unseen. */
  afterPowerCut(random: Random): MemoryDriveStores {
    const fates = new UnsyncedFates(random);
    const left = new MemoryDriveStores(this.request, this.chip, this.meta.afterPowerCut(fates));
    this.media.copyTo(left.media);
    left.media.powerCut(fates.ofWrites(left.media.unsyncedWriteCount));
    this.staging.powerCut(left.staging, fates);
    return left;
  }

  /** What a killed process leaves: all that it wrote, synced or not. */
  afterKill(): MemoryDriveStores {
    const left = new MemoryDriveStores(this.request, this.chip, new MetaMemory(this.meta));
    this.media.copyTo(left.media);
    this.staging.copyTo(left.staging);
    return left;
  }
}
