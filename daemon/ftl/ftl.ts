import { limits } from '../../spec/limits.ts';
import { SUMMED_METADATA_VERSION } from '../../spec/media-format/drive-superblock.ts';
import { type DeviceTime, noDeviceTime } from '../timing/device-job.ts';
import type { Arena } from '../base/arena.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import { type FileSystem, systemFileSystem } from '../base/file-system.ts';
import type { Logger } from '../base/logger.ts';
import type { Random } from '../base/random.ts';
import { Checksum } from '../kernels/checksum.ts';
import type { Kernels } from '../kernels/contract.ts';
import type { MetaStore } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { LmdbStore } from '../meta/store.ts';
import { NandArray } from '../nand/array.ts';
import type { Chip } from '../nand/chip.ts';
import { natureOf } from '../nand/chip-nature.ts';
import type { NandFailures } from '../nand/failures.ts';
import type { Geometry } from '../nand/geometry.ts';
import { InjectedFailures } from '../nand/injected-failures.ts';
import { type CellsIo, MediaFile } from '../nand/media-file.ts';
import type { Media, MediaFiles } from '../nand/media.ts';
import { Allocator } from './allocator.ts';
import { BlockMover } from './block-mover.ts';
import { BlockDevice } from './block-namespace.ts';
import { BlockRecords } from './block-records.ts';
import { Checkpointer, type StateRecord } from './checkpoint.ts';
import type {
  CheckpointParticipant,
  DriveIdentity,
  FtlDrive,
  FtlSnapshot,
  KvRecovery,
  OperationCounter,
  SuperblockSnapshot,
} from './contract.ts';
import { FaultBoard } from './fault-board.ts';
import { Flash } from './flash.ts';
import { FolderLock } from './folder-lock.ts';
import { identityOf, readSuperblock } from './format.ts';
import { GarbageCollector } from './garbage-collector.ts';
import { defaultGcOptions, type GcOptions } from './gc-options.ts';
import { KvMover } from './kv-mover.ts';
import { KvPageStore } from './kv-page-store.ts';
import type { MoveRole, Relocatable } from './mover.ts';
import { PageWriter } from './page-writer.ts';
import { recover } from './recovery.ts';
import { type ScrubOptions, Scrubber } from './scrubber.ts';
import { takeCounters, takeSnapshot, takeSuperblocks } from './snapshot.ts';
import { Space } from './space.ts';
import { StagingFile, StagingFolder, type StagingStore } from './staging-log.ts';
import { type Pool, Superblocks } from './superblocks.ts';
import type { VerifyPolicy } from './verify-policy.ts';
import { TemperatureSensor, temperatures } from './temperature.ts';
import { Overwriter } from './user-data-eraser.ts';
import { victimPolicy } from './victim-policy.ts';
import { spreadMaxOf, WearLeveller } from './wear-levelling.ts';

/** What a drive stands on: files, or memory in tests and simulations. */
export interface FtlStores {
  readonly uuid: Uint8Array;
  readonly geometry: Geometry;
  readonly chip: Chip;
  readonly formatVersion: number;
  readonly media: Media;
  readonly meta: MetaStore;
  readonly staging: StagingStore;
  /** Lets go of the folder. */
  readonly release: () => void;
}

export interface FtlModules {
  readonly arena: Arena;
  /** Made once the media is open, since native kernels map it. */
  readonly kernels: Kernels;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly kvRecovery: KvRecovery & Partial<CheckpointParticipant>;
  /** Which programs and erases fail. Default: what the nature of the drive's chip makes fail. */
  readonly failures?: NandFailures | undefined;
  /** Default first-use. */
  readonly verify?: VerifyPolicy;
  readonly gc?: GcOptions;
  /** Default `limits.stagingSegmentBytesMax`. */
  readonly stagingSegmentBytesMax?: number;
  /** Default `limits.unflushedFlashBytesMax`. */
  readonly unflushedFlashBytesMax?: number;
  /** Erases by which superblocks may differ before data is moved to level them. Default: by the chip's endurance. */
  readonly wearSpreadMax?: number;
  /** Left out: not modelled. */
  readonly deviceTime?: DeviceTime;
  /** Default: no scrub but those that are asked for. */
  readonly scrub?: ScrubOptions;
}

class Operations implements OperationCounter {
  #last: number;

  constructor(last: number) {
    this.#last = last;
  }

  get last(): number {
    return this.#last;
  }

  next(): number {
    return ++this.#last;
  }

  raise(operation: number): void {
    this.#last = Math.max(this.#last, operation);
  }
}

