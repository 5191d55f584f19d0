/** Every room of a drive, in a temporary folder, as the composition root puts them together; no workers, slow kernels. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { limits } from '../../spec/limits.ts';
import { subsystemNqn } from '../../spec/fabrics.ts';
import type { DaemonConfig } from '../../daemon/config.ts';
import { DriveDeviceTime } from '../../daemon/drive-device-time.ts';
import { RoomStatus } from '../../daemon/drive-status.ts';
import type { NandFailures } from '../../daemon/nand/failures.ts';
import type { Rooms, RunningDrive } from '../../daemon/rooms.ts';
import { createAttention } from '../../daemon/attention/attention.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { type Clock, systemClock } from '../../daemon/base/clock.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { createSubsystem } from '../../daemon/controller/subsystem.ts';
import { type FormatOptions, formatDrive } from '../../daemon/ftl/format.ts';
import { Ftl, type FtlStores, openFolder } from '../../daemon/ftl/ftl.ts';
import { defaultGcOptions, type GcOptions } from '../../daemon/ftl/gc-options.ts';
import { OwnRecords } from '../../daemon/discovery/own-records.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import { ThreadedKeyExchange } from '../../daemon/hosts/threaded-key-exchange.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { type DeviceTime, noDeviceTime } from '../../daemon/timing/device-job.ts';
import { Transport } from '../../daemon/transport/listener.ts';
import { RawHost } from './raw-host.ts';
import { CC_ENABLED, identityOf, PROPERTY_CC, SERIAL } from './rig.ts';

const MIB = 2 ** 20;
const PAGE_BYTES = 4096;

export interface WholeDrive {
  readonly ftl: Ftl;
  readonly kv: SequenceStore;
  readonly fatals: unknown[];
  /** As the views see it that put rooms' snapshots together. */
  readonly running: RunningDrive;
  readonly lbaCount: number;
  /** Where hosts connect. */
  readonly address: string;
  /** An admin and an I/O queue. */
  connect(): Promise<{ admin: RawHost; io: RawHost }>;
  close(): Promise<void>;
  /** Without the last checkpoint, as if the process had died. */
  abandon(): Promise<void>;
}

export async function formatFolder(test: TestContext, options: Partial<FormatOptions> = {}): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'whole-'));
  test.after(() => rmSync(folder, { recursive: true, force: true }));
  const request = {
    blockCapacityBytes: 4 * MIB,
    kvCapacityBytes: 8 * MIB,
    pageSizeBytes: PAGE_BYTES,
    channelCount: 4,
    diesPerChannel: 1,
    overProvisioning: 0.25,
    force: false,
    ...options,
  };
  await formatDrive(folder, request, createSeededRandom(1));
  return folder;
}

export interface WholeDriveOptions {
  /** Made when the drive's geometry is known. */
  readonly deviceTime?: (stores: FtlStores) => DeviceTime;
  readonly clock?: Clock;
  readonly gc?: GcOptions;
  readonly failures?: NandFailures;
}

export async function openWholeDrive(folder: string, options: WholeDriveOptions = {}): Promise<WholeDrive> {
  const arena = createArena(96 * MIB);
  const kernels = loadKernels('reference', { memory: arena.memory });
  const clock = options.clock ?? systemClock;
  const logger = silentLogger;
  const random = createSeededRandom(2);
  const fatals: unknown[] = [];
  const onFatal = (error: unknown): void => void fatals.push(error);
  const kv = new SequenceStore({ arena, kernels, clock });
  const stores = openFolder(folder);
  const deviceTime = options.deviceTime?.(stores) ?? noDeviceTime;
  const { gc = defaultGcOptions, failures } = options;
  const modules = { arena, kernels, clock, random, logger, kvRecovery: kv, deviceTime, gc, failures };
  const ftl = await Ftl.open(stores, modules);
  ftl.registerParticipant(kv);
  const { cellsDescriptor, oobDescriptor, cellsSizeBytes } = ftl.mediaFiles!;
  const cells = { fileDescriptor: cellsDescriptor, sizeBytes: cellsSizeBytes };
  const attention = await createAttention(
    {
      workerCount: 0,
      frameCacheBytes: 4 * MIB,
      media: { cells, oobFileDescriptor: oobDescriptor, geometry: ftl.geometry },
    },
    { arena, kv, pages: ftl.kv, kernels, clock, logger, onFatal },
  );
  const { blocks, durability, userData } = ftl;
  const noTimes = new DriveDeviceTime({ timing: 'off', record: undefined }, stores, { clock, logger });
  const rooms: Partial<Rooms> = { arena, kernels, sequences: kv, ftl, attention, deviceTime: noTimes };
  const running: RunningDrive = {
    options: { folder, version: 'test', config: { workers: 0 } as DaemonConfig },
    modules: { clock, random, logger, onFatal },
    state: 'ready',
    readyAtNs: clock.nowNs(),
    listeners: [],
    room: (name) => rooms[name]!,
  };
  const subsystem = createSubsystem(
    {
      identity: identityOf(stores.geometry.pageSizeBytes),
      limits,
      regions: { folder: join(folder, 'regions'), fileMode: 0o600, isMapped: true },
    },
    {
      arena,
      kv,
      blocks,
      durability,
      userData,
      attention,
      deviceTime,
      status: new RoomStatus(running),
      discovery: new OwnRecords({ nqn: subsystemNqn(SERIAL), advertisedHost: undefined }, { listeners: () => [] }),
      clock,
      hosts: new HostDirectory(),
      keyExchange: new ThreadedKeyExchange(),
      random,
      logger,
      onFatal,
    },
  );
  const transport = new Transport({ limits }, { subsystem, clock, logger, checksum: crc32c });
  // No control plane listens: it has refused nobody.
  Object.assign(rooms, { subsystem, transport, admin: { refusedCounts: new Map() } });
  const address = await transport.listen({ kind: 'unix', path: join(folder, 'nvme.sock'), mode: 0o600 });
  const open = async (): Promise<RawHost> => {
    const host = await RawHost.open(address);
    await host.initialize();
    return host;
  };
  const end = async (closeFtl: () => Promise<void>): Promise<void> => {
    await subsystem.close();
    await transport.close();
    await attention.close();
    kv.close();
    await closeFtl();
  };
  return {
    ftl,
    kv,
    fatals,
    running,
    lbaCount: blocks.lbaCount,
    address,
    async connect() {
      const subnqn = subsystemNqn(SERIAL);
      const admin = await open();
      const { dw0: cntlid } = await admin.connect({}, { subnqn });
      await admin.propertySet(PROPERTY_CC, CC_ENABLED);
      const io = await open();
      await io.connect({ qid: 1, sqsize: 127 }, { subnqn, cntlid });
      return { admin, io };
    },
    close: () => end(() => ftl.close()),
    abandon: () => end(() => ftl.abandon()),
  };
}
