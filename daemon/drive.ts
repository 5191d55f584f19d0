import { type Attention, createAttention } from './attention/attention.ts';
import { AdminServer } from './admin/admin-server.ts';
import { createArena } from './base/arena.ts';
import { InvariantError } from './base/assert.ts';
import type { Timer } from './base/clock.ts';
import { DriveError } from './base/errors.ts';
import { type Step, Steps } from './base/steps.ts';
import { systemFileSystem } from './base/file-system.ts';
import { cellAccess, kernelMedia } from './nand/cell-reader.ts';
import type { DaemonConfig } from './config.ts';
import { ControlView } from './control-view.ts';
import { createSubsystem, type Subsystem } from './controller/subsystem.ts';
import { DiscoveryRegistrar } from './discovery-registrar.ts';
import { OwnRecords } from './discovery/own-records.ts';
import { DriveDeviceTime } from './drive-device-time.ts';
import { type DriveState, driveTransition } from './drive-state.ts';
import { RoomStatus } from './drive-status.ts';
import { HostAccess } from './host-access.ts';
import { readHttpSecrets, warnOfOpenHttp } from './http-access.ts';
import { ThreadedKeyExchange } from './hosts/threaded-key-exchange.ts';
import { Ftl, openFolder } from './ftl/ftl.ts';
import type { GcOptions } from './ftl/gc-options.ts';
import { loadKernels, resolveKernels } from './kernels/loader.ts';
import { SequenceStore } from './kv/kv-store.ts';
import { type DriveModules, type DriveOptions, MODEL_NUMBER, type Rooms, type RunningDrive } from './rooms.ts';
import { type RunningFile, RuntimeFolder } from './runtime-folder.ts';
import type { DeviceTime } from './timing/device-job.ts';
import { isInMemory } from './volatile-folder.ts';
import { Transport } from './transport/listener.ts';
import { subsystemNqn } from '../spec/fabrics.ts';
import { BLOCK_NSID, KV_CACHE_NSID } from '../spec/kv-commands.ts';
import { limits } from '../spec/limits.ts';

/** The composition root: the one place that knows every room. */
export class Drive implements RunningDrive {
  readonly options: DriveOptions;
  readonly modules: DriveModules;
  readonly #steps: Steps;
  readonly #rooms: Partial<Rooms> = {};
  #state: DriveState = 'stopped';
  #timer: Timer | undefined;
  #isFailed = false;
  readyAtNs = 0;
  listeners: string[] = [];