/** Opens the files of a drive's folder and locks it. DriveError mediaFormat, folderInUse. */
export function openFolder(
  folder: string,
  fileSystem: FileSystem = systemFileSystem,
  io: CellsIo = 'mapped',
): FtlStores {
  const description = readSuperblock(folder);
  const { uuid, geometry, formatVersion } = description;
  const lock = FolderLock.take(folder);
  let media: MediaFile | undefined;
  let meta: LmdbStore | undefined;
  try {
    media = MediaFile.open(folder, geometry, uuid, fileSystem, io);
    meta = LmdbStore.open(`${folder}/meta`, formatVersion >= SUMMED_METADATA_VERSION ? 'summed' : 'plain');
    if (formatVersion >= SUMMED_METADATA_VERSION) checkOwner(meta, uuid, folder);
    const staging = new StagingFolder(`${folder}/staging`, fileSystem);
    return { ...description, media, meta, staging, release: () => lock.release() };
  } catch (error) {
    void media?.close();
    void meta?.close();
    lock.release();
    throw error;
  }
}

function checkOwner(meta: MetaStore, uuid: Uint8Array, folder: string): void {
  const stored = meta.get(metaNamespaces.drive, ['uuid']);
  if (stored instanceof Uint8Array && Buffer.compare(stored, uuid) === 0) return;
  const owner =
    stored instanceof Uint8Array ? `belongs to drive ${Buffer.from(stored).toString('hex')}` : 'names no drive';
  throw new DriveError('mediaFormat', `${folder}/meta ${owner}, not this one`);
}

/** The flash translation layer of an open drive. */
export class Ftl implements FtlDrive {
  readonly identity: DriveIdentity;
  readonly geometry: Geometry;
  readonly blocks: BlockDevice;
  readonly kv: KvPageStore;
  readonly durability: Checkpointer;
  readonly operations: Operations;
  readonly flash: Flash;
  readonly faults: FaultBoard;
  readonly scrubber: Scrubber;
  readonly stagingFile: StagingFile;
  readonly userData: Overwriter;
  readonly collectors: Readonly<Record<Pool, GarbageCollector>>;
  /** They move superblocks for the sake of wear. */
  readonly relocators: Readonly<Record<Pool, GarbageCollector>>;
  readonly spaces: Readonly<Record<Pool, Space>>;
  readonly #stores: FtlStores;
  readonly #allocator: Allocator;
  readonly #blockRecords: BlockRecords;
  readonly #logger: Logger;
  #lifetime: Readonly<Record<string, number>> = {};
  /** Called once if the drive becomes read-only while it is open. */
  onReadOnly: () => void = () => undefined;
  startCount = 0;
  unsafeShutdownCount = 0;

