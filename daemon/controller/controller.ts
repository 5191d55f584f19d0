import { createHash } from 'node:crypto';
import type { AsyncEventName } from '../../spec/async-events.ts';
import { NVME_VERSION, type PropertyName } from '../../spec/fabrics.ts';
import { logPages } from '../../spec/log-pages.ts';
import type { Clock } from '../base/clock.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Association, FrontCounters, Limits, MemoryRegion, NetworkAddress } from '../commands/contract.ts';
import { HostSequences } from '../commands/host-sequences.ts';
import type { CommandSets } from '../commands/registry.ts';
import type { HostPolicy, HostRules } from '../hosts/contract.ts';
import type { HostAccount } from '../hosts/host-account.ts';
import type { OwnedStore } from '../kv/contract.ts';
import { AsyncEvents } from './async-events.ts';
import { type ControllerState, transition } from './controller-state.ts';
import { ErrorLog } from './error-log.ts';
import { isConfigured } from './health-watch.ts';
import { KeepAlive } from './keep-alive.ts';
import { AssociationRegions, type RegionFolder } from './memory-regions.ts';
import { capabilities, READY_TIMEOUT_HALF_SECONDS, readConfiguration, status } from './properties.ts';
import type { Queue } from './queue.ts';
import { AssociationSlots } from './result-slots.ts';
import { ControllerSettings } from './settings.ts';

/** KAS of Identify Controller: keep alive timeouts are rounded up to this. */
export const KEEP_ALIVE_GRANULARITY_MS = 100;

/** What the controllers of one subsystem have in common. */
export interface ControllerKind {
  readonly type: 'io' | 'discovery';
  /** NQNs that Connect may name. */
  readonly subsystemNqns: readonly string[];
  readonly commands: CommandSets;
  /** 0: no I/O queues. */
  readonly ioQueueCountMax: number;
  /** Who may connect. */
  readonly hosts: HostPolicy;
  /** Undefined: it has none. */
  readonly sequences: OwnedStore | undefined;
  /** Keep alive timeout where the host asks for none; 0: none. */
  readonly idleTimeoutMs: number;
  /** What a host that shuts its controller down waits for. */
  shutDown(): Promise<void>;
}

export interface ControllerOptions {
  readonly kind: ControllerKind;
  readonly controllerId: number;
  readonly hostNqn: string;
  readonly hostId: Uint8Array;
  readonly limits: Limits;
}

export interface ControllerModules {
  /** What its host has, over all its controllers. */
  readonly account: HostAccount;
  readonly adminQueue: Queue;
  /** Where memory regions are made; undefined: there are none. */
  readonly regionFolder: RegionFolder | undefined;
  readonly counters: FrontCounters;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onEnded: (controller: Controller) => void;
  /** Settings changed on which events depend. */
  readonly onSettingsChanged: () => void;
  readonly reportFatal: (error: unknown) => void;
}

export interface AssociationSnapshot {
  readonly controllerId: number;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly state: ControllerState;
  readonly keepAliveTimeoutMs: number;
  readonly queues: readonly {
    id: number;
    peer: string;
    entryCount: number;
    inFlightCount: number;
    waitingCount: number;
  }[];
  readonly regionCount: number;
  readonly regionBytes: number;
  readonly slotCount: number;
  readonly slotBytes: number;
  readonly connectedAtMs: number;
}

/** One controller and its association with a host: an admin queue, its I/O queues, and what the host has here. */
export class Controller implements Association {
  readonly kind: ControllerKind;
  readonly controllerId: number;
  readonly hostNqn: string;
  readonly hostId: Uint8Array;
  readonly hostHash: bigint;
  readonly features: ControllerSettings;
  readonly events: AsyncEvents;
  readonly errors: ErrorLog;
  readonly slots: AssociationSlots;
  readonly account: HostAccount;
  /** Warnings of the SMART log that the host has been told of, or would have been. */
  reportedWarnings = 0;
  readonly #regions: AssociationRegions | undefined;
  readonly #sequences: HostSequences | undefined;
  readonly #limits: Limits;
  readonly #modules: ControllerModules;
  readonly #keepAlive: KeepAlive;
  readonly #queues = new Map<number, Queue>();
  readonly #changedNamespaces = new Set<number>();
  readonly #connectedAtMs: number;
  #state: ControllerState = 'disabled';
  #configuration = 0;

