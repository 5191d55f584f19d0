/** Every room of a drive over its stores in memory, as the composition root puts them together; no sockets, no workers. */
import { subsystemNqn } from '../../spec/fabrics.ts';
import { limits } from '../../spec/limits.ts';
import { type Attention, createAttention } from '../../daemon/attention/attention.ts';
import type { Arena } from '../../daemon/base/arena.ts';
import type { Clock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { Random } from '../../daemon/base/random.ts';
import type { Limits } from '../../daemon/commands/contract.ts';
import { createSubsystem, type Subsystem } from '../../daemon/controller/subsystem.ts';
import { Ftl, type FtlModules, type FtlStores } from '../../daemon/ftl/ftl.ts';
import type { Kernels } from '../../daemon/kernels/contract.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import type { CellReader } from '../../daemon/nand/cell-reader.ts';
import { type Geometry, mediaSizes } from '../../daemon/nand/geometry.ts';
import type { DaemonConfig, TimingMode } from '../../daemon/config.ts';
import { OwnRecords } from '../../daemon/discovery/own-records.ts';
import type { HostPolicy } from '../../daemon/hosts/contract.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import { ThreadedKeyExchange } from '../../daemon/hosts/threaded-key-exchange.ts';
import { DriveDeviceTime } from '../../daemon/drive-device-time.ts';
import { RoomStatus } from '../../daemon/drive-status.ts';
import type { Rooms } from '../../daemon/rooms.ts';
import { type DeviceTime, noDeviceTime } from '../../daemon/timing/device-job.ts';
import { identityOf, SERIAL } from '../controller/rig.ts';

export interface DriveParts {
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly clock: Clock;
  readonly random: Random;
  readonly onFatal: (error: unknown) => void;
  /** Where memory regions lie. */
  readonly regionFolder: string;
  readonly frameCacheBytes: number;
  /** Pages for attention, as no file has them. */
  readonly reader: CellReader;
  readonly ftlOptions?: Pick<
    FtlModules,
    'failures' | 'verify' | 'gc' | 'stagingSegmentBytesMax' | 'unflushedFlashBytesMax' | 'scrub' | 'wearSpreadMax'
  >;
  /** Bounds that differ from those of the drive. */
  readonly limits?: Partial<Limits>;
  /** Left out: every host may connect. */
  readonly hosts?: HostPolicy;
  /** Left out: not modelled. */
  readonly deviceTime?: DeviceTime | undefined;
  readonly timing?: TimingMode;
}

export interface ComposedDrive {
  readonly ftl: Ftl;
  readonly kv: SequenceStore;
  readonly attention: Attention;
  readonly subsystem: Subsystem;
  /** Clean shutdown. */
  close(): Promise<void>;
}

/** Opens and recovers a drive. DriveError as Ftl.open. */
export async function composeDrive(stores: FtlStores, parts: DriveParts): Promise<ComposedDrive> {
  const { arena, kernels, clock, random, onFatal } = parts;
  const logger = silentLogger;
  const kv = new SequenceStore({ arena, kernels, clock });
  const { ftlOptions, deviceTime = noDeviceTime, timing } = parts;
  const ftl = await Ftl.open(stores, {
    arena,
    kernels,
    clock,
    random,
    logger,
    kvRecovery: kv,
    deviceTime,
    ...ftlOptions,
  });
  const verify = ftlOptions?.verify ?? 'first-use';
  const attention = await createAttention(
    {
      workerCount: 0,
      frameCacheBytes: parts.frameCacheBytes,
      verify,
      media: noFiles(ftl.geometry),
      reader: parts.reader,
    },
    { arena, kv, pages: ftl.kv, kernels, clock, logger, onFatal },
  );
  const { blocks, durability, userData } = ftl;
  // What log pages tell of device time is that there is none.
  const noTimes = new DriveDeviceTime({ timing: 'off', record: undefined }, stores, { clock, logger });
  const rooms: Partial<Rooms> = { arena, kernels, sequences: kv, ftl, attention, deviceTime: noTimes };
  const status = new RoomStatus({
    options: { folder: '', version: 'simulated', config: { workers: 0 } as DaemonConfig },
    modules: { clock, random, logger, onFatal },
    state: 'ready',
    readyAtNs: clock.nowNs(),
    listeners: [],
    room: (name) => rooms[name]!,
  });
  const discovery = new OwnRecords({ nqn: subsystemNqn(SERIAL), advertisedHost: undefined }, { listeners: () => [] });
  const { hosts = new HostDirectory() } = parts;
  const keyExchange = new ThreadedKeyExchange();
  const regions = { folder: parts.regionFolder, fileMode: 0o600, isMapped: true };
  const subsystem = createSubsystem(
    {
      identity: identityOf(ftl.geometry.pageSizeBytes),
      limits: { ...limits, ...parts.limits },
      regions,
      holdsCompletions: timing === 'enforce',
    },
    {
      arena,
      kv,
      blocks,
      durability,
      userData,
      attention,
      deviceTime,
      status,
      discovery,
      hosts,
      keyExchange,
      clock,
      random,
      logger,
      onFatal,
    },
  );
  rooms.subsystem = subsystem;
  return {
    ftl,
    kv,
    attention,
    subsystem,
    async close() {
      await subsystem.close();
      await attention.close();
      kv.close();
      await ftl.close();
    },
  };
}

/** What workers would open. */
const noFiles = (geometry: Geometry) => ({
  cells: { fileDescriptor: -1, sizeBytes: mediaSizes(geometry).cells },
  oobFileDescriptor: -1,
  geometry,
});