  private constructor(stores: FtlStores, modules: FtlModules) {
    const { arena, random, logger, verify = 'first-use' } = modules;
    const { geometry, chip, media, meta } = stores;
    this.#stores = stores;
    this.geometry = geometry;
    this.identity = identityOf(stores);
    const operations = new Operations(0);
    this.operations = operations;
    const failures = new InjectedFailures(modules.failures ?? natureOf(chip, geometry), geometry);
    const array = new NandArray(geometry, media, { chip, failures });
    modules.deviceTime?.readFrom(array.errors);
    const superblocks = new Superblocks(geometry, array.blocks.eraseCounts);
    const checksum = new Checksum(modules);
    const flash = new Flash({ verify }, { array, superblocks, checksum, logger });
    const { placement } = modules.gc ?? defaultGcOptions;
    const spreadMax = modules.wearSpreadMax ?? spreadMaxOf(chip.profile.endurance);
    const leveller = new WearLeveller({ superblocks, blocks: array.blocks }, spreadMax);
    const allocator = new Allocator({ placement }, { superblocks, array, leveller, operations, random });
    const temperature = new TemperatureSensor({ superblocks, operations });
    allocator.onFree = (superblock, pool, writePoint) => {
      if (pool === 'block' && writePoint === temperatures.hot) temperature.emptied(superblock);
    };
    const programmed = (): void => this.durability.programmed();
    const writer = new PageWriter({ allocator, flash, programmed });
    const appended = (): void => this.durability.appended();
    const sum = (bytes: Uint8Array): number => checksum.of(bytes);
    const staging = new StagingFile({ uuid: stores.uuid }, { store: stores.staging, operations, sum, appended });
    this.collectors = this.#createCollectors('gc', { allocator, writer, flash }, modules);
    this.relocators = this.#createCollectors('wear', { allocator, writer, flash }, modules);
    leveller.isLeftAlone = (superblock) =>
      Object.values(this.relocators).some((relocator) => relocator.isUnreadable(superblock));
    this.spaces = this.#createSpaces({ allocator, superblocks, leveller }, modules);
    const syncStaging = (): Promise<void> => this.durability.syncStaging();
    const { block: blockSpace, kv: kvSpace } = this.spaces;
    const writePointCount = allocator.writePointCount('block');
    const common = { flash, writer, operations, arena };
    const ofBlocks = { space: blockSpace, staging, temperature, writePointCount, syncStaging };
    this.blocks = new BlockDevice({ ...common, ...ofBlocks });
    this.kv = new KvPageStore({ ...common, space: kvSpace, checkpoint: this.#checkpointSoon });
    const settle = (): Promise<void> => this.durability.special('restaging');
    this.userData = new Overwriter({ flash, sync: syncStaging, settle });
    const { clock, scrub = { intervalSeconds: undefined }, deviceTime = noDeviceTime } = modules;
    const owners = { block: this.blocks, kv: this.kv };
    const ofScrub = { flash, owners, spaces: this.spaces, writer, arena, clock, logger, deviceTime };
    this.scrubber = new Scrubber(scrub, ofScrub);
    this.#allocator = allocator;
    this.#blockRecords = new BlockRecords(array, logger);
    this.#logger = logger;
    this.flash = flash;
    this.faults = new FaultBoard({ flash, failures });
    this.stagingFile = staging;
    const describe = (): Pick<StateRecord, 'startCount' | 'unsafeShutdownCount' | 'lifetime' | 'scrub'> => ({
      startCount: this.startCount,
      unsafeShutdownCount: this.unsafeShutdownCount,
      lifetime: { ...takeCounters(this, this.#lifetime) },
      scrub: this.scrubber.position,
    });
    const checkpointed = (operation: number): void => {
      this.kv.checkpointed(operation);
      for (const part of Object.values(this.spaces)) part.checkpointed(operation);
    };
    const { stagingSegmentBytesMax, unflushedFlashBytesMax } = { ...limits, ...modules };
    const programmedPagesMax = Math.ceil(unflushedFlashBytesMax / geometry.pageSizeBytes);
    this.durability = new Checkpointer(
      { segmentBytesMax: stagingSegmentBytesMax, programmedPagesMax },
      { media, meta, staging, operations, allocator, describe, checkpointed },
      [this.blocks, this.kv, this.#blockRecords],
    );
  }

  readonly #checkpointSoon = (): Promise<void> => this.durability.flush();

  #createCollectors(
    role: MoveRole,
    { allocator, writer, flash }: { allocator: Allocator; writer: PageWriter; flash: Flash },
    { arena, random, logger, gc = defaultGcOptions, deviceTime = noDeviceTime }: FtlModules,
  ): Record<Pool, GarbageCollector> {
    const { superblocks } = flash;
    const common = { role, superblocks, allocator, operations: this.operations, random, logger, deviceTime };
    const policy = victimPolicy(gc);
    const block = new BlockMover({ role, flash, writer, arena, owner: lazily(() => this.blocks) });
    const kv = new KvMover({ role, flash, allocator, writer, arena, owner: lazily(() => this.kv) });
    return {
      block: new GarbageCollector('block', { ...common, policy, mover: block }),
      kv: new GarbageCollector('kv', { ...common, policy, mover: kv }),
    };
  }

  #createSpaces(
    shared: { allocator: Allocator; superblocks: Superblocks; leveller: WearLeveller },
    { clock, logger, gc = defaultGcOptions }: FtlModules,
  ): Record<Pool, Space> {
    const space = (pool: Pool): Space => {
      const checkpoint = this.#checkpointSoon;
      const assertWorking = (): void => this.durability.assertWorking();
      const collector = this.collectors[pool];
      const relocator = this.relocators[pool];
      const modules = { ...shared, collector, relocator, checkpoint, assertWorking, clock, logger };
      return new Space(pool, gc, modules);
    };
    return { block: space('block'), kv: space('kv') };
  }

  /**
   * Opens and recovers a drive; when it resolves, a checkpoint says that it runs. `modules.kvRecovery` is registered for
   * checkpoints if it is a participant. DriveError mediaFormat, folderInUse, writeFault.
   */
  static async open(stores: FtlStores, modules: FtlModules): Promise<Ftl> {
    const ftl = new Ftl(stores, modules);
    try {
      await ftl.#recover(modules);
      return ftl;
    } catch (error) {
      await ftl.#closeStores();
      throw error;
    }
  }

  async #recover(modules: FtlModules): Promise<void> {
    const { meta } = this.#stores;
    const { blocks, kv, flash, stagingFile: staging } = this;
    const beginNs = modules.clock.nowNs();
    const blockRecords = this.#blockRecords;
    const recovered = await recover({ meta, staging, flash, allocator: this.#allocator, blockRecords, blocks, kv });
    const { state } = recovered;
    this.operations.raise(recovered.operation);
    this.startCount = (state?.startCount ?? 0) + 1;
    this.unsafeShutdownCount = (state?.unsafeShutdownCount ?? 0) + (state && !state.isClean ? 1 : 0);
    this.#lifetime = state?.lifetime ?? {};
    this.scrubber.resumeAt(state?.scrub);
    blocks.countMapped();
    kv.adopt(modules.kvRecovery.recover(recovered.events, kv.lpnCount, meta));
    this.#settleEmpty();
    staging.rotate();
    blocks.holdStaged(recovered.staged);
    await modules.kvRecovery.settle(kv, this.durability.log);
    const { checkpoint, stageBuffered } = modules.kvRecovery;
    if (checkpoint && stageBuffered) this.registerParticipant(modules.kvRecovery as CheckpointParticipant);
    // Until it is durable nothing may be programmed or erased: recovery must find the same again if it is interrupted.
    await this.durability.special('opening');
    this.#watchBlocks();
    for (const space of Object.values(this.spaces)) await this.#unlessRefused(() => space.regain());
    await this.#unlessRefused(() => blocks.cacheHeld());
    this.scrubber.start();
    const relocate = (): void => {
      for (const space of Object.values(this.spaces)) space.relocate();
    };
    this.#allocator.onOpen = relocate;
    relocate();
    modules.logger.info(
      {
        clean: state?.isClean ?? true,
        superblocksScanned: recovered.scannedSuperblockCount,
        kvEvents: recovered.events.length,
        stagedBlocks: recovered.staged.size,
        milliseconds: Math.round((modules.clock.nowNs() - beginNs) / 1e6),
      },
      'recovered',
    );
  }

  /** Dies that fail, and a disk that is full, must not keep anybody from reading what is there: it is all durable by now. */
  async #unlessRefused(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof DriveError) || this.durability.failure !== undefined) throw error;
      this.#logger.warn({ err: error }, 'recovered, but can not write now');
    }
  }

  /** What fails is durable soon; a drive that may write no more says so once. */
  #watchBlocks(): void {
    const { blocks } = this.flash.array;
    blocks.onChange = () => void this.durability.soon();
    let isTold = this.isReadOnly;
    if (isTold) this.#tellReadOnly();
    const wake = (): void => {
      for (const space of Object.values(this.spaces)) space.wake();
    };
    this.#allocator.onGiveUp = () => {
      // Not at once: it happens in the middle of a program.
      queueMicrotask(wake);
      if (isTold || !this.isReadOnly) return;
      isTold = true;
      this.#tellReadOnly();
      this.onReadOnly();
    };
  }