  constructor(options: ControllerOptions, modules: ControllerModules) {
    const { kind, controllerId, hostNqn, hostId, limits } = options;
    this.kind = kind;
    this.controllerId = controllerId;
    this.hostNqn = hostNqn;
    this.hostId = hostId;
    this.hostHash = createHash('sha256').update(hostNqn).digest().readBigUInt64LE(0);
    this.#limits = limits;
    this.#modules = modules;
    this.#connectedAtMs = modules.clock.wallMs();
    this.#queues.set(0, modules.adminQueue);
    const { regionFolder: folder, counters, account } = modules;
    this.account = account;
    this.slots = new AssociationSlots({ limits }, { account });
    this.#regions = folder && new AssociationRegions({ limits }, { folder, counters, account });
    this.#sequences = kind.sequences && this.#hostSequences(kind.sequences);
    const expired = (): void => this.end('keep alive timeout');
    this.#keepAlive = new KeepAlive({ clock: modules.clock, expired });
    this.features = this.#createFeatures();
    this.errors = new ErrorLog({ limits });
    const isWanted = (name: AsyncEventName): boolean =>
      isConfigured(this.features.numbers.asyncEventConfiguration, name);
    this.events = new AsyncEvents({ limits, isWanted });
  }

  get state(): ControllerState {
    return this.#state;
  }

  touch(): void {
    this.#keepAlive.touch();
  }

