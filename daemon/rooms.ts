import type { AdminServer, HttpSecrets } from './admin/admin-server.ts';
import type { Attention } from './attention/attention.ts';
import type { Arena } from './base/arena.ts';
import type { Clock } from './base/clock.ts';
import type { Logger } from './base/logger.ts';
import type { Random } from './base/random.ts';
import type { DaemonConfig } from './config.ts';
import type { Subsystem } from './controller/subsystem.ts';
import type { DiscoveryRegistrar } from './discovery-registrar.ts';
import type { DriveDeviceTime } from './drive-device-time.ts';
import type { DriveState } from './drive-state.ts';
import type { DriveStatus } from './commands/contract.ts';
import type { HostAccess } from './host-access.ts';
import type { ThreadedKeyExchange } from './hosts/threaded-key-exchange.ts';
import type { Ftl, FtlStores } from './ftl/ftl.ts';
import type { Kernels } from './kernels/contract.ts';
import type { SequenceStore } from './kv/kv-store.ts';
import type { RuntimeFolder } from './runtime-folder.ts';
import type { Transport } from './transport/listener.ts';

export const MODEL_NUMBER = 'attndrive computational storage drive';

export interface DriveModules {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** A broken invariant of ours: the process must end, and the next start recovers. */
  readonly onFatal: (error: unknown) => void;
}

export interface DriveOptions {
  readonly folder: string;
  readonly config: DaemonConfig;
  /** Of the program. */
  readonly version: string;
}

/** The rooms of a running drive. Set by the start-up steps in order; each may use those before it. */
export interface Rooms {
  stores: FtlStores;
  deviceTime: DriveDeviceTime;
  arena: Arena;
  kernels: Kernels;
  sequences: SequenceStore;
  ftl: Ftl;
  attention: Attention;
  runtime: RuntimeFolder;
  status: DriveStatus;
  hosts: HostAccess;
  keyExchange: ThreadedKeyExchange;
  subsystem: Subsystem;
  transport: Transport;
  httpSecrets: HttpSecrets;
  admin: AdminServer;
  registrar: DiscoveryRegistrar;
}

/** A drive as those see it who put its rooms' snapshots together. */
export interface RunningDrive {
  readonly options: DriveOptions;
  readonly modules: DriveModules;
  readonly state: DriveState;
  /** 0 before it was ready. */
  readonly readyAtNs: number;
  readonly listeners: readonly string[];
  /** DriveError namespaceNotReady until the room is there. */
  room<K extends keyof Rooms>(name: K): Rooms[K];
}