  #tellReadOnly(): void {
    const { superblockCount } = this.geometry;
    const bad = this.flash.array.blocks.retired.size;
    this.#logger.error({ superblockCount, bad }, 'the drive is read-only: too many erase blocks are bad');
  }

  get isReadOnly(): boolean {
    return this.#allocator.isReadOnly;
  }

  /** Superblocks that hold nothing any more may be erased once the opening checkpoint is durable. */
  #settleEmpty(): void {
    const { superblocks } = this.flash;
    superblocks.emptySince.fill(this.operations.last);
  }

  get chip(): Chip {
    return this.#stores.chip;
  }

  get staging() {
    return this.durability.log;
  }

  /** The flash as compute workers open it; undefined if it is not in files. */
  get mediaFiles(): MediaFiles | undefined {
    return this.#stores.media.files;
  }

  registerParticipant(participant: CheckpointParticipant): void {
    this.durability.register(participant);
  }

  snapshot(): FtlSnapshot {
    return takeSnapshot(this, this.#lifetime);
  }

  superblocks(): SuperblockSnapshot[] {
    return takeSuperblocks(this.flash);
  }

  async close(): Promise<void> {
    await this.#closeWork();
    try {
      await this.durability.special('closing');
    } finally {
      await this.#closeStores();
    }
  }

  /** Lets go without the last checkpoint, as a crash would: for tests, and for a drive that can't go on. */
  async abandon(): Promise<void> {
    await this.#closeWork();
    await this.#closeStores();
  }

  async #closeWork(): Promise<void> {
    await this.scrubber.close();
    for (const space of Object.values(this.spaces)) await space.close();
  }

  async #closeStores(): Promise<void> {
    this.stagingFile.close();
    await this.#stores.media.close();
    await this.#stores.meta.close();
    this.#stores.release();
  }
}

/** Garbage collection is made before the maps whose entries it moves. */
function lazily(owner: () => Relocatable): Relocatable {
  return {
    isCurrent: (entry, slot) => owner().isCurrent(entry, slot),
    moved: (entry, from, to) => owner().moved(entry, from, to),
  };
}