  constructor(options: DriveOptions, modules: DriveModules) {
    this.options = options;
    this.modules = modules;
    this.#steps = new Steps(this.#plan(), {
      clock: modules.clock,
      listen: (name, phase, durationNs) =>
        modules.logger.debug({ step: name, phase, milliseconds: durationNs / 1e6 }, 'step'),
    });
  }

  get state(): DriveState {
    return this.#state;
  }

  /** DriveError namespaceNotReady until the room is there. */
  room<K extends keyof Rooms>(name: K): Rooms[K] {
    const room = this.#rooms[name];
    if (room === undefined) throw new DriveError('namespaceNotReady', `the drive is ${this.#state}`);
    return room;
  }

  /** Opens, recovers and serves the drive. What a failing step threw; everything before it is undone. */
  async start(): Promise<void> {
    this.#state = driveTransition(this.#state, 'opening');
    try {
      await this.#steps.start();
    } catch (error) {
      this.#state = driveTransition(this.#state, 'stopped');
      throw error;
    }
    this.readyAtNs = this.modules.clock.nowNs();
    this.#state = driveTransition(this.#state, 'ready');
  }

  /** Clean shutdown: no new commands, running ones end, a last checkpoint. */
  async stop(): Promise<void> {
    this.#state = driveTransition(this.#state, 'stopping');
    await this.#steps.stop();
    this.#state = driveTransition(this.#state, 'stopped');
  }

  #plan(): Step[] {
    const opening = [this.#hostsStep(), this.#storesStep(), this.#deviceTimeStep()];
    return [...opening, this.#memoryStep(), this.#flashStep(), ...this.#servingSteps()];
  }

  /** First, so that a mistake in a file is told before anything of the drive is touched. */
  #hostsStep(): Step {
    const { config } = this.options;
    const logger = this.modules.logger.child({ room: 'hosts' });
    return {
      name: 'read who may connect',
      start: () => {
        this.#rooms.hosts = new HostAccess({ path: config.hosts }, { logger });
        this.#rooms.hosts.warnIfOpen(config.tcp);
        this.#rooms.httpSecrets = readHttpSecrets(config);
        warnOfOpenHttp(config, logger);
      },
    };
  }

  #storesStep(): Step {
    const rooms = this.#rooms;
    const { folder, config } = this.options;
    return {
      name: 'open files',
      start: () => {
        if (config.io === 'direct' && resolveKernels(config.kernels) !== 'native') {
          throw new DriveError(
            'invalidField',
            'I/O "direct" needs the native kernels, which are not built; allowed: mapped',
          );
        }
        const io = config.io === 'direct' ? { direct: { cacheBytes: config.cacheBytes } } : config.io;
        rooms.stores = openFolder(folder, systemFileSystem, io);
        if (isInMemory(folder)) {
          this.modules.logger.warn(
            { folder },
            'the drive lies in memory: when the machine stops, all it stores is lost',
          );
        }
      },
    };
  }

  #deviceTimeStep(): Step {
    const rooms = this.#rooms;
    return {
      name: 'set up device time',
      start: () => {
        const { clock, logger } = this.modules;
        const roomLogger = logger.child({ room: 'timing' });
        rooms.deviceTime = new DriveDeviceTime(this.options.config, this.room('stores'), { clock, logger: roomLogger });
      },
      stop: () => this.room('deviceTime').close(),
    };
  }

  #memoryStep(): Step {
    const rooms = this.#rooms;
    return {
      name: 'load kernels',
      start: () => {
        const { config } = this.options;
        const name = resolveKernels(config.kernels);
        // Native kernels need no room for page frames: they map the media, or have a slab.
        const frameBytes = name === 'native' ? 0 : config.cacheBytes;
        rooms.arena = createArena(config.bufferBytes + frameBytes);
        const { media, geometry } = this.room('stores');
        const access = media.files && cellAccess(media.files, geometry);
        const { memory } = rooms.arena;
        const precision = config.kernelPrecision;
        const kernels = loadKernels(name, { memory, precision, ...(access && kernelMedia(access)) });
        if (kernels.canMapMedia) media.copyResident = (at, target) => kernels.copyResidentMedia(at, target);
        rooms.kernels = kernels;
      },
    };
  }

  /** From here on the flash translation layer owns the files, and closes them. */
  #flashStep(): Step {
    const rooms = this.#rooms;
    return {
      name: 'recover',
      start: async () => {
        const { clock, random, logger } = this.modules;
        const arena = this.room('arena');
        const kernels = this.room('kernels');
        rooms.sequences = new SequenceStore({ arena, kernels, clock });
        const kvRecovery = rooms.sequences;
        const ftlLogger = logger.child({ room: 'ftl' });
        rooms.ftl = await Ftl.open(this.room('stores'), {
          arena,
          kernels,
          clock,
          random,
          logger: ftlLogger,
          kvRecovery,
          verify: this.options.config.verify,
          gc: gcOptions(this.options.config),
          ...this.#deviceTime(),
          scrub: { intervalSeconds: this.options.config.scrubIntervalSeconds || undefined },
        });
        this.#scheduleCheckpoint();
      },
      stop: async () => {
        this.#timer?.cancel();
        this.room('sequences').close();
        await (this.#isFailed ? this.room('ftl').abandon() : this.room('ftl').close());
      },
    };
  }

  #servingSteps(): Step[] {
    const rooms = this.#rooms;
    return [
      {
        name: 'start compute workers',
        start: async () => void (rooms.attention = await this.#createAttention()),
        stop: () => this.room('attention').close(),
      },
      {
        name: 'make the runtime folder',
        start: () => {
          const { folder, config } = this.options;
          const { serial } = this.room('ftl').identity;
          rooms.runtime = RuntimeFolder.create({ parent: config.runtimeFolder, serial, folder, group: config.group });
        },
        stop: () => this.room('runtime').remove(),
      },
      {
        name: 'make the subsystem',
        start: () => {
          rooms.keyExchange = new ThreadedKeyExchange();
          rooms.subsystem = this.#createSubsystem();
          this.room('ftl').onReadOnly = () => {
            for (const namespaceId of [BLOCK_NSID, KV_CACHE_NSID]) this.room('subsystem').namespaceChanged(namespaceId);
          };
        },
        stop: async () => {
          await this.room('keyExchange').close();
          await this.room('subsystem').close();
        },
      },
      {
        name: 'listen for hosts',
        start: () => this.#listen(),
        stop: () => this.room('transport').close(),
      },
      {
        name: 'listen for the control plane',
        start: async () => {
          const { adminSocket: socketPath, socketMode } = this.room('runtime');
          const { clock, logger } = this.modules;
          const { http, httpNames, httpOpenMetrics: openMetrics } = this.options.config;
          const names = http === undefined ? httpNames : [http.host, ...httpNames];
          const secrets = this.room('httpSecrets');
          const options = { socketPath, socketMode, http: http && { ...http, names, openMetrics }, secrets };
          const view = new ControlView(this);
          rooms.admin = new AdminServer(options, { view, clock, logger: logger.child({ room: 'admin' }) });
          await rooms.admin.start();
        },
        stop: () => this.room('admin').close(),
      },
      { name: 'announce', start: () => this.room('runtime').announce(this.running()) },
      {
        name: 'register with discovery services',
        start: () => void (rooms.registrar = this.#createRegistrar()),
        stop: () => this.room('registrar').close(),
      },
    ];
  }

  /** Reads again who may connect, and the secrets of HTTP; ends what is no longer allowed. */
  reload(): void {
    if (this.#state !== 'ready') return;
    if (this.room('hosts').reload()) this.room('subsystem').hostsChanged();
    try {
      this.room('admin').replaceSecrets(readHttpSecrets(this.options.config));
      this.modules.logger.info({}, 'secrets of HTTP read again');
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      this.modules.logger.error({ reason: error.message }, 'secrets of HTTP not read again');
    }
  }

  async #createAttention(): Promise<Attention> {
    const { config } = this.options;
    const { clock, logger } = this.modules;
    const ftl = this.room('ftl');
    const files = ftl.mediaFiles;
    if (files === undefined) throw new DriveError('invalidField', 'the media is not in files');
    return createAttention(
      {
        workerCount: config.workers,
        frameCacheBytes: config.cacheBytes,
        verify: config.verify,
        media: cellAccess(files, ftl.geometry),
        direct: files.direct,
      },
      {
        arena: this.room('arena'),
        kv: this.room('sequences'),
        pages: ftl.kv,
        kernels: this.room('kernels'),
        clock,
        logger: logger.child({ room: 'attention' }),
        onFatal: (cause) => this.#fail(cause),
      },
    );
  }

  #createSubsystem(): Subsystem {
    const { clock, random, logger } = this.modules;
    const { config, version } = this.options;
    const ftl = this.room('ftl');
    const kernels = this.room('kernels');
    this.#rooms.status = new RoomStatus(this);
    const { regions: folder, regionMode: fileMode } = this.room('runtime');
    return createSubsystem(
      {
        identity: {
          serial: ftl.identity.serial,
          model: MODEL_NUMBER,
          firmware: version.slice(0, 8),
          subsystemNqn: subsystemNqn(ftl.identity.serial),
          uuid: Buffer.from(ftl.identity.uuid, 'hex'),
          build: `attndrive ${version}`,
          pageSizeBytes: ftl.geometry.pageSizeBytes,
          kernelSet: kernels.name,
          kernelIsa: kernels.isa,
          computeWorkerCount: config.workers,
        },
        limits,
        regions: { folder, fileMode, isMapped: kernels.name === 'native' },
        holdsCompletions: config.timing === 'enforce',
      },
      {
        arena: this.room('arena'),
        kv: this.room('sequences'),
        blocks: ftl.blocks,
        durability: ftl.durability,
        userData: ftl.userData,
        attention: this.room('attention'),
        status: this.room('status'),
        discovery: new OwnRecords(
          { nqn: subsystemNqn(ftl.identity.serial), advertisedHost: config.advertise },
          { listeners: () => this.#rooms.transport?.networkAddresses ?? [] },
        ),
        ...this.#deviceTime(),
        hosts: this.room('hosts').directory,
        keyExchange: this.room('keyExchange'),
        clock,
        random,
        logger: logger.child({ room: 'controller' }),
        onFatal: (error) => {
          if (error instanceof InvariantError) this.#fail(error);
        },
      },
    );
  }

  #createRegistrar(): DiscoveryRegistrar {
    const { config } = this.options;
    const { clock, logger } = this.modules;
    return new DiscoveryRegistrar(
      {
        services: config.discovery,
        nqn: subsystemNqn(this.room('ftl').identity.serial),
        listeners: this.room('transport').networkAddresses,
        advertisedHost: config.advertise,
      },
      { clock, logger: logger.child({ room: 'discovery' }) },
    );
  }

  #deviceTime(): { deviceTime?: DeviceTime } {
    const { device } = this.room('deviceTime');
    return device === undefined ? {} : { deviceTime: device };
  }

  async #listen(): Promise<void> {
    const { clock, logger } = this.modules;
    const subsystem = this.room('subsystem');
    const checksum = this.room('kernels').crc32cOf;
    const transport = new Transport(
      { limits, busyPollNs: this.options.config.busyPollUs * 1000 },
      { subsystem, clock, logger: logger.child({ room: 'transport' }), checksum },
    );
    this.#rooms.transport = transport;
    const { nvmeSocket: path, socketMode: mode } = this.room('runtime');
    const { tcp } = this.options.config;
    try {
      this.listeners = [await transport.listen({ kind: 'unix', path, mode })];
      if (tcp) this.listeners.push(await transport.listen({ kind: 'tcp', ...tcp }));
    } catch (error) {
      await transport.close();
      throw error;
    }
  }

  /** What changed and was not flushed becomes durable after at most this long. */
  #scheduleCheckpoint(): void {
    this.#timer = this.modules.clock.setTimer(this.options.config.checkpointIntervalMs, () => void this.#checkpoint());
  }

  async #checkpoint(): Promise<void> {
    const ftl = this.room('ftl');
    try {
      if (ftl.operations.last !== ftl.durability.lastOperation) await ftl.durability.flush();
    } catch (error) {
      this.modules.logger.error({ err: error }, 'background checkpoint failed');
      if (error instanceof InvariantError) this.#fail(error);
    }
    if (this.#state === 'ready' || this.#state === 'opening') this.#scheduleCheckpoint();
  }

  /** Our own bug: nothing more is written, the process ends, and the next start recovers what is durable. */
  #fail(error: unknown): void {
    if (this.#isFailed) return;
    this.#isFailed = true;
    this.#state = 'failed';
    this.modules.onFatal(error);
  }

  running(): RunningFile {
    const { nvmeSocket, adminSocket } = this.room('runtime');
    const http = this.#rooms.admin?.httpAddress;
    const tcp = this.listeners.find((listener) => listener.startsWith('tcp:'))?.slice('tcp:'.length) ?? '';
    return {
      pid: process.pid,
      folder: this.options.folder,
      serial: this.room('ftl').identity.serial,
      nvmeSocket,
      adminSocket,
      tcp,
      http: http ? `${http.host.includes(':') ? `[${http.host}]` : http.host}:${http.port}` : '',
    };
  }
}

const gcOptions = (config: DaemonConfig): GcOptions => ({
  placement: config.placement,
  policy: config.gcPolicy,
  choiceCount: config.gcChoices,
  windowSuperblocks: config.gcWindow,
  startSuperblocks: config.gcStart,
  stopSuperblocks: config.gcStop,
});
