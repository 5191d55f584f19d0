/** A drive's stores in memory that fail when they are told to. */
import { MEDIA_FORMAT_VERSION } from '../../../spec/media-format/drive-superblock.ts';
import { DriveError } from '../../../daemon/base/errors.ts';
import type { FtlStores } from '../../../daemon/ftl/ftl.ts';
import { CellReader } from '../../../daemon/nand/cell-reader.ts';
import { type Chip, idealChip } from '../../../daemon/nand/chip.ts';
import { type NandFailures, noFailures } from '../../../daemon/nand/failures.ts';
import { cellOffset, type Geometry, mediaSizes, oobOffset } from '../../../daemon/nand/geometry.ts';
import { MediaMemory } from '../../../daemon/nand/media-memory.ts';
import { MetaMemory } from '../../ftl/meta-memory.ts';
import { StagingMemory } from '../../ftl/staging-memory.ts';
import { turn } from './fuzz-link.ts';

/**
 * What fails: pages that can't be read, a disk that takes no pages, one that takes no records or syncs none of them (from then
 * on nothing is durable any more), dies that program no more.
 */
export type Trouble = 'none' | 'reads' | 'programs' | 'records' | 'syncs' | 'dies';

class SlowStaging extends StagingMemory {
  readonly #stores: TroubledStores;

  constructor(stores: TroubledStores) {
    super();
    this.#stores = stores;
  }

  override settle(): Promise<void> {
    return this.#stores.settle();
  }
}

class TroubledMedia extends MediaMemory {
  readonly #stores: TroubledStores;

  constructor(geometry: Geometry, stores: TroubledStores) {
    super(geometry);
    this.#stores = stores;
  }

  protected override settle(): Promise<void> {
    return this.#stores.settle();
  }

  override async readCells(byteOffset: number, target: Uint8Array): Promise<void> {
    if (this.#stores.trouble === 'reads') {
      target.fill(0xbb);
      throw new DriveError('unrecoveredRead', 'a read failed');
    }
    await super.readCells(byteOffset, target);
  }
}

export class TroubledStores {
  readonly geometry: Geometry;
  readonly media: TroubledMedia;
  readonly meta = new MetaMemory();
  readonly staging: StagingMemory;
  readonly reader: CellReader;
  readonly failures: NandFailures;
  trouble: Trouble = 'none';

  readonly #turns: number;

  /** `turns`: of the event loop that each of its syncs and reads takes. */
  constructor(geometry: Geometry, turns: number) {
    this.geometry = geometry;
    this.#turns = turns;
    this.staging = new SlowStaging(this);
    this.media = new TroubledMedia(geometry, this);
    this.reader = new MemoryReader(geometry, this.media, this);
    this.failures = {
      ...noFailures,
      programFails: () => this.trouble === 'dies',
      eraseFails: () => this.trouble === 'dies',
    };
    this.media.onStep = (step) => {
      if (this.trouble === 'programs' && step === 'program')
        throw new DriveError('writeFault', 'the disk takes no page');
    };
    this.staging.onStep = (step) => {
      if (this.trouble === 'records' && step === 'append')
        throw new DriveError('writeFault', 'the disk takes no record');
      if (this.trouble === 'syncs' && step === 'sync') throw new DriveError('writeFault', 'the disk syncs nothing');
    };
  }

  /** Resolves when an operation of the disk is done. */
  async settle(): Promise<void> {
    for (let i = 0; i < this.#turns; i++) await turn();
  }

  stores(chip: Chip = idealChip): FtlStores {
    const { geometry, media, meta, staging } = this;
    const identity = { uuid: new Uint8Array(16).fill(7), formatVersion: MEDIA_FORMAT_VERSION };
    return { ...identity, geometry, chip, media, meta, staging, release: () => undefined };
  }
}

/** Pages for attention without workers. */
class MemoryReader extends CellReader {
  readonly #media: MediaMemory;
  readonly #stores: TroubledStores;

  constructor(geometry: Geometry, media: MediaMemory, stores: TroubledStores) {
    const cells = { fileDescriptor: -1, sizeBytes: mediaSizes(geometry).cells };
    super({ cells, oobFileDescriptor: -1, geometry });
    this.#media = media;
    this.#stores = stores;
  }

  protected override readFile(file: 'cells' | 'oob', target: Uint8Array, position: number): boolean {
    const { geometry, cells, oob } = this.#media;
    const first = file === 'cells' ? cellOffset(geometry, 0) : oobOffset(geometry, 0);
    target.set((file === 'cells' ? cells : oob).subarray(position - first, position - first + target.length));
    return this.#stores.trouble !== 'reads';
  }
}