  /** Whether commands other than Fabrics commands are taken on a queue. */
  takesCommands(queueId: number): boolean {
    if (this.#state === 'ready') return true;
    // Keep Alive and the like still work while the host waits for the shutdown to finish.
    return queueId === 0 && (this.#state === 'shuttingDown' || this.#state === 'shutDown');
  }

  hasQueue(queueId: number): boolean {
    return this.#queues.has(queueId);
  }

  addQueue(queueId: number, queue: Queue): void {
    this.#queues.set(queueId, queue);
  }

  /** The connection of a queue is gone. The admin queue takes the association with it. */
  queueClosed(queueId: number): void {
    this.#queues.delete(queueId);
    if (queueId === 0) this.end('the admin queue is gone');
  }

  /** Ends the association: its queues, its regions, its slots. */
  end(reason: string): void {
    if (this.#state === 'ended') return;
    this.#state = transition(this.#state, 'ended');
    const { controllerId, hostNqn } = this;
    this.#modules.logger.debug({ controllerId, hostNqn, reason }, 'association ended');
    this.#keepAlive.stop();
    this.events.reset();
    for (const queue of [...this.#queues.values()]) queue.end(reason);
    this.#queues.clear();
    this.#regions?.end();
    this.slots.end();
    this.#modules.onEnded(this);
  }

  // --- properties ---

  property(name: PropertyName): bigint {
    switch (name) {
      case 'cap':
        return capabilities(this.#limits, this.kind.type);
      case 'vs':
        return BigInt(NVME_VERSION);
      case 'cc':
        return BigInt(this.#configuration);
      case 'csts':
        return BigInt(status(this.#state));
      case 'crto':
        return BigInt(READY_TIMEOUT_HALF_SECONDS);
    }
  }

  /** A write to CC. False: reserved bits are set. */
  configure(value: number): boolean {
    const wanted = readConfiguration(value);
    if (wanted === undefined) return false;
    const wasEnabled = (this.#configuration & 1) === 1;
    this.#configuration = value;
    if (wasEnabled && !wanted.enable) this.#reset();
    else if (!wasEnabled && wanted.enable && this.#state === 'disabled') this.#enable(wanted.problem);
    const { state } = this;
    if (wanted.shutdown && state !== 'shuttingDown' && state !== 'shutDown') this.#shutDown();
    return true;
  }

  #enable(problem: string | undefined): void {
    this.#state = transition(this.#state, problem === undefined ? 'ready' : 'failed');
    if (problem !== undefined) {
      this.#modules.logger.warn({ controllerId: this.controllerId, problem }, 'controller can not be enabled');
    }
  }

  /** CC.EN from 1 to 0: I/O queues go, settings go back to their defaults. */
  #reset(): void {
    this.#state = transition(this.#state, 'disabled');
    for (const [queueId, queue] of [...this.#queues]) {
      if (queueId !== 0) queue.end('controller reset');
    }
    this.features.reset();
    this.events.reset();
    this.#changedNamespaces.clear();
    this.reportedWarnings = 0;
    this.#modules.onSettingsChanged();
  }

  #shutDown(): void {
    this.#state = transition(this.#state, 'shuttingDown');
    const finish = (): void => {
      if (this.#state === 'shuttingDown') this.#state = transition(this.#state, 'shutDown');
    };
    this.kind.shutDown().then(finish, (error: unknown) => {
      // The host waits for SHST: it must not hang because the drive could not flush.
      finish();
      if (!(error instanceof DriveError)) this.#modules.reportFatal(error);
    });
  }

  /** Another controller changed a namespace. */
  namespaceChanged(namespaceId: number): void {
    this.#changedNamespaces.add(namespaceId);
    this.events.report('namespaceAttributes');
  }

  // --- Association ---

  changedNamespaces(): number[] {
    return [...this.#changedNamespaces].sort((a, b) => a - b);
  }

  logPageRead(lid: number): void {
    this.events.logPageRead(lid);
    if (lid === logPages.changedNamespaces.lid) this.#changedNamespaces.clear();
  }

  settingsChanged(): void {
    this.#modules.onSettingsChanged();
  }

  abort(queueId: number, commandId: number): boolean {
    return this.#queues.get(queueId)?.abort(commandId) ?? false;
  }

  region(key: number): MemoryRegion {
    return this.#someRegions().get(key);
  }

  async createRegion(sizeBytes: number): Promise<MemoryRegion> {
    return this.#someRegions().create(sizeBytes);
  }

  async deleteRegion(key: number): Promise<void> {
    this.#someRegions().delete(key);
  }

  #someRegions(): AssociationRegions {
    if (this.#regions === undefined) throw new DriveError('sglDataBlock', 'this controller has no memory regions');
    return this.#regions;
  }

  #hostSequences(kv: OwnedStore): HostSequences {
    const options = { owner: this.hostHash, isConfined: () => this.isConfined };
    return new HostSequences(options, { kv, account: this.account });
  }

  get kv(): HostSequences {
    assert(this.#sequences !== undefined, 'commands of sequences come to controllers that have them');
    return this.#sequences;
  }

  get isConfined(): boolean {
    return this.rules?.isConfined ?? true;
  }

  get local(): NetworkAddress | undefined {
    return this.#modules.adminQueue.link.local;
  }

  /** What goes for its host now; undefined: it may no longer connect. */
  get rules(): HostRules | undefined {
    return this.kind.hosts.rulesOf(this.hostNqn, this.local === undefined ? 'unix' : 'tcp');
  }

  /** Whether its host may be connected by the rules of now. */
  get isAllowed(): boolean {
    const { identity } = this.#modules.adminQueue;
    return this.rules !== undefined && (identity === undefined || identity.authentication.isEnough);
  }

  /** Milliseconds; 0: what the kind of controller has without, which for a drive is none. */
  startKeepAlive(wantedMs: number): void {
    const timeoutMs = wantedMs === 0 ? this.kind.idleTimeoutMs : wantedMs;
    this.#keepAlive.start(Math.ceil(timeoutMs / KEEP_ALIVE_GRANULARITY_MS) * KEEP_ALIVE_GRANULARITY_MS);
  }

  snapshot(): AssociationSnapshot {
    return {
      controllerId: this.controllerId,
      hostNqn: this.hostNqn,
      hostId: Buffer.from(this.hostId).toString('hex'),
      state: this.#state,
      keepAliveTimeoutMs: this.#keepAlive.timeoutMs,
      queues: [...this.#queues].map(([id, { link, entryCount, inFlightCount, waitingCount }]) => ({
        id,
        peer: link.peer,
        entryCount,
        inFlightCount,
        waitingCount,
      })),
      regionCount: this.#regions?.count ?? 0,
      regionBytes: this.#regions?.totalBytes ?? 0,
      slotCount: this.slots.usedCount,
      slotBytes: this.slots.usedBytes,
      connectedAtMs: this.#connectedAtMs,
    };
  }

  #createFeatures(): ControllerSettings {
    const { keepAliveTimeoutMsMax } = this.#limits;
    const { ioQueueCountMax } = this.kind;
    const setKeepAliveTimeoutMs = (timeoutMs: number): void => {
      if (timeoutMs > keepAliveTimeoutMsMax) {
        throw new DriveError('keepAliveTimeout', `${timeoutMs} ms, allowed: 0 to ${keepAliveTimeoutMsMax}`);
      }
      this.startKeepAlive(timeoutMs);
    };
    return new ControllerSettings({
      clock: this.#modules.clock,
      controller: {
        ioQueueCountMax,
        keepAliveTimeoutMs: () => this.#keepAlive.timeoutMs,
        setKeepAliveTimeoutMs,
        hasIoQueues: () => this.#queues.size > 1,
      },
    });
  }
}
